"""Who asks by a certificate, and what that opens; those who are shut out are cut off at once.

An admin's certificate opens what the API's token opens. Those of agents and masters open only what they need of
each other: to the rest of the API their holders are nobody, and may show a token as anybody may.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from unit_master.access.callers import Caller, Denied
from unit_master.access.identify import Way, pattern, source
from unit_master.api.backend import BACKEND, Backend
from unit_master.cache import Cache
from unit_master.view import ClusterView
from unitfleet import model
from unitfleet.joinapi import Role
from unitfleet.tls import Peer, peer_of

logger = logging.getLogger(__name__)

OPEN: dict[str, frozenset[str]] = {
    Role.AGENT: frozenset({"/v1/ingest/logs", "/v1/renew", "/v1/machines/{machine}/drain"}),
    Role.MASTER: frozenset({"/v1/archive/search", "/v1/audit/search", "/v1/checkup", "/v1/renew"}),
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a certificate comes to: `opens` this request; or not, with `why`. `final`: no token helps."""

    opens: bool = False
    final: bool = False
    why: str = ""
    code: str = "denied"


def peer(request: web.BaseRequest) -> Peer | None:
    """Return whom the certificate of the connection names; None when none was shown."""
    return peer_of(request.transport.get_extra_info("peercert")) if request.transport is not None else None


def shown(asking: Peer | None, path: str, view: ClusterView, now: float, *, synced: bool) -> Shown:
    """Return what a verified certificate comes to at this route.

    A master that has not read the store yet does not know who is shut out: it takes no machine until it does.
    """
    if asking is None:
        return Shown()
    if now > asking.not_after:
        return Shown(final=True, why=f"the certificate of {asking.role} {asking.name} has expired")
    if asking.role == Role.AGENT and not synced:
        return Shown(final=True, why="this master does not know yet who is shut out", code="unavailable")
    if view.is_denied(asking.role, asking.name):
        return Shown(final=True, why=f"the certificate of {asking.role} {asking.name} was shut out")
    if asking.role == Role.ADMIN or path in OPEN.get(asking.role, frozenset()):
        return Shown(opens=True)
    return Shown(why=f"the certificate of {asking.role or 'nobody'} {asking.name} does not open it")


def by_certificate(cache: Cache, now: Callable[[], float]) -> Way:
    """Know who shows a certificate of this cluster's authority.

    Who is refused for good is hung up on: who has another certificate by now shows it on a new connection.
    """

    def way(request: web.Request) -> Caller | Denied | None:
        asking = peer(request)
        if asking is None:
            return None
        found = shown(asking, pattern(request), cache.view, now(), synced=cache.synced)
        if found.final:
            return Denied(found.why, "", found.code, final=True)
        if not found.opens:
            return None if request.headers.get("Authorization") else Denied(found.why)
        if asking.role == Role.ADMIN:
            return Caller(asking.name, model.Role.ADMIN, source(request))
        machine = asking.name if asking.role == Role.AGENT else ""
        return Caller(f"{asking.role} {asking.name}", None, source(request), machine=machine)

    return way


@web.middleware
async def held(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note who asks while a request runs, so that it can be cut off."""
    asking = peer(request)
    if asking is None:
        return await handler(request)
    task = asyncio.current_task()
    assert task is not None
    running = request.app[BACKEND].certified
    running[task] = asking
    try:
        return await handler(request)
    finally:
        running.pop(task, None)


async def cut_off(backend: Backend) -> None:
    """End, until cancelled, every request and stream of those who are shut out, and what is asked of them."""
    with backend.cache.subscribe(("identities",)) as subscription:
        while True:
            await subscription.next()
            _cut_off(backend)


def _cut_off(backend: Backend) -> None:
    backend.link.shut_out()
    for task, asking in list(backend.certified.items()):
        if backend.cache.view.is_denied(asking.role, asking.name):
            logger.info("cut off %s %s: it was shut out", asking.role, asking.name)
            task.cancel()
