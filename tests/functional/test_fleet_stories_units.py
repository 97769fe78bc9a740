"""fleet's own functional tests about units, by the same names: its client against a master of a real cluster.

The client is a stand-in that sends what fleetctl sends (`harness.fleetctl`), by the master's socket. What ran on
fleet's hosts runs here by the process driver.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
import pytest_asyncio

from harness.cluster import Cluster
from harness.fleetctl import Failed, Fleetctl
from unitfleet import keys, unitfile

pytestmark = pytest.mark.asyncio(loop_scope="module")

P = ParamSpec("P")
R = TypeVar("R")

SOON_S = 15.0
HELLO = "[Unit]\nDescription=Hello World\n\n[Service]\nExecStart=/bin/sleep 100000\n"
OTHER = HELLO.replace("Hello World", "Hello again")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared() -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.on_loopback(Path(logs), machines=2, masters=1) as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    shared.write("hello.service", HELLO)
    shared.write("hello@.service", HELLO)
    yield shared
    await shared.restore()


@pytest.fixture
def fleetctl(cluster: Cluster) -> Fleetctl:
    return Fleetctl(f"unix://{cluster.root / 'master1.sock'}", cluster.units_dir)


async def run(verb: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a command of the client, which blocks."""
    return await asyncio.to_thread(verb, *args, **kwargs)


async def is_gone(fleetctl: Fleetctl, *units: str) -> bool:
    """Whether fleet's client hears of none of these, neither of units nor of states."""
    known = await run(fleetctl.list_unit_files)
    reported = await run(fleetctl.list_units)
    return not (known.keys() | reported.keys()) & set(units)


async def each_twice(
    cluster: Cluster, fleetctl: Fleetctl, do: Callable[..., None], state: str, count: int
) -> None:
    """Do something to many units and destroy them, twice: each time all are there, and then none is."""
    units = [f"hello@{number}.service" for number in range(1, count + 1)]
    for _ in range(2):
        await run(do, *units)
        listed = await run(fleetctl.list_unit_files)
        assert {name: listed[name]["desiredState"] for name in units} == dict.fromkeys(units, state)
        assert {name: listed[name]["currentState"] for name in units} == dict.fromkeys(units, state)
        await run(fleetctl.destroy, *units)
        await cluster.wait_until(lambda: is_gone(fleetctl, *units), SOON_S, "they are gone")


async def test_unit_runnable(cluster: Cluster, fleetctl: Fleetctl) -> None:
    await run(fleetctl.start, "hello.service")
    [state] = (await run(fleetctl.list_units))["hello.service"]
    assert state["systemdActiveState"] == "active"
    [copy] = await cluster.running("hello.service")
    [machine] = [view for view in (await cluster.machine_views()).values() if view.id == state["machineID"]]
    assert copy.machine == machine.name


async def test_unit_submit(cluster: Cluster, fleetctl: Fleetctl) -> None:
    await each_twice(cluster, fleetctl, fleetctl.submit, "inactive", 9)


async def test_unit_load(cluster: Cluster, fleetctl: Fleetctl) -> None:
    await each_twice(cluster, fleetctl, fleetctl.load, "loaded", 6)


async def test_unit_start(cluster: Cluster, fleetctl: Fleetctl) -> None:
    await each_twice(cluster, fleetctl, fleetctl.start, "launched", 3)


async def test_unit_restart(cluster: Cluster, fleetctl: Fleetctl) -> None:
    units = [f"hello@{number}.service" for number in (1, 2, 3)]
    await run(fleetctl.start, *units)
    before = {unit: await cluster.running(unit) for unit in units}
    await run(fleetctl.restart, *units)  # which on fleet confirmed no stop: `launched` is told once it is so
    after = {unit: await cluster.running(unit) for unit in units}
    assert all(len(after[unit]) == 1 and after[unit] != before[unit] for unit in units)


