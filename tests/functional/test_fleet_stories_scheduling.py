"""fleet's own functional tests of its scheduler, by the same names, on three machines of a real cluster."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from harness.cluster import Cluster
from harness.fleetctl import Failed, Fleetctl

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON_S = 15.0
SERVICE = "[Service]\nExecStart=/bin/sleep 100000\n"


def fleet(*lines: str) -> str:
    return "\n".join((f"{SERVICE}\n[X-Fleet]", *lines, ""))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared() -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.on_loopback(Path(logs), machines=3, masters=1) as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    yield shared
    await shared.restore()


@pytest.fixture
def fleetctl(cluster: Cluster) -> Fleetctl:
    return Fleetctl(f"unix://{cluster.root / 'master1.sock'}", cluster.units_dir)


async def where(cluster: Cluster) -> dict[str, list[str]]:
    """Return on which machines each unit's copies run, by the outside witness."""
    return {unit: [copy.machine for copy in copies] for unit, copies in (await cluster.all_running()).items()}


async def id_of(cluster: Cluster, machine: str) -> str:
    return (await cluster.machine_views())[machine].id


async def test_schedule_conflicts(cluster: Cluster) -> None:
    cluster.write("conflict@.service", fleet("Conflicts=conflict@*.service"))
    await cluster.unitctl("start", "--no-block", "conflict@<1..5>")

    async def three_run() -> bool:
        return sum(len(machines) for machines in (await where(cluster)).values()) == 3

    await cluster.wait_until(three_run, SOON_S, "three of five run")
    found = [machine for machines in (await where(cluster)).values() for machine in machines]
    assert sorted(found) == ["m1", "m2", "m3"]


async def test_schedule_one_way_conflict(cluster: Cluster) -> None:
    for other in ("m2", "m3"):
        await cluster.must("machines", "cordon", other)
    cluster.write("conflicts-with-hello.service", fleet("Conflicts=hello.service"))
    cluster.write("hello.service", SERVICE)
    await cluster.must("start", "conflicts-with-hello.service")
    refused = await cluster.unitctl("start", "hello.service")
    assert refused.code == 3 and await cluster.running("hello.service") == []
    await cluster.must("destroy", "conflicts-with-hello.service")
    await cluster.wait_until(lambda: cluster.runs_once("hello.service"), SOON_S, "hello.service runs")


@pytest.mark.parametrize(
    "lines", [("Conflicts=a.service b.service",), ("Conflicts=a.service", "Conflicts=b.service")]
)
async def test_schedule_multiple_conflicts(cluster: Cluster, lines: tuple[str, ...]) -> None:
    cluster.write("a.service", fleet("MachineMetadata=rack=r1"))
    cluster.write("b.service", fleet("MachineMetadata=rack=r2"))
    cluster.write("apart.service", fleet(*lines))
    await cluster.must("start", "a.service", "b.service")
    await cluster.must("start", "apart.service")
    assert (await where(cluster))["apart.service"] == ["m3"]


async def test_schedule_machine_of(cluster: Cluster) -> None:
    pairs = [(f"ping.{number}.service", f"pong.{number}.service") for number in range(3)]
    for number, (ping, pong) in enumerate(pairs):
        cluster.write(ping, fleet("Conflicts=ping.*.service"))
        cluster.write(pong, fleet(f"MachineOf=ping.{number}.service"))
    await cluster.must("start", *(unit for pair in pairs for unit in pair))
    found = await where(cluster)
    assert all(found[ping] == found[pong] and len(found[ping]) == 1 for ping, pong in pairs)
    assert sorted(found[ping][0] for ping, _ in pairs) == ["m1", "m2", "m3"]
    ping, pong = pairs[0]
    await cluster.must("destroy", *pairs[1])
    await cluster.must("machines", "drain", found[ping][0])

    async def both_moved() -> bool:
        now = await where(cluster)
        return now[ping] == now[pong] != found[ping] and len(now[ping]) == 1

    await cluster.wait_until(both_moved, SOON_S, "the pair moved together")


async def test_schedule_replace(cluster: Cluster) -> None:
    for other in ("m2", "m3"):
        await cluster.must("machines", "cordon", other)
    cluster.write("replace.0.service", SERVICE)
    await cluster.must("start", "replace.0.service")
    for other in ("m2", "m3"):
        await cluster.must("machines", "uncordon", other)
    cluster.write("replace-kick0.service", fleet("Replaces=replace.0.service", "MachineMetadata=rack=r1"))
    await cluster.must("start", "replace-kick0.service")

    async def it_moved() -> bool:
        found = await where(cluster)
        return found["replace-kick0.service"] == ["m1"] and found["replace.0.service"] in (["m2"], ["m3"])

    await cluster.wait_until(it_moved, SOON_S, "the replaced unit moved off")


async def test_schedule_circular_replace(cluster: Cluster) -> None:
    for number, other in ((1, 2), (2, 1)):
        lines = (f"Replaces=circle.{other}.service", "MachineMetadata=rack=r1")
        cluster.write(f"circle.{number}.service", fleet(*lines))
    await cluster.must("start", "circle.1.service", "circle.2.service")
    assert await where(cluster) == {
        "circle.1.service": ["m1"],
        "circle.2.service": ["m1"],
    }  # neither is pushed off


async def test_schedule_condition_machine_id(cluster: Cluster) -> None:
    for number in (1, 2, 3):
        cluster.write(f"pin@m{number}.service", fleet(f"MachineID={await id_of(cluster, f'm{number}')}"))
    await cluster.must("start", "pin@m1.service", "pin@m2.service", "pin@m3.service")
    assert await where(cluster) == {f"pin@m{number}.service": [f"m{number}"] for number in (1, 2, 3)}


