"""Keeps a certificate alive: a new one at half its time, read by the contexts without a restart.

Connections that are open go on under the certificate that they began with; new ones get the new one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from unitfleet import certificates, identity, wholefile
from unitfleet.certificates import Certificate
from unitfleet.errors import InvalidConfig, UnitfleetError
from unitfleet.tls import Contexts

logger = logging.getLogger(__name__)

DUE = 0.5
TOLD = 0.25
"""Shares of a certificate's time: renewed when less than the first is left, an event when less than the second."""

LOOK_S = 60.0
"""A file that an operator replaced is read within this."""

FIRST_PAUSE_S = 5.0
LAST_PAUSE_S = 3600.0


def due_in(certificate: Certificate, now: float) -> float:
    """Return in how many seconds it is to be renewed, 0 when that is now."""
    whole = certificate.not_after - certificate.not_before
    return max(0.0, certificate.not_after - DUE * whole - now)


def pause(attempts: int, certificate: Certificate, now: float) -> float:
    """Return how long to wait after so many failures: longer and longer, never past a tenth of what is left."""
    longest = min(LAST_PAUSE_S, max(FIRST_PAUSE_S, (certificate.not_after - now) / 10))
    return min(longest, FIRST_PAUSE_S * 2.0 ** min(attempts, 20))


class Renewal:
    """`ask` returns a new certificate as PEM. `tell` is given what an operator should know, in a sentence."""

    def __init__(
        self,
        contexts: Contexts,
        ask: Callable[[], Awaitable[bytes]],
        *,
        now: Callable[[], float],
        rng: random.Random,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        assert contexts.files.cert is not None
        self._path: Path = contexts.files.cert
        self._contexts = contexts
        self._ask = ask
        self._now = now
        self._rng = rng
        self._tell = tell
        self._told_of = ""

    async def run(self) -> None:
        """Renew until cancelled."""
        attempts, again_at = 0, 0.0
        while True:
            try:
                self._reload()
                present = certificates.read(identity.read_file(self._path))
            except InvalidConfig as error:
                logger.error("could not read our certificate: %s", error)
                await asyncio.sleep(LOOK_S)
                continue
            now = self._now()
            wait_s = max(due_in(present, now), again_at - now)
            if wait_s <= 0:
                renewed = await self._renew(present)
                attempts = 0 if renewed else attempts + 1
                # a clock that is wrong finds a new certificate old: masters are not asked without end
                wait_s = LOOK_S if renewed else self._rng.uniform(0.5, 1.0) * pause(attempts, present, now)
                again_at = now + wait_s
                continue
            await asyncio.sleep(min(wait_s, LOOK_S))

    async def _renew(self, present: Certificate) -> bool:
        try:
            certificate = await self._ask()
            await asyncio.to_thread(wholefile.replace, self._path, certificate)
            self._reload()
        except (UnitfleetError, OSError) as error:
            self._complain(present, str(error))
            return False
        logger.info("renewed our certificate")
        return True

    def _reload(self) -> None:
        if self._contexts.reload():
            logger.info("took up another certificate from %s", self._path)

    def _complain(self, present: Certificate, why: str) -> None:
        logger.warning("could not renew our certificate: %s", why)
        left = present.left(self._now())
        told = "expired" if not left else "soon" if left < TOLD else ""
        if told and told != self._told_of:
            days = (present.not_after - self._now()) / 86400
            when = f"expires in {days:.1f} days" if left else "has expired: join again with a new token"
            self._tell(f"the certificate {when}, and could not be renewed: {why}")
        self._told_of = told
