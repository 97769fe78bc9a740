"""Limits of process units, in control groups of this very host, and the causes that they give ends."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from contract.driver_rig import ProcessRig, shell, until
from functional.process_units import SLEEP, UNIT, needs_root, output, soon
from harness.group_leftovers import groups_of, remove_groups
from unit_agent.driver import Copy, Order
from unit_agent.drivers.block_device import disk_number
from unit_agent.drivers.process import ProcessDriver
from unit_agent.drivers.unit_cgroup import Cgroups
from unit_agent.happenings import happening
from unitfleet.errors import DriverError
from unitfleet.model import Cause, CopyPhase
from unitfleet.spec import Limit, ResourceLimits, Restart, RestartPolicy, ServiceSpec

MIB = 1 << 20
GROW = "dd if=/dev/zero of=/dev/null bs=256M count=1"  # a buffer of 256 MiB, and no more should a limit not hold
NO_GROUPS = Path("/proc/self/no-such-directory")  # a /proc that tells of no mounted hierarchy


class LimitedRig(ProcessRig):
    """A process driver that makes control groups, for a machine of its own; none are left after the test."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.machine = f"{random.SystemRandom().getrandbits(48):012x}"

    def driver(self) -> ProcessDriver:
        cgroups = Cgroups(self.machine, psutil.virtual_memory().total)
        driver = ProcessDriver(self.root, machine="m1", boot_id=self.boot_id, cgroups=cgroups)
        self._drivers.append(driver)
        return driver

    def limited(self, service: ServiceSpec, limits: ResourceLimits) -> Order:
        """Return an order for a service with limits."""
        order = self.service(UNIT, service)
        return replace(order, spec=msgspec.structs.replace(order.spec, limits=limits))

    def directories(self) -> list[Path]:
        """Return this machine's top group in each hierarchy where it has one."""
        return groups_of(self.machine)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[LimitedRig]:
    made = LimitedRig(tmp_path)
    try:
        async with made:
            yield made
    finally:
        await asyncio.to_thread(remove_groups, [made.machine])


async def up(rig: LimitedRig, service: ServiceSpec, **limits: object) -> tuple[ProcessDriver, Copy]:
    """Create and start the unit with these limits."""
    driver, order = rig.driver(), rig.limited(service, ResourceLimits(**limits))  # type: ignore[arg-type]
    await driver.create(order)
    return driver, await driver.start(order)


def cgroups_of(pid: int) -> list[str]:
    """Return the path of the process's group in each hierarchy."""
    return [line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]


def no_disk_behind(path: Path) -> str | None:
    """Return why the I/O of a path can't be limited here, or None."""
    try:
        disk_number(str(path))
    except DriverError as error:
        return error.message
    return None


async def ended(driver: ProcessDriver) -> Copy:
    return await until(driver, UNIT, lambda copy: copy.phase in (CopyPhase.FAILED, CopyPhase.FINISHED))


# Limits hold.


@needs_root
async def test_a_unit_over_its_memory_is_killed_and_says_so(rig: LimitedRig) -> None:
    driver, _ = await up(rig, ServiceSpec(start=shell(f"exec {GROW}")), memory_max=64 * MIB, memory_swap_max=0)
    copy = await ended(driver)
    assert (copy.phase, copy.cause) == (CopyPhase.FAILED, Cause.OOM)
    assert copy.message == "OOM-killed at 64 MiB (limit 64 MiB): /bin/sh was killed by SIGKILL"


@needs_root
async def test_a_restart_after_memory_ran_out_keeps_its_cause_while_it_runs_again(rig: LimitedRig) -> None:
    marked = rig.root / "ran"
    script = f"test -e {marked} && exec sleep 1000; touch {marked}; exec {GROW}"
    again = RestartPolicy(when=Restart.ON_FAILURE, delay_s=0.1)
    driver, _ = await up(rig, ServiceSpec(start=shell(script), restart=again), memory_max=32 * MIB)
    copy = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING and copy.restarts == 1)
    assert copy.cause is Cause.OOM
    await driver.stop(UNIT)
    order = rig.limited(ServiceSpec(start=shell(script), restart=again), ResourceLimits(memory_max=32 * MIB))
    assert (await driver.start(order)).cause is Cause.NONE  # begun afresh, by order


