"""What must hold on real etcd and real Docker Engines, each with the `docker` SDK and /proc as outside witness.

A deadline is a promised bound doubled. A witness's (machine, pid, started at) tells whether a copy was touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from harness.cluster import Cluster, Machine
from harness.daemon import Process
from harness.engines import Engines
from harness.image import IMAGE, image_archive, image_id
from harness.unit_processes import Running
from unitfleet import keys

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

FAILOVER_S = {"default": 2 * 15.0, "fast": 2 * 8.0}
LEADER_IS_REPLACED_S = 2 * 7.0
SOON_S = 2 * 5.0

CONTAINER = f"""[Container]
Image={IMAGE}
Exec=sleep 100000
Network=host
Pull=never
StopSignal=SIGKILL

[X-Fleet]
"""
PROCESS = "[Service]\nExecStart=/bin/sleep 100000\n\n[X-Fleet]\n"


async def in_lab(profile: str, etcd: int) -> AsyncIterator[Cluster]:
    if reason := Engines.available():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.in_lab(Path(logs), hosts=4, masters=2, etcd=etcd, profile=profile) as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_default() -> AsyncIterator[Cluster]:
    async for cluster in in_lab("default", 1):
        yield cluster


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_fast() -> AsyncIterator[Cluster]:
    async for cluster in in_lab("fast", 3):
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def default(shared_default: Cluster) -> AsyncIterator[Cluster]:
    """Four hosts at default settings, one etcd member, no units; what a story broke is mended after it."""
    yield shared_default
    await shared_default.restore()


@pytest_asyncio.fixture(loop_scope="module")
async def fast(shared_fast: Cluster) -> AsyncIterator[Cluster]:
    """Four hosts with the fast profile, three etcd members."""
    yield shared_fast
    await shared_fast.restore()


async def start(cluster: Cluster, name: str, text: str) -> Running:
    """Start a unit with this text; return its one copy."""
    cluster.write(name, text)
    await cluster.must("start", name)
    [copy] = await cluster.running(unit_of(name))
    return copy


def unit_of(file: str) -> str:
    return file.replace(".container", ".service")


async def only_copies(cluster: Cluster) -> dict[str, Running]:
    found = await cluster.all_running()
    assert all(len(copies) == 1 for copies in found.values()), found
    return {unit: copies[0] for unit, copies in found.items()}


def on(copies: Mapping[str, Running], machine: str) -> set[str]:
    return {unit for unit, copy in copies.items() if copy.machine == machine}


def without(copies: Mapping[str, Running], machine: str) -> dict[str, Running]:
    return {unit: copy for unit, copy in copies.items() if copy.machine != machine}


async def status_of(cluster: Cluster, machine: str) -> str:
    return (await cluster.machine_views())[machine].status


async def wait_for_status(cluster: Cluster, machine: str, status: str, within_s: float) -> None:
    async def so() -> bool:
        return await status_of(cluster, machine) == status

    await cluster.wait_until(so, within_s, f"{machine} is {status}")


async def holds_only(cluster: Cluster, machine: str, *units: str) -> bool:
    """Whether the machine is ready, and by the witness holds copies of these units and no others."""
    ready = await status_of(cluster, machine) == "ready"
    return ready and await cluster.held(cluster.machine(machine)) == sorted(units)


# 1. Where units go.


async def test_four_containers_in_conflict_run_one_on_each_of_four_hosts(default: Cluster) -> None:
    default.write("alone@.container", CONTAINER + "Conflicts=alone@*\n")
    await default.must("start", "alone@<1..4>")
    copies = await only_copies(default)
    assert sorted(copy.machine for copy in copies.values()) == ["m1", "m2", "m3", "m4"]


async def test_with_three_hosts_the_fourth_container_in_conflict_says_why(fast: Cluster) -> None:
    away = fast.machine("m4")
    await fast.power_off(away)
    await wait_for_status(fast, "m4", "lost", FAILOVER_S["fast"])
    fast.write("alone@.container", CONTAINER + "Conflicts=alone@*\n")
    ran = await fast.unitctl("start", "alone@<1..4>")
    assert ran.code == 3 and "cannot place alone@" in ran.stderr, ran
    assert "conflicts refused 3" in ran.stderr and "m4" in ran.stderr, ran
    running = {unit: copies for unit, copies in (await fast.all_running()).items() if copies}
    assert sorted(copies[0].machine for copies in running.values()) == ["m1", "m2", "m3"]
    await fast.boot(away)
    units = [f"alone@{number}.service" for number in (1, 2, 3, 4)]
    await fast.wait_until(lambda: fast.runs_once(*units), SOON_S, "the fourth runs on the fourth host")


async def test_metadata_of_one_key_means_any_and_of_different_keys_all(default: Cluster) -> None:
    any_of = await start(default, "any.container", CONTAINER + 'MachineMetadata="rack=r3" "rack=none"\n')
    assert any_of.machine == "m3"
    all_of = await start(
        default, "all.container", CONTAINER + "MachineMetadata=region=eu\nMachineMetadata=zone=b\n"
    )
    assert all_of.machine == "m2"
    default.write("none.container", CONTAINER + "MachineMetadata=rack=r1\nMachineMetadata=zone=b\n")
    ran = await default.unitctl("start", "none.container")
    assert ran.code == 3 and "metadata refused 4" in ran.stderr, ran


async def test_machineof_and_machineid_bind_a_unit_to_a_peer_and_to_a_host(default: Cluster) -> None:
    views = await default.machine_views()
    pinned = await start(default, "pinned.container", CONTAINER + f"MachineID={views['m4'].id}\n")
    assert pinned.machine == "m4"
    peer = await start(default, "peer.container", CONTAINER + "MachineOf=pinned.service\n")
    assert peer.machine == "m4"


async def test_a_global_unit_runs_on_every_host_that_matches(default: Cluster) -> None:
    default.write("everywhere.container", CONTAINER + "Global=true\n")
    default.write("west.container", CONTAINER + "Global=true\nMachineMetadata=region=us\n")
    await default.must("start", "everywhere.container", "west.container")
    everywhere = await default.running("everywhere.service")
    assert [copy.machine for copy in everywhere] == ["m1", "m2", "m3", "m4"]
    assert [copy.machine for copy in await default.running("west.service")] == ["m3", "m4"]


async def test_a_unit_that_replaces_another_takes_its_place_and_the_other_runs_elsewhere(default: Cluster) -> None:
    old = await start(default, "old.container", CONTAINER)
    rack = f"r{old.machine[1:]}"
    new = await start(default, "new.container", CONTAINER + f"Replaces=old.service\nMachineMetadata=rack={rack}\n")
    assert new.machine == old.machine

    async def moved() -> bool:
        copies = await default.running("old.service")
        return len(copies) == 1 and copies[0].machine != old.machine

    await default.wait_until(moved, SOON_S, "the unit that was replaced runs elsewhere")
    assert await default.running("new.service") == [new]


# 2. A host dies.


async def test_all_units_of_a_dead_host_run_on_the_survivors_and_nothing_else_is_touched(default: Cluster) -> None:
    await a_host_dies_and_comes_back(default)


async def test_the_fast_profile_moves_the_units_of_a_dead_host_sooner(fast: Cluster) -> None:
    await a_host_dies_and_comes_back(fast)


async def a_host_dies_and_comes_back(cluster: Cluster) -> None:
    cluster.write("ad@.container", CONTAINER + "Spread=rack\n")
    await cluster.must("start", "ad@<1..20>")
    before = await only_copies(cluster)
    dead = cluster.machine("m2")
    assert len(on(before, dead.name)) == 5
    await cluster.power_off(dead)
    await cluster.wait_until(
        lambda: cluster.runs_once(*before), FAILOVER_S[cluster.profile], "all twenty run again"
    )
    after = await only_copies(cluster)
    untouched = without(before, dead.name)
    assert len(untouched) == 15
    assert {unit: after[unit] for unit in untouched} == untouched
    await cluster.boot(dead)
    await cluster.wait_until(lambda: holds_only(cluster, dead.name), SOON_S, "its old copies are gone")
    assert await only_copies(cluster) == after


# 3. A leader dies.


async def test_a_start_right_after_the_leading_master_was_killed_is_carried_out_and_nothing_restarts(
    fast: Cluster,
) -> None:
    fast.write("ad@.container", CONTAINER)
    await fast.must("start", "ad@<1..4>")
    before = await only_copies(fast)
    leader = await fast.leader()
    assert leader is not None
    fast.kill(leader)
    fast.write("late.container", CONTAINER)
    ran = await fast.must("start", "late.container")
    assert ran.took_s < LEADER_IS_REPLACED_S, ran
    after = await only_copies(fast)
    assert {unit: after[unit] for unit in before} == before


async def test_a_start_right_after_the_leader_of_etcd_was_killed_is_carried_out_and_nothing_restarts(
    fast: Cluster,
) -> None:
    fast.write("ad@.container", CONTAINER)
    await fast.must("start", "ad@<1..4>")
    before = await only_copies(fast)
    fast.kill(await fast.etcd.leader())
    fast.write("late.container", CONTAINER)
    ran = await fast.must("start", "late.container")
    assert ran.took_s < LEADER_IS_REPLACED_S, ran
    after = await only_copies(fast)
    assert {unit: after[unit] for unit in before} == before


# 4. What runs does not depend on who manages it.


async def test_no_unit_restarts_when_an_agent_is_killed_and_started_again(fast: Cluster) -> None:
    before = await one_of_each_a_host(fast)
    for machine in fast.machines:
        fast.restart_agent(machine)
    await fast.wait_until(lambda: fast.runs_once(*before), SOON_S, "every agent reports its units")
    assert await only_copies(fast) == before


async def test_no_unit_restarts_when_the_whole_control_plane_is_gone_for_a_minute(fast: Cluster) -> None:
    before = await one_of_each_a_host(fast)
    agents = [machine.agent for machine in fast.machines]
    processes: list[Process] = [*fast.masters, *agents, *fast.etcd.members]
    for process in processes:
        fast.kill(process)
    ends = asyncio.get_running_loop().time() + 60.0
    while asyncio.get_running_loop().time() < ends:
        await asyncio.sleep(10.0)
        for unit, copy in before.items():
            assert await fast.running(unit) == [copy]
    await fast.etcd.start(*fast.etcd.members)
    for daemon in (*agents, *fast.masters):
        daemon.start()

    async def settled() -> bool:
        views = (await fast.machine_views()).values()
        return all(view.status == "ready" for view in views) and await fast.runs_once(*before)

    await fast.wait_until(settled, 30.0, "the control plane is back")
    assert await fast.leader() is not None
    assert await only_copies(fast) == before


async def one_of_each_a_host(cluster: Cluster) -> dict[str, Running]:
    """Start a container and a process unit on each host."""
    cluster.write("box@.container", CONTAINER + "Conflicts=box@*\n")
    cluster.write("proc@.service", PROCESS + "Conflicts=proc@*\n")
    await cluster.must("start", "box@<1..4>", "proc@<1..4>")
    copies = await only_copies(cluster)
    assert len(copies) == 8 and all(len(on(copies, machine.name)) == 2 for machine in cluster.machines)
    return copies


# 5. A network splits, a leader is frozen.


async def test_a_host_that_was_cut_off_and_healed_leaves_one_copy_of_each_unit(default: Cluster) -> None:
    default.write("ad@.container", CONTAINER + "Spread=rack\n")
    await default.must("start", "ad@<1..8>")
    before = await only_copies(default)
    far = default.machine("m3")
    cut_off = on(before, far.name)
    assert cut_off
    began = asyncio.get_running_loop().time()
    await default.cut(far)

    async def run_elsewhere_too() -> bool:
        for unit in cut_off:
            if [copy.machine == far.name for copy in await default.running(unit)].count(False) != 1:
                return False
        return True

    await default.wait_until(run_elsewhere_too, FAILOVER_S["default"], "what was cut off runs elsewhere too")
    for unit, copy in before.items():
        assert copy in await default.running(unit)
    await asyncio.sleep(max(0.0, began + 30.0 - asyncio.get_running_loop().time()))
    during = await default.all_running()
    await default.heal(far)
    # an outage that a connection has backed off from is noticed a little later
    await default.wait_until(lambda: holds_only(default, far.name), 2 * 15.0, "the old copies are gone")
    after = await only_copies(default)
    for unit, copy in after.items():
        assert copy in during[unit]
    assert {unit: after[unit] for unit in without(before, far.name)} == without(before, far.name)


async def test_a_frozen_leader_that_wakes_up_writes_nothing(fast: Cluster) -> None:
    fast.write("ad@.container", CONTAINER)
    await fast.must("start", "ad@<1..2>")
    old = await fast.leader()
    assert old is not None
    old_term = await fast.store.get(keys.LEADER)
    assert old_term is not None
    other = next(number for number, master in enumerate(fast.masters) if master is not old)
    fast.pause(old)
    # its cache will show it a unit to place when it wakes up, before it knows that its term is over
    ran = await fast.must("--endpoint", fast.endpoints[other], "start", "ad@<3..4>")
    assert ran.took_s < LEADER_IS_REPLACED_S, ran
    units = [f"ad@{number}.service" for number in (1, 2, 3, 4)]
    copies = {unit: await fast.running(unit) for unit in units}
    assert all(len(found) == 1 for found in copies.values()), copies
    by_old = await written_in(fast, old_term.value)
    assert by_old  # it did write while it led
    fast.resume(old)

    async def knows() -> bool:
        return "is over" in old.tail()

    await fast.wait_until(knows, SOON_S, "the old leader knows that its term is over")
    await fast.must("--endpoint", fast.endpoints[other], "destroy", "ad@4")
    assert await written_in(fast, old_term.value) == by_old
    assert {unit: await fast.running(unit) for unit in units} == {**copies, "ad@4.service": []}


async def written_in(cluster: Cluster, term: bytes) -> set[str]:
    """Return the events that were written in this term: every decision about a unit comes with one."""
    writer = f"master-{msgspec.json.decode(term)['nonce'][:8]}-"
    listed = await cluster.store.list(keys.PREFIX + "events/")
    return {item.key for item in listed.items if writer in item.key}


# 6. The past does not come back.


async def test_a_unit_that_was_made_anew_while_its_host_was_away_runs_once_and_with_the_new_text(
    fast: Cluster,
) -> None:
    fast.write("ad@.container", CONTAINER + "Spread=rack\n")
    await fast.must("start", "ad@<1..4>")
    before = await only_copies(fast)
    away = fast.machine(before["ad@1.service"].machine)
    await fast.power_off(away)
    await fast.unitctl("destroy", "--no-block", "ad@1")
    fast.write("ad@1.container", CONTAINER.replace("100000", "200000"))
    await fast.must("start", "ad@1")
    [new] = await fast.running("ad@1.service")
    assert new.machine != away.name and command_of(new) == ["sleep", "200000"]
    await fast.boot(away)
    await fast.wait_until(lambda: holds_only(fast, away.name), SOON_S, "the old copy is gone")
    assert await only_copies(fast) == {**before, "ad@1.service": new}


def command_of(copy: Running) -> list[str]:
    return Path(f"/proc/{copy.pid}/cmdline").read_text().rstrip("\0").split("\0")


# 7. A unit keeps to its host, and to its bytes.


async def test_a_unit_that_waits_for_its_machine_does_not_move_says_so_and_runs_there_again(fast: Cluster) -> None:
    stays = await start(fast, "stays.container", CONTAINER + "OnMachineLoss=wait\n")
    fast.write("moves@.container", CONTAINER + "Spread=rack\n")
    await fast.must("start", "moves@<1..4>")
    machine = fast.machine(stays.machine)
    before = await only_copies(fast)
    assert len(on(before, machine.name)) == 2
    await fast.power_off(machine)
    await wait_for_status(fast, machine.name, "lost", FAILOVER_S["fast"])
    moves = set(before) - {"stays.service"}
    await fast.wait_until(lambda: fast.runs_once(*moves), SOON_S, "the other units run")
    view = await fast.unit("stays.service")
    assert view is not None and view.phase == "waiting-for-machine" and machine.name in view.why, view
    status = (await fast.must("cluster", "status")).stdout
    assert any("stays.service" in line and machine.name in line for line in status.splitlines()), status
    assert await fast.running("stays.service") == []
    await fast.boot(machine)
    await fast.wait_until(lambda: fast.runs_once("stays.service"), SOON_S, "it runs again")
    [again] = await fast.running("stays.service")
    assert again.machine == machine.name


async def test_a_tag_that_was_pushed_anew_is_not_picked_up_by_a_failover(fast: Cluster) -> None:
    tag = "moving:1"
    for machine in fast.machines:
        await asyncio.to_thread(load, fast, machine, image_archive(tag, "first"))
    copy = await start(fast, "moving.container", CONTAINER.replace(IMAGE, tag))
    assert await asyncio.to_thread(image_of, fast, copy) == image_id("first")
    for machine in fast.machines:
        await asyncio.to_thread(load, fast, machine, image_archive(tag, "second"))
    await fast.power_off(fast.machine(copy.machine))
    await fast.wait_until(lambda: fast.runs_once("moving.service"), FAILOVER_S["fast"], "it runs elsewhere")
    [moved] = await fast.running("moving.service")
    assert moved.machine != copy.machine
    assert await asyncio.to_thread(image_of, fast, moved) == image_id("first")


def load(cluster: Cluster, machine: Machine, archive: bytes) -> None:
    with contextlib.closing(cluster.engine(machine)) as client:
        client.images.load(archive)


def image_of(cluster: Cluster, copy: Running) -> str:
    """Return the id of the image that the Engine runs it from."""
    with contextlib.closing(cluster.engine(cluster.machine(copy.machine))) as client:
        [image] = [
            each.attrs["Image"] for each in client.containers.list() if each.attrs["State"]["Pid"] == copy.pid
        ]
        return str(image)
