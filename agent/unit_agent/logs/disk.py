"""Logs on disk: a folder for each unit, with its segments, its name and where it goes on. All calls block.

One thread at a time writes; others may read meanwhile: what is on disk is only added to, or removed as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from unit_agent.encoding import encode_name
from unit_agent.logs.block import Columns, encode
from unit_agent.logs.record import LogRecord
from unit_agent.logs.retention import Drop, Held, Limits, excess, shrink
from unit_agent.logs.segment import SUFFIX, Segment

logger = logging.getLogger(__name__)

SEGMENTS_A_UNIT = 16
SMALLEST_SEGMENT = 16 * 1024
LARGEST_SEGMENT = 4 * 1024 * 1024
SHRINK_BYTES = 16 * 1024 * 1024

Pending = list[tuple[Columns, dict[str, str]]]
"""Lines that wait to be written, and the marks that stand behind them."""


class Gone(msgspec.Struct, frozen=True):
    """What was held of a unit and is not any more: lines up to `seq`, the last of them written at `until`."""

    seq: int
    until: float
    why: str


class Head(msgspec.Struct, frozen=True):
    """What is kept of a unit beside its segments; its marks count while there is no segment."""

    unit: str
    next: int = 1
    marks: dict[str, str] = {}
    gone: Gone | None = None


@dataclass(slots=True)
class UnitLogs:
    """One unit's logs: what is on disk, and what waits."""

    name: str
    directory: Path
    segments: list[Segment] = field(default_factory=list)
    next: int = 1
    marks: dict[str, str] = field(default_factory=dict)  # as taken; a block carries those at its end
    written: dict[str, str] = field(default_factory=dict)  # the marks behind what is on disk
    pending: Pending = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)
    gone: Gone | None = None
    watchers: set[asyncio.Event] = field(default_factory=set)
    settled: bool = False  # its folder exists