@needs_root
async def test_a_child_that_memory_killed_is_the_cause_when_its_parent_fails_of_it(rig: LimitedRig) -> None:
    driver, _ = await up(rig, ServiceSpec(start=shell(f"{GROW}; exit 3")), memory_max=32 * MIB)
    copy = await ended(driver)
    assert copy.cause is Cause.OOM
    assert copy.message == "OOM-killed at 32 MiB (limit 32 MiB): /bin/sh exited with status 3"


@needs_root
async def test_a_child_that_memory_killed_is_told_while_the_main_process_lives_on(rig: LimitedRig) -> None:
    driver, before = await up(rig, ServiceSpec(start=shell(f"{GROW}; exec sleep 1000")), memory_max=32 * MIB)
    copy = await until(driver, UNIT, lambda copy: copy.oom_kills > 0)
    assert (copy.phase, copy.pid, copy.cause) == (CopyPhase.RUNNING, before.pid, Cause.NONE)
    assert copy.message == "OOM-killed at 32 MiB (limit 32 MiB): 1 of its processes; it runs on"
    told = happening(before, copy)
    assert told is not None
    assert told.kind == "oom"


@needs_root
async def test_a_unit_at_its_limit_of_tasks_forks_no_more(rig: LimitedRig) -> None:
    script = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done; exec sleep 1000"
    driver, _ = await up(rig, ServiceSpec(start=shell(script)), tasks_max=6)
    copy = await ended(driver)  # dash gives up when it can't fork
    assert copy.cause is Cause.ULIMIT
    assert copy.message.startswith("ran into its limit of 6 tasks: ")
    assert any("fork" in line for line in await output(driver))


@needs_root
async def test_a_unit_gets_no_more_processor_time_than_its_quota(rig: LimitedRig) -> None:
    quota = 0.2
    _, copy = await up(rig, ServiceSpec(start=shell("while :; do :; done")), cpu_quota=quota)
    main = psutil.Process(copy.pid)

    def used() -> float:
        times = main.cpu_times()
        return times.user + times.system

    begun, before = asyncio.get_running_loop().time(), used()
    await soon(lambda: asyncio.get_running_loop().time() > begun + 3, "three seconds have passed")
    cores = (used() - before) / (asyncio.get_running_loop().time() - begun)
    assert cores <= quota * 1.2


@needs_root
async def test_a_unit_writes_no_faster_to_its_disk_than_it_may(rig: LimitedRig, tmp_path: Path) -> None:
    if (reason := no_disk_behind(tmp_path)) is not None:
        pytest.skip(reason)
    script = f"exec dd if=/dev/zero of={tmp_path}/out bs=256k count=12 oflag=direct"  # 3 MiB
    disk = str(tmp_path)
    driver, copy = await up(rig, ServiceSpec(start=shell(script)), io_write_bytes=((disk, 1_000_000),))
    begun = asyncio.get_running_loop().time()
    copy = await ended(driver)
    assert copy.phase is CopyPhase.FINISHED, copy
    assert 2.0 < asyncio.get_running_loop().time() - begun < 12.0


@needs_root
async def test_what_a_unit_weighs_is_written_where_the_kernel_reads_it(rig: LimitedRig) -> None:
    driver, _ = await up(rig, ServiceSpec(start=SLEEP), cpu_weight=200)
    cpu = (await driver.cgroup(UNIT)).path("cpu")
    assert cpu is not None
    shares, weight = cpu / "cpu.shares", cpu / "cpu.weight"
    assert (shares.read_text().strip() == "2048") if shares.exists() else (weight.read_text().strip() == "200")


# Where the groups are.


