"""The drivers' contract about failure: a copy ended as unwell, one that is set aside, commands in its place."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.driver_rig import DriverRig, FakeRig, Job, ProcessRig, find, until
from unit_agent.driver import Copy, Driver, Order
from unitfleet.errors import DriverError
from unitfleet.model import Cause, CopyPhase
from unitfleet.spec import Restart, RestartPolicy

UNIT = "adserver@1.service"
SCENE = "0123456789ab"
ALWAYS = RestartPolicy(when=Restart.ALWAYS, delay_s=0.0)
WHY = "its check failed 3 times in a row: 503"


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


async def running(driver: Driver, order: Order) -> Copy:
    await driver.create(order)
    copy = await driver.start(order)
    assert copy.phase is CopyPhase.RUNNING, copy
    return copy


async def failed(rig: DriverRig, driver: Driver) -> Copy:
    """Run a unit that ends badly at once."""
    order = rig.order(UNIT, Job.DIES)
    await driver.create(order)
    await driver.start(order)
    return await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.FAILED)


def aside(tmp_path: Path) -> str:
    directory = tmp_path / "scene"
    directory.mkdir()
    return str(directory)


async def test_a_copy_that_is_not_well_is_restarted_by_its_policy_and_says_that_it_was_for_its_health(
    rig: DriverRig,
) -> None:
    driver = rig.driver()
    before = await running(driver, rig.order(UNIT, Job.RUNS, ALWAYS))
    await driver.fail(UNIT, WHY, again=True)
    after = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING and copy.pid != before.pid)
    assert (after.restarts, after.cause) == (1, Cause.HEALTH)
    assert len(await rig.processes(UNIT)) == 1


async def test_a_copy_that_is_given_up_is_failed_whatever_its_policy(rig: DriverRig) -> None:
    driver = rig.driver()
    await running(driver, rig.order(UNIT, Job.RUNS, ALWAYS))
    await driver.fail(UNIT, WHY, again=False)
    copy = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.FAILED)
    assert copy.cause is Cause.HEALTH and WHY in copy.message, copy
    assert not await rig.processes(UNIT)


async def test_what_was_given_up_once_restarts_as_ever_after_the_next_start(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS, ALWAYS)
    await running(driver, order)
    await driver.fail(UNIT, WHY, again=False)
    await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.FAILED)
    await driver.remove(UNIT)
    again = await running(driver, order)
    assert again.cause is Cause.NONE
    await rig.kill(UNIT)
    after = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING and copy.restarts == 1)
    assert after.cause is not Cause.HEALTH, after


@pytest.mark.parametrize(
    ("job", "policy", "limit"),
    [
        pytest.param(Job.DIES, RestartPolicy(), "", id="it has no Restart="),
        pytest.param(
            Job.DIES,
            RestartPolicy(when=Restart.ALWAYS, delay_s=0.05, limit_interval_s=600.0, limit_burst=2),
            "limit",
            id="its start limit is hit",
        ),
        pytest.param(Job.RUNS, ALWAYS, WHY, id="it was given up"),
    ],
)
async def test_what_has_failed_for_good_is_failed_for_the_next_agent_too(
    rig: DriverRig, job: Job, policy: RestartPolicy, limit: str
) -> None:
    driver, order = rig.driver(), rig.order(UNIT, job, policy)
    await driver.create(order)
    await driver.start(order)
    if job is Job.RUNS:
        await driver.fail(UNIT, WHY, again=False)
    before = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.FAILED)
    assert limit in before.message
    await driver.close()
    heir = rig.driver()
    assert await find(heir, UNIT) == before
    await heir.close()
    assert await find(rig.driver(), UNIT) == before
    assert not await rig.processes(UNIT)


async def test_the_next_agent_counts_restarts_and_the_start_limit_on(rig: DriverRig) -> None:
    policy = RestartPolicy(when=Restart.ALWAYS, delay_s=0.05, limit_interval_s=600.0, limit_burst=2)
    driver = rig.driver()
    await running(driver, rig.order(UNIT, Job.RUNS, policy))
    await rig.kill(UNIT)
    before = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING and copy.restarts == 1)
    await driver.close()
    heir = rig.driver()
    assert await find(heir, UNIT) == before
    await rig.kill(UNIT)
    last = await until(heir, UNIT, lambda copy: copy.phase is CopyPhase.FAILED)
    assert last.restarts == 1 and "limit" in last.message, last


async def test_a_copy_that_waits_to_restart_does_so_with_the_next_agent(rig: DriverRig) -> None:
    driver = rig.driver()
    await running(driver, rig.order(UNIT, Job.RUNS, RestartPolicy(when=Restart.ALWAYS, delay_s=2.0)))
    await rig.kill(UNIT)
    await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RESTARTING)
    await driver.close()
    heir = rig.driver()
    after = await until(heir, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING)
    assert after.restarts == 1
    assert len(await rig.processes(UNIT)) == 1


async def test_a_failed_copy_that_is_started_on_order_begins_a_new_count(rig: DriverRig) -> None:
    policy = RestartPolicy(when=Restart.ALWAYS, delay_s=0.05, limit_interval_s=600.0, limit_burst=2)
    driver, order = rig.driver(), rig.order(UNIT, Job.RUNS, policy)
    await running(driver, order)
    await driver.fail(UNIT, WHY, again=False)
    await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.FAILED)
    assert (await driver.start(order)).phase is CopyPhase.RUNNING
    await driver.close()
    heir = rig.driver()
    copy = await find(heir, UNIT)
    assert copy is not None and (copy.phase, copy.restarts, copy.cause) == (CopyPhase.RUNNING, 0, Cause.NONE)
    await rig.kill(UNIT)
    after = await until(heir, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING and copy.restarts == 1)
    assert after.cause is Cause.SIGNAL, after


async def test_a_copy_that_was_stopped_on_order_has_no_restarts(rig: DriverRig) -> None:
    driver = rig.driver()
    await running(driver, rig.order(UNIT, Job.RUNS, ALWAYS))
    await rig.kill(UNIT)
    await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING and copy.restarts == 1)
    await driver.stop(UNIT)
    copy = await find(driver, UNIT)
    assert copy is not None and (copy.phase, copy.restarts) == (CopyPhase.LOADED, 0)


async def test_a_copy_that_does_not_run_can_not_be_failed(rig: DriverRig) -> None:
    driver = rig.driver()
    await driver.create(rig.order(UNIT, Job.RUNS))
    await driver.fail(UNIT, WHY, again=True)
    copy = await find(driver, UNIT)
    assert copy is not None and copy.phase is CopyPhase.LOADED
    await driver.fail("nothing.service", WHY, again=True)


async def test_a_failed_copy_that_is_set_aside_is_no_copy_any_more_for_any_driver(
    rig: DriverRig, tmp_path: Path
) -> None:
    driver = rig.driver()
    copy = await failed(rig, driver)
    assert (await driver.examine(UNIT)).exit_code in (3, None)
    where = await driver.keep(UNIT, SCENE, aside(tmp_path))
    assert where
    assert list(await driver.list()) == [] and list(await rig.driver().list()) == []
    fresh = await running(driver, rig.order(UNIT, Job.RUNS, epoch=2))
    assert fresh.epoch == 2 and len(await driver.list()) == 1
    await driver.discard(copy.id, SCENE)
    await driver.discard(copy.id, SCENE)
    still = await find(driver, UNIT)
    assert still is not None and still.pid == fresh.pid


async def test_a_copy_that_runs_is_not_set_aside(rig: DriverRig, tmp_path: Path) -> None:
    driver = rig.driver()
    await running(driver, rig.order(UNIT, Job.RUNS))
    with pytest.raises(DriverError):
        await driver.keep(UNIT, SCENE, aside(tmp_path))
    with pytest.raises(DriverError):
        await driver.keep("nothing.service", SCENE, str(tmp_path))
    assert len(await rig.processes(UNIT)) == 1


async def test_a_command_says_how_it_ended_and_what_it_wrote(rig: DriverRig) -> None:
    driver = rig.driver()
    await running(driver, rig.order(UNIT, Job.RUNS))
    code, output = await driver.execute(UNIT, ("/bin/sh", "-c", "echo $UNITFLEET_UNIT; exit 4"), 5.0)
    assert (code, output) == (4, f"{UNIT}\n")
    with pytest.raises(DriverError):
        await driver.execute("nothing.service", ("/bin/true",), 5.0)


async def test_no_command_is_run_for_a_copy_that_has_ended(rig: DriverRig) -> None:
    driver = rig.driver()
    await failed(rig, driver)
    with pytest.raises(DriverError, match=UNIT):
        await driver.execute(UNIT, ("/bin/sh", "-c", "true"), 5.0)


async def test_a_command_that_hangs_or_floods_is_bounded_and_leaves_nothing(rig: DriverRig) -> None:
    if isinstance(rig, FakeRig):
        pytest.skip("a fake's commands end at once")
    driver = rig.driver()
    await running(driver, rig.order(UNIT, Job.RUNS))
    began = time.monotonic()
    with pytest.raises(DriverError, match=r"did not end within 0\.5 s"):
        await driver.execute(UNIT, ("/bin/sh", "-c", "sleep 5151 & sleep 5151"), 0.5)
    assert time.monotonic() - began < 2 * 0.5 + 5.0
    _, output = await driver.execute(UNIT, ("/bin/sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"), 10.0)
    assert 0 < len(output) <= 4096
    async with asyncio.timeout(5.0):
        while _sleeps():  # noqa: ASYNC110 (they are not ours to wait for)
            await asyncio.sleep(0.02)
    assert len(await rig.processes(UNIT)) == 1


async def test_a_command_that_leaves_a_daemon_with_its_output_open_ends_when_it_ends(rig: DriverRig) -> None:
    if not isinstance(rig, ProcessRig):
        pytest.skip("an Engine waits for the output of its commands, up to their timeout")
    driver = rig.driver()
    await running(driver, rig.order(UNIT, Job.RUNS))
    began = time.monotonic()
    detached = "exec 3>&1; (setsid sleep 2 >&3 &) ; echo well"
    assert await driver.execute(UNIT, ("/bin/sh", "-c", detached), 1.9) == (0, "well\n")
    assert time.monotonic() - began < 1.9


def _sleeps() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\x005151\x00":
                found.append(path.parent.name)
        except OSError:
            continue
    return found
