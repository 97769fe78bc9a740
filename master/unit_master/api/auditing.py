"""Write down who changes what: that it was begun before anything is changed, how it ended before the answer."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from unit_master.access.callers import Caller
from unit_master.api import bodies
from unit_master.api.backend import BACKEND, CALLER, ApiError
from unit_master.api.route import Route
from unit_master.api.routes import route_of
from unit_master.audit.deeds import Deed, deed
from unit_master.audit.trail import CannotAudit
from unitfleet.accessapi import AuditLine
from unitfleet.model import TargetState

logger = logging.getLogger(__name__)


class _Error(msgspec.Struct):
    code: str = ""


class _Item(msgspec.Struct):
    error: _Error | None = None


class _Told(msgspec.Struct):
    """What an answer says of its outcome."""

    rev: int = 0
    code: str = ""
    items: tuple[_Item, ...] = ()


@web.middleware
async def audited(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Carry a change out between two lines of the audit log; without the first it is refused."""
    route = route_of(request)
    if route is None or not route.audited:
        return await handler(request)
    backend = request.app[BACKEND]
    begun = line(request, route, request[CALLER], await deed_of(request, route))
    try:
        await backend.trail.write(begun)
    except CannotAudit as error:
        raise ApiError(
            "unavailable",
            f"cannot {begun.action}: the audit log of master {backend.name} can't be written: {error}",
            f"nothing was changed; look at {backend.trail.folder} there, or ask another master",
        ) from error
    response = await handler(request)
    ended = msgspec.structs.replace(begun, status=response.status, **outcome(response))
    try:
        await backend.trail.write(ended)
    except CannotAudit:
        logger.error("this outcome is not in the audit log: %s", msgspec.json.encode(ended).decode())
    return response


async def deed_of(request: web.Request, route: Route) -> Deed:
    """Return what a request is about; its body is read for that. Raises `ApiError`."""
    raw = await bodies.read(request) if route.takes is not None and not route.lines else b""
    units = request.app[BACKEND].cache.view.units

    def launched(name: str) -> bool:
        return name in units and units[name].value.target is TargetState.LAUNCHED

    return deed(route.does, request.match_info, raw, launched)


def line(request: web.Request, route: Route, caller: Caller, about: Deed, **more: Any) -> AuditLine:
    """Return the line of a request that has no outcome yet."""
    backend = request.app[BACKEND]
    return AuditLine(
        at=backend.now(),
        id=secrets.token_hex(8),
        master=backend.name,
        caller=caller.name,
        role=caller.role or "",
        token=caller.token,
        source=caller.source,
        method=request.method,
        route=route.path,
        action=about.action,
        objects=about.objects,
        count=about.count,
        **more,
    )


def outcome(response: web.StreamResponse) -> dict[str, Any]:
    """Return what an answer says of its outcome: revision, code, how many wishes of several were refused."""
    raw = response.body if isinstance(response, web.Response) else None
    try:
        told = msgspec.json.decode(raw, type=_Told) if isinstance(raw, bytes) else _Told()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        told = _Told()
    errors = [item.error for item in told.items if item.error is not None]
    code = told.code or (errors[0].code if errors else "")
    return {"rev": told.rev, "code": code, "refused": len(errors)}
