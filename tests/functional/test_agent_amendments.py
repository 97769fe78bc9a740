"""An amended placement at an agent: its duties hear of it, and what has ended is not run again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from aiohttp import web

from functional.agent_world import RESTARTING, M, World, story, until
from unit_agent.driver import Copy
from unit_agent.drivers.fake import Behaviour
from unitfleet import codec, keys
from unitfleet.model import Bandwidth, CopyPhase, Placement


class Ear:
    """A duty that remembers of which units it was told."""

    name = "ear"

    def __init__(self) -> None:
        self.heard: list[str] = []

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        pass

    def order_changed(self, unit: str) -> None:
        self.heard.append(unit)

    async def run(self) -> None:
        await asyncio.Event().wait()

    def routes(self) -> Sequence[web.RouteDef]:
        return ()


async def amend(world: World) -> Placement:
    """Write the unit's placement with another bandwidth, as the leader does."""
    key = keys.placement(M, "a.service")
    order = await world.read(key, Placement)
    assert order is not None
    amended = msgspec.structs.replace(order, bandwidth=Bandwidth(egress=1_000_000))
    await world.admin.put(key, codec.encode(amended))
    return amended


@pytest.mark.parametrize(
    ("behaviour", "phase"),
    [
        (Behaviour(create_fails=1), CopyPhase.FAILED),
        (Behaviour(run_s=0.1), CopyPhase.FINISHED),
        (Behaviour(), CopyPhase.RUNNING),
    ],
    ids=["given up: it could not be created", "it has ended", "it runs"],
)
def test_an_amendment_starts_and_stops_nothing(behaviour: Behaviour, phase: CopyPhase) -> None:
    async def tell(world: World) -> None:
        world.host.behaviours["a.service"] = behaviour
        ear = Ear()
        async with world.agent() as agent:
            agent.duties.append(ear)
            await world.place("a.service")
            await world.becomes("a.service", phase)
            copies = dict(world.host.copies)
            ear.heard.clear()
            amended = await amend(world)

            async def told() -> bool:
                return ear.heard == ["a.service"] and agent.sync.placements["a.service"] == amended

            await until(told, 5.0, "the duties were told, and find it")
            agent.worker.consider_all()  # as when a driver answers again
            await asyncio.sleep(300)
            assert await world.phase("a.service") is phase
            assert dict(world.host.copies) == copies
            await world.place("a.service", epoch=amended.epoch + 1)  # an order, however, is one
            await world.becomes("a.service", CopyPhase.RUNNING)

    story(tell)


def test_an_amendment_does_not_cut_a_pause_short() -> None:
    async def tell(world: World) -> None:
        behaviour = world.host.behaviours["a.service"] = Behaviour(pull_fails=1000)
        async with world.agent() as agent:
            await world.place("a.service", text=RESTARTING)
            await asyncio.sleep(120)  # the pauses have grown by then
            left = behaviour.pull_fails

            async def tried() -> bool:
                return behaviour.pull_fails < left

            await until(tried, 120, "it is tried again")
            amended = await amend(world)

            async def told() -> bool:
                return agent.sync.placements["a.service"] == amended

            await until(told, 5.0, "the amendment is there")
            await asyncio.sleep(1.0)
            assert behaviour.pull_fails == left - 1

    story(tell)
