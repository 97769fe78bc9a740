"""Whoever leaves a watch early closes it there and then, and leaves nothing of it to the garbage collector."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator

from harness.virtual_time import run_virtual
from unit_agent.backoff import Backoff
from unit_agent.following import Follower
from unitfleet import codec, keys
from unitfleet.election import Election, Term
from unitfleet.memory import MemoryStore
from unitfleet.model import Leader
from unitfleet.store import Batch, Listing, Put


class WatchedStore(MemoryStore):
    """A store that holds on to every watch, so that none is closed by being forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.watches: list[AsyncGenerator[Batch, None]] = []

    def watch(self, prefix: str, *, start_revision: int) -> AsyncGenerator[Batch, None]:
        watch = super().watch(prefix, start_revision=start_revision)
        self.watches.append(watch)
        return watch

    @property
    def open(self) -> int:
        """How many watches the server still keeps."""
        return sum(len(held) for held in self.server._subscriptions.values())


def test_a_candidate_closes_its_watch_when_the_leader_goes_and_when_it_looks_again() -> None:
    async def story() -> None:
        store = WatchedStore()
        value = codec.encode(Leader(nonce="n", name="other", api=(), since=0.0))
        await store.txn([], [Put(keys.LEADER, value, (await store.grant(3600.0)).id)])
        elected = asyncio.Event()
        election = Election(store, "m1", (), now=lambda: 0.0, rng=random.Random(1))

        async def lead(term: Term) -> None:
            elected.set()
            await asyncio.Event().wait()

        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(election.run(lead))
            await asyncio.sleep(22)  # virtual: it has looked again several times
            assert len(store.watches) > 3
            assert store.open == 1
            await store.delete(keys.LEADER)
            await elected.wait()
            assert store.open == 0
            running.cancel()

    run_virtual(story(), limit_s=60)


def test_an_agent_closes_its_watch_when_it_lists_anew_amid_a_change() -> None:
    async def story() -> None:
        store = WatchedStore()
        taken = asyncio.Event()

        async def listed(listing: Listing) -> None:
            pass

        async def changed(batch: Batch) -> None:
            taken.set()
            await asyncio.Event().wait()

        rng = random.Random(1)
        follower = Follower(
            store,
            "/a/",
            listed=listed,
            changed=changed,
            interval_s=1000.0,
            backoff=Backoff(rng, 0.5, 30.0),
            rng=rng,
        )
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(follower.run())
            await asyncio.sleep(1)
            await store.put("/a/x", b"1")
            await taken.wait()
            follower.relist()
            await asyncio.sleep(1)
            assert (len(store.watches), store.open) == (2, 1)
            running.cancel()

    run_virtual(story(), limit_s=60)
