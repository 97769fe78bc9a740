"""Bound what a request may send and how long it may take."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler

from unit_master.access.identify import pattern
from unit_master.api.backend import ApiError
from unit_master.api.routes import route_of

MAX_BODY = 256 * 1024
MAX_UNITS_BODY = 8 * 1024 * 1024
"""A thousand units in one call; any other body is small."""

REQUEST_S = 55.0
"""For anything but a stream; a client gives up after a minute."""


async def read(request: web.Request) -> bytes:
    """Return the whole body, which stays there for the handler; raises `ApiError`."""
    _verify(request, request.content_length or 0)
    try:
        async with asyncio.timeout(REQUEST_S):
            raw = await request.read()
    except TimeoutError:
        raise ApiError("timeout", f"cannot read the body within {REQUEST_S:g} s") from None
    _verify(request, len(raw))
    return raw


@web.middleware
async def bound(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer in time, or say that the outcome is not known."""
    _verify(request, request.content_length or 0)
    route = route_of(request)
    if route is not None and route.streams:
        return await handler(request)
    try:
        async with asyncio.timeout(REQUEST_S):
            return await handler(request)
    except TimeoutError:
        code = "timeout" if request.method == "GET" else "unknown_outcome"
        raise ApiError(code, f"cannot answer within {REQUEST_S:g} s", "look at how it stands now") from None


def _verify(request: web.Request, length: int) -> None:
    most = MAX_UNITS_BODY if pattern(request) in ("/v1/units", "/v1/ingest/logs") else MAX_BODY
    if length > most:
        raise ApiError("too_large", f"cannot read a body of {length} bytes: {most} are allowed")
