"""What the docker driver promises beyond the contract, on a real Engine; the `docker` SDK is its witness."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from contract.docker_rig import DockerRig, container_order
from contract.driver_rig import DEADLINE_S, find, until
from harness.engines import wait_for
from harness.hierarchies import none_is_hidden
from harness.image import IMAGE, image_archive, image_id
from unit_agent.driver import Driver, LogLine, Order, Progress
from unit_agent.drivers import docker_watch
from unit_agent.drivers.docker import DockerDriver
from unit_agent.drivers.docker_engine import Engine
from unitfleet.errors import DriverError, ImageNotFound
from unitfleet.model import CopyPhase
from unitfleet.spec import (
    ContainerSpec,
    HealthSpec,
    PortSpec,
    Pull,
    Restart,
    RestartPolicy,
    ServiceSpec,
    ServiceType,
)

pytestmark = pytest.mark.lab

UNIT = "adserver@1.service"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DockerRig]:
    async with DockerRig(tmp_path) as made:
        yield made


def sleeper(**changes: Any) -> ContainerSpec:
    """Return a container that runs until it is stopped; as PID 1 it heeds only SIGKILL, after a second."""
    usual = {"image": IMAGE, "exec": ("sleep", "1000"), "networks": ("none",), "stop_timeout_s": 1.0}
    return ContainerSpec(**{**usual, **changes})


def shell(script: str, **changes: Any) -> ContainerSpec:
    """Return a container that runs a script."""
    return sleeper(exec=("sh", "-c", script), **changes)


def pinned(order: Order, digest: str) -> Order:
    """Return the order with an image pinned."""
    return Order(msgspec.structs.replace(order.placement, image=digest), order.spec)


async def run(driver: Driver, order: Order) -> None:
    await driver.create(order)
    copy = await driver.start(order)
    assert copy.phase is CopyPhase.RUNNING, copy


async def attrs(rig: DockerRig, unit: str = UNIT) -> dict[str, Any]:
    """Return what the witness sees of the unit's container."""
    container = await asyncio.to_thread(rig.container, unit)
    assert container is not None
    found: dict[str, Any] = container.attrs
    return found


async def test_a_new_driver_adopts_the_same_container_as_its_witness_sees_it(rig: DockerRig) -> None:
    driver = rig.driver()
    await run(driver, container_order(UNIT, sleeper()))
    before = (await attrs(rig))["State"]
    await driver.close()
    copy = await find(rig.driver(), UNIT)
    after = (await attrs(rig))["State"]
    assert copy is not None
    assert (before["Pid"], before["StartedAt"]) == (after["Pid"], after["StartedAt"])
    assert (copy.phase, copy.pid) == (CopyPhase.RUNNING, after["Pid"])


async def test_the_engine_itself_never_restarts_a_copy(rig: DockerRig) -> None:
    policy = RestartPolicy(when=Restart.ALWAYS)
    await run(rig.driver(), container_order(UNIT, sleeper(), ServiceSpec(restart=policy)))
    assert (await attrs(rig))["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")


async def test_a_copy_that_takes_its_time_to_stop_is_given_it(rig: DockerRig) -> None:
    script = "trap 'sleep 2; echo flushed; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    driver, order = (
        rig.driver(),
        container_order(UNIT, shell(script, stop_timeout_s=None), ServiceSpec(timeout_stop_s=8.0)),
    )
    await run(driver, order)
    await wait_for_line(driver, "ready")
    await driver.stop(UNIT)
    state = (await attrs(rig))["State"]
    assert (state["Running"], state["ExitCode"]) == (False, 0)
    assert "flushed" in [line.text for line in await output(driver)]


async def test_a_copy_that_ignores_its_stop_signal_is_killed_after_its_timeout_and_not_before(
    rig: DockerRig,
) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    container = shell(script, stop_timeout_s=2.0)  # wins over TimeoutStopSec=
    driver, order = rig.driver(), container_order(UNIT, container, ServiceSpec(timeout_stop_s=60.0))
    await run(driver, order)
    await wait_for_line(driver, "ready")
    began = time.monotonic()
    await driver.stop(UNIT)
    assert 1.9 < time.monotonic() - began < 20
    assert (await attrs(rig))["State"]["ExitCode"] == 137


