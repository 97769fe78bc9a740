"""An agent with strict units, in virtual time: a copy starts and stays only by what the store has confirmed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from functional.agent_world import M, World, story, until
from harness.builders import SERVICE
from unit_agent.agent import Agent
from unit_agent.driver import Marks
from unit_agent.drivers.fake import Behaviour
from unit_agent.strict.deadlines import Deadline, Deadlines
from unit_agent.strict.fake import FakeRegister
from unitfleet import codec, keys
from unitfleet.model import Cluster, CopyPhase, Fence, Wanted

A = "a.service"
TTL_S = 10.0
STRICT = SERVICE + "Restart=always\n[X-Fleet]\nSingleton=strict\n"
ORDINARY = SERVICE + "Restart=always\n"


class StrictWorld:
    """A world whose host has a warden; both outlive the agents."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.deadlines = Deadlines(TTL_S, asyncio.get_running_loop().time)
        self.killed: list[tuple[str, float]] = []
        self.register = FakeRegister(world.host, self.deadlines, self._killed)

    def _killed(self, unit: str) -> None:
        self.killed.append((unit, asyncio.get_running_loop().time()))

    @contextlib.asynccontextmanager
    async def agent(self, **wishes: Any) -> AsyncIterator[Agent]:
        # a new agent process knows no deadline but those that it reads
        self.deadlines.units = {}
        async with self.world.agent(deadlines=self.deadlines, register=self.register, **wishes) as agent:
            yield agent

    @contextlib.asynccontextmanager
    async def warden(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.register.watch())
        try:
            yield
        finally:
            task.cancel()

    async def fences(self) -> int:
        fence = await self.world.read(keys.fence(M), Fence)
        return fence.count if fence else 0

    async def runs(self, unit: str = A) -> bool:
        return unit in self.world.host.running()

    async def rests(self, unit: str = A) -> bool:
        return unit not in self.world.host.running()

    async def ready(self) -> None:
        await self.world.stands()
        await self.world.place(A, text=STRICT)
        await self.world.becomes(A, CopyPhase.RUNNING)


def strict_story(tell: Any) -> None:
    async def told(world: World) -> None:
        strict = StrictWorld(world)
        async with strict.warden():
            await tell(world, strict)

    story(told)


def test_a_strict_copy_starts_within_moments_by_a_renewal_of_its_own_placement() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await world.stands()
            assert await strict.fences() == 0, "no fence without strict units"
            began = asyncio.get_running_loop().time()
            await world.place(A, text=STRICT)
            await world.becomes(A, CopyPhase.RUNNING)
            assert asyncio.get_running_loop().time() - began < 1.0
            assert await strict.fences() >= 1
            await asyncio.sleep(60)
            assert await strict.runs() and not strict.killed

    strict_story(tell)


def test_a_strict_copy_is_stopped_before_its_deadline_when_the_store_is_away_and_an_ordinary_one_runs_on() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await strict.ready()
            await world.place("b.service", text=ORDINARY)
            await world.becomes("b.service", CopyPhase.RUNNING)
            world.store.link.cut()
            cut = asyncio.get_running_loop().time()
            await until(strict.rests, TTL_S, "the strict copy has ended")
            assert asyncio.get_running_loop().time() - cut < 0.85 * TTL_S
            assert not strict.killed, "the agent stopped it itself, as its text says"
            assert await strict.runs("b.service")
            world.store.link.heal()
            await until(strict.runs, 5.0, "it runs again, confirmed anew")

    strict_story(tell)


def test_what_an_agent_that_died_has_left_is_ended_by_the_warden_in_time() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await strict.ready()
        died = asyncio.get_running_loop().time()
        await until(strict.rests, TTL_S, "the warden has ended it")
        assert [unit for unit, _ in strict.killed] == [A]
        assert strict.killed[0][1] - died < TTL_S - 0.9

    strict_story(tell)


def test_an_agent_that_restarts_in_time_keeps_its_strict_copy() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await strict.ready()
        pid = world.host.copies[A].pid
        await asyncio.sleep(4)
        async with strict.agent(seed=2):
            await asyncio.sleep(30)
            assert world.host.copies[A].pid == pid and not strict.killed

    strict_story(tell)


def test_a_copy_past_its_deadline_does_not_start_again_by_itself_when_its_agent_comes_back() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await strict.ready()
        await until(strict.rests, TTL_S, "the warden has ended it")
        world.store.link.cut()
        async with strict.agent(seed=2):
            await asyncio.sleep(60)  # longer than an agent waits before it acts by its local copy
            assert await strict.rests()
            world.store.link.heal()
            await until(strict.runs, 40.0, "confirmed, it starts")

    strict_story(tell)


def test_a_strict_copy_never_starts_from_the_local_copy() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await strict.ready()
        world.host.power_off()
        strict.register.reboot()
        world.store.link.cut()
        async with strict.agent(seed=2):
            await asyncio.sleep(120)
            assert await strict.rests()

    strict_story(tell)


