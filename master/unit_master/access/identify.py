"""Say who sent a request: a chain of ways to tell, the first that knows the caller decides.

A later way, such as a client's certificate, is one more function in the chain.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Sequence

from aiohttp import web

from unit_master.access import tokens
from unit_master.access.callers import NO_TOKEN, UNIX, UNKNOWN_TOKEN, Caller, Denied
from unit_master.cache import Cache
from unitfleet.api import AGENT_HEADER
from unitfleet.fleetapi import is_fleets
from unitfleet.model import Role

Way = Callable[[web.Request], Caller | Denied | None]
"""Returns who the caller is, that they are surely denied, or None when this way can't tell."""


def identify(request: web.Request, ways: Sequence[Way]) -> Caller | Denied:
    """Return who sent the request."""
    for way in ways:
        found = way(request)
        if found is not None:
            return found
    return UNKNOWN_TOKEN if request.headers.get("Authorization") else NO_TOKEN


def local(request: web.Request) -> Caller:
    """Whoever can open the Unix socket: its mode says who that is."""
    return Caller("local", Role.ADMIN, UNIX)


def by_secret(secret: str, name: str, role: Role) -> Way:
    """Know the holder of one secret that a file has."""
    expected = _header(secret)

    def way(request: web.Request) -> Caller | None:
        right = secret and hmac.compare_digest(_given(request), expected)
        return Caller(name, role, source(request)) if right else None

    return way


def by_key(secret: str, name: str, paths: frozenset[str]) -> Way:
    """Know the holder of a key that opens these routes and no other; "" opens none."""
    expected = _header(secret)

    def way(request: web.Request) -> Caller | None:
        right = secret and pattern(request) in paths and hmac.compare_digest(_given(request), expected)
        return Caller(name, None, source(request)) if right else None

    return way


def by_agent(cache: Cache, cluster_key: str, paths: frozenset[str]) -> Way:
    """Know an agent without an identity, on these routes: by the cluster's key and the nonce of its presence.

    The key is the same for all; the nonce is told to nobody, and who reads it in the store can write there, too.
    """
    expected = _header(cluster_key)

    def way(request: web.Request) -> Caller | None:
        machine, _, nonce = request.headers.get(AGENT_HEADER, "").partition("/")
        entry = cache.view.presence.get(machine)
        if not cluster_key or entry is None or pattern(request) not in paths:
            return None
        shown = f"{nonce}\0".encode("utf-8", "surrogateescape") + _given(request)
        right = hmac.compare_digest(shown, f"{entry.value.nonce}\0".encode() + expected)
        return Caller(f"agent {machine}", None, source(request), machine=machine) if right else None

    return way


def by_token(cache: Cache, now: Callable[[], float]) -> Way:
    """Know the holder of a token in the store, as this master's view of it is at this moment."""

    def way(request: web.Request) -> Caller | Denied | None:
        scheme, _, text = _given(request).decode("utf-8", "surrogateescape").partition(" ")
        token = tokens.find(cache.view, text) if scheme == "Bearer" else None
        if token is None:
            return None
        if tokens.expired(token, now()):
            return Denied(
                f'its token "{token.name}" has expired',
                "ask an admin for another: unitctl token create",
                "expired",
            )
        return Caller(token.name, token.role, source(request), token.id)

    return way


def source(request: web.Request) -> str:
    """Return the peer's address."""
    return request.remote or UNIX


def pattern(request: web.Request) -> str:
    """Return the pattern of the request's route, "" when it has none."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""


def _given(request: web.Request) -> bytes:
    """Return what the caller shows. On fleet's paths a password is taken for a token: its clients have no other.

    A browser that keeps a password can do no harm there: no route takes what a page may send by itself.
    """
    given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    scheme, _, coded = given.partition(b" ")
    if scheme != b"Basic" or not is_fleets(request.path):
        return given
    try:
        return b"Bearer " + base64.b64decode(coded, validate=True).partition(b":")[2]
    except binascii.Error:
        return given


def _header(secret: str) -> bytes:
    return f"Bearer {secret}".encode()
