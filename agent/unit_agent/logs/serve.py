"""Answers who reads this machine's logs: masters at `/v1/logs/NAME`, the host itself at `/local/logs/NAME`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec
from aiohttp import web

from unit_agent.logs.joining import joined
from unit_agent.logs.record import LogRecord
from unit_agent.logs.runs import Run, previous
from unit_agent.logs.segments import SegmentStore
from unitfleet.api import ErrorBody, LogLine
from unitfleet.errors import DriverUnavailable, NotFound
from unitfleet.logquery import SEARCHED, LogQuery, pattern, read
from unitfleet.problems import BadValue
from unitfleet.shipped import GAP

WRITE_S = 60.0
"""A reader that takes nothing for so long is gone."""

OPEN_S = 5.0
"""A store is open after so long, or it can't be used now."""

SETTLE_S = 0.15
"""What a unit wrote up to the question is in the store after so long."""

BATCH = 2000

_encode = msgspec.json.Encoder().encode


class Logs(Protocol):
    """What the answers are made of."""

    opened: asyncio.Event
    store: SegmentStore

    @property
    def machine_name(self) -> str: ...

    def reads(self, unit: str) -> bool: ...

    def runs(self, unit: str) -> tuple[Run, ...]: ...

    def is_here(self, unit: str) -> bool: ...


class LogRoutes:
    """The two paths."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def routes(self) -> Sequence[web.RouteDef]:
        """Return them for the listener."""
        return web.get("/v1/logs/{name}", self._answer), web.get("/local/logs/{name}", self._answer)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        unit = request.match_info["name"]
        try:
            query = read(request.query)
        except BadValue as error:
            body = ErrorBody(code="invalid_request", message=f"cannot use {error}")
            return web.Response(body=_encode(body), status=400, content_type="application/json")
        try:
            async with asyncio.timeout(OPEN_S):
                await self._logs.opened.wait()
        except TimeoutError:
            where = self._logs.machine_name
            raise DriverUnavailable(
                f"cannot read the output of {unit}: the logs of {where} can't be opened"
            ) from None
        if not self._logs.store.known(unit) and not self._logs.is_here(unit):
            raise NotFound(
                f"cannot read the output of {unit}: no copy of it is, or was, on {self._logs.machine_name}"
            )
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        async with contextlib.aclosing(self._lines(unit, query)) as batches:
            async for lines in batches:
                async with asyncio.timeout(WRITE_S):
                    await response.write(b"".join([_encode(line) + b"\n" for line in lines]))
        return response

    async def _lines(self, unit: str, query: LogQuery) -> AsyncGenerator[Iterable[LogLine], None]:
        """Yield the lines asked for, then with `follow` those that come, until the unit is not here any more."""
        store = self._logs.store
        if self._logs.reads(unit) and (query.follow or query.until == math.inf):
            await asyncio.sleep(SETTLE_S)
            await store.flush()
        since, until = query.since, query.until
        if query.previous:
            run = previous(self._logs.runs(unit))
            if run is None:
                return
            since, until = max(since, run[1]), min(until, run[2])
        with store.watching(unit) as written:
            end = store.span(unit).last
            if gap := self._gone(unit, query, since):
                yield [gap]
            if query.lines:
                async for lines in self._held(unit, query, since, until, end):
                    yield lines
            if not query.follow or query.until < math.inf or query.previous:
                return
            after = end if query.lines or query.after_seq < 0 else query.after_seq
            wanted = _filter(query)
            while True:
                written.clear()
                here = self._logs.reads(unit) or self._logs.is_here(unit)
                while records := await store.read(unit, after, BATCH):
                    after = records[-1].seq
                    yield self._told(query, [record for record in records if wanted(record)])
                if not here and store.span(unit).last <= after:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await written.wait()

    async def _held(
        self, unit: str, query: LogQuery, since: float, until: float, end: int
    ) -> AsyncGenerator[Iterable[LogLine], None]:
        """Yield what is held up to number `end`: the last lines, or all, a part at a time."""
        wanted = _filter(query)
        if query.lines > 0:
            records = await self._logs.store.last(
                unit, query.lines, lambda record: record.seq <= end and wanted(record), since, until
            )
            yield self._told(query, records)
            return
        reading = self._logs.store.lines(unit, after=query.after_seq, since=since, until=until)
        waiting: list[LogRecord] = []
        async with contextlib.aclosing(reading) as parts:
            async for part in parts:
                if query.join:
                    waiting += [record for record in part if record.seq <= end and wanted(record)]
                    if len(waiting) < BATCH:
                        continue
                    part, waiting = waiting, []
                    yield self._told(query, part)
                else:
                    yield self._told(query, [record for record in part if record.seq <= end and wanted(record)])
        yield self._told(query, waiting)

    def _told(self, query: LogQuery, records: Iterable[LogRecord]) -> Iterable[LogLine]:
        machine = self._logs.machine_name
        lines = (
            LogLine(
                at=record.at,
                stream=record.stream,
                text=record.text,
                machine=machine,
                unit=record.unit,
                epoch=record.epoch,
                seq=record.seq,
                file=record.file,
            )
            for record in records
        )
        return joined(lines) if query.join else lines

    def _gone(self, unit: str, query: LogQuery, since: float) -> LogLine | None:
        """Return a line for what was asked for and is held no more."""
        gone = self._logs.store.gone(unit)
        if gone is None or not (query.bounded or query.previous):
            return None
        if since > gone.until or query.after_seq >= gone.seq:
            return None
        text = f"lines up to {moment(gone.until)} are gone from {self._logs.machine_name}: {gone.why}"
        return LogLine(
            at=max(since, 0.0) or gone.until, stream=GAP, text=text, machine=self._logs.machine_name, unit=unit
        )


def moment(at: float) -> str:
    """Write a time for a message, as UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _filter(query: LogQuery) -> Callable[[LogRecord], bool]:
    """Return what tells whether a line is asked for, times apart."""
    found: re.Pattern[str] | None = pattern(query.grep) if query.grep else None
    epoch = query.epoch

    def wanted(record: LogRecord) -> bool:
        if epoch and record.epoch != epoch:
            return False
        return found is None or record.stream == GAP or found.search(record.text[:SEARCHED]) is not None

    return wanted