class Disk:
    """The folders below `directory`. `drops` is what was removed since somebody last took it from there."""

    def __init__(self, directory: Path, limits: Limits, now: Callable[[], float]) -> None:
        self.units: dict[str, UnitLogs] = {}
        self.drops: list[Drop] = []
        self._directory = directory
        self._limits = limits
        self._now = now
        self._segment_bytes = min(max(limits.unit_bytes // SEGMENTS_A_UNIT, SMALLEST_SEGMENT), LARGEST_SEGMENT)

    def unit(self, name: str) -> UnitLogs:
        """Return a unit's logs, also of one that has none yet."""
        one = self.units.get(name)
        if one is None:
            one = self.units[name] = UnitLogs(name, self._directory / encode_name(name))
        return one

    @property
    def size(self) -> int:
        """Bytes of all units."""
        return sum(segment.size for one in list(self.units.values()) for segment in one.segments)

    def find(self) -> None:
        """Read what is there, and cut what a crash has torn. Raises OSError."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry in os.scandir(self._directory):
            if not entry.is_dir(follow_symlinks=False):
                continue
            directory = Path(entry.path)
            try:
                head = msgspec.json.decode((directory / "head.json").read_bytes(), type=Head)
                self.units[head.unit] = self._restored(directory, head)
            except (OSError, msgspec.MsgspecError, ValueError) as error:
                logger.warning("left the logs in %s alone: %s", directory, error)

    def _restored(self, directory: Path, head: Head) -> UnitLogs:
        one = UnitLogs(
            head.unit, directory, [], head.next, dict(head.marks), head.marks, gone=head.gone, settled=True
        )
        paths = sorted(directory.glob(f"*{SUFFIX}"))
        one.segments = [Segment.found(path) for path in paths]
        while one.segments:
            last = one.segments[-1]
            tail = last.mend()
            if tail.torn:
                logger.warning("cut %d bytes that were torn off the logs of %s", tail.torn, head.unit)
            if last.size:
                if tail.next >= one.next:
                    one.next, one.marks = tail.next, tail.marks
                    one.written = dict(tail.marks)
                break
            last.remove()
            one.segments.pop()
        return one

    def write(self, work: list[tuple[UnitLogs, Pending]]) -> str:
        """Write, taking out of `work` what is written; return why the rest could not be, "" for no rest."""
        trouble = ""
        shrunk = False
        for one, pending in work:
            while pending:
                columns, marks = pending[0]
                try:
                    self._append(one, columns, marks)
                except OSError as error:
                    trouble = (error.strerror or str(error)).lower()
                    if shrunk or not self._shrink():
                        break
                    shrunk, trouble = True, ""
                else:
                    pending.pop(0)
        return trouble

    def _append(self, one: UnitLogs, columns: Columns, marks: dict[str, str]) -> None:
        self.settle(one)
        if not one.segments or one.segments[-1].size >= self._segment_bytes:
            if one.segments:
                self._remove(excess(self._held(), self._now(), self._limits))
            segment = Segment.new(one.directory, one.next)
            segment.append(encode(columns, one.next, marks))
            one.segments.append(segment)
        else:
            one.segments[-1].append(encode(columns, one.next, marks))
        one.next += len(columns.times)
        one.written = marks

    def settle(self, one: UnitLogs) -> None:
        """Make the unit's folder, with its name in it, if it has none."""
        if not one.settled:
            one.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write_head(one)
            one.settled = True

    def tidy(self) -> None:
        """Remove what has to go. Raises OSError."""
        self._remove(excess(self._held(), self._now(), self._limits))

    def _shrink(self) -> bool:
        """Free some of the disk; tell whether anything could be."""
        drops = shrink(self._held(), min(SHRINK_BYTES, max(self.size // 4, 1)))
        self._remove(drops)
        return bool(drops)

    def _held(self) -> list[list[Held]]:
        return [list(self._segments_held(one)) for one in list(self.units.values()) if one.segments]

    def _segments_held(self, one: UnitLogs) -> Iterator[Held]:
        acknowledged = min(one.acknowledged.values(), default=one.next)
        ends = [segment.first - 1 for segment in one.segments[1:]] + [one.next - 1]
        for segment, last in zip(one.segments, ends, strict=True):
            yield Held(one.name, segment.first, segment.size, segment.until, last > acknowledged)

    def _remove(self, drops: Sequence[Drop]) -> None:
        for drop in drops:
            one = self.units[drop.unit]
            segment = one.segments[0]
            assert segment.first == drop.first, "the oldest of a unit goes first"
            last = one.segments[1].first - 1 if len(one.segments) > 1 else one.next - 1
            one.gone = Gone(last, segment.until, drop.why)
            segment.remove()
            one.segments = one.segments[1:]
        for unit in dict.fromkeys(drop.unit for drop in drops):
            with contextlib.suppress(OSError):  # it tells of a gap, and where an empty unit goes on
                self._write_head(self.units[unit])
        self.drops += drops

    def _write_head(self, one: UnitLogs) -> None:
        head = Head(one.name, one.next, one.written, one.gone)
        new = one.directory / "head.new"
        new.write_bytes(msgspec.json.encode(head))
        os.replace(new, one.directory / "head.json")

    def write_note(self, one: UnitLogs, name: str, data: bytes) -> None:
        """Keep a small file beside a unit's segments. Raises OSError."""
        self.settle(one)
        new = one.directory / f"{name}.new"
        new.write_bytes(data)
        os.replace(new, one.directory / name)

    def write_notes(self, name: str, notes: Sequence[tuple[UnitLogs, bytes]]) -> list[OSError]:
        """Keep a small file beside the segments of each unit; one that fails holds up no other."""
        failed = []
        for one, data in notes:
            try:
                self.write_note(one, name, data)
            except OSError as error:
                failed.append(error)
        return failed

    def read_notes(self, name: str) -> dict[str, bytes]:
        """Return the small files of this name, by unit."""
        found = {}
        for unit, one in list(self.units.items()):
            with contextlib.suppress(OSError):
                found[unit] = (one.directory / name).read_bytes()
        return found

    def scan(
        self, unit: str, after: int, since: float, until: float, most: int
    ) -> Generator[list[LogRecord], None, None]:
        """Yield what is held above a number and within two times, block by block. Raises OSError."""
        one = self.units.get(unit)
        segments = list(one.segments) if one else []
        for index, segment in enumerate(segments):
            if index + 1 < len(segments) and segments[index + 1].first - 1 <= after:
                continue
            ranges = segment.ranges()
            for number, (entry, end) in enumerate(ranges):
                if number + 1 < len(ranges) and ranges[number + 1][0].first - 1 <= after:
                    continue
                reading = segment.read(unit, entry.offset, end, after=after, since=since, until=until, most=most)
                for lines in reading:
                    if since > 0 or until < math.inf:
                        lines = [line for line in lines if since <= line.at <= until]
                    yield lines

    def last(
        self, unit: str, count: int, wanted: Callable[[LogRecord], bool], since: float, until: float
    ) -> list[LogRecord]:
        """Return the last lines that are wanted, of those within two times. Raises OSError."""
        one = self.units.get(unit)
        parts: list[list[LogRecord]] = []
        have = 0
        for segment in reversed(list(one.segments) if one else []):
            if have >= count:
                break
            for entry, end in reversed(segment.ranges()):
                if have >= count:
                    break
                found = [
                    line
                    for lines in segment.read(unit, entry.offset, end, since=since, until=until)
                    for line in lines
                    if since <= line.at <= until and wanted(line)
                ]
                parts.append(found)
                have += len(found)
        lines = [line for part in reversed(parts) for line in part]
        return lines[-count:] if count else []
