"""The switches of the memory store's links, by which simulations spoil one client's way to the store."""

from __future__ import annotations

import asyncio

import pytest

from harness.watching import take, take_until
from unitfleet.errors import Compacted, OutcomeUnknown, StoreUnavailable
from unitfleet.memory import MemoryStore


async def test_a_cut_client_fails_at_its_deadline_and_writes_nothing() -> None:
    store = MemoryStore(timeout_s=0.05)
    agent = store.client("m1")
    agent.link.cut()
    for call in (agent.get("/a"), agent.put("/a", b""), agent.keepalive(1, 0.05)):
        with pytest.raises(StoreUnavailable, match="m1"):
            await call
    assert await store.get("/a") is None, "and the others are not cut"


async def test_a_call_goes_on_when_the_link_heals_in_time() -> None:
    store = MemoryStore(timeout_s=5)
    store.link.cut()
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(store.put("/a", b""))
        await asyncio.sleep(0)
        store.link.heal()
    assert writing.result() == 2


async def test_a_watch_stalls_while_cut_and_then_loses_nothing() -> None:
    store = MemoryStore()
    agent = store.client("m1")
    start = await store.put("/a", b"0")
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(take_until(agent, "/a", start, start + 4))
        await asyncio.sleep(0)
        agent.link.cut()
        for _ in range(4):
            await store.put("/a", b"")
        await asyncio.sleep(0.01)
        assert not watching.done()
        agent.link.heal()
    assert [batch.revision for batch in watching.result()] == [start + n for n in range(5)]


async def test_a_watch_that_heals_after_a_compaction_ends() -> None:
    store = MemoryStore()
    agent = store.client("m1")
    start = await store.put("/a", b"0")
    agent.link.cut()
    last = await store.put("/a", b"1")
    await store.compact(last)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(outcome(take(agent, "/a", start, 1)))
        await asyncio.sleep(0)
        agent.link.heal()
    assert isinstance(watching.result(), Compacted)


async def outcome(call: object) -> Exception | None:
    """Await a coroutine and return what it raised."""
    assert asyncio.iscoroutine(call)
    try:
        await call
    except Exception as error:
        return error
    return None


async def test_a_lost_answer_leaves_a_write_done_and_a_lost_request_undone() -> None:
    store = MemoryStore(timeout_s=0.05)
    store.link.lose(answers=1, requests=1)
    with pytest.raises(OutcomeUnknown):
        await store.put("/done", b"")
    with pytest.raises(OutcomeUnknown):
        await store.put("/undone", b"")
    await store.put("/after", b"")
    assert [kv.key for kv in (await store.list("/")).items] == ["/after", "/done"]


async def test_a_cut_while_the_answer_travels_makes_the_outcome_unknown() -> None:
    store = MemoryStore(timeout_s=0.1)
    agent = store.client("m1")
    agent.link.slow(delay_s=0.02)
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(outcome(agent.put("/a", b"")))
        (batch,) = await take(store, "/a", 1, 1)
        agent.link.cut()
    assert isinstance(writing.result(), OutcomeUnknown) and batch.revision == 2


async def test_a_delayed_watch_tells_later_than_others() -> None:
    store = MemoryStore()
    late = store.client("late")
    late.link.slow(watch_delay_s=60)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(take(late, "/a", 1, 2))
        await store.put("/a", b"")
        await store.put("/a", b"")
        await take(store, "/a", 1, 2)
        assert not watching.done()
        late.link.slow()
    assert len(watching.result()) == 2


async def test_a_lease_ends_without_anybody_asking() -> None:
    store = MemoryStore()
    lease = await store.grant(2)
    await store.put("/a", b"", lease.id)
    _, gone = await take(store, "/a", 1, 2)
    assert gone.events[0].kv.key == "/a"
