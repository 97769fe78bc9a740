"""A list that leaves out a copy which runs is no evidence of anything: such a copy is asked for by its name."""

from __future__ import annotations

import asyncio

import pytest

from functional.agent_world import World, story, until
from unit_agent.drivers.fake import Behaviour
from unitfleet.model import CopyPhase, Wanted

UNIT = "a.service"
BLIND_S = 2.0


async def run(world: World) -> None:
    await world.place(UNIT)
    await world.becomes(UNIT, CopyPhase.RUNNING)


def test_a_copy_that_a_list_leaves_out_is_stopped_before_it_is_told_gone() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours[UNIT] = Behaviour(pull_s=1.0, stop_s=1.0)  # it is not taken up by being made anew
        async with world.agent() as agent:
            await run(world)
            world.host.blind = True
            await agent.copies.look("process")
            await world.place(UNIT, Wanted.GONE)
            await world.becomes(UNIT, CopyPhase.GONE)
            assert not world.host.copies

    story(tell)


def test_a_copy_of_which_nothing_can_be_learnt_is_believed_to_run_and_stopped_by_its_order() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours[UNIT] = Behaviour(pull_s=1.0)
        async with world.agent() as agent:
            await run(world)
            world.host.blind = world.host.mute = True
            await agent.copies.look("process")
            assert await world.phase(UNIT) is CopyPhase.RUNNING
            await world.place(UNIT, Wanted.GONE)
            await world.becomes(UNIT, CopyPhase.GONE)
            assert not world.host.copies

    story(tell)


def test_an_agent_that_never_saw_a_copy_looks_for_it_by_its_name_before_it_tells_it_gone() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await run(world)
        await world.place(UNIT, Wanted.GONE)
        world.host.blind = True
        async with world.agent():
            await world.becomes(UNIT, CopyPhase.GONE, 30.0)
            assert not world.host.copies

    story(tell)


def test_gone_is_not_told_while_a_copy_can_not_be_looked_for() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await run(world)
        await world.place(UNIT, Wanted.GONE)
        world.host.blind = world.host.mute = True
        async with world.agent():
            with pytest.raises(AssertionError, match="not so within"):
                await world.becomes(UNIT, CopyPhase.GONE, 20.0)
            assert UNIT in world.host.running()
            world.host.mute = False
            await world.becomes(UNIT, CopyPhase.GONE, 90.0)
            assert not world.host.copies

    story(tell)


def test_a_copy_that_a_list_leaves_out_for_a_while_is_told_as_running_and_not_started_again() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours[UNIT] = Behaviour(pull_s=1.0)  # so that an attempt to make it would be told
        async with world.agent() as agent:
            await run(world)
            before = world.host.copies[UNIT]
            world.host.blind = True
            await agent.copies.look("process")
            epoch = await world.place(UNIT)  # ordered again meanwhile
            told = []
            for _ in range(40):
                told.append(await world.state(UNIT))
                await asyncio.sleep(BLIND_S / 40)
            world.host.blind = False
            await agent.copies.look("process")
            assert world.host.copies[UNIT] == before
            assert {(state.phase, state.pid) for state in told if state} == {(CopyPhase.RUNNING, before.pid)}
            assert told[-1] is not None and told[-1].epoch == epoch

    story(tell)


def test_a_copy_that_others_have_removed_is_made_anew() -> None:
    async def tell(world: World) -> None:
        async with world.agent() as agent:
            await run(world)
            first = world.host.copies[UNIT].pid
            world.host.halt(UNIT)
            await agent.copies.driver("process").remove(UNIT)  # type: ignore[union-attr]  # it has one

            async def another() -> bool:
                return UNIT in world.host.running() and world.host.copies[UNIT].pid != first

            await until(another, 5.0, "another copy runs")

    story(tell)
