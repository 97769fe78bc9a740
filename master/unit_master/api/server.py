"""The server: routes, who may ask, and every failure as an `ErrorBody`."""

from __future__ import annotations

import asyncio
import hmac
import logging

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.typedefs import Handler, Middleware

from unit_master.api.backend import BACKEND, ApiError, Backend, answer, refusal, refused
from unit_master.api.openapi import describe
from unit_master.api.routes import ROUTES
from unitfleet.api import ErrorBody
from unitfleet.errors import UnitfleetError

logger = logging.getLogger(__name__)

MAX_BODY = 256 * 1024
MAX_UNITS_BODY = 8 * 1024 * 1024
"""A thousand units in one call; any other body is small."""

REQUEST_S = 55.0
"""For anything but a stream; a client gives up after a minute."""

_OPENAPI = "/v1/openapi.json"
_STREAMS = frozenset(route.path for route in ROUTES if route.streams)
_PUBLIC = frozenset(route.path for route in ROUTES if route.public)
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media"}


def make_app(backend: Backend, token: str | None) -> web.Application:
    """Return the API; with a `token` every request but /healthz and /readyz must carry it.

    Without one, whoever reaches the socket is trusted: only for a Unix socket that its mode protects.
    """
    description = describe()

    async def openapi(request: web.Request) -> web.Response:
        return answer(description)

    app = web.Application(
        middlewares=[_note_staleness, _answer_errors, _authenticate(token), _bound], client_max_size=MAX_UNITS_BODY
    )
    app[BACKEND] = backend
    for route in ROUTES:
        app.router.add_route(route.method, route.path, route.handler)
    app.router.add_get(_OPENAPI, openapi, allow_head=False)
    app.on_shutdown.append(_end_streams)
    return app


async def _end_streams(app: web.Application) -> None:
    """End every stream: readers resume at another master."""
    for task in list(app[BACKEND].streams):
        task.cancel()


@web.middleware
async def _note_staleness(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell a reader for how many seconds the store has been silent."""
    response = await handler(request)
    stale = request.app[BACKEND].cache.stale_s()
    if stale and not response.prepared:
        response.headers["Unitfleet-Stale"] = f"{stale:.0f}"
    return response


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return refusal(error.body)
    except UnitfleetError as error:
        return refused(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = _CODES.get(error.status, "invalid_request" if error.status < 500 else "internal")
        allow = error.headers.get("Allow", "")
        hint = f"allowed: {allow}" if allow else f"{_OPENAPI} lists what there is" if error.status == 404 else ""
        message = f"cannot {request.method} {request.path[:200]}: {error.reason.lower()}"
        body = ErrorBody(code=code, message=message, hint=hint)
        response = answer(body, error.status)
        if allow:
            response.headers["Allow"] = allow
        return response
    except Exception:  # the outermost edge of a request: a fault of ours must not look like the client's
        logger.exception("failed to answer %s %s", request.method, request.path)
        return refusal(ErrorBody(code="internal", message="cannot answer: a fault in the master, see its log"))


def _authenticate(token: str | None) -> Middleware:
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if token is None or _path(request) in _PUBLIC or hmac.compare_digest(given, expected):
            return await handler(request)
        why = "its token is not the one of this cluster" if given else "it carries no token"
        response = refusal(
            ErrorBody(
                code="denied", message=f"cannot answer this request: {why}", hint="Authorization: Bearer TOKEN"
            )
        )
        response.headers["WWW-Authenticate"] = "Bearer"
        return response

    return authenticate


@web.middleware
async def _bound(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Bound what a request may send and how long it may take."""
    most = MAX_UNITS_BODY if _path(request) == "/v1/units" else MAX_BODY
    if (request.content_length or 0) > most:
        raise ApiError("too_large", f"cannot read a body of {request.content_length} bytes: {most} are allowed")
    if _path(request) in _STREAMS:
        return await handler(request)
    try:
        async with asyncio.timeout(REQUEST_S):
            return await handler(request)
    except TimeoutError:
        code = "timeout" if request.method == "GET" else "unknown_outcome"
        raise ApiError(code, f"cannot answer within {REQUEST_S:g} s", "look at how it stands now") from None


def _path(request: web.Request) -> str:
    """Return the pattern of the request's route, "" when it has none."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""


class AccessLog(AbstractAccessLogger):
    """One line a request, for debugging."""

    @property
    def enabled(self) -> bool:
        """Whether anybody listens."""
        return self.logger.isEnabledFor(logging.DEBUG)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write it."""
        self.logger.debug(
            "%s %s answered %d in %.0f ms", request.method, request.path_qs[:500], response.status, time * 1000
        )
