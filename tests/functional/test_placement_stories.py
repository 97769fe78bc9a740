"""Priority and labels on a whole cluster: real etcd, masters, agents with the process driver, and unitctl."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.cluster import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON_S = 10.0
MOST_OF_A_MACHINE = (os.cpu_count() or 1) * 0.7
SERVICE = f"[Service]\nExecStart=/bin/sleep 100000\nRestart=always\n\n[X-Fleet]\nCPU={MOST_OF_A_MACHINE:.2f}\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.on_loopback(Path(logs)) as cluster:
            yield cluster


async def places(cluster: Cluster) -> dict[str, str]:
    """Where /proc says that each unit runs; of one that runs twice it fails."""
    found = await cluster.all_running()
    assert all(len(copies) < 2 for copies in found.values()), found
    return {unit: copies[0].machine for unit, copies in found.items() if copies}


async def test_a_higher_priority_evicts_a_lower_one_and_everybody_is_told_why(cluster: Cluster) -> None:
    cluster.write("web@.service", SERVICE)
    await cluster.must("start", "web@<1..3>")
    before = await places(cluster)
    assert sorted(before.values()) == ["m1", "m2", "m3"], "one fills each machine"
    cluster.write("db.service", SERVICE + "Priority=100\n")
    await cluster.must("start", "db.service")
    after = await places(cluster)
    [evicted] = before.keys() - after.keys()
    machine = after["db.service"]
    assert machine == before[evicted]
    assert {unit: after[unit] for unit in before.keys() - {evicted}} == {
        unit: before[unit] for unit in before.keys() - {evicted}
    }
    why = f"evicted from {machine} by db.service (priority 100)"
    assert why in (await cluster.must("list-units")).stdout
    assert why in (await cluster.must("explain", evicted)).stdout
    assert why in (await cluster.must("events", "--unit", evicted)).stdout
    await cluster.must("stop", "db.service")
    await cluster.must("unload", "db.service")

    async def back() -> bool:
        return evicted in await places(cluster)

    await cluster.wait_until(back, SOON_S, f"{evicted} returns when there is room")
    assert await places(cluster) == before
    await cluster.must("destroy", "db.service", "web@*")


async def test_a_label_moves_what_does_not_suit_the_machine_any_more_after_a_look(cluster: Cluster) -> None:
    for machine in ("m1", "m2"):
        await cluster.must("machines", "label", machine, "tier=front", "-y")
    cluster.write("front.service", SERVICE + "MachineMetadata=tier=front\n")
    cluster.write("elsewhere.service", SERVICE + "MachineMetadata=tier!=front\n")
    await cluster.must("start", "front.service", "elsewhere.service")
    before = await places(cluster)
    assert before["elsewhere.service"] == "m3" and before["front.service"] in ("m1", "m2")
    here = before["front.service"]
    [other] = {"m1", "m2"} - {here}
    looked = await cluster.must("machines", "label", here, "tier-", "--dry-run")
    assert f"front.service  {here} → {other}" in looked.stdout
    refused = await cluster.unitctl("machines", "label", here, "tier-")
    assert refused.code == 1 and "-y" in refused.stderr
    assert await places(cluster) == before, "a look moves nothing"
    await cluster.must("machines", "label", here, "tier-", "-y")

    async def moved() -> bool:
        found = await cluster.all_running()
        return [copy.machine for copy in found.get("front.service", ())] == [other]

    await cluster.wait_until(moved, SOON_S, "the unit is where the label is")
    assert "tier" not in (await cluster.must("machines", "show", here)).stdout
    await cluster.must("destroy", "front.service", "elsewhere.service")
