"""Identities over the API: join tokens for admins, joining and renewing for hosts."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import msgspec
from aiohttp import web

from unit_master.api import certified
from unit_master.api.backend import BACKEND, ApiError, Backend, answer, body, items
from unit_master.identities import WINDOW_S
from unit_master.joins import InTheWay, Joins, NotNow, TokenRefused, TooMany
from unitfleet import foreign
from unitfleet.api import Revision
from unitfleet.joinapi import JoinRequest, JoinTokenWish, RenewRequest, Role

T = TypeVar("T")

CA_MEDIA = "application/x-pem-file"


async def make_token(request: web.Request) -> web.Response:
    """Make a join token; its secret is told now and never again."""
    backend = request.app[BACKEND]
    wish = await body(request, JoinTokenWish)
    own = tuple(address for address in backend.addresses if address.startswith("https://"))
    return answer(await _told(_joins(request).make_token(wish, own)), 201)


async def list_tokens(request: web.Request) -> web.Response:
    """Return the join tokens that are not over, without their secrets."""
    return items(request.app[BACKEND], _joins(request).tokens())


async def remove_token(request: web.Request) -> web.Response:
    """Make a join token good for nobody."""
    return answer(Revision(rev=await _joins(request).remove_token(request.match_info["token"])), 202)


async def show_ca(request: web.Request) -> web.Response:
    """Return the cluster's authority, as PEM: for who knows its digest."""
    return web.Response(body=_joins(request).signing.ca, content_type=CA_MEDIA)


async def join(request: web.Request) -> web.Response:
    """Let a host in by a join token and sign its certificate."""
    if request.scheme != "https":
        raise ApiError("denied", "cannot join: a host joins by TLS", "ask the https address of a master")
    wish = await body(request, JoinRequest)
    return answer(await _told(_joins(request).join(wish, request.remote or "")))


def may_be_let_in(backend: Backend, raw: bytes) -> bool:
    """Tell whether a request to join is for a token that is known here. The store decides, and may know others."""
    try:
        wish = foreign.decode(raw, JoinRequest)
    except msgspec.MsgspecError:
        return False
    return backend.joins is not None and wish.id in backend.cache.view.join_tokens


async def renew(request: web.Request) -> web.Response:
    """Sign a new certificate for who shows a present one."""
    asking = certified.peer(request)
    if asking is None or asking.role not in (Role.AGENT, Role.MASTER):
        raise ApiError("denied", "cannot renew: the connection shows no certificate of an agent or a master")
    assert request.transport is not None
    shown = request.transport.get_extra_info("peercert")
    hosts = tuple(value for _, value in shown.get("subjectAltName", ()))
    wish = await body(request, RenewRequest)
    return answer(await _told(_joins(request).renew(wish, asking.role, asking.name, hosts)))


def _joins(request: web.Request) -> Joins:
    joins = request.app[BACKEND].joins
    if joins is None:
        raise ApiError(
            "refused",
            "cannot do this: this cluster has no identities, its masters run without TLS",
            "unitctl cluster init makes them (docs/certificates.md)",
        )
    return joins


async def _told(doing: Awaitable[T]) -> T:
    try:
        return await doing
    except TokenRefused as error:
        raise ApiError("denied", error.message, error.hint or "") from error
    except TooMany as error:
        raise ApiError("too_many", error.message, error.hint or "", {"Retry-After": f"{WINDOW_S:.0f}"}) from error
    except InTheWay as error:
        raise ApiError("not_yet", error.message, error.hint or "") from error
    except NotNow as error:
        raise ApiError("busy", error.message, error.hint or "") from error
