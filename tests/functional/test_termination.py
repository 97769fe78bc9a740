"""A host that EC2 is about to end is emptied first: a real cluster beside an instance-metadata service."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.cluster import Cluster
from harness.imds import FACTS, Imds, serve
from harness.secure import SecureCluster

SPOT, LIFECYCLE = "spot/instance-action", "autoscaling/target-lifecycle-state"
ADVICE = "events/recommendations/rebalance"
LOOKED_S = 20.0
"""Every five seconds it looks; a move and an event come after that."""

SLEEPS = "[Service]\nExecStart=/bin/sleep 100000\n\n[X-Fleet]\n"


def spot_end(in_s: float = 120.0) -> str:
    at = datetime.fromtimestamp(time.time() + in_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps({"action": "terminate", "time": at})


def asking(imds: Imds) -> tuple[str, ...]:
    return ("--drain-on-notice", "--imds", imds.address)


async def told(cluster: Cluster, kind: str = "termination-notice") -> list[str]:
    """Return what events of m1 say of its end, in their order."""
    events = json.loads((await cluster.must("events", "--machine", "m1", "-n", "500", "-o", "json")).stdout)
    return [event["message"] for event in events["items"] if event["kind"] == kind]


async def drains(cluster: Cluster) -> list[dict[str, Any]]:
    """Return the audit lines of drains, the first one first."""
    lines = json.loads((await cluster.must("audit", "-o", "json")).stdout)
    return [line for line in lines["items"] if line["action"].startswith("drain machine")]


def says(cluster: Cluster, words: str, kind: str = "termination-notice") -> Callable[[], Awaitable[bool]]:
    async def said() -> bool:
        return any(words in message for message in await told(cluster, kind))

    return said


def is_drained(cluster: Cluster, wanted: bool = True) -> Callable[[], Awaitable[bool]]:
    async def so() -> bool:
        return (await cluster.machine_views())["m1"].drained is wanted

    return so


def asked_again(imds: Imds, times: int = 1) -> Callable[[], Awaitable[bool]]:
    """Tell whether so many looks came to their end since."""
    path = f"GET /latest/meta-data/{ADVICE}"
    before = imds.asked.count(path)

    async def so() -> bool:
        return imds.asked.count(path) >= before + times

    return so


async def home(cluster: Cluster, unit: str) -> str:
    """Return the name of the machine of a unit's one copy, "" while it has none or several."""
    view = await cluster.unit(unit)
    copies = view.copies if view is not None else ()
    names = {machine.id: name for name, machine in (await cluster.machine_views()).items()}
    return names[copies[0].machine] if len(copies) == 1 else ""


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[tuple[Cluster, Imds]]:
    """Two machines; what m1 runs may go to m2, but for `stays`, and m2 has a unit of its own."""
    with serve(Imds()) as imds, tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.on_loopback(Path(logs), machines=2, masters=1, own_args=[asking(imds)]) as cluster:
            await begin(cluster)
            yield cluster, imds


async def begin(cluster: Cluster) -> None:
    cluster.write("goes.service", SLEEPS)
    cluster.write("stays.service", f"{SLEEPS}MachineMetadata=rack=r1\n")
    cluster.write("other.service", f"{SLEEPS}MachineMetadata=rack=r2\n")
    await cluster.must("machines", "cordon", "m2")
    await cluster.must("start", "goes", "stays")
    await cluster.must("machines", "uncordon", "m2")
    await cluster.must("start", "other")


async def moved(cluster: Cluster) -> bool:
    return await cluster.runs_once("goes.service") and await home(cluster, "goes.service") == "m2"


