"""The store of this machine's logs: a folder of segments for each unit, bounded by size and age.

Lines are taken on the loop, gathered for half a second (64 KiB at most a unit), and written by a thread. A unit's
sequence numbers go on after a restart, also when nothing else of it is left. What a full disk refuses waits in
memory, and readers of output are held up (`room`): the drivers keep the output meanwhile, within their bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from unit_agent.logs.block import Columns, Source
from unit_agent.logs.disk import Disk, Gone, UnitLogs
from unit_agent.logs.record import LogRecord, Span
from unit_agent.logs.retention import Limits

logger = logging.getLogger(__name__)

GATHER_S = 0.5
HURRY_S = 0.1  # while somebody reads on
BLOCK_BYTES = 64 * 1024
BLOCK_MOST = 1024 * 1024  # what came in one go may make a larger block than that
PENDING_MOST = 32 * 1024 * 1024
RETRY_S = 2.0
TIDY_S = 30.0

_EVER = math.inf

P = ParamSpec("P")
T = TypeVar("T")

Line = tuple[float, str, bytes]
"""When (seconds since 1970), stream, text."""

Happened = Callable[[str, str], None]
"""Tells the cluster of something: kind, message."""


class SegmentStore:
    """The `LogStore` of an agent. `open` it, keep `run` running; everything but `_…` in threads is on the loop.

    A sink that has acknowledged anything (0 will do) of a unit holds back the removal of what follows, by a
    unit's size; age and the total still bind.
    """

    def __init__(self, directory: Path, limits: Limits, now: Callable[[], float], happened: Happened) -> None:
        self._happened = happened
        self._disk = Disk(directory, limits, now)
        self._changed = asyncio.Event()
        self._dirty = asyncio.Event()
        self._full = asyncio.Event()  # a block's worth is there
        self._room = asyncio.Event()
        self._room.set()
        self._waiting: dict[str, UnitLogs] = {}
        self._pending_bytes = 0
        self._writing = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "logs")
        self._trouble = ""
        self._tidied = 0.0

    # --- life

    async def open(self) -> None:
        """Find what is on disk, and cut what a crash has torn. Raises OSError."""
        await self._in_thread(self._disk.find)

    async def run(self) -> None:
        """Write what comes, and remove what has to go, until cancelled; then write what is left."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TIDY_S):
                        await self._dirty.wait()
                if self._dirty.is_set():
                    hurry = any(one.watchers for one in self._waiting.values())
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(HURRY_S if hurry else GATHER_S):
                            await self._full.wait()
                await self.flush()
                if self._trouble:
                    await asyncio.sleep(RETRY_S)
                if loop.time() - self._tidied >= TIDY_S:
                    self._tidied = loop.time()
                    try:
                        await self._in_thread(self._disk.tidy)
                    except OSError as error:
                        logger.warning("could not remove old output: %s", error)
        finally:
            await self.flush()

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown()

    # --- taking in

    def take(
        self, unit: str, lines: Sequence[Line], epoch: int, *, file: str = "", marks: Mapping[str, str]
    ) -> None:
        """Take in lines of one source, and the marks (by name: where to read on) that stand behind them.

        Lines and marks are kept together or not at all.
        """
        one = self._disk.unit(unit)
        if lines:
            times, streams, texts = zip(*lines, strict=True)
            columns, kinds = self._columns(one, {stream: Source(epoch, stream, file) for stream in set(streams)})
            before = columns.size
            columns.add(times, bytes(map(kinds.__getitem__, streams)), texts)
            self._pending_bytes += columns.size - before
            self._waiting[unit] = one
            self._dirty.set()
            if columns.size >= BLOCK_BYTES:
                self._full.set()
            if self._pending_bytes > PENDING_MOST:
                self._room.clear()
        one.marks.update(marks)
        if one.pending:
            one.pending[-1] = (one.pending[-1][0], dict(one.marks))

    async def room(self) -> None:
        """Wait while more is pending than memory should hold: the disk is slow, or full."""
        await self._room.wait()

    def mark(self, unit: str, name: str) -> str:
        """Return the mark that was last taken under this name, "" when there is none."""
        one = self._disk.units.get(unit)
        return one.marks.get(name, "") if one else ""

    def marks(self, unit: str) -> dict[str, str]:
        """Return all marks of a unit."""
        one = self._disk.units.get(unit)
        return dict(one.marks) if one else {}

    def forget_marks(self, unit: str, keep: Callable[[str], bool]) -> None:
        """Drop the marks of sources that are no more."""
        one = self._disk.units.get(unit)
        if one is not None:
            one.marks = {name: mark for name, mark in one.marks.items() if keep(name)}

    async def flush(self) -> None:
        """Write what is pending, to the end even when cancelled."""
        async with self._writing:
            self._dirty.clear()
            self._full.clear()
            work = [(one, one.pending) for one in self._waiting.values()]
            for one, _ in work:
                one.pending = []
            self._waiting = {}
            if not work:
                return
            try:
                self._tell(await self._in_thread(self._disk.write, work))
            finally:  # a reader who asked for it may be gone: what was not written waits on
                for one, pending in work:
                    if pending:
                        one.pending = [*pending, *one.pending]
                        self._waiting[one.name] = one
                        self._dirty.set()
                waiting = self._waiting.values()
                self._pending_bytes = sum(columns.size for one in waiting for columns, _ in one.pending)
                if self._pending_bytes <= PENDING_MOST:
                    self._room.set()
        for one, _ in work:
            for event in one.watchers:
                event.set()
        self._changed.set()

    # --- reading

    @property
    def changed(self) -> asyncio.Event:
        return self._changed

    @contextlib.contextmanager
    def watching(self, unit: str) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever lines of the unit were written."""
        one, event = self._disk.unit(unit), asyncio.Event()
        one.watchers.add(event)
        try:
            yield event
        finally:
            one.watchers.discard(event)

    def units(self) -> Sequence[str]:
        return sorted(name for name, one in self._disk.units.items() if one.segments)

    def known(self, unit: str) -> bool:
        """Tell whether any line of the unit was ever here."""
        one = self._disk.units.get(unit)
        return one is not None and (one.next > 1 or bool(one.pending))

    def span(self, unit: str) -> Span:
        one = self._disk.units.get(unit)
        if one is None:
            return Span(1, 0)
        segments = one.segments  # the thread may put another list in its place
        return Span(segments[0].first if segments else one.next, one.next - 1)

    def gone(self, unit: str) -> Gone | None:
        """Return what was held of the unit once, None when all of it still is."""
        one = self._disk.units.get(unit)
        return one.gone if one else None

    @property
    def size(self) -> int:
        """Bytes on disk, of all units."""
        return self._disk.size

    async def read(self, unit: str, after: int, limit: int) -> list[LogRecord]:
        found: list[LogRecord] = []
        async for lines in self.lines(unit, after=after, most=limit):
            found += lines
            if len(found) >= limit:
                break
        return found[:limit]

    async def lines(
        self, unit: str, *, after: int = -1, since: float = 0.0, until: float = _EVER, most: int = -1
    ) -> AsyncGenerator[list[LogRecord], None]:
        """Yield what is held above a number and within two times, in order, a block (at most `most`) at a time."""
        reading = self._disk.scan(unit, after, since, until, most)
        try:
            while (lines := await asyncio.to_thread(next, reading, None)) is not None:
                yield lines
        finally:
            with contextlib.suppress(ValueError):  # it is being read in its thread: cancelled meanwhile
                reading.close()

    async def last(
        self, unit: str, count: int, wanted: Callable[[LogRecord], bool], since: float, until: float
    ) -> list[LogRecord]:
        """Return the last `count` lines that are wanted, of those within two times."""
        return await asyncio.to_thread(self._disk.last, unit, count, wanted, since, until)

    def watchers(self, unit: str) -> set[asyncio.Event]:
        """Return the events of those who read the unit's lines as they come."""
        one = self._disk.units.get(unit)
        return set(one.watchers) if one else set()

    async def note(self, name: str, data: Mapping[str, bytes]) -> list[OSError]:
        """Keep a small file of this name beside each unit's lines; return why some could not be."""
        units = [(self._disk.unit(unit), told) for unit, told in data.items()]
        return await self._in_thread(self._disk.write_notes, name, units)

    async def notes(self, name: str) -> dict[str, bytes]:
        """Return the files of this name, by unit."""
        return await self._in_thread(self._disk.read_notes, name)

    def acknowledge(self, sink: str, unit: str, seq: int) -> None:
        self._disk.unit(unit).acknowledged[sink] = seq

    # --- inside

    def _columns(self, one: UnitLogs, sources: dict[str, Source]) -> tuple[Columns, dict[str, int]]:
        """Return the columns that take lines of these streams, and the number of each."""
        while True:
            if not one.pending or one.pending[-1][0].size >= BLOCK_MOST:
                one.pending.append((Columns(), dict(one.marks)))
            columns = one.pending[-1][0]
            kinds = {stream: columns.kind(source) for stream, source in sources.items()}
            if None not in kinds.values():
                return columns, {stream: kind for stream, kind in kinds.items() if kind is not None}
            one.pending.append((Columns(), dict(one.marks)))

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Run work in the store's own thread, to its end even when cancelled meanwhile."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*args, **named))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})
            raise

    def _tell(self, error: str) -> None:
        if error and not self._trouble:
            logger.error("could not write logs: %s; they wait, and units run on", error)
            self._happened("logs-paused", f"local logs can't be written: {error}; units run on")
        elif self._trouble and not error:
            logger.info("wrote logs again")
            self._happened("logs-resumed", "local logs are written again")
        self._trouble = error
        drops, self._disk.drops = self._disk.drops, []
        for unit in dict.fromkeys(drop.unit for drop in drops if drop.why == "the disk was full"):
            self._happened("logs-shrunk", f"the oldest logs of {unit} were removed: the disk was full")
