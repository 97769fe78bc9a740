"""The door of the API: who comes in, for what, and how many at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler

from unit_master.access import tokens
from unit_master.access.callers import Caller, Denied, of_another, too_low
from unit_master.access.floods import Bounds, Floods, Full, Lane
from unit_master.access.hosts import host_fault
from unit_master.access.identify import Way, by_agent, by_key, by_secret, by_token, identify, local, source
from unit_master.api import bodies, joins
from unit_master.api.auditing import deed_of, line
from unit_master.api.backend import BACKEND, CALLER, ApiError, Backend
from unit_master.api.certified import by_certificate
from unit_master.api.metrics import PATHS as METRICS
from unit_master.api.route import Route
from unit_master.api.routes import ROUTES, route_of
from unit_master.audit.deeds import deed
from unit_master.audit.trail import CannotAudit
from unitfleet.accessapi import AuditLine
from unitfleet.model import Role

KEYED = frozenset(route.path for route in ROUTES if route.keyed)
OWN = frozenset(route.path for route in ROUTES if route.own)
STRANGERS_WAIT_S = 60
LOOK_S = 5.0
"""How often streams are looked at whose token may have expired."""


class Door:
    """Lets callers in that one of `ways` knows. Without `floods` and `names`, as a Unix socket's, all of them."""

    def __init__(
        self, ways: Sequence[Way], floods: Floods | None = None, names: Collection[str] | None = None
    ) -> None:
        self._ways = tuple(ways)
        self._floods = floods
        self._names = names
        self._unheard = 0

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request of somebody who may ask it, while there is room; raise `ApiError` for any other."""
        route = route_of(request)
        if route is not None and route.public:
            return await self._admit_anybody(request, route, handler)
        self._verify_host(request)
        caller = identify(request, self._ways)
        lane = _lane(route, caller)
        who = _who(request, caller)
        if self._floods is not None and lane is not Lane.AGENTS:
            _raise_if_full(self._floods.ask(who, writes=request.method != "GET"))
        if isinstance(caller, Denied):
            await self._note_stranger(request, route, caller)
            raise _denied(caller)
        request[CALLER] = caller
        with self._room(lane, who) as full, _held(request, route, caller):
            _raise_if_full(full)
            await _verify_role(request, route, caller)
            return await handler(request)

    async def _admit_anybody(self, request: web.Request, route: Route, handler: Handler) -> web.StreamResponse:
        """Answer whoever asks; where that changes something no faster than a caller may change things.

        Whoever surely gets nothing is a stranger: no more of them are heard than may be written down.
        """
        request[CALLER] = Caller("nobody", None, source(request))
        if self._floods is not None and route.audited:
            _raise_if_full(self._floods.ask(f"address {source(request)}", writes=True))
            raw = await bodies.read(request)
            if not joins.may_be_let_in(request.app[BACKEND], raw) and not self._floods.tell():
                self._unheard += 1
                _raise_if_full(Full("too many attempts failed", STRANGERS_WAIT_S))
        return await handler(request)

    def _verify_host(self, request: web.Request) -> None:
        if self._names is None:
            return
        local_end = request.transport.get_extra_info("sockname") if request.transport is not None else None
        fault = host_fault(request.headers.get("Host", ""), self._names, local_end[0] if local_end else "")
        if fault is not None:
            raise ApiError(
                "misdirected",
                f"cannot answer for this host: {fault}",
                "ask by address, by the master's name, or by one of its --host-names",
            )

    def _room(self, lane: Lane, who: str) -> contextlib.AbstractContextManager[Full | None]:
        return contextlib.nullcontext() if self._floods is None else self._floods.room(lane, who)

    async def _note_stranger(self, request: web.Request, route: Route | None, denied: Denied) -> None:
        """Write down that somebody unknown asked for a change; a flood of them is counted, not written."""
        if route is None or not route.audited:
            return
        if self._floods is not None and not self._floods.tell():
            self._unheard += 1
            return
        unheard, self._unheard = self._unheard, 0
        nobody = Caller("nobody", None, source(request))
        about = deed(route.does, request.match_info, b"", lambda name: False)
        await _note(request, line(request, route, nobody, about, status=401, code=denied.code, unheard=unheard))


def unix_door() -> Door:
    """Return the door of the Unix socket: who can open it is an admin."""
    return Door([local])


def tcp_door(backend: Backend, token: str, names: Collection[str], bounds: Bounds) -> Door:
    """Return the door of the TCP listener. `token` is the admin's, of the state dir."""
    ways = [
        by_certificate(backend.cache, backend.now),
        by_secret(token, "admin", Role.ADMIN),
        by_token(backend.cache, backend.now),
        by_key(backend.metrics_token, "prometheus", METRICS),
        by_key(backend.cluster_key, "cluster", KEYED),
        by_agent(backend.cache, backend.cluster_key, OWN),
    ]
    return Door(ways, Floods(bounds), names)


