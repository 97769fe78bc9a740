"""Volumes and networks that a unit's `.volume` and `.network` files describe: made before its container.

One that is there by its name is used as it is, whoever made it. None is ever removed: other units may use it, and
a volume holds data.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from unit_agent.drivers.docker_engine import CHANGE_S, INSPECT_S, Engine, EngineRefused
from unit_agent.drivers.docker_request import CLUSTER, MACHINE, Owner
from unitfleet.spec import ContainerSpec, NetworkSpec, VolumeSpec

_NOT_THERE = 404


def volume_body(owner: Owner, spec: VolumeSpec) -> dict[str, Any]:
    """Return the body of the Engine's `POST /volumes/create`."""
    return {
        "Name": spec.name,
        "Driver": spec.driver,
        "DriverOpts": dict(spec.options),
        "Labels": _labels(owner, spec.labels),
    }


def network_body(owner: Owner, spec: NetworkSpec) -> dict[str, Any]:
    """Return the body of the Engine's `POST /networks/create`."""
    pools = [
        {
            "Subnet": subnet.subnet,
            **({"Gateway": subnet.gateway} if subnet.gateway else {}),
            **({"IPRange": subnet.ip_range} if subnet.ip_range else {}),
        }
        for subnet in spec.subnets
    ]
    ipam = {**({"Driver": spec.ipam_driver} if spec.ipam_driver else {}), **({"Config": pools} if pools else {})}
    return {
        "Name": spec.name,
        "CheckDuplicate": True,  # an older Engine makes two of one name otherwise
        "Driver": spec.driver,
        "Internal": spec.internal,
        "EnableIPv6": spec.ipv6,
        "Options": dict(spec.options),
        "Labels": _labels(owner, spec.labels),
        **({"IPAM": ipam} if ipam else {}),
    }


def _labels(owner: Owner, labels: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return {**dict(labels), CLUSTER: owner.cluster, MACHINE: owner.machine}


class Resources:
    """Makes them, one unit's at a time: two units that make the same network at once clash over its addresses."""

    def __init__(self, engine: Engine, owner: Owner) -> None:
        self._engine = engine
        self._owner = owner
        self._turn = asyncio.Lock()

    async def make(self, unit: str, container: ContainerSpec) -> None:
        """Make what a unit describes and is not there yet; raises `DriverError`."""
        if not container.made_volumes and not container.made_networks:
            return
        async with self._turn:
            for volume in container.made_volumes:  # the Engine answers with the one that is there
                doing = f"make volume {volume.name} of {unit}"
                await self._engine.ask(doing, "POST", "volumes/create", CHANGE_S, volume_body(self._owner, volume))
            for network in container.made_networks:
                await self._make_network(unit, network)

    async def _make_network(self, unit: str, network: NetworkSpec) -> None:
        doing = f"make network {network.name} of {unit}"
        if await self._has(doing, network.name):
            return
        try:
            await self._engine.ask(doing, "POST", "networks/create", CHANGE_S, network_body(self._owner, network))
        except EngineRefused:
            if not await self._has(doing, network.name):  # somebody else was quicker
                raise

    async def _has(self, doing: str, network: str) -> bool:
        try:
            await self._engine.ask(doing, "GET", f"networks/{quote(network)}", INSPECT_S)
        except EngineRefused as error:
            if error.status != _NOT_THERE:
                raise
            return False
        return True
