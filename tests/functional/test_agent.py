"""The agent's whole shell over a store in memory and a fake driver, in virtual time: what it does with orders."""

from __future__ import annotations

import asyncio
import dataclasses

from functional.agent_world import RESTARTING, M, World, story, until
from harness.builders import SERVICE, digest_of
from unit_agent.driver import Copy, Order
from unit_agent.drivers.fake import Behaviour, FakeDriver
from unitfleet import codec, keys
from unitfleet.model import (
    CopyPhase,
    Happening,
    Wanted,
)


def test_a_placement_runs_and_is_reported_running() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            epoch = await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING, 2.0)
            state = await world.state("a.service")
            assert state is not None and state.epoch == epoch and state.pid
            events = await world.admin.list(keys.PREFIX + "events/")
            kinds = [codec.decode(item.value, Happening).kind for item in events.items]
            assert kinds == ["started"]

    story(tell)


def test_specifiers_of_the_host_reach_the_driver_resolved() -> None:
    commands: list[tuple[str, ...]] = []

    class Listening(FakeDriver):
        async def create(self, order: Order) -> Copy:
            commands.append(order.spec.service.start[0].words)
            return await super().create(order)

    async def tell(world: World) -> None:
        world.driver_type = Listening
        world.facts = dataclasses.replace(world.facts, specifiers={"H": "node-a", "h": "/home/ann", "u": "ann"})
        async with world.agent():
            await world.place("a@1.service", text="[Service]\nExecStart=/bin/echo %H %i %h %u %U %v\n")
            await world.becomes("a@1.service", CopyPhase.RUNNING)
        assert commands == [("/bin/echo", "node-a", "1", "/home/ann", "ann", "0", "%v")]

    story(tell)


def test_a_unit_ordered_gone_is_stopped_removed_and_acknowledged_at_that_epoch() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            epoch = await world.place("a.service", Wanted.GONE)
            await world.becomes("a.service", CopyPhase.GONE)
            state = await world.state("a.service")
            assert state is not None and state.epoch == epoch
            assert world.host.copies == {}
            await world.admin.delete(keys.placement(M, "a.service"))
            await world.becomes("a.service", None)

    story(tell)


def test_a_deleted_placement_stops_nothing_and_the_orphan_is_reported() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            pid = world.host.copies["a.service"].pid
            await world.admin.delete(keys.placement(M, "a.service"))
            await world.admin.delete(keys.state(M, "a.service"))
            await asyncio.sleep(600)
            assert world.host.copies["a.service"].pid == pid
            await world.becomes("a.service", CopyPhase.RUNNING)

    story(tell)


def test_replaced_text_makes_a_new_copy() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            pid = world.host.copies["a.service"].pid
            await world.place("a.service", text=SERVICE + "Environment=A=1\n")
            digest = digest_of(SERVICE + "Environment=A=1\n")

            async def so() -> bool:
                state = await world.state("a.service")
                return state is not None and state.spec == digest and state.phase is CopyPhase.RUNNING

            await until(so, 5, "the new text runs")
            assert world.host.copies["a.service"].pid != pid

    story(tell)


def test_a_restart_number_restarts_once_also_over_a_restart_of_the_agent() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            first = world.host.copies["a.service"].pid
            await world.place("a.service", restart=1)

            async def so() -> bool:
                state = await world.state("a.service")
                return state is not None and state.restart == 1 and state.phase is CopyPhase.RUNNING

            await until(so, 5, "restarted")
            second = world.host.copies["a.service"].pid
            assert second != first
        async with world.agent():
            await asyncio.sleep(60)
            assert world.host.copies["a.service"].pid == second

    story(tell)


def test_a_higher_epoch_alone_adopts_the_copy() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            pid = world.host.copies["a.service"].pid
            epoch = await world.place("a.service")

            async def so() -> bool:
                state = await world.state("a.service")
                return state is not None and state.epoch == epoch

            await until(so, 5, "reported at the new epoch")
            assert world.host.copies["a.service"].pid == pid

    story(tell)


def test_of_a_hundred_placements_at_once_only_so_many_start_at_a_time() -> None:
    async def tell(world: World) -> None:
        world.host.usual = Behaviour(start_s=1.0)
        most = 0
        async with world.agent(starts_at_once=8):
            for number in range(100):
                await world.place(f"u{number}.service")

            async def so() -> bool:
                nonlocal most
                starting = [c for c in world.host.copies.values() if c.phase is CopyPhase.STARTING]
                most = max(most, len(starting))
                return len(world.host.running()) - len(starting) == 100

            await until(so, 30, "all run")
            assert most == 8
            for number in range(100):
                await world.becomes(f"u{number}.service", CopyPhase.RUNNING)

    story(tell)


