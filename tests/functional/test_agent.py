"""The agent's whole shell over a store in memory and a fake driver, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
import pytest

from harness.builders import SERVICE, digest_of
from harness.virtual_time import run_virtual
from unit_agent.agent import Agent
from unit_agent.driver import Copy, Order
from unit_agent.drivers.fake import Behaviour, FakeDriver, FakeHost
from unit_agent.local_copy import MemoryCopy
from unit_agent.machine import Facts
from unit_agent.timings import TIMINGS, Profile
from unitfleet import codec, keys
from unitfleet.errors import Refused
from unitfleet.memory import MemoryServer, MemoryStore
from unitfleet.model import (
    Capacity,
    Cluster,
    CopyPhase,
    Happening,
    Placement,
    Presence,
    Record,
    Resources,
    UnitState,
    Wanted,
)

R = TypeVar("R", bound=Record)

M = "m1"
RESTARTING = SERVICE + "Restart=always\n"


class World:
    """A store, one host with its local copy, and the agent that runs there now and then."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.admin = MemoryStore(self.server, name="admin")
        self.host = FakeHost()
        self.local = MemoryCopy()
        self.facts = Facts(id=M, name="alpha", boot_id="b1", fingerprint="f1")
        self.store = self.admin.client(M)
        self.epoch = 0
        self.driver_names: tuple[str, ...] = ("process",)
        self.driver_type = FakeDriver

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


def test_a_state_of_a_unit_with_neither_copy_nor_placement_is_deleted_after_the_sync() -> None:
    async def tell(world: World) -> None:
        stale = UnitState(
            unit="x.service", machine=M, incarnation="i", epoch=3, restart=0, spec="s", phase=CopyPhase.GONE
        )
        await world.admin.put(keys.state(M, "x.service"), codec.encode(stale))
        async with world.agent():
            await world.becomes("x.service", None)

    story(tell)


def test_with_the_store_away_nothing_is_stopped_and_a_restarted_agent_starts_what_is_missing() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            for unit in ("a.service", "b.service"):
                await world.place(unit)
                await world.becomes(unit, CopyPhase.RUNNING)
            kept = world.host.copies["a.service"].pid
            world.store.link.cut()
            await asyncio.sleep(300)
            assert world.host.running() == {"a.service", "b.service"}
        world.host._become("b.service", CopyPhase.LOADED, message="")  # as after a reboot
        async with world.agent():
            await asyncio.sleep(25)
            assert world.host.running() == {"a.service"}, "it waits for the store first"
            await asyncio.sleep(10)
            assert world.host.running() == {"a.service", "b.service"}
            assert world.host.copies["a.service"].pid == kept
            world.store.link.heal()
            await world.becomes("b.service", CopyPhase.RUNNING, 60)

    story(tell)


def test_a_copy_ordered_gone_before_the_store_went_away_is_stopped_by_the_local_copy() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours["a.service"] = Behaviour(stop_s=50)
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            await world.place("a.service", Wanted.GONE)
            await world.becomes("a.service", CopyPhase.STOPPING)
        world.host._become("a.service", CopyPhase.RUNNING, message="", pid=7)  # the stop was lost
        world.store.link.cut()
        async with world.agent():
            await asyncio.sleep(100)
            assert world.host.copies == {}

    story(tell)


def test_a_revoked_lease_is_answered_by_a_new_presence_at_once() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.stands()
            before = await world.admin.get(keys.presence(M))
            assert before is not None
            world.server.revoke(before.lease)
            assert await world.presence() is None
            await world.stands(within_s=0.5)
            after = await world.admin.get(keys.presence(M))
            assert after is not None and after.lease != before.lease
            await asyncio.sleep(30)
            assert await world.presence() is not None

    story(tell)


def test_a_deleted_presence_key_is_written_again_at_once() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.stands()
            await world.admin.delete(keys.presence(M))
            await world.stands(within_s=0.5)

    story(tell)


def test_a_restart_within_the_ttl_keeps_the_lease_and_is_never_absent() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.stands()
            before = await world.admin.get(keys.presence(M))
        await asyncio.sleep(6)
        async with world.agent(seed=2):
            await asyncio.sleep(20)
            after = await world.admin.get(keys.presence(M))
        assert before is not None and after is not None
        assert after.lease == before.lease
        assert after.create_revision == before.create_revision, "it was never deleted"
        assert after.value != before.value, "another nonce: another process"

    story(tell)


