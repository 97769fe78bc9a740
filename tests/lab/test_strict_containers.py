"""Strict containers on real Docker Engines: never two, by what every Engine and /proc say, whatever is frozen."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.cluster import Cluster, Machine
from harness.engines import Engines
from harness.image import IMAGE
from harness.unit_processes import Running

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

TTL_S = 5.0
MOVED_S = 2 * (2.005 * TTL_S + 3.0)
UNIT = "alone.service"
TEXT = f"""[Container]
Image={IMAGE}
Exec=sleep 100000
Network=host
Pull=never

[Service]
Restart=always

[X-Fleet]
Singleton=strict
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def lab() -> AsyncIterator[Cluster]:
    if reason := Engines.available():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.in_lab(Path(logs), hosts=3, masters=2, etcd=1, profile="fast") as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(lab: Cluster) -> AsyncIterator[Cluster]:
    yield lab
    await lab.restore()


class Executing:
    """Looks into /proc many times a second for processes of containers of the unit, by their environment.

    The Engines are not asked: one that is frozen would not answer.
    """

    def __init__(self) -> None:
        self.most = 0
        self.last: dict[bytes, float] = {}
        self.first: dict[bytes, float] = {}

    async def run(self) -> None:
        while True:
            hosts = await asyncio.to_thread(_hosts_that_execute)
            self.most = max(self.most, len(hosts))
            for host in hosts:
                self.first.setdefault(host, time.monotonic())
                self.last[host] = time.monotonic()
            await asyncio.sleep(0.02)


def _hosts_that_execute() -> set[bytes]:
    found: set[bytes] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes().split(b"\0")
                if f"UNITFLEET_UNIT={UNIT}".encode() in environment:
                    found.update(each for each in environment if each.startswith(b"UNITFLEET_MACHINE="))
    return found


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Executing]:
    seen = Executing()
    task = asyncio.create_task(seen.run())
    try:
        yield seen
    finally:
        task.cancel()


async def started(cluster: Cluster) -> Running:
    cluster.write("alone.container", TEXT)
    await cluster.must("start", "alone.container")
    (copy,) = await cluster.running(UNIT)
    return copy


async def runs_elsewhere(cluster: Cluster, seen: Executing, old: Running) -> None:
    mine = f"UNITFLEET_MACHINE={old.machine}".encode()

    async def moved() -> bool:
        return bool(seen.first.keys() - {mine})

    await cluster.wait_until(moved, MOVED_S, f"{UNIT} runs elsewhere than on {old.machine}")
    (new,) = seen.first.keys() - {mine}
    assert seen.first[new] - seen.last[mine] > 0.5, "it ended with time to spare"


async def is_back(cluster: Cluster, machine: Machine) -> None:
    async def so() -> bool:
        ready = (await cluster.machine_views())[machine.name].status == "ready"
        return ready and await cluster.held(machine) == []

    await cluster.wait_until(so, MOVED_S, f"{machine.name} is back and holds nothing of the unit")


async def test_a_frozen_agent_holds_no_strict_container_past_its_deadline(cluster: Cluster) -> None:
    old = await started(cluster)
    machine = cluster.machine(old.machine)
    async with watched() as seen:
        machine.agent.pause()
        await runs_elsewhere(cluster, seen, old)
        assert await cluster.held(machine) == [], "removed: a start that is under way finds nothing"
        machine.agent.resume()
        await is_back(cluster, machine)
    assert seen.most == 1


async def test_a_frozen_engine_and_a_dead_agent_hold_no_strict_container_past_its_deadline(
    cluster: Cluster,
) -> None:
    old = await started(cluster)
    machine = cluster.machine(old.machine)
    async with watched() as seen:
        cluster.lab.engines.signal_engine(machine.host, signal.SIGSTOP)
        machine.agent.kill()
        await runs_elsewhere(cluster, seen, old)
        cluster.lab.engines.signal_engine(machine.host, signal.SIGCONT)
        cluster.start_agent(machine)
        await is_back(cluster, machine)
    assert seen.most == 1


async def test_a_container_that_crashes_again_and_again_starts_nothing_while_its_host_is_cut_off(
    cluster: Cluster,
) -> None:
    cluster.write("alone.container", TEXT.replace("Exec=sleep 100000", "Exec=sleep 0.3"))
    await cluster.must("start", "alone.container", "--no-block")

    async def runs() -> bool:
        return bool(await asyncio.to_thread(_hosts_that_execute))

    await cluster.wait_until(runs, MOVED_S, "it runs now and then")
    unit = await cluster.unit(UNIT)
    assert unit is not None
    machine = cluster.machine(unit.copies[0].machine_name)
    mine = f"UNITFLEET_MACHINE={machine.name}".encode()
    async with watched() as seen:
        await cluster.cut(machine)

        async def moved() -> bool:
            return bool(seen.first.keys() - {mine})

        await cluster.wait_until(moved, MOVED_S, "it runs elsewhere now and then")
        await asyncio.sleep(3.0)
        (new,) = seen.first.keys() - {mine}
        assert mine not in seen.last or seen.first[new] - seen.last[mine] > 0.5
        await cluster.heal(machine)
        await is_back(cluster, machine)
    assert seen.most == 1