def test_a_placement_that_was_ordered_gone_is_not_renewed() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await strict.ready()
            world.store.link.slow(watch_delay_s=1000.0)  # it does not hear of the order
            await world.place(A, Wanted.GONE, text=STRICT)
            count = await strict.fences()
            await until(strict.rests, TTL_S, "it has ended")
            await asyncio.sleep(TTL_S)
            assert await strict.fences() == count, "no renewal of what it saw before holds"

    strict_story(tell)


def test_the_others_are_renewed_when_one_was_ordered_gone() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await strict.ready()
            await world.place("b.service", text=STRICT)
            await world.becomes("b.service", CopyPhase.RUNNING)
            await world.place(A, Wanted.GONE, text=STRICT)
            await until(strict.rests, 5.0, "it has left")
            await asyncio.sleep(3 * TTL_S)
            assert await strict.runs("b.service") and not strict.killed

    strict_story(tell)


def test_a_deadline_counts_from_when_its_renewal_was_sent() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await strict.ready()
            world.store.link.slow(delay_s=1.0)
            await asyncio.sleep(3 * TTL_S)
            loop = asyncio.get_running_loop()
            for _ in range(1000):
                count, now = await strict.fences(), loop.time()
                await asyncio.sleep(0.01)
                if await strict.fences() != count:  # it reached the store now, so it was sent before
                    await asyncio.sleep(1.5)
                    assert strict.deadlines.units[A].until < now + TTL_S - 0.3
                    return
            raise AssertionError("no renewal came")

    strict_story(tell)


def test_a_lease_that_was_revoked_costs_no_strict_copy() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await strict.ready()
            pid = world.host.copies[A].pid
            for _ in range(5):
                there = await world.admin.get(keys.presence(M))
                assert there is not None
                world.server.revoke(there.lease)
                await asyncio.sleep(7)
            assert world.host.copies[A].pid == pid

    strict_story(tell)


def test_a_restart_makes_a_new_copy_by_a_renewal_of_the_new_order() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await strict.ready()
            pid = world.host.copies[A].pid
            await world.place(A, text=STRICT, restart=1)

            async def anew() -> bool:
                return await strict.runs() and world.host.copies[A].pid != pid

            await until(anew, 3.0, "it was restarted")

    strict_story(tell)


def test_a_strict_copy_does_not_start_without_a_warden_and_says_so() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        strict.register.unwatched = "its warden can't be started: no"
        async with strict.agent():
            await world.stands()
            await world.place(A, text=STRICT)

            async def told() -> bool:
                state = await world.state(A)
                return state is not None and "its warden can't be started" in state.message

            await until(told, 5.0, "the reason is told")
            assert await strict.rests()

    strict_story(tell)


def test_a_deadline_that_can_not_be_kept_does_not_count() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await strict.ready()
            strict.register.full = True
            await until(strict.rests, TTL_S, "it has ended")
            assert not strict.killed, "the agent goes by the same deadline as its warden"

    strict_story(tell)


def test_a_store_that_is_not_trusted_confirms_nothing() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent() as agent:
            await strict.ready()
            await world.place("b.service", text=ORDINARY)
            await world.becomes("b.service", CopyPhase.RUNNING)
            await world.admin.put(keys.CLUSTER, codec.encode(Cluster(id="another")))
            agent.sync.relist()
            await until(strict.rests, TTL_S + 1, "it has ended")
            assert agent.sync.keep_everything and await strict.runs("b.service")

    strict_story(tell)


def test_a_unit_that_is_strict_no_more_is_not_taken_for_its_old_copy() -> None:
    async def tell(world: World, strict: StrictWorld) -> None:
        async with strict.agent():
            await strict.ready()
            world.store.link.cut()
            await until(strict.rests, TTL_S, "the strict copy has ended")
            await asyncio.sleep(TTL_S)
            await world.place(A, text=ORDINARY)
            world.store.link.heal()
            await until(strict.runs, 40.0, "the ordinary copy runs")
            world.store.link.cut()
            await asyncio.sleep(3 * TTL_S)
            assert await strict.runs() and not strict.killed

    strict_story(tell)


@pytest.mark.parametrize(("ahead_s", "may"), [(5.1, True), (4.9, False)])
def test_a_start_needs_half_a_leases_time_ahead(ahead_s: float, may: bool) -> None:
    deadlines = Deadlines(TTL_S, lambda: 100.0)
    deadlines.units = {A: Deadline(7, 100.0 + ahead_s, Marks())}
    assert deadlines.may_start(A, 7) is may
    assert not deadlines.may_start(A, 8), "another order was not confirmed"


def test_a_strict_copy_that_a_list_leaves_out_is_stopped_before_it_is_told_gone() -> None:
    """The leader takes `gone` for leave to start the next copy."""

    async def tell(world: World, strict: StrictWorld) -> None:
        world.host.behaviours[A] = Behaviour(pull_s=1.0)  # it is not taken up by being made anew
        async with strict.agent() as agent:
            await strict.ready()
            world.host.blind = True
            await agent.copies.look("process")
            await world.place(A, Wanted.GONE, text=STRICT)
            await world.becomes(A, CopyPhase.GONE)
            assert not world.host.copies and not strict.killed

    strict_story(tell)
