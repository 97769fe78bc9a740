"""What the handlers of the API work with, and how they read a request and write an answer."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import msgspec
from aiohttp import web

from unit_master.access.callers import Caller
from unit_master.access.tokens import Tokens
from unit_master.answers import STATUS, error_body
from unit_master.api.agents import AgentLink
from unit_master.api.subscriptions import Figures
from unit_master.archive.central import CentralSearch
from unit_master.archive.query import EVER
from unit_master.audit.central import AuditSearch
from unit_master.audit.trail import Trail
from unit_master.cache import Cache
from unit_master.changes import Changer
from unit_master.doctor.gather import Doctor
from unit_master.etcd_roles.protecting import Protecting
from unit_master.identities import AGENT
from unit_master.joins import Joins
from unit_master.metrics import MasterMetrics
from unit_master.orders import Orders
from unit_master.peers import Peers
from unit_master.secrets.keep import Secrets
from unitfleet import foreign
from unitfleet.api import ErrorBody, Items
from unitfleet.errors import UnitfleetError
from unitfleet.tls import Peer

T = TypeVar("T")

CATCH_UP_S = 10.0
"""How long a read waits for the revision that it was asked for."""

WRITE_S = 30.0
"""A reader that takes nothing for this long is cut off; it resumes where it was."""

MOST_STREAMS = 256


@dataclass(slots=True)
class Backend:
    """The parts of a master that the API shows. `grace_s` is the leader's, for what the brake would say."""

    name: str
    cache: Cache
    changer: Changer
    orders: Orders
    tokens: Tokens
    secrets: Secrets
    trail: Trail
    """What is changed through this master is written there first."""
    audit: AuditSearch
    peers: Peers
    session: aiohttp.ClientSession
    cluster_key: str
    now: Callable[[], float]
    grace_s: float
    metrics: MasterMetrics = field(default_factory=MasterMetrics)
    metrics_token: str = ""
    """Opens what Prometheus asks for, and nothing else; "" when there is none."""
    addresses: tuple[str, ...] = ()
    """Where this master's API answers."""
    archive: CentralSearch | None = None
    """Finds what units wrote, in the archives of all masters."""
    joins: Joins | None = None
    """Lets hosts in; None for a master without an identity, which speaks no TLS."""
    protecting: Protecting | None = None
    """Lets etcd ask who writes what."""
    streams: set[asyncio.Task[Any]] = field(default_factory=set)
    held_by: dict[asyncio.Task[Any], str] = field(default_factory=dict)
    """Requests that may last for hours, and the id of the token that opened them."""
    certified: dict[asyncio.Task[Any], Peer] = field(default_factory=dict)
    """Requests under way, by those who showed a certificate."""
    link: AgentLink = field(init=False)
    figures: Figures = field(init=False)
    doctor: Doctor = field(init=False)

    def __post_init__(self) -> None:
        tls = self.joins is not None
        self.link = AgentLink(
            self.session,
            self.cluster_key,
            tls=tls,
            is_denied=lambda machine: self.cache.view.is_denied(AGENT, machine),
        )
        self.figures = Figures(self.cache, self.link, self.now)
        self.doctor = Doctor(
            self.name,
            self.cache,
            self.trail,
            self.link,
            self.peers,
            self.now,
            self.grace_s,
            encrypted=tls,
            asks=self.protecting.asks if self.protecting else None,
        )

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Count the present request among the streams, which end when the API closes; raises `ApiError`."""
        if len(self.streams) >= MOST_STREAMS:
            raise ApiError(
                "busy", f"cannot open a stream: {MOST_STREAMS} are open", "close some, or ask another master"
            )
        task = asyncio.current_task()
        assert task is not None
        self.streams.add(task)
        try:
            yield
        finally:
            self.streams.discard(task)


BACKEND = web.AppKey("backend", Backend)
CALLER = web.RequestKey("caller", Caller)
"""Who sent a request that came in."""


class ApiError(Exception):
    """An answer that is an error of the request itself; `headers` go with it."""

    def __init__(self, code: str, message: str, hint: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.body = ErrorBody(code=code, message=message, hint=hint)
        self.headers = headers or {}


def answer(value: Any, status: int = 200) -> web.Response:
    """Write a value as JSON."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def refusal(body: ErrorBody) -> web.Response:
    """Write an error, with the status that its code has."""
    return answer(body, STATUS[body.code])


def refused(error: UnitfleetError) -> web.Response:
    """Write an error of ours."""
    return refusal(error_body(error))


def items(backend: Backend, found: list[Any] | tuple[Any, ...]) -> web.Response:
    """Write a list as of the view's revision."""
    return answer(Items(rev=backend.cache.view.revision, items=tuple(found)))


async def backend_at_revision(request: web.Request) -> Backend:
    """Return the backend once its cache has seen `?min_revision=`, and everything when there is none."""
    backend = request.app[BACKEND]
    await backend.cache.wait_for_asked(number(request, "min_revision", 0), CATCH_UP_S)
    return backend


def number(request: web.Request, name: str, default: int, most: int = 2**63 - 1) -> int:
    """Return a whole number from the query; raises `ApiError`."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise ApiError("invalid_request", f"cannot use {name}={text[:40]!a}: a number from 0 to {most} is wanted")
    return int(text)


def moment(request: web.Request, name: str, default: float) -> float:
    """Return a time of the query, seconds since 1970; raises `ApiError`."""
    text = request.query.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= EVER:
        raise ApiError("invalid_request", f"cannot use {name}={text[:40]!a}: seconds since 1970 are wanted")
    return value


def flag(request: web.Request, name: str) -> bool:
    """Return a yes or no from the query; raises `ApiError`."""
    text = request.query.get(name, "")
    if text not in ("", "0", "1", "false", "true"):
        raise ApiError("invalid_request", f"cannot use {name}={text[:40]!a}: true or false is wanted")
    return text in ("1", "true")


async def body(request: web.Request, kind: type[T]) -> T:
    """Read a JSON body; raises `ApiError`, or aiohttp's error for one that is too large."""
    if request.content_type != "application/json":
        raise ApiError(
            "unsupported_media", f"cannot read a body of type {request.content_type}", "send application/json"
        )
    try:
        return foreign.decode(await request.read(), kind)
    except msgspec.MsgspecError as error:
        raise ApiError("invalid_request", f"cannot read the body: {error}") from error


@contextlib.asynccontextmanager
async def reader_may_go(request: web.Request) -> AsyncIterator[None]:
    """End quietly when the reader of a stream went away, or takes nothing any more."""
    try:
        yield
    except* ConnectionResetError:
        pass
    except* TimeoutError:
        if request.transport is not None:
            request.transport.abort()  # what is buffered will never be read: don't wait for it
