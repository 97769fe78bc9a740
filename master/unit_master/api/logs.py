"""The output of units: read from every machine that a unit was on in the time asked for, as one stream.

Where it was its history says. What a machine that is gone has taken with it comes from the archive; what nobody
has is told by a line of the stream `gap`, at its place. Without a time, an epoch or `previous`, the machine that
the unit is on is asked, and those before it while there are fewer lines than wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from aiohttp import web

from unit_master.api.agents import AgentAway
from unit_master.api.backend import WRITE_S, ApiError, Backend, backend_at_revision, reader_may_go
from unit_master.api.gaps import gap, moment
from unit_master.api.merging import merged
from unit_master.orders import find_machine
from unit_master.views import Views
from unit_master.whereabouts import Place, places, spells
from unit_master.wishes import unknown
from unitfleet import foreign
from unitfleet.api import ErrorBody, LogLine, UnitView
from unitfleet.errors import Refused, UnitfleetError
from unitfleet.logquery import LogQuery, read
from unitfleet.problems import BadValue

logger = logging.getLogger(__name__)

MAX_LINE = 8 * 1024 * 1024  # 256 KiB of control characters, as JSON writes them, and joined lines
CONNECT_S = 3.0
ANSWER_S = 30.0
BATCH = 500

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)

Lines = AsyncIterator[list[LogLine]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request: the unit, the machine it is limited to ("": any), where the unit is and was."""

    name: str
    machine: str
    query: LogQuery
    current: tuple[str, ...]
    was: list[Place]

    @property
    def before(self) -> list[str]:
        """The machines it was on and is not, the latest first."""
        machines = dict.fromkeys(place.machine for place in reversed(self.was))
        return [m for m in machines if m not in self.current and (not self.machine or m == self.machine)]


async def logs(request: web.Request) -> web.StreamResponse:
    """Return lines of a unit as JSON, as `unitfleet.logquery` describes them."""
    backend = await backend_at_revision(request)
    try:
        query = read(request.query)
    except BadValue as error:
        raise ApiError("invalid_request", f"cannot use {error}") from error
    asked = _asked(backend, request.match_info["name"], request.query.get("machine", ""), query)
    with backend.streaming():
        async with contextlib.AsyncExitStack() as sources:
            if query.follow and not query.previous:
                history = await _parts(backend, asked, asked.before, sources) if query.bounded else []
                live = await _current(backend, asked, sources, query)
                writing = _follow(history, live)
            elif query.bounded or query.previous:
                machines = [*asked.current, *asked.before]
                writing = _whole(await _parts(backend, asked, machines, sources), query)
            else:
                writing = _last(backend, asked, await _current(backend, asked, sources, query), sources)
            headers = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
            response = web.StreamResponse(headers=headers)
            async with reader_may_go(request):
                await response.prepare(request)
                async with contextlib.aclosing(writing) as batches:
                    async for lines in batches:
                        raw = b"".join([msgspec.json.encode(line) + b"\n" for line in lines])
                        if raw:
                            async with asyncio.timeout(WRITE_S):
                                await response.write(raw)
            return response


def _asked(backend: Backend, name: str, wanted: str, query: LogQuery) -> _Asked:
    """Say which machines have to do with the unit; raises `NotFound` or `Refused` when none has."""
    view = backend.cache.view
    shown = Views(view).unit(name)
    machine = find_machine(view, wanted) if wanted else ""
    stays = [entry.value for entry in view.stays.get(name, {}).values()]
    if shown is None and not stays:
        raise unknown(name, view.units)
    everywhere = shown is not None and shown.is_global
    was = places(stays, everywhere=everywhere)
    if query.epoch:
        was = [place for place in was if place.epoch == query.epoch]
    copies = [copy.machine for copy in shown.copies] if shown is not None else []
    here = [copy for copy in copies if not machine or copy == machine]
    if everywhere:
        here = [copy for copy in here if copy in view.presence] or here[:1]
    else:
        here = here[:1]
    if not here and not any(not machine or place.machine == machine for place in was):
        where = f"on {view.machine_name(machine)}" if machine else "on any machine"
        hint = _where(shown) if shown is not None else None
        raise Refused(f"cannot read the output of {name}: it has no copy {where}", hint=hint)
    return _Asked(name, machine, query, tuple(here), was)


