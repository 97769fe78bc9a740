"""What only the process driver promises: supervisors, what KillMode= spares, bounded output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from contract.driver_rig import DEADLINE_S, ProcessRig, find, shell, until
from functional.process_units import SLEEP, UNIT, needs_root, oneshot, output, printed, ran, soon, up
from unit_agent.driver import LogLine
from unit_agent.drivers.process import ProcessDriver
from unitfleet.errors import DriverError
from unitfleet.model import CopyPhase
from unitfleet.spec import (
    Command,
    KillMode,
    ServiceSpec,
)

RSS_AIM_KB = 6 * 1024
DAEMONISE = "(setsid sh -c 'exec sleep 1000' &) ; exec sleep 1000"


def asleep(rig: ProcessRig) -> int:
    """Count the processes that are what they will be: while one becomes another program it has no environment."""
    return sum(process.name() == "sleep" for process in rig._marked(UNIT))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ProcessRig]:
    async with ProcessRig(tmp_path) as made:
        yield made


# Supervisors.


async def test_a_unit_outlives_its_agent(rig: ProcessRig, tmp_path: Path) -> None:
    agent = tmp_path / "agent.py"
    agent.write_text(
        textwrap.dedent(
            f"""
            import asyncio, os, sys
            sys.path[:0] = {sys.path!r}
            from contract.driver_rig import Job, ProcessRig
            async def main():
                rig = ProcessRig({str(tmp_path)!r} and __import__("pathlib").Path({str(tmp_path)!r}))
                rig.mark = {rig.mark!r}
                driver, order = rig.driver(), rig.order({UNIT!r}, Job.RUNS)
                await driver.create(order)
                print((await driver.start(order)).pid, flush=True)
                await asyncio.sleep(1000)
            asyncio.run(main())
            """
        )
    )
    process = await asyncio.create_subprocess_exec(sys.executable, str(agent), stdout=subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        pid = int(await process.stdout.readline())
        before = await rig.processes(UNIT)
        process.kill()
        await process.wait()
    process._transport.close()  # type: ignore[attr-defined]
    assert await rig.processes(UNIT) == before
    driver = rig.driver()
    copy = await find(driver, UNIT)
    assert copy is not None
    assert (copy.phase, copy.pid) == (CopyPhase.RUNNING, pid)
    await driver.stop(UNIT)
    assert not await rig.processes(UNIT)


@pytest.mark.parametrize("script", ["exec sleep 1000", DAEMONISE], ids=["one process", "a daemonised child"])
async def test_when_a_supervisor_is_killed_the_rest_is_ended_before_a_fresh_start(
    rig: ProcessRig, script: str
) -> None:
    driver, first = await up(rig, ServiceSpec(start=shell(script)))
    before = await rig.processes(UNIT)
    for supervisor in rig.supervisors():
        supervisor.kill()
    second = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING and copy.pid != first.pid)
    assert second.epoch == first.epoch
    assert not before & await rig.processes(UNIT)
    assert len(rig.supervisors()) == 1


async def test_an_agent_that_comes_back_puts_right_what_a_dead_supervisor_left(rig: ProcessRig) -> None:
    driver, first = await up(rig, ServiceSpec(start=SLEEP))
    await driver.close()
    for supervisor in rig.supervisors():
        supervisor.kill()
    heir = rig.driver()
    second = await until(heir, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING and copy.pid != first.pid)
    assert {pid for pid, _ in await rig.processes(UNIT)} == {second.pid}


async def test_stop_ends_what_a_dead_supervisor_left(rig: ProcessRig) -> None:
    driver, _ = await up(rig, ServiceSpec(start=shell(DAEMONISE)))
    for supervisor in rig.supervisors():
        supervisor.kill()
    await driver.stop(UNIT)
    assert not await rig.processes(UNIT)
    copy = await find(driver, UNIT)
    assert copy is not None
    assert copy.phase is CopyPhase.LOADED


async def test_what_scrubbed_its_environment_is_found_by_its_session(rig: ProcessRig) -> None:
    driver, copy = await up(rig, ServiceSpec(start=shell("sh -c 'exec env -i sleep 1000' & exec sleep 1000")))
    await soon(lambda: len(psutil.Process(copy.pid).children()) == 1, "the child runs")
    (child,) = psutil.Process(copy.pid).children()
    try:
        await soon(lambda: child.cmdline() == ["sleep", "1000"], "the child has executed")
        for supervisor in rig.supervisors():
            supervisor.kill()
        await driver.stop(UNIT)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()  # the rig does not find it: it bears no mark


async def test_a_copy_whose_remains_cannot_be_ended_is_failed_and_never_doubled(
    rig: ProcessRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, _ = await up(rig, ServiceSpec(start=SLEEP))
    before = await rig.processes(UNIT)
    monkeypatch.setattr("unit_agent.drivers.unit_directory.ENDING_S", 0.1)
    monkeypatch.setattr("unit_agent.supervisor.processes.send", lambda process, number: False)
    for supervisor in rig.supervisors():
        supervisor.kill()
    copy = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.FAILED)
    assert "can't be ended" in copy.message
    assert await rig.processes(UNIT) == before
    with pytest.raises(DriverError, match="cannot end"):
        await driver.start(rig.service(UNIT, ServiceSpec(start=SLEEP)))
    with pytest.raises(DriverError, match="cannot end"):
        await driver.stop(UNIT)
    assert await rig.processes(UNIT) == before
    monkeypatch.undo()
    await driver.stop(UNIT)
    assert not await rig.processes(UNIT)


async def test_a_unit_whose_supervisors_die_again_and_again_is_failed(rig: ProcessRig) -> None:
    driver, _ = await up(rig, ServiceSpec(start=SLEEP))
    for _ in range(6):
        await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING)
        for supervisor in rig.supervisors():
            with contextlib.suppress(psutil.NoSuchProcess):
                supervisor.kill()
                supervisor.wait(5.0)
    copy = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.FAILED)
    assert "6 times" in copy.message
    assert not await rig.processes(UNIT)


async def test_an_ended_unit_has_no_supervisor(rig: ProcessRig) -> None:
    driver, _ = await up(rig, ServiceSpec(start=SLEEP))
    assert len(rig.supervisors()) == 1
    await driver.stop(UNIT)
    await soon(lambda: not rig.supervisors(), "the supervisor ends")


async def test_a_supervisor_is_small(rig: ProcessRig) -> None:
    await up(rig, ServiceSpec(start=SLEEP))
    (supervisor,) = rig.supervisors()

    def figure(name: str) -> int:
        lines = Path(f"/proc/{supervisor.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    at_first = figure("Rss")
    await soon(lambda: figure("Rss") < at_first * 0.9, "it lets go of what start-up touched")
    print(f"supervisor: Rss {figure('Rss')} kB, Pss {figure('Pss')} kB, aim {RSS_AIM_KB} kB")
    assert figure("Rss") <= 2 * RSS_AIM_KB


async def test_a_state_directory_may_have_a_long_path(tmp_path: Path) -> None:
    async with ProcessRig(tmp_path / ("d" * 100) / ("e" * 100)) as rig:
        driver, copy = await up(rig, ServiceSpec(start=SLEEP))
        assert copy.phase is CopyPhase.RUNNING
        await driver.stop(UNIT)


# KillMode, stopping.


@pytest.mark.parametrize("mode", [KillMode.CONTROL_GROUP, KillMode.MIXED])
async def test_stop_ends_a_daemonised_child(rig: ProcessRig, mode: KillMode) -> None:
    driver, _ = await up(rig, ServiceSpec(start=shell(DAEMONISE), kill_mode=mode))
    await soon(lambda: asleep(rig) == 2, "the child runs")
    await driver.stop(UNIT)
    assert not await rig.processes(UNIT)


async def test_kill_mode_process_leaves_a_daemonised_child_alone(rig: ProcessRig) -> None:
    driver, copy = await up(rig, ServiceSpec(start=shell(DAEMONISE), kill_mode=KillMode.PROCESS))
    await soon(lambda: asleep(rig) == 2, "the child runs")
    await driver.stop(UNIT)
    (left,) = await rig.processes(UNIT)
    assert left[0] != copy.pid


async def test_a_unit_that_left_something_behind_can_be_removed(rig: ProcessRig) -> None:
    driver, _ = await up(rig, ServiceSpec(start=SLEEP, kill_mode=KillMode.NONE))
    before = await rig.processes(UNIT)
    await driver.stop(UNIT)
    await driver.remove(UNIT)
    assert list(await driver.list()) == []
    assert await rig.processes(UNIT) == before
    await soon(lambda: not rig.supervisors(), "the supervisor ends")


async def test_kill_mode_none_leaves_everything(rig: ProcessRig) -> None:
    driver, copy = await up(rig, ServiceSpec(start=SLEEP, kill_mode=KillMode.NONE))
    await driver.stop(UNIT)
    assert {pid for pid, _ in await rig.processes(UNIT)} == {copy.pid}


async def test_what_ignores_the_kill_signal_is_killed_when_its_time_is_up(rig: ProcessRig) -> None:
    service = ServiceSpec(start=shell("trap '' TERM; while :; do sleep 0.1; done"), timeout_stop_s=0.3)
    driver, _ = await up(rig, service)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await driver.stop(UNIT)
    assert loop.time() - began >= 0.3
    assert not await rig.processes(UNIT)


async def test_without_send_sigkill_a_stop_that_fails_says_so(rig: ProcessRig) -> None:
    script = "trap '' TERM; while :; do sleep 0.1; done"
    driver, _ = await up(rig, ServiceSpec(start=shell(script), timeout_stop_s=0.2, send_sigkill=False))
    with pytest.raises(DriverError, match="SendSIGKILL=no"):
        await driver.stop(UNIT)
    copy = await find(driver, UNIT)
    assert copy is not None
    assert copy.phase is CopyPhase.FAILED
    assert await rig.processes(UNIT)


async def test_the_kill_signal_is_the_units_own(rig: ProcessRig) -> None:
    script = "trap 'echo got it; exit 0' INT; trap '' TERM; echo ready; while :; do sleep 0.05; done"
    driver, _ = await up(rig, ServiceSpec(start=shell(script), kill_signal=signal.SIGINT))
    await printed(driver, "ready")
    await driver.stop(UNIT)
    assert (await output(driver))[-1] == "got it"


async def test_stop_commands_get_mainpid_and_stop_post_always_runs(rig: ProcessRig) -> None:
    service = ServiceSpec(
        start=SLEEP,
        stop=(Command(words=("/bin/kill", "-HUP", "$MAINPID")),),
        stop_post=shell('echo "post $SERVICE_RESULT"'),
    )
    driver, _ = await up(rig, service)
    await driver.stop(UNIT)
    assert await output(driver) == ["post success"]


async def test_stop_post_learns_of_a_failure(rig: ProcessRig) -> None:
    script = 'echo "$SERVICE_RESULT $EXIT_CODE $EXIT_STATUS"'
    driver, _ = await up(rig, ServiceSpec(start=shell("exit 7"), stop=shell("echo no"), stop_post=shell(script)))
    await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.FAILED)
    assert await output(driver) == ["exit-code exited 7"]


async def test_a_supervisor_that_gets_sigterm_stops_its_unit(rig: ProcessRig) -> None:
    driver, _ = await up(rig, ServiceSpec(start=SLEEP))
    (supervisor,) = rig.supervisors()
    supervisor.terminate()
    copy = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.LOADED)
    assert "SIGTERM" in copy.message
    assert not await rig.processes(UNIT)


# Output.


async def test_a_flood_is_bounded_on_disk_and_its_end_is_kept(tmp_path: Path) -> None:
    async with ProcessRig(tmp_path) as rig:
        driver = ProcessDriver(rig.root, "m1", output_bytes=100_000)
        order = rig.service(UNIT, oneshot("seq 1 200000", timeout_start_s=60.0))
        await driver.create(order)
        await driver.start(order)
        size = sum(file.stat().st_size for file in (rig.root / "units").glob("*/output.log*"))
        assert size <= 2 * 100_000 + 2 * 65536 * 5  # a chunk that was read may pass the limit once
        numbers = [int(text) for text in await output(driver)]
        assert numbers[-1] == 200_000
        assert numbers == list(range(numbers[0], 200_001))
        await driver.close()


async def test_following_goes_on_across_rotation_without_a_gap(tmp_path: Path) -> None:
    async with ProcessRig(tmp_path) as rig:
        driver = ProcessDriver(rig.root, "m1", output_bytes=2_000)
        order = rig.service(
            UNIT, ServiceSpec(start=shell("n=0; while :; do n=$((n+1)); echo $n; sleep 0.004; done"))
        )
        await driver.create(order)
        await driver.start(order)
        seen: list[LogLine] = []
        reading = driver.logs(UNIT, lines=1, follow=True)
        async with asyncio.timeout(DEADLINE_S):
            async for line in reading:
                seen.append(line)
                if len(seen) >= 300:
                    break
        await reading.aclose()
        numbers = [int(line.text) for line in seen]
        assert numbers == list(range(numbers[0], numbers[0] + 300))
        await driver.stop(UNIT)
        await driver.close()


async def test_half_a_line_and_a_very_long_one_are_kept(rig: ProcessRig) -> None:
    lines = await ran(rig, oneshot("head -c 50000 /dev/zero | tr '\\0' x; echo; printf 'no newline'"))
    assert "".join(lines[:-1]) == "x" * 50_000
    assert lines[-1] == "no newline"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    root = tmp_path / "small"
    root.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(root)]
    mounted = subprocess.run(words, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


@needs_root
async def test_a_full_disk_costs_lines_and_never_the_unit(small_disk: Path, tmp_path: Path) -> None:
    async with ProcessRig(small_disk) as rig:
        calm, count = tmp_path / "calm", tmp_path / "count"
        flood = f"while [ ! -e {calm} ]; do echo $(seq 1 1000); echo >> {count}; done"
        script = f"{flood}; while :; do echo on; sleep 0.05; done"
        driver, first = await up(rig, ServiceSpec(start=shell(script)))
        await soon(lambda: os.statvfs(small_disk).f_bfree == 0, "the disk fills")
        more = count.stat().st_size + 100
        await soon(lambda: count.stat().st_size > more, "the unit prints on")
        calm.touch()
        copy = await find(driver, UNIT)
        assert copy is not None
        assert (copy.phase, copy.pid) == (CopyPhase.RUNNING, first.pid)
        for name in ("output.log.1", "output.log"):  # room again, whichever of them took it
            if (file := rig.root / "units" / first.id / name).exists():
                os.truncate(file, 0)
        await printed(driver, "were lost here")
        await driver.stop(UNIT)
        assert not await rig.processes(UNIT)
