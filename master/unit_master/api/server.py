"""The server: routes, who may ask, and every failure as an `ErrorBody`."""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.typedefs import Handler

from unit_master.api import certified
from unit_master.api.admission import Door
from unit_master.api.auditing import audited
from unit_master.api.backend import BACKEND, ApiError, Backend, answer, refusal, refused
from unit_master.api.bodies import MAX_UNITS_BODY, bound
from unit_master.api.fleet.refusals import add_fallbacks, as_fleet_says
from unit_master.api.openapi import describe
from unit_master.api.routes import ALIASES, ROUTES
from unitfleet.api import ErrorBody
from unitfleet.errors import UnitfleetError

logger = logging.getLogger(__name__)

_OPENAPI = "/v1/openapi.json"
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media"}


def make_app(backend: Backend, door: Door) -> web.Application:
    """Return the API, for those whom `door` lets in."""
    description = describe()

    async def openapi(request: web.Request) -> web.Response:
        return answer(description)

    app = web.Application(
        middlewares=[
            _note_staleness,
            as_fleet_says,
            _answer_errors,
            door.admit,
            certified.held,
            audited,
            _answer_errors,  # what is audited is the answer, whatever a handler raised
            bound,
        ],
        client_max_size=MAX_UNITS_BODY,
    )
    app[BACKEND] = backend
    for route in ROUTES:
        app.router.add_route(route.method, route.path, route.handler)
    for route, path in ALIASES:
        app.router.add_route(route.method, path, route.handler)
    of_fleet = [(route.method, route.path) for route, _ in ALIASES]
    add_fallbacks(app.router, [*of_fleet, *((route.method, path) for route, path in ALIASES)])
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
        response = refusal(error.body)
        response.headers.update(error.headers)
        if error.headers.get("Connection") == "close":
            response.force_close()
        return response
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
