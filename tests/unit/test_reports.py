"""How often an agent writes, and what goes along with what: every write wakes every master."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from harness.builders import a_state, a_unit
from harness.virtual_time import run_virtual
from unit_agent.backoff import Backoff
from unit_agent.reports import LINGER_S, Reports
from unitfleet import codec, keys
from unitfleet.memory import MemoryStore
from unitfleet.model import CopyPhase, UnitState
from unitfleet.store import Store

REPORT_S = 1.0
UNIT = "a.service"


def state(phase: CopyPhase) -> UnitState:
    [(key, value)] = a_state(a_unit(UNIT), "m1", phase).pieces
    return codec.decode(value, UnitState, key)


@contextlib.asynccontextmanager
async def reporting(store: Store) -> AsyncIterator[Reports]:
    """Reports at work on an empty store."""
    backoff = Backoff(random.Random(1), 0.5, 30.0)
    reports = Reports(store, "m1", "writer", lambda: 1000.0, REPORT_S, backoff, backoff)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(reports.run())
        await asyncio.sleep(0.01)
        yield reports
        task.cancel()


async def revision(store: Store) -> int:
    return (await store.list(keys.PREFIX)).revision


async def phase_told(store: Store) -> CopyPhase | None:
    kv = await store.get(keys.state("m1", UNIT))
    return codec.decode(kv.value, UnitState, kv.key).phase if kv else None


def test_a_start_that_is_quick_is_one_write_with_its_event() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with reporting(store) as reports:
            before = await revision(store)
            reports.put(UNIT, state(CopyPhase.STARTING))
            await asyncio.sleep(LINGER_S / 2)
            reports.happened("started", UNIT, 1, "placed here")
            reports.put(UNIT, state(CopyPhase.RUNNING))
            await asyncio.sleep(10)
            assert await phase_told(store) is CopyPhase.RUNNING
            assert len((await store.list(keys.PREFIX + "events/")).items) == 1
            assert await revision(store) == before + 1

    run_virtual(story(), limit_s=60)


def test_a_start_that_takes_its_time_is_told_meanwhile() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with reporting(store) as reports:
            reports.put(UNIT, state(CopyPhase.STARTING))
            await asyncio.sleep(LINGER_S + 0.01)
            assert await phase_told(store) is CopyPhase.STARTING

    run_virtual(story(), limit_s=60)


def test_an_event_is_written_though_no_state_changes() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with reporting(store) as reports:
            reports.happened("restarted", UNIT, 1, "it ended")
            await asyncio.sleep(LINGER_S + 0.01)
            assert len((await store.list(keys.PREFIX + "events/")).items) == 1

    run_virtual(story(), limit_s=60)


def test_an_event_that_was_refused_with_a_state_is_written_later_and_once() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with reporting(store) as reports:
            store.link.cut()
            reports.happened("started", UNIT, 1, "placed here")
            reports.put(UNIT, state(CopyPhase.RUNNING))
            await asyncio.sleep(20)
            store.link.heal()
            await asyncio.sleep(60)
            assert await phase_told(store) is CopyPhase.RUNNING
            assert len((await store.list(keys.PREFIX + "events/")).items) == 1

    run_virtual(story(), limit_s=600)


def test_a_unit_that_is_made_anew_right_after_it_was_destroyed_is_told_at_once() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with reporting(store) as reports:
            for phase in (CopyPhase.RUNNING, CopyPhase.GONE, CopyPhase.RUNNING):
                reports.put(UNIT, state(phase))
                await asyncio.sleep(0.05)
                assert await phase_told(store) is phase

    run_virtual(story(), limit_s=60)
