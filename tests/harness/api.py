"""A master's API in this process, over a memory store: what its functional tests ask."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import TestClient, TestServer

from harness.builders import Built
from harness.eventually import eventually
from unit_master.access.floods import Bounds, Rate
from unit_master.access.tokens import Tokens
from unit_master.api.admission import end_streams_of_removed, tcp_door, unix_door
from unit_master.api.backend import Backend
from unit_master.api.server import make_app
from unit_master.audit.central import AuditSearch
from unit_master.audit.trail import Trail
from unit_master.cache import Cache
from unit_master.changes import Changer
from unit_master.joins import Joins, Signing
from unit_master.orders import Orders
from unit_master.peers import Peers
from unit_master.secrets.keep import Secrets
from unitfleet import certificates, codec, keys
from unitfleet.memory import MemoryStore
from unitfleet.model import Unit

TOKEN = "a-token-of-the-tests"
CLUSTER_KEY = "the-key-of-the-cluster"
SECRETS_KEY = "5e" * 32
NOW = 1_700_000_000.0
ROOMY = Bounds(reads=Rate(10_000, 10_000), writes=Rate(10_000, 10_000))
"""For tests that are about something else."""

TEXT = "[Service]\nExecStart=/bin/sleep 1000\n"


@dataclass(slots=True)
class Api:
    """The API, its store (`outside`: another client, whose link stays whole) and its cache."""

    client: TestClient[Any, Any]
    store: MemoryStore
    outside: MemoryStore
    cache: Cache
    trail: Trail

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Return status and JSON of an answer."""
        sent_raw = raw if raw is not None else None if body is None else json.dumps(body).encode()
        data = None if sent_raw is None else io.BytesIO(sent_raw)
        sent = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **(headers or {})}
        async with self.client.request(method, path, data=data, headers=sent) as response:
            return response.status, json.loads(await response.read())

    async def change(self, *changes: dict[str, Any]) -> list[dict[str, Any]]:
        """Carry out wishes and return what became of each; the cache has seen it then."""
        status, told = await self.ask("POST", "/v1/units", body={"changes": changes})
        assert status == 202, told
        await self.cache.wait_for(told["rev"], 5.0)
        items: list[dict[str, Any]] = told["items"]
        return items

    async def put(self, *built: Built) -> None:
        """Write records as another writer would, and wait until the cache has them."""
        revision = 0
        for some in built:
            for key, value in some.pieces:
                revision = await self.outside.put(key, value)
        await self.cache.wait_for(revision, 5.0)

    async def unit(self, name: str) -> Unit | None:
        """Return the unit's record in the store."""
        kv = await self.outside.get(keys.unit(name))
        return codec.decode(kv.value, Unit) if kv else None

    async def present(self, name: str = "a.service") -> Unit:
        """Return the record of a unit that must be there."""
        unit = await self.unit(name)
        assert unit is not None
        return unit

    async def contents(self) -> dict[str, bytes]:
        """Return every key in the store."""
        return {item.key: item.value for item in (await self.outside.list("")).items}

    @contextlib.asynccontextmanager
    async def stream(self, path: str, headers: dict[str, str] | None = None) -> AsyncIterator[Stream]:
        """Open a stream of events."""
        sent = {"Authorization": f"Bearer {TOKEN}", "Accept": "text/event-stream", **(headers or {})}
        async with self.client.get(path, headers=sent) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            yield Stream(response)


@dataclass(slots=True)
class Stream:
    """An open stream of events."""

    response: aiohttp.ClientResponse

    async def next(self, within_s: float = 5.0) -> dict[str, Any]:
        """Return the next message; its id is its revision."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(within_s):
            while True:
                line = (await self.response.content.readline()).decode().rstrip("\n")
                assert line or fields, "the stream ended"
                if not line:
                    message: dict[str, Any] = json.loads(fields["data"])
                    assert int(fields["id"]) == message["rev"]
                    return message
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
                else:
                    await self.response.content.readline()  # the end of a comment

    async def until(self, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first message that `enough` accepts."""
        while not enough(message := await self.next()):
            pass
        return message


@contextlib.asynccontextmanager
async def an_api(
    *,
    token: str | None = TOKEN,
    built: Sequence[Built] = (),
    synced: bool = True,
    relist_s: float = 300.0,
    bounds: Bounds = ROOMY,
    outside: MemoryStore | None = None,
    name: str = "one",
    now: Callable[[], float] = lambda: NOW,
    secrets_key: str = SECRETS_KEY,
    identities: bool = False,
) -> AsyncIterator[Api]:
    """Serve the API over a store that holds `built`; without `synced` the way to it is cut from the start.

    `token` is the admin's, None serves it as the Unix socket does. Masters of one cluster share `outside`. With
    `identities` it can let hosts in and speaks TLS to others; it is served in the clear all the same.
    """
    outside = outside or MemoryStore()
    for some in built:
        for key, value in some.pieces:
            await outside.put(key, value)
    store = outside.client(name)
    store.timeout_s = 0.3
    cache = Cache(store, relist_s=relist_s)
    rng = random.Random(1)
    if not synced:
        store.link.cut()
    async with aiohttp.ClientSession() as session, contextlib.AsyncExitStack() as stack:
        peers = Peers(session, CLUSTER_KEY)
        trail = Trail(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uf-audit-"))))
        backend = Backend(
            name=name,
            cache=cache,
            changer=Changer(store, cache, now=now, rng=rng),
            orders=Orders(store, cache, now=now),
            tokens=Tokens(store, cache, now=now),
            secrets=Secrets(store, cache, secrets_key, now=now),
            trail=trail,
            audit=AuditSearch(name, trail, cache, peers),
            peers=peers,
            session=session,
            cluster_key=CLUSTER_KEY,
            now=now,
            grace_s=2.0,
            joins=_joins(store, cache, now) if identities else None,
        )
        door = unix_door() if token is None else tcp_door(backend, token, [name], bounds)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(cache.run())
            figures = tasks.create_task(backend.figures.run())
            expelling = tasks.create_task(end_streams_of_removed(backend))
            client = await stack.enter_async_context(TestClient(TestServer(make_app(backend, door))))
            try:
                if synced:
                    await cache.wait_for(0, 5.0)
                yield Api(client, store, outside, cache, trail)
            finally:
                await stack.aclose()
                following.cancel()
                figures.cancel()
                expelling.cancel()


def _joins(store: MemoryStore, cache: Cache, now: Callable[[], float]) -> Joins:
    authority = certificates.make_ca("test", now())
    return Joins(store, cache, Signing(authority.certificate, authority), now=now)


async def becomes(condition: Callable[[], bool], what: str, within_s: float = 5.0) -> None:
    """Wait until `condition` holds."""

    async def look() -> bool:
        return condition()

    await eventually(look, within_s=within_s, what=lambda: what)


def start(name: str = "a.service", text: str | None = TEXT, **more: Any) -> dict[str, Any]:
    """Wish that a unit of this text runs."""
    return {"name": name, "text": text, "target": "launched", **more}


def wish(target: str, name: str = "a.service", **more: Any) -> dict[str, Any]:
    """Wish for a target state."""
    return {"name": name, "target": target, **more}