@needs_root
async def test_every_process_of_a_unit_is_in_its_group_and_its_supervisor_is_not(rig: LimitedRig) -> None:
    driver, copy = await up(rig, ServiceSpec(start=shell("sleep 1000 & exec sleep 1000")))
    (supervisor,) = rig.supervisors()
    await soon(lambda: len(psutil.Process(copy.pid).children()) == 1, "it has forked")
    pids = {copy.pid, psutil.Process(copy.pid).children()[0].pid}
    assert (await driver.cgroup(UNIT)).processes() == pids
    inside = cgroups_of(supervisor.pid)
    assert sum(path.endswith(f"unitfleet-{rig.machine}/supervisors") for path in inside) >= 2
    assert not any("unitfleet-" in path for path in cgroups_of(os.getpid()))


@needs_root
async def test_a_command_in_the_place_of_a_unit_is_within_its_limits(rig: LimitedRig) -> None:
    driver, _ = await up(rig, ServiceSpec(start=SLEEP), memory_max=64 * MIB)
    code, said = await driver.execute(UNIT, ["/bin/cat", "/proc/self/cgroup"], 10)
    group = (await driver.cgroup(UNIT)).path("memory")
    assert group is not None
    assert code == 0
    assert f"unitfleet-{rig.machine}/{group.name}\n" in said


@needs_root
async def test_no_group_is_left_of_a_unit_that_is_removed(rig: LimitedRig) -> None:
    driver, _ = await up(rig, ServiceSpec(start=SLEEP), memory_max=64 * MIB)
    assert rig.directories()
    await driver.stop(UNIT)
    await driver.remove(UNIT)
    assert not rig.directories()


@needs_root
async def test_units_that_come_while_others_go_have_their_groups(rig: LimitedRig) -> None:
    def mkdir(path: Path) -> None:
        path.mkdir(exist_ok=True)
        time.sleep(0.001)  # whoever could come between does

    cgroups, limits = Cgroups(rig.machine, 1 << 30, mkdir=mkdir), ResourceLimits(tasks_max=9)

    def come_and_go(unit: str) -> None:
        for _ in range(5):
            made = cgroups.make(unit, limits)
            assert all(directory.is_dir() for directory in made.directories)
            made.remove()

    await asyncio.gather(*(asyncio.to_thread(come_and_go, f"u{number}.service") for number in range(4)))
    assert not rig.directories()


@needs_root
async def test_the_next_agent_finds_the_groups_of_its_units(rig: LimitedRig) -> None:
    driver, copy = await up(rig, ServiceSpec(start=SLEEP), memory_max=64 * MIB)
    before = await driver.cgroup(UNIT)
    await driver.close()
    following = rig.driver()
    assert [found.pid for found in await following.list()] == [copy.pid]
    assert (await following.cgroup(UNIT)).groups == before.groups
    await following.stop(UNIT)
    await following.remove(UNIT)
    assert not rig.directories()


@needs_root
async def test_an_agent_clears_the_groups_of_units_that_are_not_here_any_more(rig: LimitedRig) -> None:
    driver, _ = await up(rig, ServiceSpec(start=SLEEP))
    left = [directory.with_name("gone.service") for directory in (await driver.cgroup(UNIT)).directories]
    for directory in left:
        directory.mkdir()
    (copy,) = await rig.driver().list()
    assert copy.phase is CopyPhase.RUNNING
    assert not any(directory.exists() for directory in left)


@needs_root
async def test_what_a_dead_supervisor_left_is_found_in_its_group(rig: LimitedRig) -> None:
    hidden = "env -i setsid sleep 1000 & wait"  # without the token, and in no session that the supervisor knows
    service = ServiceSpec(start=shell(f"setsid sh -c '{hidden}' & exec sleep 1000"))
    driver, _ = await up(rig, service, memory_max=64 * MIB)
    cgroup = await driver.cgroup(UNIT)
    await soon(lambda: len(cgroup.processes()) == 3, "all of them run")
    left = cgroup.processes()
    (supervisor,) = rig.supervisors()
    supervisor.kill()
    copy = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING and copy.pid not in left)
    await soon(lambda: not left & cgroup.processes(), "what it left has ended")
    assert copy.pid in cgroup.processes()


