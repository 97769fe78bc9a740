"""What an agent does beside running units: figures, shaping, logs, images, checks. None of it may harm a unit.

A duty watches the copies and the orders, and does its work in `run`. One that fails is begun again after a
pause, and said once; neither the agent nor the other duties notice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from unit_agent.backoff import Backoff
from unit_agent.driver import Copy
from unit_agent.images.underway import Underway
from unit_agent.metrics.instruments import Instruments
from unitfleet.errors import UnitfleetError

if TYPE_CHECKING:
    from unit_agent.agent import Agent
    from unit_agent.settings import AgentConfig
    from unitfleet.store import Store
    from unitfleet.tls import Contexts

logger = logging.getLogger(__name__)

STEADY_S = 60.0
"""A duty that ran for so long has recovered: its next failure waits the shortest time again."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a duty works with. `agent` gives copies, orders, events and facts; `store` is for its own keys.

    `underway` tells whether images are pulled now.
    """

    agent: Agent
    store: Store
    config: AgentConfig
    instruments: Instruments = field(default_factory=Instruments)
    underway: Underway = field(default_factory=Underway)
    tls: Contexts | None = None
    """What this machine shows and trusts; None where it has no identity."""

    @property
    def state_dir(self) -> Path:
        """Where the agent keeps what outlives it."""
        return self.config.state_dir


class Duty(Protocol):
    """One duty. Its methods are called on the agent's loop."""

    @property
    def name(self) -> str:
        """What it is called in logs and in `/healthz`."""
        ...

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        """Note that a copy came, went or changed. What was there before the agent is not told: `run` looks."""
        ...

    def order_changed(self, unit: str) -> None:
        """Note that the placement of a unit here changed."""
        ...

    async def run(self) -> None:
        """Work until cancelled; called again, with a pause, when it raises."""
        ...

    def routes(self) -> Sequence[web.RouteDef]:
        """Return what masters may ask of it (under the cluster's key); `/local/…` paths are the host's own."""
        ...


async def keep_running(duty: Duty, backoff: Backoff) -> None:
    """Run a duty until cancelled, again and again where it fails."""
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        try:
            await duty.run()
            raise RuntimeError(f"the duty {duty.name} ended")
        except UnitfleetError as error:
            why = str(error)
            logger.warning("%s: %s", duty.name, why)
        except Exception:  # the edge of a duty: a fault in it must not end the agent
            logger.exception("%s failed", duty.name)
        if loop.time() - began > STEADY_S:
            backoff.reset()
        await asyncio.sleep(backoff.next())
