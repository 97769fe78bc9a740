"""The contract of `unitfleet.store.Store`: one suite for the store in memory and for a real etcd."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.etcd import EtcdCluster
from harness.eventually import eventually
from harness.watching import take
from unitfleet.errors import Compacted, LeaseLost, StoreError, StoreUnavailable
from unitfleet.etcd.store import EtcdStore
from unitfleet.memory import MemoryStore
from unitfleet.store import (
    MAX_OPERATIONS,
    Compare,
    Delete,
    EventKind,
    Op,
    Put,
    Store,
    absent,
    created_at,
    holds,
    unchanged,
)

_numbers = itertools.count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def etcd(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EtcdCluster]:
    path: Path = tmp_path_factory.mktemp("etcd")
    async with EtcdCluster(path) as cluster:
        yield cluster


@pytest.fixture
async def memory_store() -> AsyncIterator[Store]:
    store = MemoryStore()
    yield store
    await store.close()


@pytest.fixture
async def etcd_store(etcd: EtcdCluster) -> AsyncIterator[Store]:
    store = EtcdStore(etcd.endpoints, page_size=7)
    yield store
    await store.close()


@pytest.fixture(params=["memory", "etcd"])
def store(request: pytest.FixtureRequest) -> Store:
    """One of the two, and no etcd started for the other."""
    made: Store = request.getfixturevalue(f"{request.param}_store")
    return made


@pytest.fixture
def under() -> str:
    """A prefix of its own for each test."""
    return f"/test/{next(_numbers)}/"


async def test_a_key_is_read_as_it_was_written(store: Store, under: str) -> None:
    assert await store.get(under + "a") is None
    first = await store.put(under + "a", b"1")
    second = await store.put(under + "a", b"\x00\xff")
    kv = await store.get(under + "a")
    assert kv is not None
    assert (kv.key, kv.value, kv.create_revision, kv.mod_revision) == (under + "a", b"\x00\xff", first, second)
    assert (kv.version, kv.lease, second) == (2, 0, first + 1)


async def test_every_member_says_how_it_is(store: Store) -> None:
    (member,) = await store.members()
    status = await store.status()
    assert (member.trouble, member.version, member.has_leader) == ("", status.version, True)
    assert member.complaints == ()


async def test_a_member_that_is_away_is_told_as_such_and_holds_up_nothing(etcd: EtcdCluster) -> None:
    store = EtcdStore([*etcd.endpoints, "127.0.0.1:1"])
    try:
        async with asyncio.timeout(3.0):
            here, away = await store.members()
        assert here.trouble == "" and here.version
        assert away.address == "127.0.0.1:1" and away.trouble and not away.has_leader
    finally:
        await store.close()


async def test_a_deleted_key_is_gone_and_begins_anew(store: Store, under: str) -> None:
    first = await store.put(under + "a", b"1")
    assert await store.delete(under + "a") == first + 1
    assert await store.get(under + "a") is None
    assert await store.delete(under + "a") == first + 1, "deleting nothing makes no revision"
    again = await store.put(under + "a", b"")
    kv = await store.get(under + "a")
    assert kv is not None
    assert (kv.create_revision, kv.version, kv.value) == (again, 1, b"")


async def test_a_listing_is_of_one_prefix_in_key_order(store: Store, under: str) -> None:
    for name in ("b", "a/2", "a/1", "a"):
        await store.put(under + name, name.encode())
    await store.put(under.rstrip("/") + "0", b"the first key after the prefix")
    listing = await store.list(under)
    assert [kv.key.removeprefix(under) for kv in listing.items] == ["a", "a/1", "a/2", "b"]
    assert [kv.key.removeprefix(under) for kv in (await store.list(under + "a")).items] == ["a", "a/1", "a/2"]
    assert (await store.list(under + "nothing")).items == ()


async def test_a_listing_over_many_pages_misses_and_doubles_nothing(store: Store, under: str) -> None:
    names = [f"{under}{n:03}" for n in range(50)]
    await store.txn((), [Put(name, b"") for name in names])
    assert [kv.key for kv in (await store.list(under)).items] == names


async def test_a_listing_at_a_revision_shows_the_past(store: Store, under: str) -> None:
    await store.put(under + "gone", b"1")
    then = await store.put(under + "kept", b"old")
    await store.delete(under + "gone")
    await store.put(under + "kept", b"new")
    await store.put(under + "later", b"")
    past = await store.list(under, revision=then)
    assert [(kv.key, kv.value) for kv in past.items] == [(under + "gone", b"1"), (under + "kept", b"old")]
    assert past.revision == then
    with pytest.raises(StoreError):
        await store.list(under, revision=then + 1_000_000)


@pytest.mark.parametrize("holds_now", [True, False], ids=["holds", "does not hold"])
@pytest.mark.parametrize("kind", ["absent", "created at", "unchanged", "value", "absent by mod revision"])
async def test_a_transaction_does_what_its_compare_says(
    store: Store, under: str, kind: str, holds_now: bool
) -> None:
    made = await store.put(under + "a", b"1")
    changed = await store.put(under + "a", b"2")
    key = under + "a"
    compare: Compare = {
        ("absent", True): absent(under + "b"),
        ("absent", False): absent(key),
        ("created at", True): created_at(key, made),
        ("created at", False): created_at(key, changed),
        ("unchanged", True): unchanged(key, changed),
        ("unchanged", False): unchanged(key, made),
        ("value", True): holds(key, b"2"),
        ("value", False): holds(key, b"1"),
        ("absent by mod revision", True): unchanged(under + "b", 0),
        ("absent by mod revision", False): unchanged(key, 0),
    }[kind, holds_now]
    result = await store.txn([compare], [Put(under + "then", b"")], [Put(under + "otherwise", b"")])
    assert (result.succeeded, result.revision) == (holds_now, changed + 1)
    assert (await store.get(under + "then") is not None) == holds_now
    assert (await store.get(under + "otherwise") is not None) == (not holds_now)


async def test_an_absent_key_holds_no_value_not_even_the_empty_one(store: Store, under: str) -> None:
    assert not (await store.txn([holds(under + "a", b"")], ())).succeeded


async def test_one_false_compare_of_many_is_enough_to_refuse(store: Store, under: str) -> None:
    before = await store.put(under + "a", b"1")
    result = await store.txn([absent(under + "b"), absent(under + "a")], [Put(under + "b", b"")])
    assert (result.succeeded, result.revision) == (False, before)
    assert await store.get(under + "b") is None


async def test_a_transaction_is_one_revision(store: Store, under: str) -> None:
    before = await store.put(under + "old", b"")
    result = await store.txn((), [Put(under + "a", b"1"), Put(under + "b", b"2"), Delete(under + "old")])
    assert result.revision == before + 1
    assert {kv.mod_revision for kv in (await store.list(under)).items} == {before + 1}


async def test_a_transaction_takes_as_many_operations_as_promised_and_no_more(store: Store, under: str) -> None:
    operations = [Put(f"{under}{n:03}", b"") for n in range(MAX_OPERATIONS + 1)]
    compares = [absent(op.key) for op in operations]
    assert (await store.txn(compares[:-1], operations[:-1])).succeeded
    with pytest.raises(StoreError):
        await store.txn((), operations)


async def test_a_key_written_twice_in_a_transaction_is_refused(store: Store, under: str) -> None:
    with pytest.raises(StoreError):
        await store.txn((), [Put(under + "a", b"1"), Put(under + "a", b"2")])
    with pytest.raises(StoreError):
        await store.txn((), [Put(under + "a", b"1"), Delete(under, prefix=True)])
    assert await store.get(under + "a") is None


async def test_deleting_a_prefix_spares_its_neighbours(store: Store, under: str) -> None:
    await store.txn((), [Put(under + name, b"") for name in ("a/1", "a/2", "a", "a0", "b")])
    await store.txn((), [Delete(under + "a/", prefix=True)])
    assert [kv.key.removeprefix(under) for kv in (await store.list(under)).items] == ["a", "a0", "b"]


async def test_a_lease_takes_its_keys_along_in_one_revision_when_it_ends(store: Store, under: str) -> None:
    lease = await store.grant(1)
    assert lease.ttl_s >= 1
    await store.put(under + "b", b"", lease.id)
    start = await store.put(under + "a", b"", lease.id)
    await store.put(under + "stays", b"")
    kv = await store.get(under + "a")
    assert kv is not None and kv.lease == lease.id
    (_, _, gone) = await take(store, under, start, 3, within_s=10)
    assert [(event.kind, event.kv.key) for event in gone.events] == [
        (EventKind.DELETE, under + "a"),
        (EventKind.DELETE, under + "b"),
    ]
    assert [kv.key for kv in (await store.list(under)).items] == [under + "stays"]
    with pytest.raises(LeaseLost):
        await store.keepalive(lease.id, 1.0)


async def test_a_renewed_lease_outlives_its_time(store: Store, under: str) -> None:
    lease, doomed = await store.grant(2), await store.grant(2)
    await store.put(under + "kept", b"", lease.id)
    await store.put(under + "doomed", b"", doomed.id)

    async def only_the_other_is_gone() -> bool:
        assert 0 < await store.keepalive(lease.id, 1.0) <= lease.ttl_s
        return await store.get(under + "doomed") is None

    await eventually(only_the_other_is_gone, within_s=10, every_s=0.2, what=lambda: "a lease did not end")
    assert await store.get(under + "kept") is not None


async def test_a_revoked_lease_takes_its_keys_along_at_once(store: Store, under: str) -> None:
    lease = await store.grant(60)
    await store.put(under + "a", b"", lease.id)
    await store.revoke(lease.id)
    assert await store.get(under + "a") is None
    await store.revoke(lease.id)
    with pytest.raises(LeaseLost):
        await store.keepalive(lease.id, 1.0)


async def test_nothing_is_written_under_a_lease_that_is_gone(store: Store, under: str) -> None:
    lease = await store.grant(60)
    await store.revoke(lease.id)
    with pytest.raises(LeaseLost):
        await store.put(under + "a", b"", lease.id)
    with pytest.raises(LeaseLost):
        await store.txn((), [Put(under + "b", b""), Put(under + "a", b"", lease.id)])
    assert (await store.list(under)).items == ()


async def test_a_key_written_anew_without_its_lease_outlives_it(store: Store, under: str) -> None:
    lease = await store.grant(60)
    await store.txn((), [Put(under + name, b"", lease.id) for name in ("rewritten", "deleted", "bound")])
    await store.delete(under + "deleted")
    await store.txn((), [Put(under + "rewritten", b""), Put(under + "deleted", b"")])
    await store.revoke(lease.id)
    assert [kv.key for kv in (await store.list(under)).items] == [under + "deleted", under + "rewritten"]


async def test_a_lease_has_the_id_it_was_asked_for(store: Store, under: str) -> None:
    wanted = 0x7EA5E0 + next(_numbers)
    assert (await store.grant(60, wanted)).id == wanted
    with pytest.raises(StoreError):
        await store.grant(60, wanted)
    await store.revoke(wanted)


async def test_a_watch_tells_the_past_and_goes_on(store: Store, under: str) -> None:
    await store.put(under + "before", b"")
    start = await store.put(under + "a", b"1")
    await store.put(under + "a", b"2")

    async def change_more() -> None:
        await store.delete(under + "a")
        await store.put(under + "b", b"3")

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(take(store, under, start, 4))
        tasks.create_task(change_more())
    seen = [(batch.revision, event.kind, event.kv) for batch in watching.result() for event in batch.events]
    assert [(revision - start, kind, kv.key[-1], kv.value) for revision, kind, kv in seen] == [
        (0, EventKind.PUT, "a", b"1"),
        (1, EventKind.PUT, "a", b"2"),
        (2, EventKind.DELETE, "a", b""),
        (3, EventKind.PUT, "b", b"3"),
    ]
    assert all(kv.mod_revision == revision for revision, _, kv in seen)


async def test_a_watch_from_the_future_waits_for_it(store: Store, under: str) -> None:
    now = await store.put(under + "a", b"")
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(take(store, under, now + 3, 1))
        for _ in range(4):
            await store.put(under + "a", b"")
    assert watching.result()[0].revision == now + 3


async def test_a_watch_sees_its_prefix_only(store: Store, under: str) -> None:
    start = await store.put(under + "a/1", b"")
    await store.put(under + "a0", b"after the prefix")
    await store.put(under + "Z", b"before the prefix")
    await store.put(under + "a/2", b"")
    seen = await take(store, under + "a/", start, 2)
    assert [event.kv.key.removeprefix(under) for batch in seen for event in batch.events] == ["a/1", "a/2"]


async def test_a_watch_delivers_a_revision_whole_as_one_batch(store: Store, under: str) -> None:
    start = await store.put(under + "000", b"")
    operations: list[Op] = [Delete(under + "000"), *(Put(f"{under}{n:03}", b"") for n in range(1, 100))]
    for _ in range(3):
        await store.txn((), operations)
        await store.put(under + "000", b"")
    seen = await take(store, under, start + 1, 6)
    assert [batch.revision for batch in seen] == [start + n for n in range(1, 7)]
    assert [len(batch.events) for batch in seen] == [100, 1] * 3


async def test_many_watches_each_see_everything(store: Store, under: str) -> None:
    start = await store.put(under + "a", b"")
    async with asyncio.TaskGroup() as tasks:
        watching = [tasks.create_task(take(store, under, start, 20)) for _ in range(10)]
        for _ in range(19):
            await store.put(under + "a", b"")
    assert all([b.revision - start for b in task.result()] == list(range(20)) for task in watching)


async def test_a_watch_catches_up_on_more_than_a_message_usually_holds(store: Store, under: str) -> None:
    value = bytes(1_000_000)
    start = await store.put(under + "0", value)
    for n in range(1, 6):
        await store.put(f"{under}{n}", value)
    seen = await take(store, under, start, 6)
    assert [event.kv.value == value for batch in seen for event in batch.events] == [True] * 6
    assert len((await store.list(under)).items) == 6


async def test_what_is_compacted_can_be_neither_listed_nor_watched(store: Store, under: str) -> None:
    old = await store.put(under + "a", b"1")
    new = await store.put(under + "a", b"2")
    await store.compact(new)
    await store.compact(new)
    await store.compact(old)
    with pytest.raises(Compacted) as listed:
        await store.list(under, revision=old)
    assert old < listed.value.compact_revision <= new
    with pytest.raises(Compacted) as watched:
        await take(store, under, old, 1)
    assert watched.value.compact_revision == new
    assert [kv.value for kv in (await store.list(under, revision=new)).items] == [b"2"]
    assert (await take(store, under, new, 1))[0].revision == new
    with pytest.raises(StoreError):
        await store.compact(new + 1_000_000)


async def test_the_store_says_how_it_is(store: Store) -> None:
    status = await store.status()
    assert status.has_leader and status.cluster_id and status.version


async def test_closing_ends_watches_and_refuses_calls(store: Store, under: str) -> None:
    start = await store.put(under + "a", b"")
    seen: list[int] = []

    async def watch() -> None:
        async for batch in store.watch(under, start_revision=start):
            seen.append(batch.revision)

    async def one_seen() -> bool:
        return bool(seen)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(watch())
        await eventually(one_seen, within_s=5, what=lambda: "nothing was seen")
        await store.close()
    with pytest.raises(StoreUnavailable):
        await store.get(under + "a")
    assert asyncio.all_tasks() == {asyncio.current_task()}
