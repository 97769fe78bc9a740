"""What an agent answers: to masters by TCP, to its own host by a Unix socket.

By TLS a master is who shows a master's certificate of this cluster; without TLS, who has the cluster's key.

GET  /healthz                          Health; 200 while the agent works, by TCP without a key
GET  /v1/units                         items: UnitState of this machine              (TCP)
GET  /v1/logs/NAME?lines=&follow=&…    lines of JSON LogLine (unit_agent.logs.serve)  (TCP)
GET  /local/ps                         AgentStatus                                   (socket, as all below)
GET  /local/logs/NAME?lines=&follow=&… lines of JSON LogLine
POST /local/start/NAME, /local/stop/NAME, /local/accept-store     202
*    /v1/…, /fleet/v1/…, /v1-alpha/…   passed on to a master (unit_agent.relay)
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from unit_agent.agent import Agent
from unit_agent.relay import Relay
from unitfleet import fleetapi
from unitfleet.api import ErrorBody, Items
from unitfleet.errors import DriverError, NotFound, UnitfleetError
from unitfleet.joinapi import Role
from unitfleet.tls import peer_of

logger = logging.getLogger(__name__)

LOCAL = "/local/"
"""Paths that only this host may ask."""

METRICS = "/metrics"

AGENT = web.AppKey("agent", Agent)
RELAY = web.AppKey("relay", Relay)


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`/healthz`: `keep_everything` says why this agent does not trust its store, "" when it does."""

    status: str
    machine: str
    name: str
    standing: bool
    synced: bool
    keep_everything: str


def tcp_app(agent: Agent, cluster_key: str, metrics_token: str = "", *, tls: bool = False) -> web.Application:
    """Return what masters may ask, and Prometheus by its token; without a key nothing but `/healthz`.

    With `tls` no key opens anything: masters show their certificates.
    """
    app = web.Application(middlewares=[_errors, _master_wanted(cluster_key, metrics_token, tls=tls)])
    app[AGENT] = agent
    app.router.add_get("/healthz", _health)
    app.router.add_get("/v1/units", _units)
    app.router.add_routes(route for route in _of_duties(agent) if not route.path.startswith(LOCAL))
    return app


def socket_app(agent: Agent, relay: Relay) -> web.Application:
    """Return what this host may ask; the socket's mode says who that is."""
    app = web.Application(middlewares=[_errors], client_max_size=16 * 1024 * 1024)
    app[AGENT] = agent
    app[RELAY] = relay
    app.router.add_get("/healthz", _health)
    app.router.add_get("/local/ps", _ps)
    app.router.add_post("/local/start/{name}", _start)
    app.router.add_post("/local/stop/{name}", _stop)
    app.router.add_post("/local/accept-store", _accept_store)
    app.router.add_routes(route for route in _of_duties(agent) if route.path.startswith(LOCAL))
    for prefix in ("/v1", fleetapi.PREFIX, fleetapi.ALIAS):
        app.router.add_route("*", f"{prefix}/{{rest:.*}}", _relay)
    return app


def _of_duties(agent: Agent) -> list[web.RouteDef]:
    return [route for duty in agent.duties for route in duty.routes()]


@contextlib.asynccontextmanager
async def serving(
    app: web.Application, listening: socket.socket, context: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Serve `app` on a socket meanwhile. A handler ends when its reader goes away."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listening, ssl_context=context).start()
        yield
    finally:
        await runner.cleanup()


def error_response(code: str, message: str, hint: str, status: int) -> web.Response:
    """Write an error as the API does."""
    return _answer(ErrorBody(code=code, message=message, hint=hint), status)


def _answer(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except NotFound as error:
        return error_response("not_found", error.message, error.hint or "", 404)
    except DriverError as error:
        return error_response("unavailable", error.message, error.hint or "", 503)
    except UnitfleetError as error:
        return error_response("refused", error.message, error.hint or "", 409)
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise  # the reader is gone
        return error_response("unavailable", f"cannot save this: {error}", "", 503)


def _master_wanted(cluster_key: str, metrics_token: str, *, tls: bool) -> Middleware:
    expected = f"Bearer {cluster_key}".encode()
    of_prometheus = f"Bearer {metrics_token}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        known = _is_master(request) if tls else bool(cluster_key) and hmac.compare_digest(given, expected)
        if request.path == METRICS and metrics_token:
            known = known or hmac.compare_digest(given, of_prometheus)
        if request.path != "/healthz" and not known and tls:
            hint = "ask a master of the cluster"
            response = error_response(
                "denied", "cannot answer this: a master's certificate is asked for", hint, 401
            )
            response.force_close()  # a master that has a new one shows it on a new connection
            return response
        if request.path != "/healthz" and not known:
            hint = "masters and agents share --cluster-key-file" if cluster_key else "give it --cluster-key-file"
            return error_response("denied", "cannot answer this: the cluster's key is asked for", hint, 401)
        return await handler(request)

    return check


def _is_master(request: web.Request) -> bool:
    shown = request.transport.get_extra_info("peercert") if request.transport is not None else None
    asking = peer_of(shown)
    return asking is not None and asking.role == Role.MASTER and time.time() <= asking.not_after


async def _health(request: web.Request) -> web.Response:
    status = request.app[AGENT].status()
    return _answer(
        Health(
            status="keeps everything" if status.keep_everything else "ok",
            machine=status.machine,
            name=status.name,
            standing=status.standing,
            synced=status.synced,
            keep_everything=status.keep_everything,
        )
    )


async def _units(request: web.Request) -> web.Response:
    agent = request.app[AGENT]
    return _answer(Items(rev=agent.sync.revision, items=tuple(agent.states())))


async def _ps(request: web.Request) -> web.Response:
    return _answer(request.app[AGENT].status())


async def _start(request: web.Request) -> web.Response:
    await request.app[AGENT].local_start(request.match_info["name"])
    return _answer({}, 202)


async def _stop(request: web.Request) -> web.Response:
    await request.app[AGENT].local_stop(request.match_info["name"])
    return _answer({}, 202)


async def _accept_store(request: web.Request) -> web.Response:
    await request.app[AGENT].accept_store()
    return _answer({}, 202)


async def _relay(request: web.Request) -> web.StreamResponse:
    return await request.app[RELAY].answer(request)