async def replaced(
    cluster: Cluster, fleetctl: Fleetctl, do: Callable[..., None], state: str, hash_of: str = OTHER
) -> None:
    """Do it with one text and with another in its place: what is registered is the other, and in that state."""
    await run(do, "hello.service")
    cluster.write("hello.service", OTHER)
    await run(do, "hello.service")
    assert any("differs from local unit file" in line for line in fleetctl.said)
    assert await run(fleetctl.cat, "hello") == unitfile.parse(HELLO).serialize()
    await run(do, "hello.service", replace=True)
    assert await run(fleetctl.cat, "hello") == unitfile.parse(hash_of).serialize()
    listed = (await run(fleetctl.list_unit_files))["hello.service"]
    assert (listed["desiredState"], listed["currentState"]) == (state, state)
    await run(do, "hello.service", replace=True)
    assert fleetctl.said[-1] == "Found same Unit(hello.service) in Registry, nothing to do"


async def test_unit_submit_replace(cluster: Cluster, fleetctl: Fleetctl) -> None:
    await replaced(cluster, fleetctl, fleetctl.submit, "inactive")


async def test_unit_load_replace(cluster: Cluster, fleetctl: Fleetctl) -> None:
    await replaced(cluster, fleetctl, fleetctl.load, "loaded")


async def test_unit_start_replace(cluster: Cluster, fleetctl: Fleetctl) -> None:
    await replaced(cluster, fleetctl, fleetctl.start, "launched")
    [state] = (await run(fleetctl.list_units))["hello.service"]
    assert state["hash"] == unitfile.parse(OTHER).fleet_hash()
    assert len(await cluster.running("hello.service")) == 1


async def test_unit_cat(cluster: Cluster, fleetctl: Fleetctl) -> None:
    await run(fleetctl.submit, "hello.service")
    assert await run(fleetctl.cat, "hello.service") == HELLO
    with pytest.raises(Failed, match=r"^Unit nope\.service not found$"):
        await run(fleetctl.cat, "nope")
    assert (await cluster.must("cat", "hello.service")).stdout == HELLO


async def test_unit_status(cluster: Cluster, fleetctl: Fleetctl) -> None:
    await run(fleetctl.start, "hello.service")
    assert "running" in (await cluster.must("status", "hello.service")).stdout
    assert (await cluster.unitctl("status", "nope.service")).code != 0


async def test_list_unit_files_order(cluster: Cluster, fleetctl: Fleetctl) -> None:
    units = [f"hello@{number}.service" for number in range(1, 21)]
    await run(fleetctl.submit, *units)
    assert list(await run(fleetctl.list_unit_files)) == sorted(units)
    listed = (await cluster.must("list-unit-files", "-o", "fleet", "--no-legend", "--fields", "unit")).stdout
    assert listed.split() == sorted(units)


async def test_systemd_unit_flow(cluster: Cluster, fleetctl: Fleetctl) -> None:
    hash = unitfile.parse(HELLO).fleet_hash()
    for do, active in (
        (fleetctl.load, ("loaded", "inactive", "dead")),
        (fleetctl.start, ("loaded", "active", "running")),
        (fleetctl.stop, ("loaded", "inactive", "dead")),
    ):
        await run(do, "hello.service")
        [state] = (await run(fleetctl.list_units))["hello.service"]
        assert tuple(state[f"systemd{kind}State"] for kind in ("Load", "Active", "Sub")) == active
        assert state["hash"] == hash
        assert bool(await cluster.running("hello.service")) is (active[1] == "active")
    await run(fleetctl.unload, "hello.service")
    assert await run(fleetctl.list_units) == {}
    assert (await run(fleetctl.list_unit_files))["hello.service"]["currentState"] == "inactive"


# What fleetctl sends, and what is fleet's own fault


