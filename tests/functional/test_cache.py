"""The cache: what a watch loses heals, and a subscriber is told of everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import pytest

from harness.api import Api, an_api, becomes
from harness.builders import a_machine, a_unit
from harness.virtual_time import run_virtual
from unit_master.cache import Cache
from unitfleet import keys
from unitfleet.errors import StoreUnavailable
from unitfleet.memory import MemoryStore
from unitfleet.model import MachineStatus, TargetState
from unitfleet.store import Batch, Listing, Store


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as served:
        yield served


async def test_absence_is_counted_from_when_it_was_first_seen(api: Api) -> None:
    await api.put(a_machine("m1"), a_machine("m2", present=False))
    assert set(api.cache.absent_since) == {"m2"}
    since = api.cache.absent_since["m2"]
    await api.outside.delete(keys.presence("m1"))
    await becomes(lambda: "m1" in api.cache.absent_since, "an absence is not seen")
    assert api.cache.absent_since["m2"] == since
    await api.put(a_machine("m1"), a_machine("m2"))
    assert api.cache.absent_since == {}


async def test_a_loss_is_counted_from_when_it_was_seen_whatever_another_masters_clock_said(api: Api) -> None:
    await api.put(a_machine("m1", status=MachineStatus.LOST, since=0.0))
    assert api.cache.lost_for()["m1"] < 60.0
    await api.put(a_machine("m1"))
    assert api.cache.lost_for() == {}


async def test_a_cache_that_comes_back_too_late_lists_anew_and_tells_what_changed(api: Api) -> None:
    await api.put(a_unit("kept.service"), a_unit("gone.service"))
    with api.cache.subscribe() as subscription:
        api.store.link.cut()
        await api.outside.delete(keys.unit("gone.service"))
        kv = await api.outside.get(keys.unit("kept.service"))
        assert kv is not None
        revision = await api.outside.put(keys.unit("kept.service"), kv.value)
        await api.outside.compact(revision)
        api.store.link.heal()
        await api.cache.wait_for(revision, 5.0)
        update = subscription.take()
    assert update.keys is not None
    assert set(update.keys) == {keys.unit("gone.service"), keys.unit("kept.service")}
    assert set(api.cache.view.units) == {"kept.service"}


async def test_who_asks_for_some_kinds_of_keys_is_not_woken_by_others(api: Api) -> None:
    with api.cache.subscribe() as all_kinds, api.cache.subscribe(("tokens", "units")) as some:
        await api.put(a_machine("m1"))
        await api.cache.wait_for((await api.outside.list(keys.PREFIX)).revision, 5.0)
        assert all_kinds.changed.is_set() and not some.changed.is_set()
        await api.put(a_unit("a.service"))
        update = await some.next()
    assert update.keys is not None and set(update.keys) == {keys.unit("a.service")}


async def test_what_a_watch_does_not_deliver_heals_by_listing_anew() -> None:
    async with an_api(relist_s=0.05) as api:
        api.store.link.slow(watch_delay_s=1000.0)
        with api.cache.subscribe() as subscription:
            await api.put(a_unit())
            assert keys.unit("a.service") in (subscription.take().keys or ())


class Replaced:
    """A store in whose place another one is put, as a restore from a backup does."""

    def __init__(self, present: MemoryStore) -> None:
        self.present = present

    def __getattr__(self, name: str) -> Any:
        return getattr(self.present, name)


class Failing(MemoryStore):
    """A store that can be listed once, and then fails."""

    lists = 0

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        self.lists += 1
        if self.lists > 1:
            raise StoreUnavailable("cannot list: the store fails")
        return await super().list(prefix, revision=revision)

    async def watch(self, prefix: str, *, start_revision: int) -> AsyncGenerator[Batch, None]:
        await asyncio.sleep(0.1)
        raise StoreUnavailable("cannot watch: the store fails")
        yield


def test_who_waits_for_a_revision_while_nothing_is_watched_is_told_that_the_store_is_away() -> None:
    """To bring the next list forward moved a deadline that was over: an error that nobody expected."""

    async def story() -> None:
        cache = Cache(Failing())
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(cache.run())
            with pytest.raises(StoreUnavailable):
                await cache.wait_for(10, 20.0)
            following.cancel()

    run_virtual(story(), limit_s=100)


async def test_a_store_that_was_restored_is_taken_as_it_is() -> None:
    former, restored = MemoryStore(), MemoryStore()
    for key, value in (*a_unit("a.service").pieces, *a_unit("b.service").pieces):
        await former.put(key, value)
    older = a_unit("a.service", target=TargetState.LOADED)
    for key, value in (
        *older.pieces,
        *a_unit("old.service").pieces[:1],
    ):  # a.service: same revision in both
        await restored.put(key, value)
    store = Replaced(former)
    cache = Cache(cast(Store, store), relist_s=0.05)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(cache.run())
        await cache.wait_for(0, 5.0)
        assert set(cache.view.units) == {"a.service", "b.service"}
        with cache.subscribe() as subscription:
            store.present = restored
            await becomes(lambda: set(cache.view.units) == {"a.service"}, "the cache holds on to what was")
            assert {keys.unit("a.service"), keys.unit("b.service")} <= (subscription.take().keys or set())
        assert cache.view.units["a.service"].value.target is TargetState.LOADED
        assert cache.view.revision == (await restored.list("")).revision
        following.cancel()