async def test_the_stop_signal_of_the_unit_is_used(rig: DockerRig) -> None:
    script = "trap 'exit 7' INT; trap '' TERM; echo ready; while :; do sleep 0.1; done"
    container = shell(script, stop_signal="SIGINT", stop_timeout_s=20.0)
    driver, order = rig.driver(), container_order(UNIT, container)
    await run(driver, order)
    await wait_for_line(driver, "ready")
    await driver.stop(UNIT)
    assert (await attrs(rig))["State"]["ExitCode"] == 7


async def test_a_pinned_image_runs_after_its_tag_was_moved(rig: DockerRig) -> None:
    driver, tag = rig.driver(), "moving:1"
    await asyncio.to_thread(rig.witness.images.load, image_archive(tag, "first"))
    order = container_order(UNIT, sleeper(image=tag))
    first = await driver.prepare(order, lambda progress: None)
    assert first == image_id("first")
    await asyncio.to_thread(rig.witness.images.load, image_archive(tag, "second"))
    assert await driver.prepare(order, lambda progress: None) == image_id("second")
    order = pinned(order, first)
    assert await driver.prepare(order, lambda progress: None) == first
    await driver.close()
    copy = await rig.driver().create(order)  # by an agent that has not prepared it itself
    assert (await attrs(rig))["Image"] == copy.image == first


async def test_a_pinned_image_that_was_built_elsewhere_is_named_as_such(rig: DockerRig) -> None:
    order = pinned(container_order(UNIT, sleeper()), image_id("nowhere"))
    with pytest.raises(ImageNotFound, match="built on another machine"):
        await rig.driver().prepare(order, lambda progress: None)


async def test_pull_never_does_not_ask_anyone(rig: DockerRig) -> None:
    order = container_order(UNIT, sleeper(image="127.0.0.1:1/none:1", pull=Pull.NEVER))
    with pytest.raises(ImageNotFound, match="Pull=never"):
        await rig.driver().prepare(order, lambda progress: None)


async def test_a_registry_that_is_away_is_told_with_its_cause(rig: DockerRig) -> None:
    order = container_order(UNIT, sleeper(image="127.0.0.1:1/none:1"))
    with pytest.raises(DriverError, match="connection refused"):
        await rig.driver().prepare(order, lambda progress: None)


async def test_a_free_host_port_is_taken_told_and_reachable(rig: DockerRig) -> None:
    container = shell(
        "mkdir -p /tmp/www; echo hello > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www",
        networks=(),
        ports=(PortSpec(container=80),),
    )
    driver, order = rig.driver(), container_order(UNIT, container)
    await run(driver, order)
    copy = await find(driver, UNIT)
    assert copy is not None
    assert copy.address == "192.0.2.1"
    (port,) = copy.ports
    assert port.container == 80
    assert port.host > 1024
    url = f"http://{rig.lab.address(0)}:{port.host}/index.html"

    def read() -> bytes:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
            content: bytes = response.read()
            return content
        return b""

    await asyncio.to_thread(wait_for, lambda: read() == b"hello\n", f"{url} answers", timeout_s=DEADLINE_S)


async def test_a_taken_host_port_fails_the_start_and_says_so(rig: DockerRig) -> None:
    driver, ports = rig.driver(), (PortSpec(container=80, host=18080),)
    await run(driver, container_order(UNIT, sleeper(networks=(), ports=ports)))
    second = container_order("adserver@2.service", sleeper(networks=(), ports=ports))
    await driver.create(second)
    copy = await driver.start(second)
    assert copy.phase is CopyPhase.FAILED
    assert "18080" in copy.message


async def test_a_container_that_is_not_ours_is_neither_seen_nor_touched(rig: DockerRig) -> None:
    foreign = await asyncio.to_thread(
        lambda: rig.witness.containers.run(
            IMAGE, ["sleep", "1000"], detach=True, network_mode="none", labels={"unitfleet.unit": UNIT}
        )
    )
    neighbour = rig.driver("m2")
    await run(neighbour, container_order(UNIT, sleeper()))
    driver = rig.driver()
    assert list(await driver.list()) == []
    await driver.stop(UNIT)
    await driver.remove(UNIT)
    copy = await find(neighbour, UNIT)
    assert copy is not None
    assert copy.phase is CopyPhase.RUNNING
    await asyncio.to_thread(foreign.reload)
    assert foreign.status == "running"


