"""A search over the audit logs of all masters: each has what was asked of it."""

from __future__ import annotations

import asyncio

import msgspec

from unit_master.audit.reading import PATH, AuditFound, AuditQuery, in_order, newest
from unit_master.audit.trail import Trail
from unit_master.cache import Cache
from unit_master.peers import NoAnswer, Peers
from unitfleet.accessapi import AuditLine
from unitfleet.api import ErrorBody
from unitfleet.model import MasterRecord


class AuditSearched(msgspec.Struct, frozen=True, kw_only=True):
    """What all masters found, oldest first; `unasked` names those that gave no answer, each with why."""

    items: tuple[AuditLine, ...]
    unasked: tuple[str, ...]


class AuditSearch:
    """Asks this master's log and those of the others that serve."""

    def __init__(self, name: str, trail: Trail, cache: Cache, peers: Peers) -> None:
        self._name = name
        self._trail = trail
        self._cache = cache
        self._peers = peers

    async def here(self, query: AuditQuery) -> AuditFound:
        """Search this master's log; raises `OSError`."""
        return await asyncio.to_thread(newest, self._trail.files(), query)

    async def everywhere(self, query: AuditQuery) -> AuditSearched:
        """Search all logs."""
        masters = [entry.value for name, entry in sorted(self._cache.view.masters.items()) if name != self._name]
        answers = await asyncio.gather(self._own(query), *(self._ask(master, query) for master in masters))
        found = [answer for answer in answers if isinstance(answer, AuditFound)]
        lines = {line.id: line for answer in found for line in answer.items}
        unasked = tuple(why for why in answers if isinstance(why, str))
        return AuditSearched(items=in_order(lines.values(), query.limit), unasked=unasked)

    async def _own(self, query: AuditQuery) -> AuditFound | str:
        try:
            return await self.here(query)
        except OSError as error:
            return f"{self._name}: cannot read its log: {(error.strerror or str(error)).lower()}"

    async def _ask(self, master: MasterRecord, query: AuditQuery) -> AuditFound | str:
        try:
            answer = await self._peers.ask(master, PATH, query, AuditFound)
        except NoAnswer as error:
            return f"{master.name}: {error}"
        return f"{master.name}: {answer.message}" if isinstance(answer, ErrorBody) else answer
