"""Where masters answer, as the store says, or as it said last: those that keep output, those that sign."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence

from unit_agent.local_copy import LocalCopy, read_record
from unitfleet import codec, keys
from unitfleet.errors import BadRecord, StoreError
from unitfleet.model import MasterRecord, Record
from unitfleet.store import Store

logger = logging.getLogger(__name__)

ARCHIVES = "archives.json"
ASK_S = 3.0
AGAIN_S = 5.0


class KeptArchives(Record, frozen=True, kw_only=True):
    """Masters that kept an archive when they were last heard of."""

    masters: tuple[MasterRecord, ...] = ()


class Archives:
    """Finds masters. Each machine prefers another one, so that their load is spread; the order stays as it is."""

    def __init__(self, store: Store, local: LocalCopy, machine: str, *, tls: bool = False) -> None:
        self._scheme = "https://" if tls else "http"
        self._store = store
        self._local = local
        self._machine = machine
        self._known: tuple[MasterRecord, ...] = ()
        self._asked_at = float("-inf")

    async def find(self) -> list[str]:
        """Return where those answer that keep an archive, the one to prefer first; [] when none is known."""
        await self._look()
        return ordered(self._known, self._machine, self._scheme)

    async def find_all(self) -> list[str]:
        """Return where any master answers, the one to prefer first."""
        await self._look()
        return _addresses(self._known, self._machine, self._scheme)

    async def find_signing(self) -> list[str]:
        """Return where those answer that hold the authority's key."""
        await self._look()
        records = [master for master in self._known if master.signs]
        return [address for master in records for address in master.api if address.startswith("https://")]

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._asked_at > AGAIN_S:
            self._asked_at = now
            await self._ask()

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(ASK_S):
                listing = await self._store.list(keys.MASTERS)
            found = tuple(codec.decode(item.value, MasterRecord, item.key) for item in listing.items)
        except (StoreError, BadRecord, TimeoutError) as error:
            logger.debug("could not look masters up: %s", error)
            if not self._known and (kept := await read_record(self._local, ARCHIVES, KeptArchives)):
                self._known = kept.masters
            return
        if found and found != self._known:
            self._known = found
            try:
                await self._local.write(ARCHIVES, codec.encode(KeptArchives(masters=found)))
            except OSError as error:
                logger.error("could not save where masters answer: %s", error)


def ordered(masters: Sequence[MasterRecord], machine: str, scheme: str = "http") -> list[str]:
    """Return the TCP addresses of those that keep an archive, in this machine's own order."""
    return _addresses([master for master in masters if master.archive], machine, scheme)


def _addresses(masters: Sequence[MasterRecord], machine: str, scheme: str) -> list[str]:
    own = sorted(masters, key=lambda master: hashlib.sha256(f"{machine}/{master.name}".encode()).digest())
    return [address for master in own for address in master.api if address.startswith(scheme)]