def test_a_reboot_does_not_take_up_the_old_lease() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.stands()
            before = await world.admin.get(keys.presence(M))
        rebooted = dataclasses.replace(world.facts, boot_id="b2")
        async with world.agent(seed=2, facts=rebooted):
            await asyncio.sleep(2)
            after = await world.admin.get(keys.presence(M))
        assert before is not None and after is not None and after.lease != before.lease

    story(tell)


def test_a_machine_cut_off_for_longer_than_its_lease_is_back_after_it() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            pid = world.host.copies["a.service"].pid
            world.store.link.cut()
            await asyncio.sleep(60)
            assert await world.presence() is None
            world.store.link.heal()
            await world.stands(within_s=4)
            assert world.host.copies["a.service"].pid == pid

    story(tell)


def test_another_host_under_our_identity_is_refused() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.stands()
            clone = World()
            clone.admin = world.admin
            clone.store = world.admin.client("clone")
            with pytest.raises(Refused, match="another host") as refused:
                async with clone.agent(facts=dataclasses.replace(world.facts, fingerprint="f2")) as agent:
                    await agent.run()
            assert refused.value.hint

    story(tell)


@pytest.mark.parametrize("how", ["another cluster", "an empty store", "an old snapshot"])
def test_a_store_that_is_not_ours_stops_nothing_until_it_is_accepted(how: str) -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            for _ in range(50):
                await world.admin.put("elsewhere", b"")
            await world.place("b.service")
            await world.becomes("b.service", CopyPhase.RUNNING)
        world.server = MemoryServer()
        world.admin = MemoryStore(world.server, name="admin")
        world.store = world.admin.client(M)
        if how != "an empty store":
            cluster = "c2" if how == "another cluster" else "c1"
            await world.admin.put(keys.CLUSTER, codec.encode(Cluster(id=cluster)))
        if how == "another cluster":
            for _ in range(500):
                await world.admin.put("elsewhere", b"")
        pids = {unit: copy.pid for unit, copy in world.host.copies.items()}
        async with world.agent() as agent:
            await world.place("a.service", Wanted.GONE, epoch=100)
            await asyncio.sleep(60)
            assert agent.status().keep_everything
            assert {unit: copy.pid for unit, copy in world.host.copies.items()} == pids
            world.host.crash("b.service")
        async with world.agent() as agent:
            await asyncio.sleep(60)
            assert agent.status().keep_everything, "a restart does not make it trusted"
            assert world.host.copies["a.service"].pid == pids["a.service"]
            await agent.accept_store()
            await world.becomes("a.service", CopyPhase.GONE)
            assert not agent.status().keep_everything

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


def test_states_go_out_at_most_once_a_second_and_running_at_once() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours["a.service"] = Behaviour(pull_s=4.0, start_s=0.1)
        written: list[tuple[float, CopyPhase, int]] = []

        async def watch() -> None:
            async for batch in world.admin.watch(keys.states_of(M), start_revision=1):
                for event in batch.events:
                    state = codec.decode(event.kv.value, UnitState)
                    written.append((asyncio.get_running_loop().time(), state.phase, state.progress))

        watcher = asyncio.get_running_loop().create_task(watch())
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING, 10)
        watcher.cancel()
        assert 3 <= len(written) <= 7
        slow = [at for at, phase, _ in written if phase is not CopyPhase.RUNNING]
        assert all(later - earlier >= 0.99 for earlier, later in itertools.pairwise(slow))
        assert all(progress % 10 == 0 for _, _, progress in written if progress >= 0)
        since = world.host.copies["a.service"]
        assert since.phase is CopyPhase.RUNNING and written[-1][0] < 4.6

    story(tell)


def test_a_crash_loop_does_not_flood_the_store() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours["a.service"] = Behaviour(run_s=0.05)
        async with world.agent():
            await world.place("a.service", text=RESTARTING + "RestartSec=50ms\n[Unit]\nStartLimitIntervalSec=0\n")
            await asyncio.sleep(1)
            before = (await world.admin.list(keys.states_of(M))).items[0].version
            await asyncio.sleep(10)
            after = (await world.admin.list(keys.states_of(M))).items[0].version
            assert after - before <= 25

    story(tell)


