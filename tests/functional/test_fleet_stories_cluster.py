"""fleet's own functional tests of a cluster that changes, by the same names.

Where fleet ended units with its daemon, ours go on: that is said where a story differs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.cluster import Cluster, Machine
from harness.daemon import Daemon
from harness.eventually import eventually
from harness.fleetctl import Fleetctl
from harness.unit_processes import Running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.story]

SOON_S = 15.0
FAILOVER_S = 2 * 8.0
SERVICE = "[Service]\nExecStart=/bin/sleep 100000\n"
APART = f"{SERVICE}\n[X-Fleet]\nConflicts=conflict@*.service\n"
UNITS = tuple(f"conflict@{number}.service" for number in (1, 2, 3))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared() -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.on_loopback(Path(logs), machines=4, masters=1) as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    shared.write("conflict@.service", APART)
    yield shared
    await shared.restore()


@pytest.fixture
def fleetctl(cluster: Cluster) -> Fleetctl:
    return Fleetctl(f"unix://{cluster.root / 'master1.sock'}", cluster.units_dir)


async def apart(cluster: Cluster) -> dict[str, Running]:
    """Start three units that conflict; return the copy of each."""
    await cluster.must("start", "conflict@<1..3>")
    return await copies(cluster)


async def copies(cluster: Cluster) -> dict[str, Running]:
    found = await cluster.all_running()
    return {unit: running[0] for unit, running in found.items() if running}


async def status(cluster: Cluster, machine: Machine) -> str:
    return (await cluster.machine_views())[machine.name].status


def moved(before: dict[str, Running], after: dict[str, Running]) -> list[str]:
    return [unit for unit in before if after.get(unit) != before[unit]]


async def test_dynamic_cluster_new_member_unit_migration(cluster: Cluster) -> None:
    before = await apart(cluster)
    [free] = {machine.name for machine in cluster.machines} - {copy.machine for copy in before.values()}
    victim = UNITS[0]
    await cluster.power_off(cluster.machine(before[victim].machine))
    await cluster.wait_until(lambda: cluster.runs_once(*UNITS), FAILOVER_S, "the unit runs on the free machine")
    after = await copies(cluster)
    assert moved(before, after) == [victim] and after[victim].machine == free


async def test_dynamic_cluster_member_reboot(cluster: Cluster) -> None:
    before = await apart(cluster)
    machine = cluster.machine(before[UNITS[1]].machine)
    await cluster.power_off(machine)
    await cluster.wait_until(lambda: cluster.runs_once(*UNITS), FAILOVER_S, "the unit runs elsewhere")
    after = await copies(cluster)
    await cluster.boot(machine)

    async def is_back() -> bool:
        return await status(cluster, machine) == "ready"

    await cluster.wait_until(is_back, SOON_S, "the machine is back")
    assert moved(before, after) == [UNITS[1]]
    assert moved(after, await copies(cluster)) == []


async def test_single_node_connectivity_loss(cluster: Cluster, fleetctl: Fleetctl) -> None:
    machine = cluster.machine("m1")
    here = f"{SERVICE}\n[X-Fleet]\nMachineMetadata=rack=r1\n"
    for name in ("submitted", "loaded", "started"):
        cluster.write(f"{name}.service", here)
    cluster.write("global.service", f"{SERVICE}\n[X-Fleet]\nGlobal=true\n")
    await cluster.must("submit", "submitted.service")
    await cluster.must("load", "loaded.service")
    await cluster.must("start", "started.service", "global.service")
    before, states = await cluster.all_running(), await asyncio.to_thread(fleetctl.list_units)
    await cluster.cut(machine)

    async def is_silent() -> bool:
        return await status(cluster, machine) != "ready"

    async def is_heard() -> bool:
        return not await is_silent() and await asyncio.to_thread(fleetctl.list_units) == states

    await cluster.wait_until(is_silent, SOON_S, "the machine is missed")
    await cluster.heal(machine)
    await cluster.wait_until(is_heard, SOON_S, "all is as it was")
    assert await cluster.all_running() == before


async def test_node_shutdown(cluster: Cluster, fleetctl: Fleetctl) -> None:
    """On fleet the daemon's end ended its units. Here they run on, and a host that is to go is drained first."""
    await apart(cluster)
    machine = cluster.machine((await copies(cluster))[UNITS[0]].machine)
    id = (await cluster.machine_views())[machine.name].id
    await cluster.must("machines", "drain", machine.name)
    await cluster.wait_until(lambda: cluster.runs_once(*UNITS), SOON_S, "the unit runs elsewhere")
    assert await cluster.held(machine) == []
    await asyncio.to_thread(machine.agent.stop)

    async def has_left() -> bool:
        machines = await asyncio.to_thread(fleetctl.list_machines)
        reported = await asyncio.to_thread(fleetctl.list_units)
        found = {state["machineID"] for states in reported.values() for state in states}
        return id not in machines and id not in found

    await cluster.wait_until(has_left, SOON_S, "the machine is listed no more")


async def test_reconfigure_server(cluster: Cluster, fleetctl: Fleetctl) -> None:
    """fleet read its settings anew on SIGHUP; ours are read at the start, and the signal does no harm."""
    before = await apart(cluster)
    daemons = (cluster.masters[0], cluster.machine("m1").agent)
    pids = [daemon.pid for daemon in daemons]
    for daemon in daemons:
        os.kill(daemon.pid, signal.SIGHUP)
    for daemon in daemons:

        async def went_on(daemon: Daemon = daemon) -> bool:
            return "went on after SIGHUP" in daemon.tail()

        await eventually(went_on, within_s=SOON_S, what=daemon.tail)
    assert [daemon.pid for daemon in daemons if daemon.runs] == pids
    assert set(await asyncio.to_thread(fleetctl.list_units)) == set(UNITS)
    assert moved(before, await copies(cluster)) == []


async def ends_well(daemon: Daemon) -> bool:
    """Whether it ends by itself, with 0, when it is asked to."""
    pid = daemon.pid
    os.kill(pid, signal.SIGTERM)
    await eventually(lambda: asyncio.to_thread(lambda: not daemon.runs), within_s=SOON_S, what=daemon.tail)
    return daemon.code == 0


async def test_shutdown(cluster: Cluster) -> None:
    before = await apart(cluster)
    for daemon in (cluster.machine("m1").agent, cluster.masters[0]):
        assert await ends_well(daemon), daemon.tail()
    running = [await cluster.running(unit) for unit in UNITS]
    assert running == [[before[unit]] for unit in UNITS]


async def test_shutdown_vs_monitor(cluster: Cluster) -> None:
    """While etcd is away, and an agent tries to reach it, it ends in order as well."""
    agent = cluster.machine("m2").agent
    for member in cluster.etcd.members:
        cluster.pause(member)
    try:
        assert await ends_well(agent), agent.tail()
    finally:
        for member in cluster.etcd.members:
            cluster.resume(member)


async def test_fleetctl_with_env(cluster: Cluster) -> None:
    socket = {"UNITCTL_ENDPOINT": f"unix://{cluster.root / 'master1.sock'}"}
    told = await cluster.unitctl("list-machines", "-o", "fleet", env=socket)
    assert told.code == 0 and told.stdout.startswith("MACHINE\t\tIP\t\tMETADATA\n"), told
    nowhere = {"UNITCTL_ENDPOINT": "unix:///nonexistent"}
    assert (await cluster.unitctl("list-machines", env=nowhere)).code == 7