# Where limits can't be kept.


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (ResourceLimits(memory_max=64 * MIB), "the memory"),
        (ResourceLimits(cpu_quota=0.5), "the processor time"),
        (ResourceLimits(tasks_max=10), "the number of tasks"),
        (ResourceLimits(io_weight=50), "the resources"),
    ],
    ids=["memory", "processor time", "tasks", "a weight"],
)
async def test_a_unit_with_limits_is_refused_where_no_groups_can_be_made(
    rig: LimitedRig, limits: ResourceLimits, what: str
) -> None:
    for cgroups in (None, Cgroups(rig.machine, 1 << 30, proc=NO_GROUPS)):
        driver = ProcessDriver(rig.root, "m1", boot_id=rig.boot_id, cgroups=cgroups)
        with pytest.raises(DriverError) as caught:
            await driver.create(rig.limited(ServiceSpec(start=SLEEP), limits))
        assert caught.value.message == (
            f"cannot limit {what} of {UNIT}: this agent may not make cgroups (run it as root)"
        )
        assert await driver.list() == []
        await driver.close()


async def test_a_unit_without_limits_runs_where_no_groups_can_be_made(rig: LimitedRig) -> None:
    driver = ProcessDriver(
        rig.root, "m1", boot_id=rig.boot_id, cgroups=Cgroups(rig.machine, 1 << 30, proc=NO_GROUPS)
    )
    order = rig.service(UNIT, ServiceSpec(start=SLEEP))
    await driver.create(order)
    assert (await driver.start(order)).phase is CopyPhase.RUNNING
    assert (await driver.cgroup(UNIT)).groups == {}
    await driver.stop(UNIT)
    await driver.remove(UNIT)
    await driver.close()


@needs_root
async def test_a_disk_that_the_machine_lacks_is_told_by_its_path(rig: LimitedRig) -> None:
    with pytest.raises(DriverError, match=r"/dev/no-such-disk: no such file"):
        await up(rig, ServiceSpec(start=SLEEP), io_read_ops=(("/dev/no-such-disk", 10),))


# Causes that need no group.


@pytest.mark.parametrize(
    ("script", "fields", "cause", "said"),
    [
        ("exit 7", {}, Cause.EXIT, "/bin/sh exited with status 7"),
        ("kill -SEGV $$", {}, Cause.SIGNAL, "/bin/sh was killed by SIGSEGV"),
        (
            "while :; do :; done",
            {"limits": (("CPU", Limit(soft=1, hard=2)),)},
            Cause.ULIMIT,
            "its limit of CPU time",
        ),
        (
            "exec dd if=/dev/zero of=big bs=8k count=4",
            {"limits": (("FSIZE", Limit(soft=4096, hard=4096)),)},
            Cause.ULIMIT,
            "its limit of file size",
        ),
        (
            "exec python3 -S -c 'import os; [os.dup(0) for _ in range(99)]'",
            {"limits": (("NOFILE", Limit(soft=32, hard=32)),)},
            Cause.ULIMIT,
            'ran out of open files (it said "Too many open files")',
        ),
    ],
    ids=["exit code", "signal", "CPU time", "file size", "open files"],
)
async def test_the_cause_of_an_end_is_told(
    rig: LimitedRig, tmp_path: Path, script: str, fields: dict[str, object], cause: Cause, said: str
) -> None:
    service = ServiceSpec(start=shell(script), working_directory=str(tmp_path), **fields)  # type: ignore[arg-type]
    driver, order = rig.driver(), rig.service(UNIT, service)
    await driver.create(order)
    await driver.start(order)
    copy = await ended(driver)
    assert copy.cause is cause
    assert said in copy.message


async def test_a_start_that_takes_too_long_has_the_cause_timeout(rig: LimitedRig) -> None:
    service = ServiceSpec(start_pre=shell("exec sleep 1000"), start=SLEEP, timeout_start_s=0.2)
    driver, order = rig.driver(), rig.service(UNIT, service)
    await driver.create(order)
    copy = await driver.start(order)
    assert (copy.phase, copy.cause) == (CopyPhase.FAILED, Cause.TIMEOUT)
