"""Stories of a whole cluster on loopback: real etcd, masters, agents with the process driver, and unitctl.

A deadline is a promise doubled. /proc is the outside witness of what runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.cluster import Cluster, Ran
from harness.unit_processes import Running
from unitfleet import keys

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEADER_IS_REPLACED_S = 2 * 7.0
FAST_FAILOVER_S = 2 * 8.0
SOON_S = 10.0

SPREAD = "[Service]\nExecStart=/bin/sleep 100000\n\n[X-Fleet]\nSpread=rack\n"
ADSERVERS = tuple(f"adserver@{number}.service" for number in (1, 2, 3, 4))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared() -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.on_loopback(Path(logs)) as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    """A whole cluster without a unit; what a story broke is mended after it."""
    shared.write("adserver@.service", SPREAD)
    yield shared
    await shared.restore()


async def started(cluster: Cluster) -> dict[str, Running]:
    """Start four ad servers; return the one copy of each."""
    await cluster.must("start", "adserver@<1..4>")
    return await only_copies(cluster)


async def only_copies(cluster: Cluster) -> dict[str, Running]:
    found = await cluster.all_running()
    assert all(len(copies) == 1 for copies in found.values()), found
    return {unit: copies[0] for unit, copies in found.items()}


def command_of(copy: Running) -> list[str]:
    return Path(f"/proc/{copy.pid}/cmdline").read_text().rstrip("\0").split("\0")


async def ready(cluster: Cluster) -> bool:
    """Whether the cluster knows every agent that runs as ready."""
    views = await cluster.machine_views()
    return all(views[machine.name].status == "ready" for machine in cluster.machines)


async def is_lost(cluster: Cluster, machine: str) -> bool:
    return (await cluster.machine_views())[machine].status == "lost"


async def test_four_units_are_spread_over_three_machines_and_run_once_each(cluster: Cluster) -> None:
    copies = await started(cluster)
    assert set(copies) == set(ADSERVERS)
    machines = [copy.machine for copy in copies.values()]
    assert set(machines) == {"m1", "m2", "m3"}
    listed = (await cluster.must("list-units")).stdout
    for unit, copy in copies.items():
        row = next(line.split() for line in listed.splitlines() if line.startswith(unit))
        assert row[1] == copy.machine and "running" in row


async def test_a_unit_that_no_machine_takes_says_why_at_once_and_starts_when_one_can(cluster: Cluster) -> None:
    cluster.write("alone@.service", SPREAD + "Conflicts=alone@*\n")
    await cluster.must("start", "alone@<1..3>")
    refused = await cluster.unitctl("start", "alone@4")
    assert refused.code == 3 and refused.took_s < 2.0, refused
    assert "3 machines considered" in refused.stderr and "conflicts refused 3" in refused.stderr, refused
    view = await cluster.unit("alone@4.service")
    assert view is not None and view.target == "launched" and view.pending is not None
    explained = await cluster.must("explain", "alone@4")
    assert all(machine.name in explained.stdout for machine in cluster.machines), explained
    await cluster.must("destroy", "alone@2")
    await cluster.wait_until(lambda: cluster.runs_once("alone@4.service"), SOON_S, "alone@4 runs")


async def test_stop_ends_the_process_restart_makes_a_new_one_in_place_and_destroy_leaves_nothing(
    cluster: Cluster,
) -> None:
    before = await started(cluster)
    one, two = ADSERVERS[:2]
    await cluster.must("stop", one)
    assert await cluster.running(one) == []
    view = await cluster.unit(one)
    assert view is not None and view.phase == "loaded" and view.target == "loaded"
    await cluster.must("restart", two)
    [again] = await cluster.running(two)
    assert again.machine == before[two].machine and again != before[two]
    await cluster.must("start", one)
    await cluster.must("destroy", "adserver@*")
    assert await cluster.units() == {}
    for unit in ADSERVERS:
        assert await cluster.running(unit) == []


async def test_a_unit_that_is_destroyed_and_made_again_with_another_text_runs_the_new_text_alone(
    cluster: Cluster,
) -> None:
    cluster.write("web.service", SPREAD)
    await cluster.must("start", "web")
    [old] = await cluster.running("web.service")
    first = await cluster.unit("web.service")
    await cluster.must("destroy", "web")
    cluster.write("web.service", SPREAD.replace("100000", "200000"))
    await cluster.must("start", "web")
    [new] = await cluster.running("web.service")
    second = await cluster.unit("web.service")
    assert new != old and command_of(new) == ["/bin/sleep", "200000"]
    assert first is not None and second is not None and first.incarnation != second.incarnation


async def test_nothing_restarts_when_every_agent_and_every_master_is_killed(cluster: Cluster) -> None:
    before = await started(cluster)
    for daemon in (*cluster.masters, *(machine.agent for machine in cluster.machines)):
        cluster.kill(daemon)
    assert await cluster.running(ADSERVERS[0]) == [before[ADSERVERS[0]]]
    for daemon in (*cluster.masters, *(machine.agent for machine in cluster.machines)):
        daemon.start()

    async def all_are_as_wanted() -> bool:
        return not (await cluster.status()).attention and await ready(cluster) and bool(await cluster.leader())

    await cluster.wait_until(all_are_as_wanted, LEADER_IS_REPLACED_S, "the cluster is whole again")
    assert await only_copies(cluster) == before
    await cluster.must("stop", ADSERVERS[0])
    assert await cluster.running(ADSERVERS[0]) == []


@pytest.mark.story
async def test_the_units_of_a_machine_that_dies_run_elsewhere_and_go_from_it_when_it_returns(
    cluster: Cluster,
) -> None:
    before = await started(cluster)
    dead = cluster.machine(before[ADSERVERS[0]].machine)
    await cluster.power_off(dead)
    await cluster.wait_until(lambda: cluster.runs_once(*ADSERVERS), FAST_FAILOVER_S, "all four run again")
    after = await only_copies(cluster)
    for unit in ADSERVERS:
        if before[unit].machine == dead.name:
            assert after[unit].machine != dead.name
        else:
            assert after[unit] == before[unit]
    status = await cluster.must("cluster", "status")
    assert dead.name in next(line for line in status.stdout.splitlines() if "Lost:" in line)
    await cluster.boot(dead)

    async def forgotten() -> bool:
        views = await cluster.units()
        return await ready(cluster) and all(len(view.copies) == 1 for view in views.values())

    await cluster.wait_until(forgotten, SOON_S, "the old copies are acknowledged gone")
    assert await only_copies(cluster) == after


async def test_a_start_right_after_the_leader_was_killed_is_carried_out_by_another(cluster: Cluster) -> None:
    before = await started(cluster)
    leader = await cluster.leader()
    assert leader is not None
    cluster.kill(leader)
    cluster.write("late.service", SPREAD)
    ran = await cluster.must("start", "late")
    assert ran.took_s < LEADER_IS_REPLACED_S, ran
    after = await only_copies(cluster)
    assert {unit: after[unit] for unit in ADSERVERS} == before
    assert await cluster.leader() not in (None, leader)


async def test_every_master_serves_the_api(cluster: Cluster) -> None:
    for number, endpoint in enumerate(cluster.endpoints):
        cluster.write(f"by{number}.service", SPREAD)
        await cluster.must("--endpoint", endpoint, "start", f"by{number}")
    listings = [await cluster.must("--endpoint", each, "list-units", "-o", "name") for each in cluster.endpoints]
    assert [ran.stdout.split() for ran in listings] == [["by0.service", "by1.service"]] * 2


async def test_a_cordoned_machine_takes_nothing_new_and_a_drained_one_gives_up_what_it_has(
    cluster: Cluster,
) -> None:
    before = await started(cluster)
    await cluster.must("machines", "cordon", "m1")
    cluster.write("more@.service", SPREAD)
    await cluster.must("start", "more@<1..3>")
    copies = await only_copies(cluster)
    assert {copies[f"more@{number}.service"].machine for number in (1, 2, 3)} == {"m2", "m3"}
    assert {unit: copies[unit] for unit in before} == before
    await cluster.must("machines", "uncordon", "m1")
    ran: Ran = await cluster.must("machines", "drain", "m2")

    async def empty() -> bool:
        return all(copy.machine != "m2" for copies in (await cluster.all_running()).values() for copy in copies)

    await cluster.wait_until(empty, SOON_S, f"m2 is drained: {ran}")
    after = await only_copies(cluster)
    assert len(after) == 7
    stayed = {unit for unit, copy in copies.items() if copy.machine != "m2"}
    assert {unit: after[unit] for unit in stayed} == {unit: copies[unit] for unit in stayed}


@pytest.mark.story
async def test_a_machine_is_removed_only_when_it_is_lost_and_may_join_again(cluster: Cluster) -> None:
    refused = await cluster.unitctl("machines", "rm", "m3")
    assert refused.code != 0 and "m3" in refused.stderr, refused
    gone = cluster.machine("m3")
    await cluster.power_off(gone)
    views = await cluster.machine_views()
    await cluster.wait_until(lambda: absent(cluster, views["m3"].id), 2 * 6.0, "its lease has ended")
    await cluster.must("machines", "lost", "m3")
    await cluster.wait_until(lambda: is_lost(cluster, "m3"), SOON_S, "m3 is lost")
    await cluster.must("machines", "rm", "m3")

    async def unknown() -> bool:
        return "m3" not in await cluster.machine_views()

    await cluster.wait_until(unknown, SOON_S, "m3 is forgotten")
    await cluster.boot(gone)

    async def back() -> bool:
        views = await cluster.machine_views()
        return "m3" in views and views["m3"].status == "ready"

    await cluster.wait_until(back, SOON_S, "m3 joined again")


async def absent(cluster: Cluster, machine_id: str) -> bool:
    return await cluster.store.get(keys.presence(machine_id)) is None
