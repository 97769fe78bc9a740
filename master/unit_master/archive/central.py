"""A search over all masters: each holds what was sent to it, so all are asked, and each line is told once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable

import msgspec

from unit_master.archive.archive import Archive, SearchTooSlow
from unit_master.archive.query import EVER, Found, Query
from unit_master.cache import Cache
from unit_master.peers import NoAnswer, Peers
from unitfleet.api import LogLine
from unitfleet.errors import StoreUnavailable, UnitfleetError
from unitfleet.model import MasterRecord
from unitfleet.shipped import GAP, ShippedLine

PATH = "/v1/archive/search"
UNIT_LINES = 100_000


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """What all masters found, oldest first; `lacking` says whose lines may be missing, and why."""

    lines: list[ShippedLine]
    lacking: tuple[str, ...] = ()


class CentralSearch:
    """Asks this master's archive (None: it keeps none) and those of the others; with `tls` only those by https."""

    def __init__(self, name: str, local: Archive | None, cache: Cache, peers: Peers) -> None:
        self.local = local
        self._name = name
        self._cache = cache
        self._peers = peers

    @property
    def kept(self) -> bool:
        """Whether any master keeps an archive."""
        return self.local is not None or bool(self._others())

    async def search(self, query: Query) -> Searched:
        """Return the newest lines that match, over all masters.

        A master that can't be asked is named in `lacking`. Raises `Refused` for what is no expression; when no
        archive answered, what was wrong with the first.
        """
        others = self._others()
        names = ([self._name] if self.local else []) + [other.name for other in others]
        asked = ([self.local.search(query)] if self.local else []) + [self._ask(other, query) for other in others]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        found: list[Found] = []
        lacking: list[str] = []
        errors: list[BaseException] = []
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, BaseException):
                if not isinstance(answer, UnitfleetError | sqlite3.Error | OSError):
                    raise answer
                lacking.append(f"{name}: {answer}")
                errors.append(answer)
                continue
            found.append(answer)
            if not answer.whole:
                lacking.append(f"{name}: the search took too long, its oldest lines were not looked at")
        if not found and errors:
            raise errors[0]
        return Searched(lines=merged((each.lines for each in found), query.limit), lacking=tuple(lacking))

    async def unit_lines(
        self,
        unit: str,
        since: float,
        until: float,
        machine: str | None = None,
        limit: int = UNIT_LINES,
        *,
        grep: str = "",
    ) -> list[LogLine]:
        """Return what a unit wrote between two times, on one machine (id or name) or all; [] if nothing is kept.

        With `grep` the lines that match it.

        Where something may be missing before or among them, a first line of the stream `gap` says so. Raises
        `UnitfleetError` when no archive answered.
        """
        if not self.kept:
            return []
        literal = unit.replace("\\", "\\\\")
        until = min(until, EVER)
        query = Query(unit=literal, since=since, until=until, machine=machine or "", limit=limit, grep=grep)
        found = await self.search(query)
        if not found.lines:
            return []
        first = found.lines[0]
        told = [f"lines may be missing: {why}" for why in found.lacking]
        if len(found.lines) == limit:
            told.append(f"older lines are left out: these are the newest {limit} that the archive has")
        gaps = [LogLine(at=first.at, stream=GAP, text=text, machine=first.name, unit=unit) for text in told]
        return [*gaps, *(shown(line) for line in found.lines)]

    def _others(self) -> list[MasterRecord]:
        records = [entry.value for _, entry in sorted(self._cache.view.masters.items())]
        return [record for record in records if record.archive and record.name != self._name]

    async def _ask(self, master: MasterRecord, query: Query) -> Found:
        """Ask another master for what it holds itself; raises `StoreUnavailable` or `SearchTooSlow`."""
        try:
            answer = await self._peers.ask(master, PATH, query, Found)
        except NoAnswer as error:
            raise StoreUnavailable(f"cannot ask master {master.name} for its lines: {error}") from error
        if isinstance(answer, Found):
            return answer
        if answer.code == "timeout":
            raise SearchTooSlow(answer.message, hint=answer.hint)
        raise StoreUnavailable(f"cannot ask master {master.name} for its lines: {answer.message}")


def merged(parts: Iterable[Iterable[ShippedLine]], limit: int) -> list[ShippedLine]:
    """Return the newest lines of all parts in order of time, each key and time once."""
    lines = {(line.machine, line.unit, line.seq, line.at): line for part in parts for line in part}
    ordered = sorted(lines.values(), key=lambda line: (line.at, line.machine, line.unit, line.seq))
    return ordered[-limit:] if limit else []


def shown(line: ShippedLine) -> LogLine:
    """Return the line as the API shows it."""
    return LogLine(
        at=line.at,
        stream=line.stream,
        text=line.text,
        machine=line.name or line.machine[:8],
        unit=line.unit,
        epoch=line.epoch,
        seq=line.seq,
        file=line.file,
    )
