"""The agent's Unix socket passes what a host's unitctl asks on to a master."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from harness.api import an_api
from unit_agent.agent import Agent
from unit_agent.drivers.fake import FakeDriver, FakeHost
from unit_agent.listener import serving, socket_app
from unit_agent.local_copy import MemoryCopy
from unit_agent.machine import Facts
from unit_agent.relay import Relay
from unit_agent.timings import TIMINGS
from unitfleet import codec, keys
from unitfleet.errors import InvalidConfig
from unitfleet.listening import bind_tcp, bind_unix
from unitfleet.memory import MemoryStore
from unitfleet.model import Leader
from unitfleet.profiles import Profile


def master(released: asyncio.Event) -> web.Application:
    """Make a master that tells what it was asked, and streams until `released`."""

    async def echo(request: web.Request) -> web.Response:
        told = {
            "path": request.raw_path,
            "method": request.method,
            "token": request.headers.get("Authorization", ""),
            "body": await request.text(),
        }
        return web.json_response(told, status=202, headers={"X-Kept": "yes"})

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"id: 1\ndata: first\n\n")
        await released.wait()
        await response.write(b"id: 2\ndata: second\n\n")
        return response

    app = web.Application()
    app.router.add_get("/v1/stream", stream)
    app.router.add_route("*", "/v1/{rest:.*}", echo)
    return app


@contextlib.asynccontextmanager
async def relayed(path: Path, store: MemoryStore, local: MemoryCopy) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve an agent's socket and give a client of it."""
    agent = Agent(
        store,
        [FakeDriver(FakeHost())],
        Facts(id="m1", name="alpha", boot_id="b", fingerprint="f"),
        local,
        now=lambda: 0.0,
        rng=random.Random(1),
        timings=TIMINGS[Profile.DEFAULT],
    )
    with bind_unix(path) as listening:
        async with serving(socket_app(agent, Relay(store, local)), listening):
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
                yield session


async def test_a_request_reaches_the_master_with_the_callers_own_token(tmp_path: Path) -> None:
    store, local, released = MemoryStore(), MemoryCopy(), asyncio.Event()
    with bind_tcp("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        dead = "http://127.0.0.1:9"
        leader = Leader(nonce="n", name="x", api=(dead, f"http://127.0.0.1:{port}"))
        await store.put(keys.LEADER, codec.encode(leader))
        async with serving(master(released), listening), relayed(tmp_path / "s", store, local) as client:
            headers = {"Authorization": "Bearer mine"}
            target = URL("http://agent/v1/units/a%401.service?x=%2F", encoded=True)
            async with client.post(target, data=b"{}", headers=headers) as answer:
                assert (answer.status, answer.headers["X-Kept"]) == (202, "yes")
                told = await answer.json()
            assert told == {
                "path": "/v1/units/a%401.service?x=%2F",
                "method": "POST",
                "token": "Bearer mine",
                "body": "{}",
            }
            async with client.get("http://agent/v1/machines") as answer:
                assert (await answer.json())["token"] == "", "the agent lends nobody its own"
            store.link.cut()
            async with client.get("http://agent/v1/machines") as answer:
                assert answer.status == 202, "the address is known without the store"
        async with relayed(tmp_path / "s", store, local) as client:
            async with asyncio.timeout(20), client.get("http://agent/v1/machines") as answer:
                assert answer.status == 503
                assert (await answer.json())["code"] == "unavailable"
            async with asyncio.timeout(20), client.get("http://agent/v1-alpha/machines") as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (503, 503)


async def test_a_viewer_is_a_viewer_through_an_agent_too(tmp_path: Path) -> None:
    async with an_api() as api:
        _, made = await api.ask("POST", "/v1/tokens", body={"name": "ci", "role": "viewer"})
        leader = Leader(nonce="n", name="one", api=(f"http://127.0.0.1:{api.client.server.port}",))
        await api.outside.put(keys.LEADER, codec.encode(leader))
        async with relayed(tmp_path / "s", api.outside, MemoryCopy()) as client:
            for token, read, written in ((made["token"], 200, 403), ("nonsense", 401, 401)):
                headers = {"Authorization": f"Bearer {token}"}
                async with client.get("http://agent/v1/units", headers=headers) as answer:
                    assert answer.status == read
                async with client.get("http://agent/fleet/v1/machines", headers=headers) as answer:
                    assert answer.status == read
                async with client.post("http://agent/v1/cluster/hold", headers=headers) as answer:
                    assert answer.status == written


async def test_an_agent_never_uses_a_masters_unix_socket_for_others(tmp_path: Path) -> None:
    store, released = MemoryStore(), asyncio.Event()
    with bind_unix(tmp_path / "master") as listening:
        leader = Leader(nonce="n", name="x", api=(f"unix://{tmp_path / 'master'}",))
        await store.put(keys.LEADER, codec.encode(leader))
        async with serving(master(released), listening), relayed(tmp_path / "s", store, MemoryCopy()) as client:
            async with client.get("http://agent/v1/machines") as answer:
                assert answer.status == 503, "who reaches that socket is an admin"


async def test_a_stream_arrives_piece_by_piece(tmp_path: Path) -> None:
    store, released = MemoryStore(), asyncio.Event()
    with bind_tcp("127.0.0.1", 0) as listening:
        leader = Leader(nonce="n", name="x", api=(f"http://127.0.0.1:{listening.getsockname()[1]}",))
        await store.put(keys.LEADER, codec.encode(leader))
        async with serving(master(released), listening), relayed(tmp_path / "s", store, MemoryCopy()) as client:
            async with asyncio.timeout(10), client.get("http://agent/v1/stream") as answer:
                assert answer.content_type == "text/event-stream"
                assert await answer.content.readuntil(b"\n\n") == b"id: 1\ndata: first\n\n"
                released.set()
                assert await answer.content.readuntil(b"\n\n") == b"id: 2\ndata: second\n\n"


def test_the_socket_is_its_owners_alone_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"
    with bind_unix(path):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(InvalidConfig, match="another process serves it"):
            bind_unix(path)
    with bind_unix(path):
        pass
    path.unlink()
    path.write_text("precious")
    with pytest.raises(InvalidConfig):
        bind_unix(path)
    assert path.read_text() == "precious"
