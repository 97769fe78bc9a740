"""What the docker driver makes for a unit beside its container, on a real Engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import docker
import pytest

from contract.docker_rig import DockerRig, container_order
from harness.image import IMAGE
from unit_agent.driver import Driver, Order
from unitfleet.errors import DriverError
from unitfleet.spec import ContainerSpec, MountSpec, NetworkSpec, SubnetSpec, VolumeSpec

pytestmark = pytest.mark.lab

UNIT = "adserver@1.service"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DockerRig]:
    async with DockerRig(tmp_path) as made:
        yield made


async def run(driver: Driver, order: Order) -> None:
    await driver.create(order)
    await driver.start(order)


async def test_volumes_and_networks_that_a_unit_describes_are_made_once_and_stay(rig: DockerRig) -> None:
    container = ContainerSpec(
        image=IMAGE,
        exec=("sleep", "1000"),
        stop_timeout_s=1.0,
        mounts=(MountSpec(kind="volume", source="db", target="/d"),),
        networks=("back",),
        made_volumes=(VolumeSpec(name="db", labels=(("kept", "yes"),)),),
        made_networks=(NetworkSpec(name="back", subnets=(SubnetSpec(subnet="10.213.77.0/24"),)),),
    )
    driver = rig.driver()
    units = [f"web@{number}.service" for number in range(3)]
    try:
        await asyncio.gather(*(run(driver, container_order(unit, container)) for unit in units))
        found = await asyncio.to_thread(rig.witness.networks.list, names=["back"])
        assert [network.attrs["IPAM"]["Config"][0]["Subnet"] for network in found] == ["10.213.77.0/24"]
        volume = await asyncio.to_thread(rig.witness.volumes.get, "db")
        assert volume.attrs["Labels"]["kept"] == "yes"
        shown = await asyncio.to_thread(rig.container, units[0])
        inside = shown.attrs["NetworkSettings"]["Networks"]
        assert inside["back"]["IPAddress"].startswith("10.213.77.")
        for unit in units:
            await driver.stop(unit)
            await driver.remove(unit)
        assert await asyncio.to_thread(rig.witness.volumes.get, "db")
    finally:
        for left in await asyncio.to_thread(rig.witness.containers.list, all=True):
            await asyncio.to_thread(left.remove, force=True)
        for network in await asyncio.to_thread(rig.witness.networks.list, names=["back"]):
            await asyncio.to_thread(network.remove)
        with contextlib.suppress(docker.errors.NotFound):
            await asyncio.to_thread((await asyncio.to_thread(rig.witness.volumes.get, "db")).remove)


async def test_a_bind_mount_without_its_source_is_refused(rig: DockerRig, tmp_path: Path) -> None:
    mount = MountSpec(kind="bind", source=str(tmp_path / "missing"), target="/data")
    with pytest.raises(DriverError, match="missing"):
        await rig.driver().create(container_order(UNIT, ContainerSpec(image=IMAGE, mounts=(mount,))))
    assert not (tmp_path / "missing").exists()
