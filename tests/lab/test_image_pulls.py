"""Pulls and garbage collection on a real Engine with real registries; the `docker` SDK is the witness."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from contract.docker_rig import CLUSTER, MACHINE, DockerRig, container_order
from harness.engines import wait_for
from harness.image import IMAGE
from harness.registry import PASSWORD, USER, Registry, serving
from unit_agent.driver import Progress
from unit_agent.drivers.docker import DockerDriver
from unit_agent.drivers.docker_images import local_id
from unit_agent.images.collector import Collector
from unit_agent.images.record import ImageRecord
from unitfleet.errors import DriverError
from unitfleet.spec import ContainerSpec

pytestmark = pytest.mark.lab

UNIT = "adserver@1.service"

_HANGS = """
import asyncio, sys
count = most = 0
async def hang(reader, writer):
    global count, most
    count += 1
    most = max(most, count)
    tell()
    try:
        while await reader.read(4096):
            pass
    except OSError:
        pass
    count -= 1
    tell()
    writer.close()
def tell():
    with open(sys.argv[2], "w") as file:
        file.write(f"{count} {most}")
async def main():
    server = await asyncio.start_server(hang, "127.0.0.1", int(sys.argv[1]))
    tell()
    await server.serve_forever()
asyncio.run(main())
"""


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DockerRig]:
    async with DockerRig(tmp_path) as made:
        yield made


@pytest.fixture
def registry(rig: DockerRig, tmp_path: Path) -> Iterator[Registry]:
    with serving(Registry(rig.lab, 0, tmp_path / "registry")) as made:
        yield made


class Hanging:
    """A registry that takes connections and never answers."""

    address = "127.0.0.1:5001"

    def __init__(self, rig: DockerRig, path: Path) -> None:
        self._rig = rig
        self._path = path

    def __enter__(self) -> Hanging:
        argv = [sys.executable, "-c", _HANGS, self.address.rpartition(":")[2], str(self._path)]
        self._process = self._rig.lab.run_in(0, argv)
        wait_for(self._path.exists, "it listens", timeout_s=10)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)

    def connections(self) -> tuple[int, int]:
        """Return how many are open, and how many were at most at a time."""
        text = self._path.read_text().split()
        return (int(text[0]), int(text[1])) if len(text) == 2 else (0, 0)


def quiet(progress: Progress) -> None:
    """Hear no progress."""


async def test_two_images_are_pulled_at_once_and_a_start_goes_before_them(
    rig: DockerRig, registry: Registry, tmp_path: Path
) -> None:
    image = await asyncio.to_thread(registry.push, "app:1", "app", rig.witness)
    driver = rig.driver()
    with Hanging(rig, tmp_path / "connections") as hanging:
        async with asyncio.TaskGroup() as tasks:
            warming = [
                tasks.create_task(driver.pulls.for_warming(f"{hanging.address}/w{number}:1", quiet))
                for number in range(4)
            ]
            await asyncio.to_thread(
                wait_for, lambda: hanging.connections()[0] == 2, "two pulls are under way", timeout_s=10
            )
            async with asyncio.timeout(10):
                await driver.prepare(container_order(UNIT, ContainerSpec(image=image)), quiet)
            assert hanging.connections()[1] == 2, "never more than two"
            assert not any(task.done() for task in warming)
            for task in warming:
                task.cancel()


async def test_an_image_whose_registry_asks_for_a_password_is_pulled_with_this_host_s_credentials(
    rig: DockerRig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(rig.lab, 0, tmp_path / "registry", port=5002, password=True)
    with serving(registry):
        image = await asyncio.to_thread(registry.push, "app:1", "app", rig.witness)
        order = container_order(UNIT, ContainerSpec(image=image))
        file = tmp_path / "config.json"
        driver = DockerDriver(
            MACHINE, MACHINE, CLUSTER, "192.0.2.1", socket=str(rig.lab.socket(0)), registry_auth=str(file)
        )
        try:
            file.write_text("{}")
            with pytest.raises(DriverError, match=r"has no credentials for 127\.0\.0\.1:5002"):
                await driver.prepare(order, quiet)
            entry = base64.b64encode(f"{USER}:wrong {PASSWORD}".encode()).decode()
            file.write_text(json.dumps({"auths": {registry.address: {"auth": entry}}}))
            with pytest.raises(
                DriverError, match=r"the credentials for 127\.0\.0\.1:5002 in .* were shown"
            ) as denied:
                await driver.prepare(order, quiet)
            entry = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            file.write_text(json.dumps({"auths": {registry.address: {"auth": entry}}}))
            assert (await driver.prepare(order, quiet)).startswith(f"{registry.address}/app@sha256:")
        finally:
            await driver.close()
        for text in (caplog.text, str(denied.value), str(denied.value.__cause__)):
            assert PASSWORD not in text
            assert entry not in text


async def test_progress_tells_how_many_layers_are_here(rig: DockerRig, registry: Registry) -> None:
    image = await asyncio.to_thread(registry.push, "app:1", "app", rig.witness)
    steps: list[Progress] = []
    await rig.driver().prepare(container_order(UNIT, ContainerSpec(image=image)), steps.append)
    assert steps[-1].message == f"pulling {image} 100 % (1 of 1 layers)"


async def test_garbage_collection_removes_only_what_it_may_and_stops_when_there_is_room(
    rig: DockerRig, registry: Registry, tmp_path: Path
) -> None:
    names = ("old", "older", "wanted", "used", "named", "theirs")
    images = {name: await asyncio.to_thread(registry.push, f"{name}:1", name, rig.witness) for name in names}
    driver = rig.driver()
    record = ImageRecord(tmp_path / "state")
    times = iter(range(1000))
    driver.pulls.brought = lambda id, image: record.brought(id, image, float(next(times)))
    for name in ("wanted", "used", "named", "older", "old"):
        await driver.pulls.for_warming(images[name], quiet)
    await asyncio.to_thread(rig.witness.images.pull, images["theirs"])
    await asyncio.to_thread(lambda: rig.witness.images.get(images["named"]).tag("mine", "1"))
    for image in (images["used"], IMAGE):  # the latter is the lab's own
        await asyncio.to_thread(rig.witness.containers.create, image, ["sleep", "1"])
    full = [85.0]

    async def wanted() -> set[str]:
        return {images["wanted"]}

    async def here() -> set[str]:
        return {name for name in names if await local_id(driver.pulls.engine, images[name])}

    def measure(path: str) -> float:
        return full[0]

    engine, lock = driver.pulls.engine, driver.pulls.removing
    collector = Collector(engine, lock, record, wanted, lambda: 2000.0, 80, False, measure)
    full[0] = 79.0
    assert await collector.collect() == ()
    assert await here() == set(names)

    def freed(path: str) -> float:
        return 85.0 if "older" in {name for name in names if here_now(name)} else 70.0

    def here_now(name: str) -> bool:
        return any(images[name] in image.tags for image in rig.witness.images.list())

    collector.measure = freed
    assert await collector.collect() == (images["older"],)  # the oldest went, and that was enough
    collector.measure, full[0] = measure, 85.0
    assert await collector.collect() == (images["old"],)
    assert await here() == {"wanted", "used", "named", "theirs"}
    assert "no image may be removed" in collector.stuck
    assert (
        "2 in use by a container, 1 named by somebody else, 1 not pulled by this agent, 1 wanted here"
        in collector.stuck
    )

    async def unknown() -> None:
        return None

    collector.wanted, collector.everything = unknown, True
    assert await collector.collect() == ()  # while nobody can say what is wanted
    collector.wanted = wanted
    assert set(await collector.collect()) == {images["named"], images["theirs"]}
    assert await here() == {"wanted", "used"}
    assert images["old"] not in {name for names in record.kept.brought.values() for name in names}


async def test_an_image_that_was_here_before_is_not_held_for_brought(rig: DockerRig, registry: Registry) -> None:
    image = await asyncio.to_thread(registry.push, "app:1", "app", rig.witness)
    await asyncio.to_thread(rig.witness.images.pull, image)
    driver = rig.driver()
    brought: list[str] = []
    driver.pulls.brought = lambda id, image: brought.append(image)
    await driver.pulls.for_warming(image, quiet)
    assert brought == []
    await asyncio.to_thread(lambda: rig.witness.images.remove(image, force=True))
    await driver.pulls.for_warming(image, quiet)
    assert brought == [image]


async def test_a_start_waits_until_an_image_that_is_being_removed_is_gone(
    rig: DockerRig, registry: Registry
) -> None:
    image = await asyncio.to_thread(registry.push, "app:1", "app", rig.witness)
    driver = rig.driver()
    order = container_order(UNIT, ContainerSpec(image=image, networks=("none",)))
    await driver.prepare(order, quiet)
    async with driver.pulls.removing:
        preparing = asyncio.ensure_future(driver.prepare(order, quiet))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(preparing), 0.2)
        assert not preparing.done()
        await asyncio.to_thread(lambda: rig.witness.images.remove(image, force=True))
    await preparing
    assert (await driver.create(order)).image