async def test_what_somebody_runs_of_a_copys_image_is_no_copy(rig: DockerRig) -> None:
    driver = rig.driver()
    await run(driver, container_order(UNIT, sleeper()))
    before = await find(driver, UNIT)

    def commit_and_run() -> Any:
        image = rig.container(UNIT).commit()  # with all of our labels
        return rig.witness.containers.run(image.id, ["sleep", "1000"], detach=True, network_mode="none")

    foreign = await asyncio.to_thread(commit_and_run)
    assert foreign.labels["unitfleet.unit"] == UNIT
    assert await find(driver, UNIT) == before
    assert await find(rig.driver(), UNIT) is not None  # the next one finds the copy, and only it
    await asyncio.to_thread(foreign.remove, force=True)
    assert await find(driver, UNIT) == before


@pytest.mark.parametrize("watched", [True, False], ids=["seen by its event", "found by its name"])
async def test_a_copy_whose_creation_was_cut_short_is_taken_up(rig: DockerRig, watched: bool) -> None:
    driver, order = rig.driver(), container_order(UNIT, sleeper(container_name="kafka"))
    await driver.list()
    made = await rig.driver().create(order)  # as seen from `driver`: its own call, whose answer never came
    if watched:
        assert (await until(driver, UNIT, lambda copy: True)).id == made.id
    assert (await driver.create(order)).id == made.id


async def test_a_name_that_another_container_has_is_an_error_that_names_it(rig: DockerRig) -> None:
    await asyncio.to_thread(lambda: rig.witness.containers.create(IMAGE, name="kafka"))
    order = container_order(UNIT, sleeper(container_name="kafka"))
    with pytest.raises(DriverError, match="kafka") as caught:
        await rig.driver().create(order)
    assert "not one of ours" in str(caught.value)


async def test_a_copy_that_outgrows_its_memory_says_so(rig: DockerRig) -> None:
    await none_is_hidden()
    container = shell("exec tail /dev/zero", memory=16 << 20)
    driver, order = rig.driver(), container_order(UNIT, container)
    await driver.create(order)
    await driver.start(order)
    copy = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.FAILED)
    assert copy.message.startswith("OOM-killed at 16 MiB (limit 16 MiB): ")
    assert "SIGKILL" in copy.message


async def test_health_is_told_as_it_changes(rig: DockerRig) -> None:
    health = HealthSpec(test=("CMD", "test", "-e", "/tmp/well"), interval_s=0.3, retries=1)
    driver, order = (
        rig.driver(),
        container_order(UNIT, shell("sleep 1; touch /tmp/well; sleep 1000", health=health)),
    )
    await run(driver, order)
    assert (await until(driver, UNIT, lambda copy: copy.health == "healthy")).phase is CopyPhase.RUNNING
    container = await asyncio.to_thread(rig.container, UNIT)
    await asyncio.to_thread(container.exec_run, ["rm", "/tmp/well"])
    assert (await until(driver, UNIT, lambda copy: copy.health == "unhealthy")).phase is CopyPhase.RUNNING


async def test_notify_healthy_fails_a_start_that_does_not_become_healthy_in_time(rig: DockerRig) -> None:
    health = HealthSpec(test=("CMD", "false"), interval_s=0.3)
    container = sleeper(health=health, notify_healthy=True, stop_timeout_s=0.0)
    driver, order = rig.driver(), container_order(UNIT, container, ServiceSpec(timeout_start_s=1.5))
    await driver.create(order)
    copy = await driver.start(order)
    assert copy.phase is CopyPhase.FAILED
    assert "timed out" in copy.message
    assert not (await attrs(rig))["State"]["Running"]


async def test_restarts_back_off(rig: DockerRig) -> None:
    policy = RestartPolicy(when=Restart.ON_FAILURE, delay_s=0.1, limit_burst=0)
    driver, order = rig.driver(), container_order(UNIT, shell("exit 3"), ServiceSpec(restart=policy))
    await driver.create(order)
    await driver.start(order)
    copy = await until(driver, UNIT, lambda copy: copy.restarts >= 4 and copy.phase is CopyPhase.RESTARTING)
    assert "exited with status 3; restarts in" in copy.message
    await driver.stop(UNIT)
    stopped = await find(driver, UNIT)
    assert stopped is not None
    assert stopped.phase is CopyPhase.LOADED


