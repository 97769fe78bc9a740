"""This machine's identity among masters: joining by a token when it has none, and renewing it while it runs.

Loaded by agents that have one: what reads certificates takes its 9 MiB.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence

from aiohttp import web

from unit_agent.driver import Copy
from unit_agent.duty import Context
from unit_agent.local_copy import DirectoryCopy
from unit_agent.masters import Archives
from unit_agent.settings import AgentConfig
from unitfleet import identity
from unitfleet.enrolment import enrol, read_token
from unitfleet.joinapi import Role
from unitfleet.joining import renew
from unitfleet.renewal import Renewal
from unitfleet.tls import Contexts, Files

logger = logging.getLogger(__name__)


async def joined(config: AgentConfig, machine: str, *, now: Callable[[], float], rng: random.Random) -> Contexts:
    """Return this machine's contexts, joining first where it has no identity.

    Raises `InvalidConfig`, and `Refused` when a master says no.
    """
    directory = config.tls_path
    token = read_token(config.join, config.join_file)
    await enrol(directory, Role.AGENT, machine, token, now=now, rng=rng)
    found = identity.load(directory, Role.AGENT)
    return Contexts(Files(found.ca_file, found.cert_file, found.key_file))


class IdentityDuty:
    """Renews the certificate at half its time; an event tells when it is nearly over and could not be."""

    name = "identity"

    def __init__(self, context: Context, contexts: Contexts) -> None:
        agent = context.agent
        masters = Archives(context.store, DirectoryCopy(context.state_dir), agent.facts.id, tls=True)

        async def ask() -> bytes:
            return await asyncio.to_thread(renew, contexts.files, await masters.find_signing())

        self._renewal = Renewal(
            contexts,
            ask,
            now=time.time,
            rng=random.Random(),
            tell=lambda message: agent.happened("certificate", "", message),
        )

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        """Nothing here hangs on a copy."""

    def order_changed(self, unit: str) -> None:
        """Nor on an order."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Nothing is asked of it."""
        return ()

    async def run(self) -> None:
        """Renew until cancelled."""
        await self._renewal.run()
