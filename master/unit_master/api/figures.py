"""Live figures of machines and units, as lines of JSON, pushed by the agents while somebody looks."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
from aiohttp import web

from unit_master.api.backend import BACKEND, WRITE_S, Backend, flag, reader_may_go
from unit_master.api.subscriptions import Reader, missing
from unitfleet.api import MachineFigures

FRAME_S = 5.0
"""How long one frame waits for agents that have not told anything."""

HEARTBEAT_S = 10.0
"""An empty line this often when nothing changes, so that readers know that we are there, and we that they are."""


async def figures(request: web.Request) -> web.StreamResponse:
    """Return a line for each machine as it comes; with `?once=true` one for each, and the end."""
    backend = request.app[BACKEND]
    once = flag(request, "once")
    await backend.cache.wait_for(0, FRAME_S)
    with backend.streaming(), backend.figures.reading() as reader:
        headers = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        if once:
            return web.Response(body=_lines(await _frame(backend, reader)), headers=headers)
        response = web.StreamResponse(headers=headers)
        async with reader_may_go(request):
            await response.prepare(request)
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_S):
                        await reader.changed.wait()
                async with asyncio.timeout(WRITE_S):
                    await response.write(_lines(reader.take()) or b"\n")
        return response


async def _frame(backend: Backend, reader: Reader) -> list[MachineFigures]:
    """Return a line of every machine that is there; of an agent that is silent for `FRAME_S` one that says so."""
    found: dict[str, MachineFigures] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FRAME_S):
            while backend.cache.view.presence.keys() - found.keys():
                await reader.changed.wait()
                found |= {line.machine: line for line in reader.take()}
    for machine, entry in backend.cache.view.presence.items():
        if machine not in found:
            found[machine] = missing(entry.value, "its agent has not told yet", backend.now())
    return sorted(found.values(), key=lambda line: (line.name, line.machine))


def _lines(found: list[MachineFigures]) -> bytes:
    return b"".join(msgspec.json.encode(line) + b"\n" for line in found)
