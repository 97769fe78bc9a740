"""An agent's listener alone, for what masters ask of it: it tells figures and bandwidth, and counts who reads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer

from harness.api import CLUSTER_KEY
from harness.builders import GIB, Built, a_record
from unitfleet import keys
from unitfleet.api import MachineFigures, NetLimits, UnitFigures, UnitNet
from unitfleet.findings import Checkup
from unitfleet.model import Capacity, MachineStatus, Presence, RosterEntry

CAPACITY = Capacity(cpu=4, memory=4 * GIB, egress=10**9, ingress=10**9)


@dataclass(slots=True)
class StubAgent:
    """What it tells may be changed at any time. `asked` counts every request, `readers` those that follow now."""

    name: str
    port: int = 0
    address: str = "127.0.0.1"
    asked: int = 0
    readers: int = 0
    most_readers: int = 0
    pace_s: float = 0.02
    units: tuple[UnitFigures, ...] = ()
    net: tuple[UnitNet, ...] = ()
    refuses: bool = False
    checkup: Checkup | None = None  # None: it does not come to an answer
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    def built(self, nonce: str = "n1") -> Built:
        """Return its machine's records."""
        roster = RosterEntry(
            id=self.name,
            name=self.name,
            status=MachineStatus.READY,
            join=1,
            address="127.0.0.1",
            capacity=CAPACITY,
        )
        presence = Presence(
            id=self.name,
            name=self.name,
            nonce=nonce,
            boot_id="b",
            fingerprint="f",
            address=self.address,
            port=self.port,
            drivers=("docker", "process"),
            capacity=CAPACITY,
        )
        records = a_record(keys.roster(self.name), roster), a_record(keys.presence(self.name), presence)
        return Built(tuple(piece for record in records for piece in record.pieces))

    async def figures(self, request: web.Request) -> web.StreamResponse:
        """Tell a line as often as its pace says."""
        self.asked += 1
        if self.refuses or request.headers.get("Authorization") != f"Bearer {CLUSTER_KEY}":
            return web.json_response({"code": "denied", "message": "cannot answer this"}, status=401)
        self.readers += 1
        self.most_readers = max(self.most_readers, self.readers)
        try:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(msgspec.json.encode(self._line()) + b"\n")
                await asyncio.sleep(self.pace_s)
        finally:
            self.readers -= 1

    async def bandwidth(self, request: web.Request) -> web.Response:
        """Tell what is in force."""
        self.asked += 1
        return web.Response(
            body=msgspec.json.encode(NetLimits(machine=self.name, name=self.name, at=1.0, units=self.net))
        )

    async def examined(self, request: web.Request) -> web.Response:
        """Tell how it is, or hang."""
        self.asked += 1
        if self.checkup is None:
            await asyncio.Event().wait()
        return web.Response(body=msgspec.json.encode(self.checkup))

    def _line(self) -> MachineFigures:
        used = Capacity(cpu=1.5, memory=GIB, egress=20_000_000)
        return MachineFigures(
            machine=self.name, name=self.name, at=1.0, capacity=CAPACITY, used=used, load=0.5, units=self.units
        )


@contextlib.asynccontextmanager
async def stub_agent(name: str) -> AsyncIterator[StubAgent]:
    """Serve a stub agent on loopback."""
    agent = StubAgent(name)
    app = web.Application()
    app.router.add_get("/v1/figures", agent.figures)
    app.router.add_get("/v1/net", agent.bandwidth)
    app.router.add_get("/v1/checkup", agent.examined)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    assert server.port is not None
    agent.port = server.port
    try:
        yield agent
    finally:
        await server.close()
