"""Read an audit log back: the newest lines that match, each change once, with its outcome where that is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from unitfleet import foreign, names
from unitfleet.accessapi import AuditLine

MOST_LINES = 10_000
PATH = "/v1/audit/search"


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Lines not older than `since`, of `caller`, about a unit that the glob `unit` matches; "" is any."""

    since: float = 0.0
    caller: str = ""
    unit: str = ""
    limit: int = 100

    def takes(self, line: AuditLine) -> bool:
        """Whether a line is asked for. One that leaves names out may be about any unit."""
        if line.at < self.since or (self.caller and line.caller != self.caller):
            return False
        if not self.unit or line.count > len(line.objects):
            return True
        return any(name == self.unit or names.glob_match(self.unit, name) for name in line.objects)


class AuditFound(msgspec.Struct, frozen=True, kw_only=True):
    """What one master's log holds of a query, oldest first."""

    items: tuple[AuditLine, ...]


def newest(files: Iterable[Path], query: AuditQuery) -> AuditFound:
    """Search files, the newest first; raises `OSError`."""
    found: dict[str, AuditLine] = {}
    seen: set[str] = set()
    for line in _backwards(files):
        if len(found) >= query.limit:
            break
        if line.id in seen:
            continue  # it was begun, and how it ended was read already
        seen.add(line.id)
        if query.takes(line):
            found[line.id] = line
    return AuditFound(items=in_order(reversed(found.values()), query.limit))


def in_order(lines: Iterable[AuditLine], limit: int) -> tuple[AuditLine, ...]:
    """Return the newest `limit` lines, oldest first; those of one moment stay as they come."""
    ordered = sorted(lines, key=lambda line: line.at)
    return tuple(ordered[-limit:]) if limit else ()


def _backwards(files: Iterable[Path]) -> Iterator[AuditLine]:
    for path in files:
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            continue
        for line in reversed(raw.split(b"\n")):
            try:
                if line:
                    yield foreign.decode(line, AuditLine)
            except msgspec.MsgspecError:
                continue  # torn by a power cut
