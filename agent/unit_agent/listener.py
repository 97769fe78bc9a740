"""What an agent answers: to masters by TCP with the cluster's key, to its own host by a Unix socket.

GET  /healthz                          Health; 200 while the agent works, by TCP without a key
GET  /v1/units                         items: UnitState of this machine              (TCP)
GET  /v1/logs/NAME?lines=&follow=      lines of JSON LogLine                         (TCP)
GET  /local/ps                         AgentStatus                                   (socket, as all below)
GET  /local/logs/NAME?lines=&follow=   lines of JSON LogLine
POST /local/start/NAME, /local/stop/NAME, /local/accept-store     202
*    /v1/…                             passed on to a master (unit_agent.relay)
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import socket
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from unit_agent import driver
from unit_agent.agent import Agent
from unit_agent.relay import Relay
from unitfleet.api import ErrorBody, Items, LogLine
from unitfleet.errors import DriverError, NotFound, UnitfleetError

logger = logging.getLogger(__name__)

LINES = 100
MOST_LINES = 100_000
WRITE_S = 60.0
"""A reader that takes nothing for so long is gone."""

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


def tcp_app(agent: Agent, cluster_key: str) -> web.Application:
    """Return what masters may ask; without a cluster key nothing but `/healthz`."""
    app = web.Application(middlewares=[_errors, _key_wanted(cluster_key)])
    app[AGENT] = agent
    app.router.add_get("/healthz", _health)
    app.router.add_get("/v1/units", _units)
    app.router.add_get("/v1/logs/{name}", _logs)
    return app


def socket_app(agent: Agent, relay: Relay) -> web.Application:
    """Return what this host may ask; the socket's mode says who that is."""
    app = web.Application(middlewares=[_errors], client_max_size=16 * 1024 * 1024)
    app[AGENT] = agent
    app[RELAY] = relay
    app.router.add_get("/healthz", _health)
    app.router.add_get("/local/ps", _ps)
    app.router.add_get("/local/logs/{name}", _logs)
    app.router.add_post("/local/start/{name}", _start)
    app.router.add_post("/local/stop/{name}", _stop)
    app.router.add_post("/local/accept-store", _accept_store)
    app.router.add_route("*", "/v1/{rest:.*}", _relay)
    return app


@contextlib.asynccontextmanager
async def serving(app: web.Application, listening: socket.socket) -> AsyncIterator[None]:
    """Serve `app` on a socket meanwhile. A handler ends when its reader goes away."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
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


def _key_wanted(cluster_key: str) -> Middleware:
    expected = f"Bearer {cluster_key}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if request.path != "/healthz" and not (cluster_key and hmac.compare_digest(given, expected)):
            hint = "masters and agents share --cluster-key-file" if cluster_key else "give it --cluster-key-file"
            return error_response("denied", "cannot answer this: the cluster's key is asked for", hint, 401)
        return await handler(request)

    return check


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


async def _logs(request: web.Request) -> web.StreamResponse:
    """Write the output as it comes; what goes wrong before the first line is an error of its own."""
    agent = request.app[AGENT]
    given = request.query.get("lines", str(LINES))
    if not (given.isascii() and given.isdigit() and len(given) < 10 and int(given) <= MOST_LINES):
        return error_response("invalid_request", f"cannot use lines={given[:40]!a}: 0 to {MOST_LINES}", "", 400)
    follow = request.query.get("follow", "") in ("1", "true")
    reading = agent.logs(request.match_info["name"], lines=int(given), follow=follow)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
    if follow:
        await response.prepare(request)  # the first line may be long in coming
    async with contextlib.aclosing(reading) as lines:
        async for line in lines:
            if not response.prepared:
                await response.prepare(request)
            async with asyncio.timeout(WRITE_S):
                await response.write(_ndjson(line, agent.facts.name))
    if not response.prepared:
        await response.prepare(request)
    return response


def _ndjson(line: driver.LogLine, machine: str) -> bytes:
    told = LogLine(at=line.at, stream=line.stream, text=line.text, machine=machine)
    return msgspec.json.encode(told) + b"\n"


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
