"""An Engine that does not answer is away: nothing is known of what was asked, and nothing is concluded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from unit_agent.drivers.docker_engine import Engine, EngineRefused
from unitfleet.errors import DriverUnavailable


@contextlib.asynccontextmanager
async def an_engine(socket: Path, answer: Handler) -> AsyncIterator[Engine]:
    """Serve a fake Engine that answers everything with `answer`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, socket).start()
    engine = Engine(str(socket))
    try:
        yield engine
    finally:
        await engine.close()
        await runner.cleanup()


async def hang(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError("never")


async def break_off(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def refuse(request: web.Request) -> web.Response:
    return web.json_response({"message": "no such container"}, status=404)


async def test_an_engine_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    engine = Engine(str(tmp_path / "docker.sock"))
    try:
        with pytest.raises(DriverUnavailable, match="can't be reached"):
            await engine.inspect("c1")
        with pytest.raises(DriverUnavailable, match="can't be reached"):
            async with engine.stream("follow the Engine's events", "events", {}):
                pass
    finally:
        await engine.close()


async def test_an_engine_that_hangs_is_unavailable(tmp_path: Path) -> None:
    async with an_engine(tmp_path / "docker.sock", hang) as engine:
        listing = engine.docker.containers.list(all=True)
        with pytest.raises(DriverUnavailable, match=r"cannot list copies: .* within 0\.1 s"):
            await engine.call("list copies", listing, 0.1)


async def test_an_engine_that_breaks_off_is_unavailable(tmp_path: Path) -> None:
    async with an_engine(tmp_path / "docker.sock", break_off) as engine:
        with pytest.raises(DriverUnavailable):
            await engine.list({})


async def test_an_engine_that_says_no_has_answered(tmp_path: Path) -> None:
    async with an_engine(tmp_path / "docker.sock", refuse) as engine:
        with pytest.raises(EngineRefused, match="no such container") as raised:
            await engine.inspect("c1")
    assert raised.value.status == 404
    assert not isinstance(raised.value, DriverUnavailable)