async def test_fleetctl_is_answered_request_by_request_as_by_fleet(cluster: Cluster, fleetctl: Fleetctl) -> None:
    await run(fleetctl.submit, "hello@7")
    get, put = "GET units/hello@7.service", "PUT units/hello@7.service"
    template = "GET units/hello@.service"
    assert fleetctl.sent[:4] == [get, template, put, get]
    assert fleetctl.said == ["Unit hello@7.service inactive"]
    await run(fleetctl.load, "hello@7")
    assert fleetctl.sent[:3] == [get, get, put] and set(fleetctl.sent[3:]) == {get, "GET machines"}
    await run(fleetctl.start, "hello@7")
    assert fleetctl.said[0].startswith("Unit hello@7.service launched on ") and "/127.0.0.1" in fleetctl.said[0]
    assert fleetctl.sent[-1] == "GET state"
    await run(fleetctl.stop, "hello@7")
    assert fleetctl.sent[:2] == ["GET units", put]
    with pytest.raises(Failed, match="cannot activate template"):
        await run(fleetctl.submit, "hello@.service")
        await run(fleetctl.start, "hello@.service")
    await run(fleetctl.destroy, "hello@7", "hello@.service")
    assert fleetctl.sent == ["GET units", "DELETE units/hello@7.service", "DELETE units/hello@.service"]
    await cluster.wait_until(lambda: is_gone(fleetctl, "hello@7.service"), SOON_S, "it is gone")
    await run(fleetctl.destroy, "hello@7")
    assert fleetctl.said == ["Units not found in registry"]


async def test_fleetctl_asks_by_tcp_with_a_token_as_its_password(cluster: Cluster, fleetctl: Fleetctl) -> None:
    token = (await cluster.must("token", "create", "ci", "--role", "operator")).stdout.strip()
    scheme, _, rest = cluster.endpoints[0].partition("://")
    remote = Fleetctl(f"{scheme}://fleetctl:{token}@{rest}", cluster.units_dir)
    await run(remote.start, "hello.service")
    assert await run(remote.list_unit_files) == await run(fleetctl.list_unit_files)
    stranger = Fleetctl(f"{scheme}://fleetctl:wrong@{rest}", cluster.units_dir)
    with pytest.raises(Failed, match=r"^googleapi: Error 401: "):
        await run(stranger.list_machines)
    await cluster.must("token", "rm", "ci")


async def test_a_unit_that_no_machine_takes_stays_inactive_and_is_told_why(
    cluster: Cluster, fleetctl: Fleetctl
) -> None:
    cluster.write("nowhere.service", f"{HELLO}\n[X-Fleet]\nMachineMetadata=rack=r99\n")
    with pytest.raises(Failed, match="timed out waiting for unit nowhere"):
        await run(fleetctl.start, "nowhere.service", attempts=1)
    assert "rack=r99" in (await cluster.must("explain", "nowhere.service")).stdout


async def test_what_fleet_ignored_runs_and_an_event_names_it(cluster: Cluster, fleetctl: Fleetctl) -> None:
    cluster.write("bogus.service", f"{HELLO}\n[X-Fleet]\nBogus=1\n")
    await run(fleetctl.start, "bogus.service")
    assert len(await cluster.running("bogus.service")) == 1
    assert "unknown key 'Bogus'" in (await cluster.must("events", "--unit", "bogus.service")).stdout
    assert (await cluster.unitctl("submit", "--replace", "bogus.service")).code != 0
    assert await run(fleetctl.cat, "bogus") == unitfile.parse(f"{HELLO}\n[X-Fleet]\nBogus=1\n").serialize()


async def test_a_poisoned_record_is_shown_destroyed_and_hinders_no_other_unit(
    cluster: Cluster, fleetctl: Fleetctl
) -> None:
    poison = b'{"v":1,"name":"poison.service","spec":"x","target":"zzz","generation":1,"incarnation":"i"}'
    await cluster.store.put(keys.unit("poison.service"), poison)
    await cluster.store.put(keys.unit("broken.service"), b"{")
    await run(fleetctl.start, "hello.service")
    listed = await run(fleetctl.list_unit_files)
    assert listed.keys() == {"broken.service", "hello.service", "poison.service"}
    told = (await cluster.must("list-unit-files", "-o", "fleet", "--fields", "unit,desc")).stdout
    assert "unreadable: cannot read /unitfleet/v1/units/poison.service" in told
    await run(fleetctl.destroy, "poison.service")
    await cluster.must("destroy", "broken.service")
    await cluster.wait_until(
        lambda: is_gone(fleetctl, "poison.service", "broken.service"), SOON_S, "both are gone"
    )
    assert len(await cluster.running("hello.service")) == 1
