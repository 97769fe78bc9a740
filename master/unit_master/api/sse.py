"""Server-sent events: each with the revision it is of as its id, a heartbeat while nothing happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from unit_master.api.backend import WRITE_S, ApiError, reader_may_go
from unit_master.cache import Subscription, Update

HEARTBEAT_S = 15.0


class EventStream:
    """One open stream; `response` is what the handler returns at its end."""

    def __init__(self) -> None:
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )

    async def send(self, revision: int, value: Any) -> None:
        """Write one event."""
        await self._write(b"id: %d\ndata: %s\n\n" % (revision, msgspec.json.encode(value)))

    async def next(self, subscription: Subscription) -> Update:
        """Wait for a change, with heartbeats meanwhile."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    return await subscription.next()
            except TimeoutError:
                await self._write(b": alive\n\n")

    async def _write(self, raw: bytes) -> None:
        async with asyncio.timeout(WRITE_S):
            await self.response.write(raw)


@contextlib.asynccontextmanager
async def event_stream(request: web.Request) -> AsyncIterator[EventStream]:
    """Answer with a stream of events until the reader goes."""
    stream = EventStream()
    async with reader_may_go(request):
        await stream.response.prepare(request)
        yield stream


def since(request: web.Request) -> int:
    """Return the revision that the reader has seen: `Last-Event-ID` of a resumed stream, else `?since=`."""
    text = request.headers.get("Last-Event-ID") or request.query.get("since") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ApiError("invalid_request", f"cannot resume from {text[:40]!a}: a revision is wanted")
    return int(text)
