"""The drivers' contract: what `unit_agent.driver` promises, on the fake and on every real driver."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from contract.driver_rig import DEADLINE_S, DriverRig, FakeRig, Job, ProcessRig, find, placement_of, until
from unit_agent.driver import Driver, LogLine
from unitfleet.errors import DriverError
from unitfleet.model import CopyPhase
from unitfleet.spec import Restart, RestartPolicy

UNIT = "adserver@1.service"
OTHER = "web_server.service"
SETTLED = (CopyPhase.FINISHED, CopyPhase.FAILED, CopyPhase.LOADED)


@pytest.fixture(params=["fake", "process", pytest.param("docker", marks=pytest.mark.engine)])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DriverRig]:
    match request.param:
        case "fake":
            made: DriverRig = FakeRig(tmp_path)
        case "process":
            made = ProcessRig(tmp_path)
        case _:
            made = importlib.import_module("contract.docker_rig").DockerRig(tmp_path)
    async with made:
        yield made


async def collect(
    driver: Driver, unit: str, *, lines: int = 100, follow: bool = False, count: int = 0
) -> list[LogLine]:
    """Read the output of a unit: all there is, or with `follow` until `count` lines have come."""
    found: list[LogLine] = []
    async with asyncio.timeout(DEADLINE_S):
        reading = driver.logs(unit, lines=lines, follow=follow)
        try:
            async for line in reading:
                found.append(line)
                if count and len(found) >= count:
                    break
        finally:
            await reading.aclose()
    return found


async def test_a_fresh_host_holds_no_copy(rig: DriverRig) -> None:
    assert list(await rig.driver().list()) == []


async def test_the_marks_of_a_copy_are_known_before_it_starts_and_those_of_none_are_an_error(
    rig: DriverRig,
) -> None:
    driver = rig.driver()
    with pytest.raises(DriverError, match="no copy of it is here"):
        await driver.marks(UNIT)
    order = rig.order(UNIT, Job.RUNS)
    await driver.create(order)
    marks = await driver.marks(UNIT)
    assert marks.groups or marks.variables
    await driver.start(order)
    assert await driver.marks(UNIT) == marks


async def test_create_makes_a_copy_that_does_not_run(rig: DriverRig) -> None:
    driver = rig.driver()
    copy = await driver.create(rig.order(UNIT, Job.RUNS))
    assert copy.phase is CopyPhase.LOADED
    assert not await rig.processes(UNIT)
    found = await find(driver, UNIT)
    assert found is not None and abs(found.since - copy.since) < 5  # the Engine's own time comes a moment later
    assert replace(found, since=copy.since) == copy


async def test_create_then_start_makes_exactly_one_running_copy_with_its_identity(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS, epoch=7)
    await driver.create(order)
    copy = await driver.start(order)
    placement = placement_of(UNIT, epoch=7)
    assert (copy.unit, copy.spec, copy.incarnation) == (UNIT, placement.spec, placement.incarnation)
    assert (copy.epoch, copy.restart, copy.driver) == (7, placement.restart, driver.name)
    assert (copy.phase, copy.active, copy.sub) == (CopyPhase.RUNNING, "active", "running")
    assert copy.id
    assert copy.since > 0
    assert copy.pid in {pid for pid, _ in await rig.processes(UNIT)}
    assert len(await rig.processes(UNIT)) == 1
    assert len(await driver.list()) == 1


async def test_a_copy_is_found_by_its_name_as_it_is_listed_also_by_the_next_agent(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS)
    assert await driver.find(UNIT) is None
    await driver.create(order)
    await driver.start(order)
    assert await driver.find(UNIT) == await find(driver, UNIT)
    assert await driver.find(OTHER) is None
    await driver.close()
    heir = rig.driver()
    assert await heir.find(UNIT) == await find(heir, UNIT)
    await heir.stop(UNIT)
    stopped = await heir.find(UNIT)
    assert stopped is not None and stopped.phase is CopyPhase.LOADED
    await heir.remove(UNIT)
    assert await heir.find(UNIT) is None


async def test_create_and_start_again_change_nothing(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS)
    first = await driver.create(order)
    assert (await driver.create(order)).id == first.id
    started = await driver.start(order)
    before = await rig.processes(UNIT)
    assert (await driver.create(order)).pid == started.pid
    assert (await driver.start(order)).pid == started.pid
    assert await rig.processes(UNIT) == before
    assert len(await driver.list()) == 1


async def test_a_copy_with_another_identity_is_never_taken_for_the_ordered_one(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS)
    await driver.create(order)
    await driver.start(order)
    before = await rig.processes(UNIT)
    other = replace(order, placement=structs.replace(order.placement, incarnation="incarnation-2"))
    with pytest.raises(DriverError, match=UNIT):
        await driver.create(other)
    assert await rig.processes(UNIT) == before


async def test_starting_a_unit_without_a_copy_is_refused_by_name(rig: DriverRig) -> None:
    with pytest.raises(DriverError, match=UNIT):
        await rig.driver().start(rig.order(UNIT, Job.RUNS))


async def test_a_restarted_agent_adopts_the_very_same_process(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS)
    await driver.create(order)
    before = await driver.start(order)
    processes = await rig.processes(UNIT)
    await driver.close()
    assert await rig.processes(UNIT) == processes
    heir = rig.driver()
    assert await find(heir, UNIT) == before
    assert await rig.processes(UNIT) == processes
    await heir.stop(UNIT)
    assert not await rig.processes(UNIT)


async def test_stop_leaves_no_process_and_a_copy_that_can_start_again(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS)
    await driver.create(order)
    first = await driver.start(order)
    await driver.stop(UNIT)
    assert not await rig.processes(UNIT)
    stopped = await find(driver, UNIT)
    assert stopped is not None
    assert (stopped.phase, stopped.active, stopped.pid) == (CopyPhase.LOADED, "inactive", 0)
    second = await driver.start(order)
    assert second.phase is CopyPhase.RUNNING
    assert second.pid != first.pid


async def test_stop_ends_what_ignores_it_once_its_time_is_up(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.STUBBORN)
    await driver.create(order)
    await driver.start(order)
    assert await rig.processes(UNIT)
    async with asyncio.timeout(DEADLINE_S):
        await driver.stop(UNIT)
    assert not await rig.processes(UNIT)


async def test_remove_leaves_nothing(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS)
    await driver.create(order)
    await driver.start(order)
    await driver.stop(UNIT)
    await driver.remove(UNIT)
    assert list(await driver.list()) == []
    assert list(await rig.driver().list()) == []


async def test_a_running_copy_is_not_removed(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS)
    await driver.create(order)
    await driver.start(order)
    with pytest.raises(DriverError, match=UNIT):
        await driver.remove(UNIT)
    assert len(await rig.processes(UNIT)) == 1


async def test_stop_and_remove_of_an_unknown_unit_are_fine(rig: DriverRig) -> None:
    driver = rig.driver()
    await driver.stop(UNIT)
    await driver.remove(UNIT)


async def test_stop_of_a_copy_that_never_started_is_fine(rig: DriverRig) -> None:
    driver = rig.driver()
    await driver.create(rig.order(UNIT, Job.RUNS))
    await driver.stop(UNIT)
    copy = await find(driver, UNIT)
    assert copy is not None
    assert copy.phase is CopyPhase.LOADED


async def test_a_unit_that_cannot_start_is_failed_and_says_why(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.CANNOT_START)
    try:
        await driver.prepare(order, lambda progress: None)
        await driver.create(order)
        copy = await driver.start(order)
    except DriverError as error:
        assert str(error)
        return
    assert copy.phase is CopyPhase.FAILED
    assert (copy.active, copy.pid) == ("failed", 0)
    assert copy.message
    assert not await rig.processes(UNIT)


async def test_a_oneshot_that_ended_well_is_finished(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.SUCCEEDS)
    await driver.create(order)
    await driver.start(order)
    copy = await until(driver, UNIT, lambda copy: copy.phase in SETTLED)
    assert copy.phase is CopyPhase.FINISHED
    assert (copy.active, copy.pid) == ("inactive", 0)
    adopted = await find(rig.driver(), UNIT)
    assert adopted is not None
    assert adopted.phase is CopyPhase.FINISHED


async def test_a_unit_without_a_restart_policy_stays_failed(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.DIES)
    await driver.create(order)
    await driver.start(order)
    copy = await until(driver, UNIT, lambda copy: copy.phase in SETTLED)
    assert copy.phase is CopyPhase.FAILED
    assert "3" in copy.message
    assert copy.restarts == 0


async def test_on_failure_starts_a_crashed_unit_again_and_counts_it(rig: DriverRig) -> None:
    policy = RestartPolicy(when=Restart.ON_FAILURE, delay_s=0.2)
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS, policy)
    await driver.create(order)
    first = await driver.start(order)
    await rig.kill(UNIT)
    second = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING and copy.pid != first.pid)
    assert second.restarts == 1
    assert len(await rig.processes(UNIT)) == 1
    await driver.stop(UNIT)
    assert not await rig.processes(UNIT)


async def test_a_unit_waiting_to_restart_can_be_stopped(rig: DriverRig) -> None:
    policy = RestartPolicy(when=Restart.ALWAYS, delay_s=600.0)
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS, policy)
    await driver.create(order)
    await driver.start(order)
    await rig.kill(UNIT)
    waiting = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RESTARTING)
    assert waiting.message
    assert not await rig.processes(UNIT)
    await driver.stop(UNIT)
    stopped = await find(driver, UNIT)
    assert stopped is not None
    assert stopped.phase is CopyPhase.LOADED


async def test_the_start_limit_ends_in_failed(rig: DriverRig) -> None:
    policy = RestartPolicy(when=Restart.ALWAYS, delay_s=0.05, limit_interval_s=600.0, limit_burst=3)
    driver, order = rig.driver(), rig.order(UNIT, Job.DIES, policy)
    await driver.create(order)
    await driver.start(order)
    copy = await until(driver, UNIT, lambda copy: copy.phase in SETTLED)
    assert copy.phase is CopyPhase.FAILED
    assert copy.restarts == 2
    assert "limit" in copy.message


async def test_events_begin_with_a_call_to_list_and_from_then_on_no_change_goes_unheard(rig: DriverRig) -> None:
    driver = rig.driver()
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(driver.events()) as events:
        assert await anext(events) == ""
        assert list(await driver.list()) == []
        await driver.create(rig.order(UNIT, Job.RUNS))
        assert await find(driver, UNIT)
        assert await anext(events) in ("", UNIT)


async def test_a_crash_is_told_by_an_event(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS)
    await driver.create(order)
    await driver.start(order)
    events = driver.events()

    async def next_failure() -> None:
        async for unit in events:
            assert unit in ("", UNIT)
            copy = await find(driver, UNIT)
            if copy is not None and copy.phase is CopyPhase.FAILED:
                return

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        assert await anext(events) == ""  # the events are listened to before the crash
        tasks.create_task(next_failure(), name="events")
        await rig.kill(UNIT)
    await events.aclose()


async def test_an_adopted_copy_tells_its_crash_too(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS)
    await driver.create(order)
    await driver.start(order)
    await driver.close()
    heir = rig.driver()
    assert await find(heir, UNIT)
    events = heir.events()

    async def next_failure() -> None:
        async for _ in events:
            copy = await find(heir, UNIT)
            if copy is not None and copy.phase is CopyPhase.FAILED:
                return

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        assert await anext(events) == ""
        tasks.create_task(next_failure(), name="events")
        await rig.kill(UNIT)
    await events.aclose()


async def test_the_output_of_a_finished_unit_is_readable_in_order(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.PRINTS)
    await driver.create(order)
    await driver.start(order)
    await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.FINISHED)
    for reader in (driver, rig.driver()):
        found = await collect(reader, UNIT)
        assert [(line.stream, line.text) for line in found] == [
            *(("stdout", f"line {number}") for number in range(1, 6)),
            ("stderr", "problem"),
        ]
        assert all(line.at > 1e9 for line in found)
        assert [line.text for line in await collect(reader, UNIT, lines=2)] == ["line 5", "problem"]
        assert await collect(reader, UNIT, lines=0) == []


async def test_following_sees_new_lines_in_order_and_none_twice(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.TICKS)
    await driver.create(order)
    await driver.start(order)
    found = await collect(driver, UNIT, lines=2, follow=True, count=12)
    numbers = [int(line.text.removeprefix("tick ")) for line in found]
    assert numbers == list(range(numbers[0], numbers[0] + 12))


async def test_the_output_of_an_unknown_unit_is_an_error(rig: DriverRig) -> None:
    with pytest.raises(DriverError, match=UNIT):
        await collect(rig.driver(), UNIT)


async def test_two_units_do_not_disturb_each_other(rig: DriverRig) -> None:
    driver = rig.driver()
    one, other = rig.order(UNIT, Job.RUNS), rig.order(OTHER, Job.RUNS)
    for order in (one, other):
        await driver.create(order)
    async with asyncio.TaskGroup() as tasks:
        for order in (one, other):
            tasks.create_task(driver.start(order))
    untouched = await rig.processes(OTHER)
    assert len(untouched) == 1
    await driver.stop(UNIT)
    await driver.remove(UNIT)
    assert not await rig.processes(UNIT)
    assert await rig.processes(OTHER) == untouched
    assert [copy.unit for copy in await driver.list()] == [OTHER]


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.1, 0.3])
async def test_a_cancelled_start_leaves_a_state_that_list_tells(rig: DriverRig, after_s: float) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.SLOW)
    await driver.create(order)
    try:
        async with asyncio.timeout(after_s):
            await driver.start(order)
    except TimeoutError:
        pass
    heir = rig.driver()
    copy = await until(heir, UNIT, lambda copy: copy.phase in (*SETTLED, CopyPhase.RUNNING))
    assert len(await rig.processes(UNIT)) == (1 if copy.phase is CopyPhase.RUNNING else 0)
    assert (await heir.start(order)).phase is CopyPhase.RUNNING
    assert len(await rig.processes(UNIT)) == 1
    await heir.stop(UNIT)
    assert not await rig.processes(UNIT)


async def test_a_unit_can_be_stopped_while_it_starts(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.SLOW)
    await driver.create(order)
    try:
        async with asyncio.timeout(0.1):
            await driver.start(order)
    except TimeoutError:
        pass
    await rig.driver().stop(UNIT)
    assert not await rig.processes(UNIT)
    copy = await find(driver, UNIT)
    assert copy is not None
    assert not copy.executing


async def test_a_copy_is_loaded_and_runs_nothing_after_its_host_lost_power(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS, RestartPolicy(when=Restart.ALWAYS))
    await driver.create(order)
    await driver.start(order)
    await rig.power_off()
    heir = rig.driver()
    copy = await find(heir, UNIT)
    assert copy is not None
    assert (copy.phase, copy.pid, copy.incarnation) == (CopyPhase.LOADED, 0, placement_of(UNIT).incarnation)
    assert not await rig.processes(UNIT)
    assert (await heir.start(order)).phase is CopyPhase.RUNNING
    assert len(await rig.processes(UNIT)) == 1


async def test_a_finished_oneshot_stays_finished_after_its_host_lost_power(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.SUCCEEDS)
    await driver.create(order)
    await driver.start(order)
    await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.FINISHED)
    await rig.power_off()
    copy = await find(rig.driver(), UNIT)
    assert copy is not None
    assert copy.phase is CopyPhase.FINISHED