async def test_templates_with_specifiers_in_metadata(cluster: Cluster, fleetctl: Fleetctl) -> None:
    cluster.write("metadata@.service", fleet("MachineMetadata=rack=%i"))
    await cluster.must("start", "metadata@r1", "metadata@r2", "metadata@r3")
    assert await where(cluster) == {f"metadata@r{number}.service": [f"m{number}"] for number in (1, 2, 3)}
    with pytest.raises(Failed, match="timed out waiting for unit"):
        await asyncio.to_thread(fleetctl.start, "metadata@invalid.service", attempts=1)


async def test_schedule_global_units(cluster: Cluster, fleetctl: Fleetctl) -> None:
    for number in (1, 2):
        cluster.write(f"hello@{number}.service", SERVICE)
    for number in (1, 2, 3):
        cluster.write(f"global@{number}.service", fleet("Global=true"))
    everywhere = [f"global@{number}.service" for number in (1, 2, 3)]
    await asyncio.to_thread(fleetctl.start, "hello@1.service", "hello@2.service")
    await asyncio.to_thread(fleetctl.start, *everywhere)
    assert fleetctl.said[-3:] == [f"Triggered global unit {unit} start" for unit in everywhere]

    async def all_run() -> bool:
        found = await where(cluster)
        return all(found[unit] == ["m1", "m2", "m3"] for unit in everywhere)

    await cluster.wait_until(all_run, SOON_S, "global units run on every machine")
    before = await cluster.all_running()
    await cluster.must("restart", everywhere[0])  # which did nothing on fleet
    after = await cluster.all_running()
    assert len(after[everywhere[0]]) == 3 and not set(after[everywhere[0]]) & set(before[everywhere[0]])
    assert (await cluster.must("status", everywhere[0])).stdout.count("running") >= 3


async def test_schedule_global_conflicts(cluster: Cluster, fleetctl: Fleetctl) -> None:
    cluster.write("conflict-global@.service", fleet("Global=true", "Conflicts=conflict-global@*.service"))
    await cluster.must("start", "conflict-global@0")
    await cluster.unitctl("start", "--no-block", "conflict-global@1")
    refused = await cluster.unitctl("start", "--timeout", "2s", "conflict-global@1")
    assert refused.code != 0
    assert await where(cluster) == {
        "conflict-global@0.service": ["m1", "m2", "m3"],
        "conflict-global@1.service": [],
    }


# Machines


async def patch(fleetctl: Fleetctl, *ops: Mapping[str, object]) -> tuple[int, object]:
    return await asyncio.to_thread(fleetctl.exchange, "PATCH", "machines", list(ops))


async def test_machines_list(cluster: Cluster, fleetctl: Fleetctl) -> None:
    found = await asyncio.to_thread(fleetctl.list_machines)
    views = {view.id: view for view in (await cluster.machine_views()).values()}
    assert {id: machine["metadata"] for id, machine in found.items()} == {
        id: dict(view.metadata) for id, view in views.items()
    }
    told = (await cluster.must("list-machines", "-o", "fleet", "--full", "--no-legend")).stdout
    assert [line.split("\t")[0] for line in told.splitlines()] == sorted(views)


async def test_machines_list_bad_next_page_token(fleetctl: Fleetctl) -> None:
    status, told = await asyncio.to_thread(fleetctl.exchange, "GET", "machines", token="EwBMLg==")
    assert (status, told) == (400, {"error": {"code": 400, "message": "token limit must be 100"}})


async def test_machines_patch_add_modify(cluster: Cluster, fleetctl: Fleetctl) -> None:
    machine = await id_of(cluster, "m2")
    path = f"/{machine}/metadata/foo"
    for op, value in (("add", "bar"), ("replace", "baz")):
        assert await patch(fleetctl, {"op": op, "path": path, "value": {"value": value}}) == (204, None)
        listed = await asyncio.to_thread(fleetctl.list_machines)
        assert listed[machine]["metadata"]["foo"] == value
    cluster.write("metadata-op.service", fleet("MachineMetadata=foo=baz"))
    await cluster.must("start", "metadata-op.service")
    assert (await where(cluster))["metadata-op.service"] == ["m2"]
    assert await patch(fleetctl, {"op": "remove", "path": path}) == (204, None)


async def test_machines_patch_delete(cluster: Cluster, fleetctl: Fleetctl) -> None:
    machine = await id_of(cluster, "m1")
    path = f"/{machine}/metadata/zone"
    assert await patch(fleetctl, {"op": "remove", "path": path}) == (204, None)
    assert "zone" not in (await asyncio.to_thread(fleetctl.list_machines))[machine]["metadata"]
    assert await patch(fleetctl, {"op": "add", "path": path, "value": "a"}) == (204, None)


async def test_machines_patch_bad(cluster: Cluster, fleetctl: Fleetctl) -> None:
    machine = await id_of(cluster, "m1")
    for op in (
        {"op": "noop", "path": f"/{machine}/metadata/foo", "value": "bar"},
        {"op": "add", "path": f"/{machine}/foo", "value": "bar"},
        {"op": "add", "path": f"/{machine}/metadata/foo", "value": ""},
    ):
        assert (await patch(fleetctl, op))[0] == 400
    assert "foo" not in (await asyncio.to_thread(fleetctl.list_machines))[machine]["metadata"]
