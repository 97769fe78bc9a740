"""The output of units: read from the agents that hold their copies, each line with its machine's name added."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from unit_master.api.backend import WRITE_S, ApiError, Backend, backend_at_revision, flag, number, reader_may_go
from unit_master.orders import find_machine
from unit_master.views import Views
from unit_master.wishes import unknown
from unitfleet.api import CopyView, ErrorBody, LogLine, UnitView
from unitfleet.errors import Refused

logger = logging.getLogger(__name__)

LINES = 100
MOST_LINES = 100_000
MAX_LINE = 1024 * 1024
CONNECT_S = 3.0
ANSWER_S = 30.0

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)


async def logs(request: web.Request) -> web.StreamResponse:
    """Return the last `?lines=` of a unit as JSON lines; with `?follow=true` also those to come."""
    backend = await backend_at_revision(request)
    name = request.match_info["name"]
    lines = number(request, "lines", LINES, MOST_LINES)
    follow = flag(request, "follow")
    copies = _copies(backend, name, request.query.get("machine", ""))
    path = f"/v1/logs/{quote(name, safe='')}?lines={lines}" + ("&follow=true" if follow else "")
    with backend.streaming():
        async with contextlib.AsyncExitStack() as sources:
            opened = [(copy, await sources.enter_async_context(_source(backend, copy, path))) for copy in copies]
            headers = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
            response = web.StreamResponse(headers=headers)
            async with reader_may_go(request):
                await response.prepare(request)
                async with asyncio.TaskGroup() as tasks:
                    for copy, source in opened:
                        tasks.create_task(_pass_on(source, copy.machine_name, response))
            return response


def _copies(backend: Backend, name: str, wanted: str) -> list[CopyView]:
    """Return the copies to read from: those of the machine asked for, the unit's place, or all of a global one."""
    view = backend.cache.view
    shown = Views(view).unit(name)
    machine = find_machine(view, wanted) if wanted else ""
    if shown is None:
        raise unknown(name, view.units)
    found = [copy for copy in shown.copies if not machine or copy.machine == machine]
    if not found:
        where = f"on {view.machine_name(machine)}" if machine else "on any machine"
        raise Refused(f"cannot read the output of {name}: it has no copy {where}", hint=_where(shown))
    if machine or not shown.is_global:
        return found[:1]
    return [copy for copy in found if copy.machine in view.presence] or found[:1]


def _where(shown: UnitView) -> str:
    if shown.copies:
        return f"it is on {', '.join(copy.machine_name for copy in shown.copies)}"
    return f"unitctl start {shown.name}"


@contextlib.asynccontextmanager
async def _source(backend: Backend, copy: CopyView, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """Ask a machine's agent; raises `ApiError` with what it said, or why it can't be reached."""
    name = copy.machine_name
    present = backend.cache.view.presence.get(copy.machine)
    if present is None:
        raise ApiError("agent", f"cannot reach the agent of {name}: the machine is {copy.machine_status}")
    host = f"[{present.value.address}]" if ":" in present.value.address else present.value.address
    url = URL(f"http://{host}:{present.value.port}{path}", encoded=True)
    headers = {"Authorization": f"Bearer {backend.cluster_key}"}
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(ANSWER_S):
                source = await stack.enter_async_context(
                    backend.session.get(url, headers=headers, timeout=_TIMEOUT, allow_redirects=False)
                )
                if source.status != 200:
                    raise _told(name, await source.content.read(MAX_LINE), source.status)
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(
                "agent", f"cannot reach the agent of {name}: {error}", "is unit-agent running?"
            ) from error
        yield source


def _told(name: str, raw: bytes, status: int) -> ApiError:
    """Return the agent's own error, if it is one."""
    try:
        told = msgspec.json.decode(raw, type=ErrorBody)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ApiError("agent", f"cannot read the output: the agent of {name} answered {status}")
    code = told.code if told.code in ("not_found", "refused") else "agent"
    return ApiError(code, told.message, told.hint)


async def _pass_on(source: aiohttp.ClientResponse, machine: str, response: web.StreamResponse) -> None:
    """Write an agent's lines to the reader as they come. An agent that breaks off ends its part alone."""
    rest = b""
    try:
        async for chunk in source.content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            raw = b"".join(_named(line, machine) for line in whole if line.strip())
            if len(rest) > MAX_LINE:
                raise aiohttp.ClientPayloadError(f"a line of more than {MAX_LINE} bytes")
            if raw:
                async with asyncio.timeout(WRITE_S):
                    await response.write(raw)
    except aiohttp.ClientPayloadError as error:
        logger.info("stopped reading output from %s: %s", machine, error)


def _named(line: bytes, machine: str) -> bytes:
    try:
        read = msgspec.json.decode(line, type=LogLine)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        read = LogLine(at=0.0, stream="stdout", text=line.decode(errors="replace"))
    return msgspec.json.encode(msgspec.structs.replace(read, machine=machine)) + b"\n"
