"""Ships the lines of this machine to one sink: in order for each unit, at least once, at the sink's own pace.

One batch is under way at a time, and it is sent again, whole, until the sink has it. What waits is on disk: the
local store is the buffer. Nothing here is waited for by a unit, or by the pipeline of another sink.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from unit_agent.backoff import Backoff, pause
from unit_agent.logs.batch import Lost, Plan, next_batch
from unit_agent.logs.offsets import Offsets
from unit_agent.logs.record import LogRecord, LogStore, Span
from unit_agent.logs.sinks.sink import Sink, SinkRefused, SinkUnavailable
from unitfleet.shipped import GAP

logger = logging.getLogger(__name__)

IDLE_S = 1.0
"""Looks at the store this often, told or not."""

SAVE_S = 1.0
"""Offsets are saved at most this often, and whenever nothing waits."""

RETRY_S = (0.5, 30.0)
HELD_S = (5.0, 300.0)
"""First and longest pause after a sink could not be had, and after it refused."""

CHUNKS = (16, 1000)
"""Fewest and most lines read from the store at a time."""

Told = Callable[[str, str, str], None]
"""Writes an event: its kind, the unit or "", and its words."""


class Pipeline:
    """The way to one sink. `wants(unit)` says whether the unit's lines go there."""

    def __init__(
        self,
        sink: Sink,
        store: LogStore,
        offsets: Offsets,
        wants: Callable[[str], bool],
        tell: Told,
        now: Callable[[], float],
        rng: random.Random,
        *,
        retry_s: tuple[float, float] = RETRY_S,
        held_s: tuple[float, float] = HELD_S,
    ) -> None:
        self.sink = sink
        self.wake = asyncio.Event()
        self.waiting = 0
        """Lines that the store holds and the sink has not, at the last look."""
        self.sent = 0
        self.trouble = ""
        """Why it does not ship now, "" when it does."""
        self._kind = ""  # of the event that told of it
        self._store = store
        self._offsets = offsets
        self._wants = wants
        self._tell = tell
        self._now = now
        self._retry = Backoff(rng, *retry_s)
        self._held = Backoff(rng, *held_s)
        self._last_unit = ""
        self._chunk = CHUNKS[0]
        self._saved_at = float("-inf")
        self._since: float | None = None  # when the oldest line that waits was first seen
        self._registered: set[str] = set()

    async def run(self) -> None:
        """Ship until cancelled; what was acknowledged last is saved on the way out."""
        await self._begin()
        try:
            while True:
                self.wake.clear()
                await self._round()
        finally:
            await self._save(last=True)
            await self.sink.close()

    async def _begin(self) -> None:
        """Take up where the last agent ended; a sink that is new gets all that is held, and no gap before it."""
        await self._offsets.load()
        if self._offsets.fresh:
            for unit, span in self._spans().items():
                self._offsets.at[unit] = span.first - 1

    async def _round(self) -> None:
        """Send one batch, or wait for one."""
        pace = self.sink.pace
        plan = next_batch(self._spans(), self._offsets.at, pace.most_lines, after=self._last_unit)
        self.waiting = plan.waiting
        self._take_up_again(plan)
        if not plan.takes and not plan.gaps:
            self._since = None
            await self._save()
            await pause(self.wake, IDLE_S)
            return
        loop = asyncio.get_running_loop()
        if self._since is None:
            self._since = loop.time()
        left = self._since + pace.linger_s - loop.time()
        if plan.waiting < pace.least_lines and left > 0:
            await pause(self.wake, left)
            return
        batch = await self._read(plan)
        if not batch:  # what is counted is not readable yet
            await pause(self.wake, pace.linger_s)
        else:
            self._since = None
            await self._deliver(batch)
            self.sent += len(batch)
            self._note(batch)
        await self._save_in_time()

    def _spans(self) -> dict[str, Span]:
        """Return what is held of the units that go here; the store learns that this sink waits for them."""
        spans = {unit: self._store.span(unit) for unit in self._store.units() if self._wants(unit)}
        for unit in spans.keys() - self._registered:
            self._store.acknowledge(self.sink.name, unit, self._offsets.saved.get(unit, 0))
        self._registered = set(spans)
        return spans

    def _take_up_again(self, plan: Plan) -> None:
        """Begin anew with units whose store is another one than before."""
        for unit in plan.again:
            logger.warning("shipping %s to %s from the start: its lines are numbered anew", unit, self.sink.name)
            self._offsets.at[unit] = self._store.span(unit).first - 1

    async def _read(self, plan: Plan) -> list[LogRecord]:
        """Read a batch, never more than the sink takes at once; gaps come before what follows them."""
        batch = [self._gap(gap) for gap in plan.gaps]
        size = 0
        for take in plan.takes:
            after, left = take.after, take.lines
            while left and size < self.sink.pace.most_bytes:
                records = await self._store.read(take.unit, after, min(left, self._chunk))
                if not records:
                    break
                if records[0].seq > after + 1:  # the store let go of some between the look and the read
                    batch.append(self._gap(Lost(take.unit, after + 1, records[0].seq - 1)))
                before = size
                for record in records:
                    batch.append(record)
                    size += len(record.text)
                    if size >= self.sink.pace.most_bytes:
                        break
                self._fit_chunk(len(records), size - before)
                after, left = batch[-1].seq, left - len(records)
            self._last_unit = take.unit
            if size >= self.sink.pace.most_bytes:
                break
        return batch

    def _fit_chunk(self, lines: int, size: int) -> None:
        """Read next as many lines as make up about half a batch, going by these."""
        fitting = self.sink.pace.most_bytes // 2 * lines // max(1, size)
        self._chunk = max(CHUNKS[0], min(CHUNKS[1], fitting))

    def _gap(self, gap: Lost) -> LogRecord:
        """Return the line that stands for lost ones; its key is that of the last of them."""
        told = f"{gap.lines} lines ({gap.first} to {gap.last}) were lost: the local store had no room to keep them"
        logger.warning("%s did not get %s of %s", self.sink.name, told, gap.unit)
        self._tell("log-gap", gap.unit, f"sink {self.sink.name}: {told}")
        return LogRecord(gap.unit, 0, gap.last, self._now(), GAP, told)

    async def _deliver(self, batch: Sequence[LogRecord]) -> None:
        """Send until the sink has it all. Lines that it can't take are replaced by a line that says so."""
        while True:
            try:
                await self._send(batch)
                self._recovered()
                return
            except SinkUnavailable as error:
                self._in_trouble("log-sink-away", error.message)
                await asyncio.sleep(self._retry.next())
            except SinkRefused as error:
                if error.of_lines and await self._sift(batch, error):
                    self._recovered()
                    return
                self._in_trouble("log-sink-refused", error.message + (f" ({error.hint})" if error.hint else ""))
                await asyncio.sleep(self._held.next())

    async def _sift(self, batch: Sequence[LogRecord], error: SinkRefused) -> bool:
        """Find the lines that a sink refuses, by halves; the rest is sent, in order. False: it refuses everything.

        Raises `SinkUnavailable` when the sink goes away meanwhile: the batch is sent again from its beginning.
        """
        if len(batch) == 1:
            record = batch[0]
            stand_in = record._replace(
                text=f"(a line of {len(record.text)} characters was refused by this sink: {error.message})"[:1000]
            )
            if stand_in.text == record.text:
                return False
            try:
                await self._send((stand_in,))
            except SinkRefused:
                return False
            told = (
                f"sink {self.sink.name} refused line {record.seq} ({len(record.text)} characters): {error.message}"
            )
            logger.warning("%s: %s", record.unit, told)
            self._tell("log-line-refused", record.unit, told)
            return True
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            try:
                await self._send(half)
            except SinkRefused as again:
                if not again.of_lines or not await self._sift(half, again):
                    return False
        return True

    async def _send(self, batch: Sequence[LogRecord]) -> None:
        try:
            async with asyncio.timeout(self.sink.pace.send_s):
                await self.sink.send(batch)
        except TimeoutError as error:
            why = f"no answer within {self.sink.pace.send_s:g} s"
            raise SinkUnavailable(f"cannot ship to {self.sink.name}: {why}") from error

    def _in_trouble(self, kind: str, why: str) -> None:
        """Say once that, and why, nothing is shipped; again when it is for another reason."""
        if self.trouble != why:
            logger.warning("%s; %d lines wait on this host", why, self.waiting)
        if self._kind != kind:
            self._tell(kind, "", f"{why}; lines wait on this host")
        self.trouble, self._kind = why, kind

    def _recovered(self) -> None:
        self._retry.reset()
        self._held.reset()
        if self.trouble:
            logger.info("shipping to %s again", self.sink.name)
            self._tell("log-sink-back", "", f"shipping to {self.sink.name} again")
        self.trouble = self._kind = ""

    def _note(self, batch: Sequence[LogRecord]) -> None:
        for record in batch:
            self._offsets.at[record.unit] = record.seq

    async def _save_in_time(self) -> None:
        if asyncio.get_running_loop().time() - self._saved_at >= SAVE_S:
            await self._save()

    async def _save(self, *, last: bool = False) -> None:
        """Save what the sink has, then let the store know: never the other way round."""
        if not self._offsets.unsaved:
            return
        self._saved_at = asyncio.get_running_loop().time()
        try:
            saved = await self._offsets.save()
        except OSError as error:  # a full disk: lines may be sent twice, none is lost
            if not last:
                logger.error("could not save what %s has: %s", self.sink.name, error)
            return
        for unit, seq in saved.items():
            self._store.acknowledge(self.sink.name, unit, seq)