def test_an_adopted_unit_writes_no_state_anew() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
        before = await world.admin.get(keys.state(M, "a.service"))
        async with world.agent(seed=5):
            await asyncio.sleep(1000)
        after = await world.admin.get(keys.state(M, "a.service"))
        assert before == after

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


def test_garbage_under_our_placements_is_no_order() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            pid = world.host.copies["a.service"].pid
            await world.admin.put(keys.placement(M, "a.service"), b"\xff garbage")
            await world.place("b.service")
            await world.becomes("b.service", CopyPhase.RUNNING)
            await asyncio.sleep(600)
            assert world.host.copies["a.service"].pid == pid
            world.host.crash("a.service")
            await world.becomes("a.service", CopyPhase.FAILED)

    story(tell)


def test_a_local_copy_that_cannot_be_written_stops_no_order() -> None:
    class Full(MemoryCopy):
        async def write(self, name: str, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    async def tell(world: World) -> None:
        world.local = Full()
        async with world.agent() as agent:
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            await world.place("a.service", Wanted.GONE)
            await world.becomes("a.service", CopyPhase.GONE)
            assert "No space left" in agent.status().unsaved

    story(tell)


def test_every_write_may_lose_its_answer() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.stands()
            world.store.link.lose(answers=2, requests=2)
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING, 60)
            world.store.link.lose(answers=1, requests=1)
            await world.place("a.service", Wanted.GONE)
            await world.becomes("a.service", CopyPhase.GONE, 60)

    story(tell)


def test_an_order_is_on_disk_before_it_is_acted_on() -> None:
    class Slow(MemoryCopy):
        gate: asyncio.Event

        async def write(self, name: str, data: bytes) -> None:
            await self.gate.wait()
            await super().write(name, data)

    async def tell(world: World) -> None:
        world.local = slow = Slow()
        slow.gate = asyncio.Event()
        slow.gate.set()
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            slow.gate.clear()
            await world.place("a.service", Wanted.GONE)
            await asyncio.sleep(30)
            assert world.host.running() == {"a.service"}
            slow.gate.set()
            await world.becomes("a.service", CopyPhase.GONE)

    story(tell)


def test_a_state_that_a_late_write_put_back_is_corrected() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            now = await world.state("a.service")
            assert now is not None
            late = msgspec.structs.replace(now, phase=CopyPhase.PULLING)
            await world.admin.put(keys.state(M, "a.service"), codec.encode(late))
            await world.becomes("a.service", CopyPhase.RUNNING, 300)

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


def test_the_resources_are_told_at_the_join_and_then_on_change_alone() -> None:
    async def tell(world: World) -> None:
        used = 100

        def measure() -> Resources:
            return Resources(id=M, capacity=Capacity(cpu=1, memory=1000, disk=1000), memory_used=used)

        async def told(expected: int) -> bool:
            found = await world.read(keys.resources(M), Resources)
            return found is not None and found.memory_used == expected

        async with world.agent(measure=measure):
            await until(lambda: told(100), 2, "told at the join")
            used = 150
            await asyncio.sleep(100)
            assert await told(100)
            used = 250
            await until(lambda: told(250), 31, "told on change")
            found = await world.admin.get(keys.presence(M))
            assert found is not None
            world.server.revoke(found.lease)
            await until(lambda: told(250), 2, "told again with the new lease")

    story(tell)


def test_in_keep_everything_mode_not_even_a_known_order_stops_anything() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours["a.service"] = Behaviour(stop_fails=1000)
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            await world.place("a.service", Wanted.GONE)
            await world.becomes("a.service", CopyPhase.STOPPING)
        world.host.behaviours.clear()
        await world.admin.put(keys.CLUSTER, codec.encode(Cluster(id="c2")))
        async with world.agent():
            await asyncio.sleep(300)
            assert world.host.running() == {"a.service"}

    story(tell)


def test_in_keep_everything_mode_no_state_is_deleted() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
        state = await world.state("a.service")
        assert state is not None
        await world.admin.put(keys.CLUSTER, codec.encode(Cluster(id="c2")))
        other = msgspec.structs.replace(state, unit="x.service")
        await world.admin.put(keys.state(M, "x.service"), codec.encode(other))
        async with world.agent() as agent:
            await asyncio.sleep(300)
            assert await world.phase("x.service") is CopyPhase.RUNNING
            await agent.accept_store()
            await world.becomes("x.service", None)

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
