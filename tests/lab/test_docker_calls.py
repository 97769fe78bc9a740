"""How seldom the docker driver asks its Engine, and what it does when an answer gets lost; on a real Engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract.docker_rig import DockerRig, container_order
from contract.driver_rig import DEADLINE_S, Job, until
from harness.image import image_archive
from unit_agent.driver import Order
from unit_agent.drivers import docker_wire
from unit_agent.drivers.docker import DockerDriver
from unitfleet.errors import DriverUnavailable, ImageNotFound
from unitfleet.model import CopyPhase
from unitfleet.spec import ContainerSpec

pytestmark = pytest.mark.lab

UNIT = "adserver@1.service"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DockerRig]:
    async with DockerRig(tmp_path) as made:
        yield made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is asked of the Engine, in order, without the ids of containers."""
    questions: list[str] = []

    async def listening(path: str, method: str, target: str, body: object = None) -> tuple[int, bytes]:
        first, _, rest = target.partition("?")[0].partition("/")
        questions.append(f"{method} {first} {rest.rpartition('/')[2]}")
        return await plain(path, method, target, body)

    plain = docker_wire.ask
    monkeypatch.setattr(docker_wire, "ask", listening)
    return questions


async def start(driver: DockerDriver, order: Order) -> None:
    await driver.prepare(order, lambda progress: None)
    await driver.create(order)
    copy = await driver.start(order)
    assert copy.phase is CopyPhase.RUNNING and copy.pid and copy.since, copy


async def test_a_start_asks_its_engine_four_times_also_while_its_output_is_read(
    rig: DockerRig, asked: list[str]
) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.TICKS)
    await driver.list()
    lines: list[str] = []

    async def read() -> None:
        async with contextlib.aclosing(driver.output(UNIT, "")) as batches:
            async for batch, _ in batches:
                lines.extend(text.decode() for _, _, text in batch)
                if len(lines) >= 2:
                    return

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        await driver.prepare(order, lambda progress: None)
        await driver.create(order)
        tasks.create_task(read())  # from its creation on, as an agent does
        await asyncio.sleep(0)
        await driver.start(order)
    assert lines[:2] == ["tick 1", "tick 2"]
    assert asked == ["GET images json", "POST containers create", "POST containers start", "GET containers json"]


async def test_a_burst_of_one_image_looks_it_up_once_and_a_later_start_anew(
    rig: DockerRig, asked: list[str]
) -> None:
    driver, now = rig.driver(), asyncio.get_running_loop().time()
    orders = [replace(rig.order(f"adserver@{number}.service", Job.RUNS), since=now) for number in range(3)]
    for order in orders:
        await start(driver, order)
    assert asked.count("GET images json") == 1
    later = replace(rig.order("late.service", Job.RUNS), since=asyncio.get_running_loop().time())
    await start(driver, later)
    assert asked.count("GET images json") == 2


async def test_an_image_that_went_while_its_start_waited_is_tried_anew_and_then_found_missing(
    rig: DockerRig,
) -> None:
    def load() -> str:
        [image] = rig.witness.images.load(image_archive("short-lived:1", "its own"))
        return str(image.id)

    await asyncio.to_thread(load)
    driver, now = rig.driver(), asyncio.get_running_loop().time()
    container = ContainerSpec(image="short-lived:1", exec=("sleep", "1000"), networks=("none",))
    order = replace(container_order(UNIT, container), since=now)
    await driver.prepare(order, lambda progress: None)
    await asyncio.to_thread(rig.witness.images.remove, "short-lived:1", force=True)
    with pytest.raises(DriverUnavailable, match="it went"):
        await driver.create(order)
    with pytest.raises(ImageNotFound):  # from now on nothing stands on the former answer
        await driver.create(order)


async def test_a_creation_that_is_cancelled_before_its_answer_came_is_taken_up(
    rig: DockerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, order, done = rig.driver(), rig.order(UNIT, Job.RUNS), asyncio.Event()
    await driver.list()
    plain = docker_wire.ask

    async def lost(path: str, method: str, target: str, body: object = None) -> tuple[int, bytes]:
        answer = await plain(path, method, target, body)
        if target.startswith("containers/create"):
            done.set()
            await asyncio.Event().wait()
        return answer

    monkeypatch.setattr(docker_wire, "ask", lost)
    creating = asyncio.create_task(driver.create(order))
    await done.wait()
    heard = asyncio.create_task(until(driver, UNIT, lambda copy: True))
    await asyncio.sleep(0.3)  # its event has come by now: it is left to the call
    assert not heard.done()
    creating.cancel()
    async with asyncio.timeout(DEADLINE_S):
        assert (await heard).phase is CopyPhase.LOADED


async def test_a_list_shows_a_copy_anew_only_when_something_of_it_has_changed(rig: DockerRig) -> None:
    """Each change of one copy asks for the list of all."""
    driver = rig.driver()
    for number in range(2):
        await start(driver, rig.order(f"adserver@{number}.service", Job.RUNS))
    before = {copy.unit: copy for copy in await driver.list()}
    await driver.stop("adserver@0.service")
    after = {copy.unit: copy for copy in await driver.list()}
    assert after["adserver@1.service"] is before["adserver@1.service"]
    assert after["adserver@0.service"].phase is CopyPhase.LOADED