def _where(shown: UnitView) -> str:
    if shown.copies:
        return f"it is on {', '.join(copy.machine_name for copy in shown.copies)}"
    return f"unitctl start {shown.name}"


# --- what is written


async def _follow(history: Sequence[Lines], live: Sequence[Lines]) -> AsyncGenerator[list[LogLine], None]:
    """Yield what machines that the unit has left hold, then what those it is on hold and take in."""
    async for lines in merged(history, BATCH):
        yield lines
    queue: asyncio.Queue[list[LogLine] | None] = asyncio.Queue(4)

    async def pass_on(source: Lines) -> None:
        async for lines in source:
            await queue.put(lines)
        await queue.put(None)

    async with asyncio.TaskGroup() as tasks:
        passing = [tasks.create_task(pass_on(source)) for source in live]
        left = len(passing)
        try:
            while left:
                found = await queue.get()
                if found is None:
                    left -= 1
                else:
                    yield found
        except GeneratorExit:
            return  # the reader went; the group would make an error of it
        finally:
            for task in passing:
                task.cancel()


async def _whole(parts: Sequence[Lines], query: LogQuery) -> AsyncGenerator[list[LogLine], None]:
    """Yield the lines of all machines in order of time; with `lines` the last of them, with `previous` one run."""
    if query.previous:
        runs = [[line async for lines in part for line in lines] for part in parts]
        runs = [run for run in runs if run]
        if runs:
            yield max(runs, key=lambda run: max((line.at for line in run if line.stream != "gap"), default=0.0))
        return
    kept: deque[LogLine] = deque(maxlen=query.lines if query.lines >= 0 else None)
    async for lines in merged(parts, BATCH):
        if query.lines < 0:
            yield lines
        else:
            kept.extend(lines)
    yield list(kept)


async def _last(
    backend: Backend, asked: _Asked, current: Sequence[Lines], sources: contextlib.AsyncExitStack
) -> AsyncGenerator[list[LogLine], None]:
    """Yield the last lines from where the unit is; while they are too few, also from where it was before."""
    found = [line async for lines in merged(current, BATCH) for line in lines]
    wanted = asked.query.lines
    if len(asked.current) <= 1:
        for machine in asked.before:
            if len(found) >= wanted:
                break
            (part,) = await _parts(backend, asked, [machine], sources) or (_nothing(),)
            older = [line async for lines in part for line in lines]
            found = sorted(older + found, key=lambda line: line.at)
    yield found if len(asked.current) > 1 else found[len(found) - wanted if len(found) > wanted else 0 :]


async def _nothing() -> AsyncGenerator[list[LogLine], None]:
    no_lines: list[list[LogLine]] = []
    for lines in no_lines:
        yield lines


# --- where it comes from


async def _current(
    backend: Backend, asked: _Asked, sources: contextlib.AsyncExitStack, query: LogQuery
) -> list[Lines]:
    """Open the machines that the unit is on; raises `ApiError` when one can't be read."""
    opened: list[Lines] = []
    for machine in asked.current:
        source = await sources.enter_async_context(_source(backend, asked, machine, query))
        opened.append(_read(source, backend.cache.view.machine_name(machine)))
    return opened


async def _parts(
    backend: Backend, asked: _Asked, machines: Sequence[str], sources: contextlib.AsyncExitStack
) -> list[Lines]:
    """Open what machines hold of the time asked for; one that can't be read is told by what stands in for it."""
    query = asked.query
    since, until = query.since, min(query.until, backend.now())
    wanted = {m: spells(asked.was, m, since, until) for m in machines}
    chosen = [m for m in machines if wanted[m] is not None or (m in asked.current and not query.epoch)]
    plain = msgspec.structs.replace(query, follow=False)

    async def part(machine: str) -> Lines:
        name = backend.cache.view.machine_name(machine)
        try:
            source = await sources.enter_async_context(_source(backend, asked, machine, plain))
        except ApiError as error:
            if error.body.code == "not_found":
                return _nothing()
            why = _why(backend, machine, error)
            return _stand_in(backend, asked, machine, wanted[machine] or (since, until), why)
        return _read(source, name)

    return list(await asyncio.gather(*(part(machine) for machine in chosen)))


