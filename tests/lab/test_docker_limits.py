"""Limits of `[Container]` units on a real Engine, and why these end; the `docker` SDK is the witness."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from contract.docker_rig import DockerRig, container_order
from contract.driver_rig import until
from harness.eventually import eventually
from harness.hierarchies import none_is_hidden
from harness.image import IMAGE
from unit_agent.driver import Copy, Order
from unit_agent.drivers.block_device import disk_node
from unit_agent.drivers.docker import DockerDriver
from unit_agent.happenings import happening
from unitfleet.errors import DriverError
from unitfleet.model import Cause, CopyPhase
from unitfleet.spec import ContainerSpec, Limit, ResourceLimits, Restart, RestartPolicy, ServiceSpec

pytestmark = pytest.mark.lab

UNIT = "adserver@1.service"
MIB = 1 << 20
GROW = "dd if=/dev/zero of=/dev/null bs=256M count=1"  # a buffer of 256 MiB, and no more should a limit not hold


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DockerRig]:
    async with DockerRig(tmp_path) as made:
        yield made


def limited(script: str, service: ServiceSpec = ServiceSpec(), **limits: Any) -> Order:  # noqa: B008
    """Return an order for a container that runs a script within limits."""
    container = ContainerSpec(image=IMAGE, exec=("sh", "-c", script), networks=("none",), stop_timeout_s=1.0)
    order = container_order(UNIT, container, service)
    return replace(order, spec=msgspec.structs.replace(order.spec, limits=ResourceLimits(**limits)))


async def up(rig: DockerRig, order: Order) -> tuple[DockerDriver, Copy]:
    driver = rig.driver()
    await driver.create(order)
    return driver, await driver.start(order)


async def ended(driver: DockerDriver) -> Copy:
    return await until(driver, UNIT, lambda copy: copy.phase in (CopyPhase.FAILED, CopyPhase.FINISHED))


async def host_config(rig: DockerRig) -> dict[str, Any]:
    """Return what the witness says of the container's limits."""
    container = await asyncio.to_thread(rig.container, UNIT)
    return dict(container.attrs["HostConfig"])


async def test_a_container_over_its_memory_is_killed_and_says_so(rig: DockerRig) -> None:
    await none_is_hidden()
    driver, running = await up(rig, limited(f"exec {GROW}", memory_max=64 * MIB, memory_swap_max=0))
    copy = await ended(driver)
    assert (copy.phase, copy.cause) == (CopyPhase.FAILED, Cause.OOM)
    assert copy.message == "OOM-killed at 64 MiB (limit 64 MiB): killed by SIGKILL"
    config = await host_config(rig)
    assert (config["Memory"], config["MemorySwap"]) == (64 * MIB, 64 * MIB)
    told = happening(running, copy)
    assert told is not None
    assert (told.kind, told.message) == ("failed", copy.message + " [oom]")
    (again,) = await rig.driver().list()  # another agent, which saw nothing of it
    assert (again.cause, again.message) == (copy.cause, copy.message)


async def test_a_container_that_memory_killed_is_started_again_with_that_cause(rig: DockerRig) -> None:
    await none_is_hidden()
    service = ServiceSpec(restart=RestartPolicy(when=Restart.ON_FAILURE, delay_s=0.1))
    script = f"test -e /ran && exec sleep 1000; touch /ran; exec {GROW}"
    driver, _ = await up(rig, limited(script, service, memory_max=32 * MIB))
    copy = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING and copy.restarts == 1)
    assert copy.cause is Cause.OOM


async def test_a_process_that_memory_killed_is_told_while_the_main_one_lives_on(rig: DockerRig) -> None:
    await none_is_hidden()
    driver, before = await up(rig, limited(f"{GROW}; exec sleep 1000", memory_max=32 * MIB))
    copy = await until(driver, UNIT, lambda copy: copy.oom_kills > 0)
    assert (copy.phase, copy.pid) == (CopyPhase.RUNNING, before.pid)
    assert re.fullmatch(r"OOM-killed at 32 MiB \(limit 32 MiB\): [12] of its processes; it runs on", copy.message)
    told = happening(before, copy)
    assert told is not None
    assert (told.kind, told.message) == ("oom", copy.message)


