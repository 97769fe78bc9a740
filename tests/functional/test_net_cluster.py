"""Bandwidth as the cluster schedules it: real masters, agents and etcd on loopback, `unitctl` as people run it.

The agents are told what their uplink has and leave the host's own qdiscs alone: whether a rate holds on the wire
is a matter of the lab.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.cluster import Cluster
from unitfleet import codec, keys
from unitfleet.model import Bandwidth, Placement


def unit(lines: str) -> str:
    return f"[Service]\nExecStart=/bin/sleep 1000\n[X-Fleet]\n{lines}\n"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    uplink = ("--egress", "1G", "--ingress", "1G", "--shape-uplink", "never")
    async with Cluster.on_loopback(tmp_path, machines=2, masters=1, agent_args=uplink) as cluster:
        yield cluster


async def placement(cluster: Cluster, name: str) -> Placement:
    found = [
        codec.decode(item.value, Placement, item.key)
        for item in (await cluster.store.list(keys.PREFIX + "placements/")).items
        if item.key.endswith(f"/{name}")
    ]
    assert len(found) == 1, found
    return found[0]


async def test_units_are_admitted_by_the_uplink_and_a_live_change_restarts_nothing(cluster: Cluster) -> None:
    cluster.write("big@.service", unit("Egress=700M"))
    cluster.write("a.service", unit("Egress=400M"))
    await cluster.must("start", "big@1", "big@2")
    views = await cluster.units()
    assert len({views[name].copies[0].machine for name in views}) == 2, "two of 700M never share an uplink of 1G"

    refused = await cluster.unitctl("start", "a", "--timeout", "20s")
    assert refused.code == 3
    explained = await cluster.must("explain", "a")
    for name in ("m1", "m2"):
        assert f"egress: 300M of 1G left on {name}, needs 400M" in explained.stdout

    [before] = await cluster.running("big@1.service")
    order = await placement(cluster, "big@1.service")
    too_much = await cluster.unitctl("net", "limit", "big@1", "--egress", "1100M", "--no-block")
    machine = views["big@1.service"].copies[0].machine_name
    assert too_much.code == 1 and f"egress: 1G of 1G left on {machine}, needs 1.1G" in too_much.stderr

    await cluster.must("net", "limit", "big@1", "--egress", "500M", "--egress-limit", "800M", "--no-block")

    async def amended() -> bool:
        return (await placement(cluster, "big@1.service")).bandwidth == Bandwidth(
            egress=500_000_000, egress_limit=800_000_000
        )

    await cluster.wait_until(amended, 10, "the placement carries the new limits")
    now = await placement(cluster, "big@1.service")
    assert (now.epoch, now.restart, now.spec, now.placed_at) == (
        order.epoch,
        order.restart,
        order.spec,
        order.placed_at,
    )
    await cluster.wait_until(lambda: cluster.runs_once("a.service"), 20, "a fits into what big@1 gave back")
    assert await cluster.running("big@1.service") == [before], "nothing was restarted"
    assert (await cluster.units())["a.service"].copies[0].machine_name == machine

    limits = json.loads((await cluster.must("net", "limits", "-o", "json")).stdout)["items"]
    assert {row["unit"]: row["wanted"]["egress"] for row in limits} == {
        "a.service": 400_000_000,
        "big@1.service": 500_000_000,
        "big@2.service": 700_000_000,
    }
    views_of = await cluster.machine_views()
    assert views_of[machine].reserved.egress == 900_000_000
    wide = (await cluster.must("list-machines", "-o", "wide")).stdout
    assert "/900M/1G" in wide
    told = (await cluster.must("events", "--unit", "big@1", "-n", "50")).stdout
    assert "egress 500M (at most 800M)" in told

    reset = await cluster.unitctl("net", "limit", "big@1", "--reset", "--no-block")
    assert reset.code == 1 and f"egress: 600M of 1G left on {machine}, needs 700M" in reset.stderr


async def test_top_shows_every_machine_and_unit(cluster: Cluster) -> None:
    cluster.write("a.service", unit("EgressLimit=400M\nCPU=0.5\nMemory=64M"))
    await cluster.must("start", "a")

    async def shown() -> bool:
        top = json.loads((await cluster.must("top", "-o", "json")).stdout)["items"]
        told = [figures for machine in top for figures in machine.get("units", ())]
        return [machine["name"] for machine in top if not machine["why"]] == ["m1", "m2"] and [
            each["unit"] for each in told
        ] == ["a.service"]

    await cluster.wait_until(shown, 20, "top shows both machines and the unit")
    plain = (await cluster.must("top", "--once")).stdout
    assert "MACHINE" in plain and "/64M/" in plain and "a.service" in plain
    flows = (await cluster.must("net", "top")).stdout
    assert flows.splitlines()[0].split() == ["UNIT", "MACHINE", "EGRESS", "INGRESS", "DROPPED"]
