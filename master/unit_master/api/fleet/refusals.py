"""Errors in fleet's shape, on fleet's paths: `{"error": {"code", "message"}}`, the code being the HTTP status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from unit_master.api.backend import ApiError, answer
from unitfleet.api import ErrorBody
from unitfleet.fleetapi import ALIAS, PREFIX, Error, Wrong, is_fleets

_ANY = "*"


@web.middleware
async def as_fleet_says(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say an error as fleet does, whoever raised it; the hint stands in the message: there is no other place."""
    response = await handler(request)
    if response.status < 400 or not is_fleets(request.path) or not isinstance(response, web.Response):
        return response
    body = msgspec.json.decode(response.body if isinstance(response.body, bytes) else b"", type=ErrorBody)
    message = f"{body.message} ({body.hint})" if body.hint else body.message
    said = answer(Error(error=Wrong(code=response.status, message=message)), response.status)
    for name in ("WWW-Authenticate", "Retry-After"):
        if name in response.headers:
            said.headers[name] = response.headers[name]
    if response.keep_alive is False:
        said.force_close()
    return said


def add_fallbacks(router: web.UrlDispatcher, served: Iterable[tuple[str, str]]) -> None:
    """Answer what is no route of fleet's as fleet does. `served`: method and path of those that are."""
    methods: dict[str, list[str]] = {}
    for method, path in served:
        methods.setdefault(path, []).append(method)
    for path, known in methods.items():
        allowed = " and ".join(filter(None, (", ".join(known[:-1]), known[-1])))
        router.add_route(
            _ANY, path, _says("method_not_allowed", f"only {allowed} supported against this resource")
        )
    for prefix in (PREFIX, ALIAS):
        router.add_route(_ANY, prefix, _says("method_not_allowed", ""))
        router.add_route(_ANY, f"{prefix}/{{rest:.*}}", _says("not_found", ""))


def _says(code: str, message: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(request: web.Request) -> web.StreamResponse:
        raise ApiError(code, message)

    return refuse