async def test_a_share_of_memory_is_that_of_the_machine(rig: DockerRig) -> None:
    await up(rig, limited("exec sleep 1000", memory_max_percent=1.0))
    assert (await host_config(rig))["Memory"] == psutil.virtual_memory().total // 100


async def test_a_container_gets_no_more_processor_time_than_its_quota(rig: DockerRig) -> None:
    quota = 0.2
    _, copy = await up(rig, limited("while :; do :; done", cpu_quota=quota))
    main = psutil.Process(copy.pid)

    def used() -> float:
        times = main.cpu_times()
        return times.user + times.system

    clock = asyncio.get_running_loop().time
    begun, before = clock(), used()

    async def waited() -> bool:
        return clock() > begun + 3

    await eventually(waited, within_s=10, what=lambda: "three seconds have passed")
    assert (used() - before) / (clock() - begun) <= quota * 1.2


async def test_a_container_at_its_limit_of_tasks_forks_no_more(rig: DockerRig) -> None:
    script = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done; exec sleep 1000"
    driver, _ = await up(rig, limited(script, tasks_max=6))  # busybox's shell gives up when it can't fork
    copy = await ended(driver)
    assert copy.cause is Cause.ULIMIT
    assert copy.message.startswith("ran into its limit of 6 tasks: exited with status ")
    assert (await host_config(rig))["PidsLimit"] == 6


async def test_a_container_that_runs_out_of_open_files_has_that_cause(rig: DockerRig) -> None:
    service = ServiceSpec(limits=(("NOFILE", Limit(soft=64, hard=64)),))
    # no container starts with so few that a shell could use them up: it takes the last ones from itself
    driver, _ = await up(rig, limited("ulimit -n; ulimit -n 3; cat /proc/version", service))
    copy = await ended(driver)
    assert copy.cause is Cause.ULIMIT, copy
    assert 'it said "Too many open files"' in copy.message
    printed = [line.text async for line in driver.logs(UNIT, lines=10, follow=False)]
    assert "64" in printed


@pytest.mark.parametrize("signal", [None, "SIGKILL"], ids=["exit code", "signal"])
async def test_the_cause_of_an_end_is_told(rig: DockerRig, signal: str | None) -> None:
    driver, copy = await up(rig, limited("exec sleep 1000" if signal else "exit 7"))
    if signal:
        psutil.Process(copy.pid).kill()
    copy = await ended(driver)
    assert copy.cause is (Cause.SIGNAL if signal else Cause.EXIT)
    assert copy.message == ("killed by SIGKILL" if signal else "exited with status 7")


async def test_what_this_engine_can_not_keep_is_said_and_the_unit_runs(rig: DockerRig) -> None:
    _, copy = await up(rig, limited("exec sleep 1000", io_weight=50, cpu_weight=200))
    config = await host_config(rig)
    assert config["CpuShares"] == 2048
    assert copy.phase is CopyPhase.RUNNING
    said = "IOWeight= is not kept here" in copy.message
    assert said is (not config.get("BlkioWeight"))
    (again,) = await rig.driver().list()  # another agent, which did not create it
    assert again.message == copy.message
    told = happening(None, copy)
    assert told is not None
    assert ("IOWeight=" in told.message) is said


async def test_a_disk_is_named_by_any_path_on_it(rig: DockerRig) -> None:
    folder = str(rig.directory)
    try:
        disk_node(folder)
    except DriverError as error:
        pytest.skip(error.message)
    await up(rig, limited("exec sleep 1000", io_write_bytes=((folder, 10**6),), io_read_ops=((folder, 100),)))
    config, node = await host_config(rig), disk_node(folder)
    assert config["BlkioDeviceWriteBps"] == [{"Path": node, "Rate": 10**6}]
    assert config["BlkioDeviceReadIOps"] == [{"Path": node, "Rate": 100}]


async def test_a_disk_that_the_machine_lacks_is_told_by_its_path(rig: DockerRig) -> None:
    with pytest.raises(DriverError, match=r"/dev/no-such-disk: no such file"):
        await up(rig, limited("exec sleep 1000", io_read_ops=(("/dev/no-such-disk", 10),)))