def _why(backend: Backend, machine: str, error: ApiError) -> str:
    if machine in backend.cache.view.presence:
        return error.body.message
    known = backend.cache.view.roster.get(machine)
    return f"the machine is {known.value.status.value if known else 'gone'}"


async def _stand_in(
    backend: Backend, asked: _Asked, machine: str, during: tuple[float, float], why: str
) -> AsyncGenerator[list[LogLine], None]:
    """Yield what the archive has of a machine that can't be read, and say what may be missing."""
    name = backend.cache.view.machine_name(machine)
    since, until = during
    lines: list[LogLine] = []
    if backend.archive is not None and not asked.query.previous:
        try:
            lines = await backend.archive.unit_lines(asked.name, since, until, machine, grep=asked.query.grep)
        except UnitfleetError as error:
            logger.info("could not ask the archive for lines of %s: %s", asked.name, error)
    end = min(until, backend.now())
    if not lines:
        begin = max(since, 0.0)
        between = f"between {moment(begin)} and {moment(end)}" if begin else f"until {moment(end)}"
        yield [gap(begin or end, asked.name, name, f"no lines from {name} {between}: {why}")]
        return
    yield lines
    after = moment(lines[-1].at)
    text = f"lines from {name} after {after} may be missing: {why}, what stands here comes from the archive"
    yield [gap(max(end, lines[-1].at) if end < math.inf else lines[-1].at, asked.name, name, text)]


@contextlib.asynccontextmanager
async def _source(
    backend: Backend, asked: _Asked, machine: str, query: LogQuery
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Ask a machine's agent; raises `ApiError` with what it said, or why it can't be reached."""
    view = backend.cache.view
    name = view.machine_name(machine)
    present = view.presence.get(machine)
    if present is None:
        known = view.roster.get(machine)
        status = known.value.status.value if known else "gone"
        raise ApiError("agent", f"cannot reach the agent of {name}: the machine is {status}")
    path = f"/v1/logs/{quote(asked.name, safe='')}?{urlencode(query.text())}"
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(ANSWER_S):
                source = await stack.enter_async_context(
                    backend.link.request("GET", present.value, path, _TIMEOUT)
                )
                if source.status != 200:
                    raise _told(name, await source.content.read(MAX_LINE), source.status)
        except AgentAway as error:
            raise ApiError("agent", f"cannot reach the agent of {name}: {error}") from error
        except TimeoutError:
            raise ApiError("agent", f"cannot reach the agent of {name}: no answer within {ANSWER_S:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: an address that is none
            raise ApiError(
                "agent", f"cannot reach the agent of {name}: {error}", "is unit-agent running?"
            ) from error
        yield source


def _told(name: str, raw: bytes, status: int) -> ApiError:
    """Return the agent's own error, if it is one."""
    try:
        told = foreign.decode(raw, ErrorBody)
    except msgspec.MsgspecError:
        return ApiError("agent", f"cannot read the output: the agent of {name} answered {status}")
    code = told.code if told.code in ("not_found", "refused") else "agent"
    return ApiError(code, told.message, told.hint)


async def _read(source: aiohttp.ClientResponse, machine: str) -> AsyncGenerator[list[LogLine], None]:
    """Yield an agent's lines as they come. An agent that breaks off ends its part alone, and a line says so."""
    rest = b""
    last = 0.0
    try:
        async for chunk in source.content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            lines = [_named(line, machine) for line in whole if line.strip()]
            if len(rest) > MAX_LINE:
                raise aiohttp.ClientPayloadError(f"a line of more than {MAX_LINE} bytes")
            if lines:
                last = lines[-1].at
                yield lines
    except aiohttp.ClientError as error:
        logger.info("stopped reading output from %s: %s", machine, error)
        yield [gap(last, "", machine, f"no more lines from {machine}: its agent broke off")]


def _named(line: bytes, machine: str) -> LogLine:
    try:
        read_line = foreign.decode(line, LogLine)
    except msgspec.MsgspecError:
        read_line = LogLine(at=0.0, stream="stdout", text=line.decode(errors="replace"))
    return msgspec.structs.replace(read_line, machine=machine)