def test_units_that_hang_hold_up_nobody_else_for_long() -> None:
    async def tell(world: World) -> None:
        for number in range(20):
            world.host.behaviours[f"h{number:02}.service"] = Behaviour(start_s=100_000)
        async with world.agent(starts_at_once=8):
            for number in range(20):
                await world.place(f"h{number:02}.service")
            await world.place("z.service")
            await world.becomes("z.service", CopyPhase.RUNNING, 35)

    story(tell)


def test_a_pull_is_cancelled_when_the_unit_is_ordered_gone() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours["a.service"] = Behaviour(pull_s=10_000)
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.PULLING)
            await world.place("a.service", Wanted.GONE)
            await world.becomes("a.service", CopyPhase.GONE, 2)

    story(tell)


def test_a_start_that_hangs_is_cancelled_and_stopped_when_the_unit_is_ordered_gone() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours["a.service"] = Behaviour(start_s=10_000)
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.STARTING)
            await world.place("a.service", Wanted.GONE)
            await world.becomes("a.service", CopyPhase.GONE, 3)
            assert world.host.copies == {}

    story(tell)


def test_two_newer_orders_may_come_while_a_start_takes_its_time_to_be_cancelled() -> None:
    """The second one once ended the agent: it moved a deadline that was over."""

    class SlowToCancel(FakeDriver):
        async def start(self, order: Order) -> Copy:
            try:
                return await super().start(order)
            except asyncio.CancelledError:
                await asyncio.sleep(1.0)
                raise

    async def tell(world: World) -> None:
        world.driver_type = SlowToCancel
        world.host.usual = Behaviour(start_s=5.0)
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.STARTING)
            await world.place("a.service", restart=1)
            await asyncio.sleep(0.3)
            await world.place("a.service", restart=2)
            await world.becomes("a.service", CopyPhase.RUNNING, 30.0)
            assert world.host.copies["a.service"].restart == 2

    story(tell)


def test_a_stop_is_never_cancelled_and_the_newer_order_follows_it() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours["a.service"] = Behaviour(stop_s=20)
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            pid = world.host.copies["a.service"].pid
            await world.place("a.service", Wanted.GONE)
            await world.becomes("a.service", CopyPhase.STOPPING)
            await world.place("a.service", incarnation="i2")
            await world.becomes("a.service", CopyPhase.RUNNING, 30)
            assert world.host.copies["a.service"].pid != pid
            assert world.host.copies["a.service"].incarnation == "i2"

    story(tell)


def test_a_failed_pull_is_tried_again_where_the_unit_asks_for_restarts() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours["a.service"] = Behaviour(pull_fails=4)
        async with world.agent():
            await world.place("a.service", text=RESTARTING)
            await world.becomes("a.service", CopyPhase.RESTARTING)
            state = await world.state("a.service")
            assert state is not None and "programmed to fail" in state.message
            await world.becomes("a.service", CopyPhase.RUNNING, 60)

    story(tell)


def test_a_failed_create_without_restart_stays_failed_until_the_next_order() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours["a.service"] = Behaviour(create_fails=1)
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.FAILED)
            await asyncio.sleep(300)
            assert await world.phase("a.service") is CopyPhase.FAILED
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)

    story(tell)


def test_a_stop_that_fails_is_tried_until_it_succeeds() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours["a.service"] = Behaviour(stop_fails=5)
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            await world.place("a.service", Wanted.GONE)
            await world.becomes("a.service", CopyPhase.STOPPING)
            await world.becomes("a.service", CopyPhase.GONE, 120)

    story(tell)


def test_a_text_that_is_refused_fails_with_its_problem() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service", text="[Service]\nExecStart=/bin/true\n[X-Fleet]\nNoSuchKey=1\n")
            await world.becomes("a.service", CopyPhase.FAILED)
            state = await world.state("a.service")
            assert state is not None and "NoSuchKey" in state.message

    story(tell)


def test_a_local_stop_holds_until_a_local_start_also_over_a_restart_without_the_store() -> None:
    async def tell(world: World) -> None:
        async with world.agent() as agent:
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            await agent.local_stop("a.service")
            await world.becomes("a.service", CopyPhase.LOADED)
            state = await world.state("a.service")
            assert state is not None and "stopped on this host" in state.message
        world.store.link.cut()
        async with world.agent() as agent:
            await asyncio.sleep(100)
            assert world.host.running() == set()
            await agent.local_start("a.service")
            await asyncio.sleep(5)
            assert world.host.running() == {"a.service"}

    story(tell)


def test_a_new_order_ends_a_local_stop() -> None:
    async def tell(world: World) -> None:
        async with world.agent() as agent:
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            await agent.local_stop("a.service")
            await world.becomes("a.service", CopyPhase.LOADED)
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)

    story(tell)
