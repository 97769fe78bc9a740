"""What an agent makes of drivers that hang, fail or can't be asked, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from functional.agent_world import World, story, until
from unit_agent.driver import Copy, Order
from unit_agent.drivers.fake import FakeDriver
from unitfleet.errors import DriverUnavailable
from unitfleet.model import (
    CopyPhase,
    Wanted,
)


def test_a_driver_that_cannot_be_asked_is_no_proof_that_nothing_is_there() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            pid = world.host.copies["a.service"].pid
        world.host.list_fails = 1000
        async with world.agent() as agent:
            epoch = await world.place("a.service", Wanted.GONE)
            await asyncio.sleep(60)
            state = await world.state("a.service")
            assert state is not None and state.phase is CopyPhase.RUNNING and state.epoch < epoch
            assert world.host.copies["a.service"].pid == pid
            assert "does not answer" in agent.status().drivers["process"]
            world.host.list_fails = 0
            await world.becomes("a.service", CopyPhase.GONE, 90)

    story(tell)


def test_without_the_driver_of_a_unit_its_end_is_not_acknowledged() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
        world.driver_names = ()
        async with world.agent() as agent:
            await world.place("a.service", Wanted.GONE)
            await world.place("b.service")
            await asyncio.sleep(60)
            assert await world.phase("a.service") is CopyPhase.RUNNING
            assert await world.phase("b.service") is CopyPhase.WAITING
            agent.add_driver(FakeDriver(world.host, "process"))
            await world.becomes("a.service", CopyPhase.GONE)
            await world.becomes("b.service", CopyPhase.RUNNING)
            presence = await world.presence()
            assert presence is not None and presence.drivers == ("process",)

    story(tell)


def test_a_driver_that_hangs_for_one_unit_serves_the_others() -> None:
    class Hanging(FakeDriver):
        async def create(self, order: Order) -> Copy:
            if order.placement.unit == "h.service":
                await asyncio.Event().wait()
            return await super().create(order)

    async def tell(world: World) -> None:
        world.driver_type = Hanging
        async with world.agent(starts_at_once=1):
            await world.place("h.service")
            await world.place("z.service")
            await world.becomes("z.service", CopyPhase.RUNNING, 15)
            assert await world.phase("h.service") is CopyPhase.STARTING

    story(tell)


class Away(FakeDriver):
    """A driver whose Engine is away for some calls: it can't say what became of them."""

    calls = 0

    def gone(self) -> None:
        if type(self).calls > 0:
            type(self).calls -= 1
            raise DriverUnavailable("cannot do this: the Engine does not answer")

    async def create(self, order: Order) -> Copy:
        self.gone()
        return await super().create(order)

    async def stop(self, unit: str) -> None:
        self.gone()
        await super().stop(unit)


def test_a_unit_without_restart_waits_for_an_engine_that_is_away_and_is_not_given_up() -> None:
    async def tell(world: World) -> None:
        world.driver_type, Away.calls = Away, 3
        async with world.agent():
            await world.place("a.service")

            async def waits() -> bool:
                state = await world.state("a.service")
                assert state is None or state.phase is not CopyPhase.FAILED
                return state is not None and "does not answer" in state.message

            await until(waits, 5, "it waits for the Engine")
            assert await world.phase("a.service") is CopyPhase.WAITING
            await world.becomes("a.service", CopyPhase.RUNNING, 60)

    story(tell)


def test_a_copy_that_cannot_be_stopped_while_the_engine_is_away_is_told_as_stopping() -> None:
    async def tell(world: World) -> None:
        world.driver_type, Away.calls = Away, 0
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            Away.calls = 4
            await world.place("a.service", Wanted.GONE)
            await world.becomes("a.service", CopyPhase.STOPPING)
            await asyncio.sleep(0.5)
            assert await world.phase("a.service") is CopyPhase.STOPPING
            await world.becomes("a.service", CopyPhase.GONE, 60)

    story(tell)


def test_a_fault_in_a_driver_ends_neither_the_agent_nor_other_units() -> None:
    class Faulty(FakeDriver):
        async def create(self, order: Order) -> Copy:
            if order.placement.unit == "f.service":
                raise KeyError("unforeseen")
            return await super().create(order)

    async def tell(world: World) -> None:
        world.driver_type = Faulty
        async with world.agent():
            await world.place("f.service")
            await world.becomes("f.service", CopyPhase.RESTARTING)
            await world.place("z.service")
            await world.becomes("z.service", CopyPhase.RUNNING)

    story(tell)


@pytest.mark.parametrize("when", ["from the start", "later"])
def test_nothing_is_made_while_the_driver_cannot_tell_what_is_there(when: str) -> None:
    made: list[str] = []

    class Counting(FakeDriver):
        async def create(self, order: Order) -> Copy:
            made.append(order.placement.unit)
            return await super().create(order)

    async def tell(world: World) -> None:
        world.driver_type = Counting
        async with world.agent():
            if when == "later":
                await world.place("a.service")
                await world.becomes("a.service", CopyPhase.RUNNING)
            world.host.list_fails = 1000
            await asyncio.sleep(35)
            made.clear()
            await world.place("b.service")
            await asyncio.sleep(20)
            assert made == []
            state = await world.state("b.service")
            assert state is not None and "does not answer" in state.message
            world.host.list_fails = 0
            await world.becomes("b.service", CopyPhase.RUNNING, 90)

    story(tell)


def test_a_list_that_was_under_way_does_not_bring_back_what_a_step_removed() -> None:
    removed: list[str] = []

    class Lagging(FakeDriver):
        async def list(self) -> Sequence[Copy]:
            copies = await super().list()
            await asyncio.sleep(1)
            return copies

        async def remove(self, unit: str) -> None:
            removed.append(unit)
            await super().remove(unit)

    async def tell(world: World) -> None:
        world.driver_type = Lagging
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            await asyncio.sleep(10)
            world.host.print("a.service", "wakes the list")
            await asyncio.sleep(0.1)
            await world.place("a.service", Wanted.GONE)
            await world.becomes("a.service", CopyPhase.GONE)
            await asyncio.sleep(10)
            assert removed == ["a.service"], "removed once, not again by an old list"

    story(tell)
