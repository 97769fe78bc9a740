"""A world for one agent: a store in memory, a fake host and a driver for it, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from harness.builders import SERVICE, digest_of
from harness.virtual_time import run_virtual
from unit_agent.agent import Agent
from unit_agent.driver import Copy
from unit_agent.drivers.fake import FakeDriver, FakeHost
from unit_agent.local_copy import MemoryCopy
from unit_agent.machine import Facts
from unit_agent.timings import TIMINGS
from unitfleet import codec, keys
from unitfleet.errors import DriverError
from unitfleet.memory import MemoryServer, MemoryStore
from unitfleet.model import (
    Cluster,
    CopyPhase,
    Placement,
    Presence,
    Record,
    UnitState,
    Wanted,
)
from unitfleet.profiles import Profile

R = TypeVar("R", bound=Record)

M = "m1"
RESTARTING = SERVICE + "Restart=always\n"


class HazyHost(FakeHost):
    """A host whose driver lists nothing while it is `blind`, and can't tell of one copy while it is `mute`."""

    blind = mute = False


class HazyDriver(FakeDriver):
    """The driver of a `HazyHost`."""

    def __init__(self, host: HazyHost, name: str) -> None:
        super().__init__(host, name)
        self._hazy = host

    async def list(self) -> Sequence[Copy]:
        return () if self._hazy.blind else await super().list()

    async def find(self, unit: str) -> Copy | None:
        if self._hazy.mute:
            raise DriverError(f"cannot look for {unit}: mute")
        return await super().find(unit)


class World:
    """A store, one host with its local copy, and the agent that runs there now and then."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.admin = MemoryStore(self.server, name="admin")
        self.host = HazyHost()
        self.local = MemoryCopy()
        self.facts = Facts(id=M, name="alpha", boot_id="b1", fingerprint="f1")
        self.store = self.admin.client(M)
        self.epoch = 0
        self.driver_names: tuple[str, ...] = ("process",)
        self.driver_type: type[FakeDriver] = HazyDriver

    async def prepare(self) -> None:
        await self.admin.put(keys.CLUSTER, codec.encode(Cluster(id="c1")))

    @contextlib.asynccontextmanager
    async def agent(self, **wishes: Any) -> AsyncIterator[Agent]:
        """Run an agent; leaving is a kill -9: nothing is saved or said."""
        self.store = self.admin.client(M) if self.store._closed else self.store
        agent = Agent(
            self.store,
            [self.driver_type(self.host, name) for name in self.driver_names],
            wishes.pop("facts", self.facts),
            self.local,
            now=lambda: asyncio.get_running_loop().time(),
            rng=random.Random(wishes.pop("seed", 1)),
            timings=wishes.pop("timings", TIMINGS[Profile.DEFAULT]),
            **wishes,
        )
        task = asyncio.get_running_loop().create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def place(
        self, unit: str, wanted: Wanted = Wanted.LAUNCHED, *, text: str = SERVICE, **wishes: Any
    ) -> int:
        """Order something, as the leader does; return the epoch."""
        self.epoch += 1
        epoch: int = wishes.pop("epoch", self.epoch)
        await self.admin.put(keys.spec(digest_of(text)), text.encode())
        placement = Placement(
            unit=unit,
            machine=M,
            spec=digest_of(text),
            epoch=epoch,
            wanted=wanted,
            reason="least loaded",
            **{"incarnation": "i1", "restart": 0, **wishes},
        )
        await self.admin.put(keys.placement(M, unit), codec.encode(placement))
        return epoch

    async def read(self, key: str, kind: type[R]) -> R | None:
        found = await self.admin.get(key)
        return codec.decode(found.value, kind, key) if found else None

    async def state(self, unit: str) -> UnitState | None:
        return await self.read(keys.state(M, unit), UnitState)

    async def phase(self, unit: str) -> CopyPhase | None:
        state = await self.state(unit)
        return state.phase if state else None

    async def becomes(self, unit: str, phase: CopyPhase | None, within_s: float = 5.0) -> None:
        async def so() -> bool:
            return await self.phase(unit) is phase

        await until(so, within_s, f"{unit} {phase}")

    async def presence(self) -> Presence | None:
        return await self.read(keys.presence(M), Presence)

    async def stands(self, within_s: float = 5.0) -> None:
        async def so() -> bool:
            return await self.presence() is not None

        await until(so, within_s, "presence")


async def until(condition: Callable[[], Coroutine[Any, Any, bool]], within_s: float, what: str) -> None:
    """Wait for a condition, with a deadline in virtual seconds."""
    scope = asyncio.timeout(within_s)
    try:
        async with scope:
            while True:
                if await condition():
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not so within {within_s} s: {what}") from None


def story(tell: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    """Run one story in a new world."""

    async def told() -> None:
        world = World()
        await world.prepare()
        await tell(world)

    run_virtual(told(), limit_s=3600)
