"""The leader's shell over a store in memory, in virtual time: what it may write, and when."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from harness.builders import Built, a_machine, a_unit
from harness.eventually import eventually
from harness.virtual_time import run_virtual
from unit_master.cache import Cache
from unit_master.leader import TIDY_EVERY_S, Leader
from unitfleet import codec, keys
from unitfleet.election import Election, Term
from unitfleet.memory import MemoryStore
from unitfleet.model import Leader as LeaderRecord
from unitfleet.model import TargetState
from unitfleet.store import Put


def now() -> float:
    return 1_000_000.0 + asyncio.get_running_loop().time()


async def write(store: MemoryStore, *built: Built) -> None:
    await store.txn([], [Put(key, value) for some in built for key, value in some.pieces])


@contextlib.asynccontextmanager
async def a_master(
    store: MemoryStore, tidy_every_s: float = TIDY_EVERY_S, secrets_key: str = ""
) -> AsyncIterator[Cache]:
    """Run cache, election and leader; leaving resigns."""
    cache = Cache(store)
    election = Election(store, store.link.name, (), now=now, rng=random.Random(1))

    async def lead(term: Term) -> None:
        await Leader(
            store, cache, term, now=now, grace_s=2.0, tidy_every_s=tidy_every_s, secrets_key=secrets_key
        ).run()

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(work) for work in (cache.run(), election.run(lead))]
        try:
            yield cache
        finally:
            for task in running:
                task.cancel()


async def placed(store: MemoryStore) -> list[str]:
    return [item.key for item in (await store.list(keys.PREFIX + "placements/")).items]


def test_a_leader_places_what_is_launched() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with a_master(store.client("master1")):
            await write(store, a_machine("m1"), a_unit())

            async def on_m1() -> bool:
                return await placed(store) == [keys.placement("m1", "a.service")]

            await eventually(on_m1, within_s=20.0, what=lambda: "a.service is placed on m1")

    run_virtual(story(), limit_s=60)


def test_a_paused_leader_writes_nothing_when_it_wakes() -> None:
    async def story() -> None:
        store = MemoryStore()
        paused = store.client("master1")
        async with a_master(paused):
            await write(store, a_machine("m1"))

            async def leads() -> bool:
                return await store.get(keys.LEADER) is not None

            await eventually(leads, within_s=20.0, what=lambda: "a leader")
            await asyncio.sleep(1.0)
            paused.link.slow(delay_s=4.0)  # what it sends from now on arrives four seconds later
            await write(store, a_unit())
            await asyncio.sleep(1.0)
            held = await store.get(keys.LEADER)
            assert held is not None
            store.server.revoke(held.lease)
            other = codec.encode(LeaderRecord(nonce="other", name="master2"))
            await store.put(keys.LEADER, other)
            seen = (await store.list(keys.PREFIX)).revision
            await asyncio.sleep(20.0)  # its transaction has arrived, and so has its answer
            assert await placed(store) == []
            assert (await store.list(keys.PREFIX)).revision == seen

    run_virtual(story(), limit_s=120)


def test_another_master_leads_at_once_when_the_leader_resigns() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with a_master(store.client("master2")) as cache:
            async with a_master(store.client("master1")):
                await asyncio.sleep(1.0)
            resigned_at = asyncio.get_running_loop().time()

            async def master_2_leads() -> bool:
                return cache.view.leader is not None and cache.view.leader.value.name == "master2"

            await eventually(master_2_leads, within_s=20.0, what=lambda: "master2 leads")
            assert asyncio.get_running_loop().time() - resigned_at < 1.0

    run_virtual(story(), limit_s=60)


@pytest.mark.parametrize("steps", range(8))
def test_a_master_that_is_told_to_end_while_its_term_ends_ends(steps: int) -> None:
    async def story() -> None:
        election = Election(MemoryStore(), "master1", (), now=now, rng=random.Random(1))
        leads, over = asyncio.Event(), asyncio.Event()

        async def lead(_: Term) -> None:
            leads.set()
            await over.wait()
            over.clear()

        running = asyncio.create_task(election.run(lead))
        await leads.wait()
        over.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait((running,), timeout=10.0)
        assert running.cancelled()

    run_virtual(story(), limit_s=60.0)


def test_what_nothing_points_to_is_cleared() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with a_master(store.client("master1"), tidy_every_s=5.0):
            unit = a_unit(target=TargetState.DESTROYED)
            await write(store, a_machine("m1"), unit)

            async def cleared() -> bool:
                return await store.get(keys.spec(unit.unit.spec)) is None

            await eventually(cleared, within_s=20.0, what=lambda: "the text is cleared")
            assert await store.get(keys.unit("a.service")) is None

    run_virtual(story(), limit_s=120)