async def test_a_copy_that_ended_while_no_agent_looked_is_restarted_by_the_next_one(rig: DockerRig) -> None:
    policy = RestartPolicy(when=Restart.ALWAYS, delay_s=0.1)
    driver, order = rig.driver(), container_order(UNIT, sleeper(), ServiceSpec(restart=policy))
    await run(driver, order)
    await driver.close()
    await rig.kill(UNIT)
    await asyncio.to_thread(wait_for, lambda: not rig._state(UNIT)["Running"], "it ended", timeout_s=DEADLINE_S)
    await until(rig.driver(), UNIT, lambda copy: copy.phase is CopyPhase.RUNNING)


async def test_a_container_that_the_engines_list_leaves_out_is_found_by_its_id_or_its_name(
    rig: DockerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def empty(engine: Engine, filters: object) -> list[object]:
        return []

    driver, order = rig.driver(), container_order(UNIT, sleeper())
    await run(driver, order)
    before = await find(driver, UNIT)
    monkeypatch.setattr(Engine, "list", empty)
    monkeypatch.setattr(docker_watch, "_TRUST_S", 0.0)  # each list asks the Engine
    assert before is not None and await find(driver, UNIT) == before
    heir = rig.driver()
    assert await find(heir, UNIT) is None
    assert await heir.find(UNIT) == before
    await heir.stop(UNIT)
    third = rig.driver()
    stopped = await third.find(UNIT)  # it has another name now
    assert stopped is not None and stopped.phase is CopyPhase.LOADED
    await third.remove(UNIT)
    assert await find(driver, UNIT) is None


async def test_a_copy_that_was_stopped_is_not_restarted_by_the_next_agent(rig: DockerRig) -> None:
    policy = RestartPolicy(when=Restart.ALWAYS, delay_s=0.0)
    driver, order = rig.driver(), container_order(UNIT, sleeper(), ServiceSpec(restart=policy))
    await run(driver, order)
    await driver.stop(UNIT)
    await driver.close()
    heir = rig.driver()
    bystander = container_order("adserver@2.service", shell("exit 1"), ServiceSpec(restart=policy))
    await heir.create(bystander)
    await heir.start(bystander)
    await until(heir, bystander.placement.unit, lambda copy: copy.restarts >= 1)
    copy = await find(heir, UNIT)
    assert copy is not None
    assert copy.phase is CopyPhase.LOADED


@pytest.fixture
def registry(rig: DockerRig, tmp_path: Path) -> Iterator[str]:
    """A registry on the host's loopback; its `host:port`."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry, which is not installed")
    address = "127.0.0.1:5000"
    config = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address},
    }
    (tmp_path / "config.yml").write_text(json.dumps(config))
    process = rig.lab.run_in(0, ["docker-registry", "serve", str(tmp_path / "config.yml")])
    try:
        yield address
    finally:
        process.kill()
        process.wait(10)


def push(rig: DockerRig, image: str, note: str) -> None:
    """Push an image with this note to its registry, and forget it here."""
    rig.witness.images.load(image_archive(image, note))

    def pushed() -> bool:
        said = list(rig.witness.api.push(image, stream=True, decode=True))
        return not any("error" in line for line in said)

    wait_for(pushed, f"{image} is pushed", timeout_s=DEADLINE_S)
    rig.witness.images.remove(image, force=True)


async def test_a_pulled_tag_is_pinned_and_the_same_tag_pushed_anew_is_not_picked_up(
    rig: DockerRig, registry: str
) -> None:
    image = f"{registry}/app:1"
    await asyncio.to_thread(push, rig, image, "first")
    driver, order = rig.driver(), container_order(UNIT, sleeper(image=image))
    steps: list[Progress] = []
    first = await driver.prepare(order, steps.append)
    assert first.startswith(f"{registry}/app@sha256:")
    assert {step.phase for step in steps} == {CopyPhase.PULLING}
    percents = [step.percent for step in steps]
    assert percents[0] == 0
    assert percents == sorted(set(percents))
    assert percents[-1] >= 90
    await asyncio.to_thread(push, rig, image, "second")
    moved = await driver.prepare(order, steps.append)
    assert moved != first
    # what a failover is told: the pin, on a machine that holds neither
    await asyncio.to_thread(lambda: rig.witness.images.remove(moved, force=True))
    order = pinned(order, first)
    assert await driver.prepare(order, steps.append) == first
    copy = await driver.create(order)
    assert copy.image == first
    note = await asyncio.to_thread(lambda: rig.witness.images.get(first).id)
    assert (await attrs(rig))["Image"] == note == image_id("first")


@pytest.mark.parametrize(("pull", "expected"), [(Pull.MISSING, "old"), (Pull.ALWAYS, "new"), (Pull.NEWER, "new")])
async def test_the_pull_policy_decides_whether_a_moved_tag_is_followed(
    rig: DockerRig, registry: str, pull: Pull, expected: str
) -> None:
    image = f"{registry}/app:1"
    await asyncio.to_thread(push, rig, image, "new")
    await asyncio.to_thread(rig.witness.images.load, image_archive(image, "old"))
    driver, order = rig.driver(), container_order(UNIT, sleeper(image=image, pull=pull))
    await driver.prepare(order, lambda progress: None)
    await driver.create(order)
    assert (await attrs(rig))["Image"] == image_id(expected)


async def test_newer_runs_the_local_image_when_the_registry_is_away(rig: DockerRig) -> None:
    image = "127.0.0.1:1/app:1"
    await asyncio.to_thread(rig.witness.images.load, image_archive(image, "old"))
    driver, order = rig.driver(), container_order(UNIT, sleeper(image=image, pull=Pull.NEWER))
    assert await driver.prepare(order, lambda progress: None) == image_id("old")


async def test_an_image_that_the_registry_lacks_is_not_found(rig: DockerRig, registry: str) -> None:
    await asyncio.to_thread(push, rig, f"{registry}/app:1", "first")
    order = container_order(UNIT, sleeper(image=f"{registry}/app:2"))
    with pytest.raises(ImageNotFound, match="manifest"):
        await rig.driver().prepare(order, lambda progress: None)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "shut down"])
async def test_copies_that_end_with_the_engine_are_loaded_when_it_is_back(
    rig: DockerRig, how: signal.Signals
) -> None:
    script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    policy = RestartPolicy(when=Restart.NO)  # by itself this would be finished
    driver, order = rig.driver(), container_order(UNIT, shell(script), ServiceSpec(restart=policy))
    await run(driver, order)
    await wait_for_line(driver, "ready")
    done = container_order("job.service", shell("exit 0"), ServiceSpec(type=ServiceType.ONESHOT))
    await driver.create(done)
    await driver.start(done)
    await until(driver, "job.service", lambda copy: copy.phase is CopyPhase.FINISHED)
    told: list[str] = []
    seen: list[CopyPhase] = []

    async def listen() -> None:
        async for unit in driver.events():
            told.append(unit)
            with contextlib.suppress(DriverError):
                seen.extend(copy.phase for copy in await driver.list() if copy.unit == UNIT)

    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(listen())
        await asyncio.to_thread(rig.lab.kill_engine, 0, how)
        with pytest.raises(DriverError, match="cannot list containers"):
            await driver.list()
        told.clear()
        await asyncio.to_thread(rig.lab.start_engine, 0)
        await asyncio.to_thread(wait_for, lambda: "" in told, "the driver is back", timeout_s=DEADLINE_S)
        copy = await find(driver, UNIT)
        assert copy is not None
        assert copy.phase is CopyPhase.LOADED
        assert (await driver.start(order)).phase is CopyPhase.RUNNING
        finished = await find(driver, "job.service")
        assert finished is not None
        assert finished.phase is CopyPhase.FINISHED
        listening.cancel()
    assert set(seen) <= {CopyPhase.RUNNING, CopyPhase.LOADED, CopyPhase.STARTING}
    fresh = await find(rig.driver(), UNIT)
    assert fresh is not None
    assert fresh.phase is CopyPhase.RUNNING


async def test_an_engine_that_is_not_there_is_an_error_and_no_empty_list(tmp_path: Path) -> None:
    driver = DockerDriver("m1", "m1", "cluster-1", "192.0.2.1", socket=str(tmp_path / "nothing.sock"))
    try:
        with pytest.raises(DriverError, match="Docker Engine"):
            await driver.list()
    finally:
        await driver.close()


async def test_an_engine_that_hangs_is_an_error_and_its_copies_are_adopted_when_it_goes_on(rig: DockerRig) -> None:
    await run(rig.driver(), container_order(UNIT, sleeper()))
    heir = rig.driver()
    rig.lab.signal_engine(0, signal.SIGSTOP)
    try:
        with pytest.raises(DriverError, match="did not answer"):
            await heir.list()
    finally:
        rig.lab.signal_engine(0, signal.SIGCONT)
    async with asyncio.timeout(DEADLINE_S):
        async for _ in heir.events():
            with contextlib.suppress(DriverError):
                if (copy := await find(heir, UNIT)) is not None:
                    assert copy.phase is CopyPhase.RUNNING
                    break


async def test_a_container_that_hangs_holds_up_only_its_own_unit(rig: DockerRig) -> None:
    driver = rig.driver()
    await run(driver, container_order(UNIT, sleeper()))
    shim = psutil.Process((await attrs(rig))["State"]["Pid"]).parent()
    assert shim is not None
    assert "shim" in shim.name()
    shim.suspend()
    try:
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(driver.stop(UNIT))
            async with asyncio.timeout(DEADLINE_S):
                other = container_order("adserver@2.service", sleeper())
                await run(driver, other)
                await driver.stop(other.placement.unit)
                phases = {copy.unit: copy.phase for copy in await driver.list()}
            assert phases == {UNIT: CopyPhase.STOPPING, "adserver@2.service": CopyPhase.LOADED}
            assert not stopping.done()
            shim.resume()
    finally:
        shim.resume()
    assert not (await attrs(rig))["State"]["Running"]


async def test_following_goes_on_over_a_restart_without_doubling_a_line(rig: DockerRig) -> None:
    policy = RestartPolicy(when=Restart.ALWAYS, delay_s=0.1, limit_burst=0)
    script = "n=$(cat /tmp/n 2>/dev/null || echo 0); echo run $n; echo $((n+1)) > /tmp/n; exit 1"
    driver, order = rig.driver(), container_order(UNIT, shell(script), ServiceSpec(restart=policy))
    await driver.create(order)
    await driver.start(order)
    found = []
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(follow(driver)) as reading:
        async for line in reading:
            found.append(line.text)
            if len(found) == 4:
                break
    assert found == ["run 0", "run 1", "run 2", "run 3"]


async def test_the_environment_tells_a_copy_who_it_is(rig: DockerRig, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=from the file\nB=from the file\nUNITFLEET_EPOCH=99\n")
    container = shell(
        "env; exit 0", environment=(("A", "from the unit"),), environment_files=((str(tmp_path / "env"), False),)
    )
    driver, order = rig.driver(), container_order(UNIT, container, ServiceSpec(type=ServiceType.ONESHOT), epoch=7)
    await driver.create(order)
    await driver.start(order)
    await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.FINISHED)
    lines = {line.text for line in await output(driver)}
    assert {
        "A=from the unit",
        "B=from the file",
        f"UNITFLEET_UNIT={UNIT}",
        "UNITFLEET_EPOCH=7",
        "UNITFLEET_MACHINE=m1",
    } <= lines


async def test_a_copy_that_somebody_removed_is_gone(rig: DockerRig) -> None:
    driver = rig.driver()
    await run(driver, container_order(UNIT, sleeper()))
    container = await asyncio.to_thread(rig.container, UNIT)
    await asyncio.to_thread(lambda: container.remove(force=True))
    async with asyncio.timeout(DEADLINE_S):
        async for _ in driver.events():
            if await find(driver, UNIT) is None:
                break


async def follow(driver: Driver) -> AsyncGenerator[LogLine, None]:
    async for line in driver.logs(UNIT, lines=100, follow=True):
        yield line


async def output(driver: Driver) -> list[LogLine]:
    return [line async for line in driver.logs(UNIT, lines=100, follow=False)]


async def wait_for_line(driver: Driver, text: str) -> None:
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(follow(driver)) as reading:
        async for line in reading:
            if line.text == text:
                return