async def end_streams_of_removed(backend: Backend) -> None:
    """End streams whose token was removed or has expired, until cancelled."""
    with backend.cache.subscribe(("tokens",)) as subscription:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await subscription.next()
            held = backend.cache.view.tokens
            for task, id in list(backend.held_by.items()):
                if id not in held or tokens.expired(held[id].value, backend.now()):
                    task.cancel()


async def _verify_role(request: web.Request, route: Route | None, caller: Caller) -> None:
    """Refuse a caller whose role is too low, or a machine that asks for another; write it down if for a change."""

    def fault(action: str) -> str | None:
        assert route is not None
        another = of_another(caller, request.match_info.get("machine", ""), action) if route.own else None
        return another or too_low(caller, route.needs, action)

    if route is None or fault("") is None:
        return
    try:
        about = await deed_of(request, route)
    except ApiError:  # a body that nobody reads is no reason to say anything but no
        about = deed(route.does, request.match_info, b"", lambda name: False)
    why = fault(about.action)
    if route.audited:
        await _note(request, line(request, route, caller, about, status=403, code="forbidden"))
    raise ApiError("forbidden", str(why), f"ask an admin for a token with the role {route.needs}")


async def _note(request: web.Request, told: AuditLine) -> None:
    with contextlib.suppress(CannotAudit):  # the log of the master says it; nothing is changed anyway
        await request.app[BACKEND].trail.write(told)


@contextlib.contextmanager
def _held(request: web.Request, route: Route | None, caller: Caller) -> Iterator[None]:
    """Remember meanwhile by which token a stream was opened."""
    held_by = request.app[BACKEND].held_by
    task = asyncio.current_task()
    if task is None or not caller.token or route is None or not route.streams:
        yield
        return
    held_by[task] = caller.token
    try:
        yield
    finally:
        del held_by[task]


def _lane(route: Route | None, caller: Caller | Denied) -> Lane:
    if isinstance(caller, Denied) or route is None:
        return Lane.REQUESTS
    if route.keyed and caller.role is None:
        return Lane.AGENTS
    return Lane.STREAMS if route.streams else Lane.REQUESTS


def _who(request: web.Request, caller: Caller | Denied) -> str:
    if isinstance(caller, Denied):
        return f"address {source(request)}"
    return caller.token or f"{caller.name}{f' {caller.source}' if caller.role is None else ''}"


def _raise_if_full(full: Full | None) -> None:
    if full is not None:
        raise ApiError(
            "too_many",
            f"cannot answer now: {full.why}",
            f"try again in {full.retry_s} s",
            {"Retry-After": str(full.retry_s)},
        )


def _denied(denied: Denied) -> ApiError:
    headers = {"Connection": "close"} if denied.final else {"WWW-Authenticate": "Bearer"}
    return ApiError(denied.code, f"cannot answer this request: {denied.why}", denied.hint, headers)