async def test_a_host_that_ec2_is_to_end_is_emptied_once_and_what_runs_elsewhere_is_untouched(
    story: tuple[Cluster, Imds],
) -> None:
    cluster, imds = story
    before = {unit: (await cluster.running(f"{unit}.service"))[0].pid for unit in ("stays", "other")}

    imds.facts = {**FACTS, ADVICE: '{"noticeTime": "2026-10-27T08:22:00Z"}'}
    await cluster.wait_until(says(cluster, "recommends to leave", "rebalance-advice"), LOOKED_S, "advice is told")
    imds.faults = {SPOT: 500, LIFECYCLE: 503}
    await cluster.wait_until(asked_again(imds), LOOKED_S, "it looks, and hears nothing")
    assert not await told(cluster) and not await drains(cluster), "neither ends a host"

    imds.faults, imds.facts = {}, {**FACTS, SPOT: spot_end()}
    await cluster.wait_until(says(cluster, "m1 is drained"), LOOKED_S, "m1 is drained")
    await cluster.wait_until(lambda: moved(cluster), LOOKED_S, "what can go is on m2")
    await cluster.wait_until(says(cluster, "find"), LOOKED_S, "what can't is named")
    messages = await told(cluster)
    assert len(messages) == 3 and "EC2 ends this instance in 1" in messages[0], messages
    assert "1 unit finds no other machine" in messages[2] and "stays.service (" in messages[2]
    assert "goes.service" not in messages[2] and "rack=r1" in messages[2]
    assert {unit: (await cluster.running(f"{unit}.service"))[0].pid for unit in before} == before
    machine = (await cluster.machine_views())["m1"]
    (line,) = await drains(cluster)
    assert (line["caller"], line["status"], line["objects"]) == (f"agent {machine.id}", 202, [machine.id])

    imds.faults = {SPOT: 500}
    cluster.restart_agent(cluster.machine("m1"))
    await cluster.wait_until(asked_again(imds), LOOKED_S, "the next agent hears nothing")
    imds.faults = {}
    await cluster.wait_until(asked_again(imds), LOOKED_S, "and then the same")
    assert await told(cluster) == messages and len(await drains(cluster)) == 1, "nothing is done twice"

    imds.facts = FACTS
    await cluster.wait_until(says(cluster, "took its notice back"), LOOKED_S, "it is over")
    assert (await told(cluster))[-1].endswith("m1 stays drained: unitctl machines undrain m1")
    assert await is_drained(cluster)() and await moved(cluster)


async def test_without_a_master_it_asks_until_one_is_there_and_who_takes_the_drain_back_is_heeded(
    story: tuple[Cluster, Imds],
) -> None:
    cluster, imds = story
    master = cluster.masters[0]
    master.kill()
    imds.facts = {**FACTS, LIFECYCLE: "Terminated"}
    agent = cluster.machine("m1").agent

    async def complains() -> bool:
        return "cannot have this machine drained" in agent.log.read_text()

    await cluster.wait_until(complains, LOOKED_S, "no master takes the order")
    master.start()
    await cluster.wait_until(lambda: moved(cluster), 2 * LOOKED_S, "a master is there, and m1 is drained")
    messages = await told(cluster)
    assert "soon, it does not say when" in messages[0], messages
    assert sum("it is tried again until this host ends" in message for message in messages) == 1, messages
    await cluster.must("machines", "undrain", "m1")
    await cluster.wait_until(asked_again(imds, times=2), LOOKED_S, "the notice stands")
    assert await is_drained(cluster, False)()


async def test_by_tls_a_machine_drains_itself_by_its_identity_and_no_other(tmp_path: Path) -> None:
    with serve(Imds()) as imds, tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with SecureCluster.on_loopback(
            Path(logs), machines=2, masters=1, own_args=[asking(imds)]
        ) as cluster:
            await begin(cluster)
            views = await cluster.machine_views()
            own = cluster.agent_tls(cluster.machine("m1"))
            for wanted in (views["m2"].id, "m2", "m1", views["m1"].id[:8]):
                status, body = await cluster.curl(f"/v1/machines/{wanted}/drain", own, method="POST")
                assert status == 403 and "may do this to its own machine alone" in body, (wanted, body)
            for order in ("undrain", "cordon", "lost"):
                status, _ = await cluster.curl(f"/v1/machines/{views['m1'].id}/{order}", own, method="POST")
                assert status == 401, order
            assert not any(view.drained for view in (await cluster.machine_views()).values())
            refused = await drains(cluster)
            assert [(line["caller"], line["status"]) for line in refused] == [(f"agent {views['m1'].id}", 403)] * 4

            imds.facts = {**FACTS, SPOT: spot_end()}
            await cluster.wait_until(lambda: moved(cluster), 2 * LOOKED_S, "m1 is drained")
            taken = [line for line in await drains(cluster) if line not in refused]
            assert [(line["caller"], line["status"]) for line in taken] == [(f"agent {views['m1'].id}", 202)]
