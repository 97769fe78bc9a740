"""What an agent does when its store is away, strange or slow, and what it writes there, in virtual time."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest

from functional.agent_world import RESTARTING, M, World, story
from unit_agent.agent import SAVE_AGAIN_S
from unit_agent.drivers.fake import Behaviour
from unit_agent.local_copy import MemoryCopy
from unit_agent.sync import WANTED
from unitfleet import codec, keys
from unitfleet.memory import MemoryServer, MemoryStore
from unitfleet.model import (
    Cluster,
    CopyPhase,
    UnitState,
    Wanted,
)


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


def test_a_local_copy_is_written_once_there_is_room_again() -> None:
    class Filling(MemoryCopy):
        full = False

        async def write(self, name: str, data: bytes) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            await super().write(name, data)

    async def tell(world: World) -> None:
        world.local = disk = Filling()
        async with world.agent() as agent:
            await world.stands()
            disk.full = True
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            assert agent.status().unsaved
            disk.full = False
            await asyncio.sleep(2 * SAVE_AGAIN_S)
            assert not agent.status().unsaved
            kept = await disk.read(WANTED)
            assert kept is not None and b"a.service" in kept
            assert len(await disk.names("specs")) == 1

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


def test_an_agent_that_came_before_the_first_master_learns_which_cluster_it_is_in() -> None:
    async def tell(world: World) -> None:
        await world.admin.delete(keys.CLUSTER)
        async with world.agent() as agent:
            await agent.sync.synced.wait()
            await asyncio.sleep(5)
            assert agent.sync.cluster == ""
            await world.admin.put(keys.CLUSTER, codec.encode(Cluster(id="c1")))
            await asyncio.sleep(1)
            assert agent.sync.cluster == "c1"

    story(tell)


def test_wishes_to_list_anew_that_come_within_a_moment_end_no_agent() -> None:
    async def tell(world: World) -> None:
        async with world.agent() as agent:
            await world.stands()
            await asyncio.sleep(1)
            for _ in range(10):
                agent.sync.relist()
                await asyncio.sleep(0)
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)

    story(tell)


def test_orders_that_overtake_a_pull_within_a_moment_end_no_agent() -> None:
    async def tell(world: World) -> None:
        world.host.usual = Behaviour(pull_s=30.0)
        async with world.agent() as agent:
            await world.stands()
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.PULLING)
            await world.place("a.service", Wanted.GONE)
            for _ in range(100):
                agent.worker.consider("a.service", ordered=True)
                await asyncio.sleep(0)
            await world.becomes("a.service", CopyPhase.GONE)

    story(tell)


class SlowCopy(MemoryCopy):
    """A local copy that takes a moment to write."""

    async def write(self, name: str, data: bytes) -> None:
        await asyncio.sleep(0.2)
        await super().write(name, data)


def test_an_order_that_comes_just_before_a_list_anew_is_carried_out() -> None:
    async def tell(world: World) -> None:
        world.local = SlowCopy()
        async with world.agent() as agent:
            await world.stands()
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            await world.place("a.service", Wanted.GONE)
            await asyncio.sleep(0.1)  # the order has come and is being saved
            agent.sync.relist()
            await world.becomes("a.service", CopyPhase.GONE)

    story(tell)
