"""Figures of real containers, the `docker` SDK's stats as the witness; and the guard over a disk that is full."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.docker_rig import DockerRig, container_order
from contract.driver_rig import find
from harness.cluster import Cluster
from harness.eventually import eventually
from harness.image import IMAGE
from unit_agent.cgroups.choose import reader
from unit_agent.driver import Copy
from unit_agent.resources import disks
from unit_agent.resources.copies import SELDOM_S, CopyMeter
from unitfleet.api import UnitFigures
from unitfleet.model import CopyPhase
from unitfleet.spec import ContainerSpec

pytestmark = pytest.mark.lab

UNIT = "adserver@1.service"
MIB = 1024 * 1024
WORK = (
    # files that stay open, 24 MiB of memory that counts, a page cache that does not, bytes sent, CPU burnt
    "exec 5</dev/null 6</dev/null 7</dev/null;"
    "dd if=/dev/zero of=/dev/shm/held bs=1M count=24 2>/dev/null;"
    "dd if=/dev/zero of=/dropped bs=1M count=16 2>/dev/null; sync;"
    "ping -q -s 1000 -c 50 -i 0.01 $(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p') >/dev/null;"
    "sleep 1000 & touch /ready; while :; do :; done"
)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DockerRig]:
    async with DockerRig(tmp_path) as made:
        yield made


async def run(rig: DockerRig, script: str, **changes: Any) -> Copy:
    driver = rig.driver()
    spec = ContainerSpec(image=IMAGE, exec=("sh", "-c", script), stop_timeout_s=0.1, **changes)
    order = container_order(UNIT, spec)
    await driver.create(order)
    copy = await driver.start(order)
    assert copy.phase is CopyPhase.RUNNING, copy
    found = await find(driver, UNIT)
    assert found is not None and found.pid
    return found


async def test_a_container_is_measured_as_the_engine_measures_it(rig: DockerRig) -> None:
    copy = await run(rig, WORK)
    clock = [0.0]
    meter = CopyMeter(reader(), clock=lambda: time.monotonic() + clock[0])

    def sample() -> UnitFigures:
        [found] = meter.sample([copy], {})
        return found

    container = await asyncio.to_thread(rig.container, UNIT)

    async def ready() -> bool:
        return bool((await asyncio.to_thread(container.exec_run, "test -e /ready")).exit_code == 0)

    await eventually(ready, within_s=30, what=lambda: "the container did its work")
    began, first = time.monotonic(), sample()
    stats = await asyncio.to_thread(lambda: container.stats(stream=False))  # takes the Engine two seconds
    clock[0] = SELDOM_S
    second = sample()
    passed = time.monotonic() - began
    # CPU: by the Engine's own total, read between the samples
    told_s = stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    assert first.cpu_s - 0.002 <= told_s <= second.cpu_s + 0.002
    assert 0 < second.cpu_s - first.cpu_s < 1.3 * passed, "it burns, one core at most"
    # memory: what the docker command shows is the working set, too
    memory = stats["memory_stats"]
    idle = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file"))
    assert second.memory == pytest.approx(memory["usage"] - idle, abs=4 * MIB)
    assert second.memory_usage == pytest.approx(memory["usage"], abs=4 * MIB)
    assert 24 * MIB <= second.memory < second.memory_usage - 10 * MIB, "the page cache of a file is not held"
    # processes, open files, network, disk
    assert second.processes == stats["pids_stats"]["current"] == 2
    assert second.open_files == len(os.listdir(f"/proc/{copy.pid}/fd")) >= 6
    assert second.open_files_limit == _soft_limit(copy.pid)
    [network] = stats["networks"].values()
    assert second.sent_bytes == pytest.approx(network["tx_bytes"], abs=2000) and second.sent_bytes > 50_000
    assert second.received_bytes == pytest.approx(network["rx_bytes"], abs=2000)
    told = stats["blkio_stats"]["io_service_bytes_recursive"] or []
    written = sum(entry["value"] for entry in told if entry["op"].lower() == "write")
    assert second.write_bytes == pytest.approx(written, abs=MIB)
    assert copy.id in second.cgroup and second.id == copy.id


async def test_a_limit_and_what_it_costs_are_seen(rig: DockerRig) -> None:
    copy = await run(rig, "tail /dev/zero; exec sleep 1000", memory=16 * MIB, networks=("none",))
    meter = CopyMeter(reader())

    async def killed() -> UnitFigures | None:
        [found] = await asyncio.to_thread(meter.sample, [copy], {})
        return found if found.oom_kills and found.processes == 1 else None

    seen = await eventually(killed, within_s=30, what=lambda: "a process of it is killed for its memory")
    assert seen is not None
    assert (seen.oom_kills, seen.memory_limit, seen.cpu_limit) == (1, 16 * MIB, 0.0)
    assert seen.memory <= 16 * MIB
    assert (seen.egress, seen.sent_bytes) == (0, 0), "a network of its own, with loopback alone"


async def test_cgroupspy_and_the_direct_reader_agree_on_a_container(rig: DockerRig) -> None:
    copy = await run(rig, "exec sleep 1000", networks=("none",), memory=64 * MIB)
    direct, spy = reader(), reader(cgroupspy=True)
    assert direct is not None and spy is not None
    if direct.name != "v1":
        pytest.skip("cgroupspy reads v1 alone")
    assert spy.name == "cgroupspy"
    group = direct.find(copy.pid, copy.id)
    assert group is not None and spy.find(copy.pid, copy.id) == group

    async def same() -> bool:
        return direct.figures(group) == spy.figures(group)  # once it is at rest

    await eventually(same, within_s=10, what=lambda: f"{direct.figures(group)} is {spy.figures(group)}")
    assert direct.limits(group) == spy.limits(group)
    assert direct.limits(group).memory == 64 * MIB


async def test_a_sample_of_a_copy_is_cheap(rig: DockerRig) -> None:
    copy = await run(rig, "exec sleep 1000")
    meter = CopyMeter(reader())
    meter.sample([copy], {})
    took = []
    for _ in range(200):
        began = time.thread_time()
        meter.sample([copy], {})
        took.append(time.thread_time() - began)
    assert sorted(took)[100] < 2 * 0.0002, f"{sorted(took)[100] * 1e6:.0f} µs"


async def test_the_engine_tells_where_its_storage_is(rig: DockerRig) -> None:
    root = Path(await disks.docker_root(str(rig.lab.socket(0))))
    assert root == rig.lab.folder / "0/data"
    assert disks.uses([str(root)])[0].space is not None


async def test_a_full_disk_closes_the_machine_until_there_is_room(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts a small disk: needs root")
    async with Cluster.on_loopback(tmp_path, machines=1, masters=1) as cluster:
        [machine] = cluster.machines
        state = cluster.units_dir.parent / "agent0"
        machine.agent.kill()
        with small_disk(state, tmp_path / "kept"):
            machine.agent.start()
            try:
                await _story_of_a_full_disk(cluster, state)
            finally:
                machine.agent.kill()


@contextlib.contextmanager
def small_disk(directory: Path, aside: Path) -> Iterator[None]:
    """Have a directory on a file system of 64 MiB meanwhile, with what it held."""
    shutil.copytree(directory, aside)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "small-disk", str(directory)], check=True)
    try:
        shutil.copytree(aside, directory, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


async def _story_of_a_full_disk(cluster: Cluster, state: Path) -> None:
    def closed(view: str) -> bool:
        return "disk: " in view and f" % of {state} used, closed from 90 %" in view

    async def machine_is(closed_: Callable[[str], bool]) -> bool:
        return closed_((await cluster.machine_views())["m1"].closed)

    cluster.write("box@.service", "[Service]\nExecStart=/bin/sleep 1000\n")
    await cluster.must("start", "box@1")
    (state / "filling").write_bytes(bytes(60 * MIB))
    await cluster.wait_until(lambda: machine_is(closed), 15, "the machine closes itself")
    refused = await cluster.unitctl("start", "box@2")
    assert refused.code == 3 and "room refused 1: m1: disk: " in refused.stderr, refused
    explained = await cluster.must("explain", "box@2")
    assert closed(explained.stdout), explained
    listed = await cluster.must("list-machines")
    assert "ready,closed" in listed.stdout and closed(listed.stdout), listed
    assert await cluster.runs_once("box@1.service"), "what is there stays"
    (state / "filling").unlink()
    await cluster.wait_until(lambda: machine_is(lambda view: view == ""), 15, "the machine opens itself")
    await cluster.wait_until(lambda: cluster.runs_once("box@2.service"), 15, "the unit that waited is placed")
    told = json.loads((await cluster.must("events", "-o", "json")).stdout)
    kinds = [event["kind"] for event in told["items"] if not event["unit"]]
    assert {"closed", "opened"} <= set(kinds), told


def _soft_limit(pid: int) -> int:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Max open files")).split()[3])
