"""The docker driver on a real Engine of its own; its witness is the `docker` SDK and the process table."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
import psutil
import pytest

from contract.driver_rig import PRINTS, STUBBORN, TICKS, Job, Process, placement_of
from harness.engines import Engines, shared_engine
from harness.image import IMAGE
from unit_agent.driver import Order
from unit_agent.drivers.docker import DockerDriver
from unitfleet.model import Requirements
from unitfleet.spec import ContainerSpec, HealthSpec, RestartPolicy, ServiceSpec, ServiceType, UnitSpec

CLUSTER = "cluster-1"
MACHINE = "m1"

_SCRIPTS = {
    Job.RUNS: ("sleep", "1000"),
    Job.STUBBORN: ("sh", "-c", STUBBORN),
    Job.CANNOT_START: ("/does/not/exist",),
    Job.DIES: ("sh", "-c", "exit 3"),
    Job.SUCCEEDS: ("sh", "-c", "exit 0"),
    Job.PRINTS: ("sh", "-c", PRINTS),
    Job.TICKS: ("sh", "-c", TICKS),
    Job.SLOW: ("sh", "-c", "sleep 0.5; touch /tmp/ready; exec sleep 1000"),
}


def container_order(
    unit: str,
    container: ContainerSpec,
    service: ServiceSpec = ServiceSpec(),  # noqa: B008
    *,
    epoch: int = 1,
) -> Order:
    """Return an order for a `[Container]` unit."""
    spec = UnitSpec(
        name=unit,
        description="",
        requirements=Requirements(unit=unit, drivers=("docker",)),
        service=service,
        container=container,
    )
    return Order(placement_of(unit, epoch), spec)


class DockerRig:
    """One machine on the Engine that all tests of this process share; left empty after each test."""

    name = "docker"

    def __init__(self, directory: Path, log_driver: str = "") -> None:
        self.directory = directory
        self._log_driver = log_driver
        self._drivers: list[DockerDriver] = []
        self._lab: Engines | None = None
        self.witness: Any = None

    @property
    def lab(self) -> Engines:
        """Return the lab that the Engine is part of."""
        assert self._lab is not None, "the rig was not entered"
        return self._lab

    async def __aenter__(self) -> Self:
        if reason := Engines.available():
            pytest.skip(reason)
        self._lab = await asyncio.to_thread(shared_engine)
        self.witness = self._lab.witness(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()
        if self._lab is not None:
            await asyncio.to_thread(self._empty)

    async def _close(self) -> None:
        drivers, self._drivers = self._drivers, []
        for driver in drivers:
            await driver.close()

    def _empty(self) -> None:
        for container in self.witness.containers.list(all=True, ignore_removed=True):
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True, v=True)
        self.witness.volumes.prune()
        names = {tag for image in self.witness.images.list() for tag in image.tags or [image.id]}
        for name in names - {IMAGE}:
            with contextlib.suppress(docker.errors.ImageNotFound):
                self.witness.images.remove(name, force=True)
        self.witness.close()

    def driver(self, machine: str = MACHINE) -> DockerDriver:
        socket, memory = str(self.lab.socket(0)), self.directory / f"memory of {machine}"
        driver = DockerDriver(machine, machine, CLUSTER, "192.0.2.1", socket=socket, memory=memory)
        self._drivers.append(driver)
        return driver

    def order(self, unit: str, job: Job, policy: RestartPolicy = RestartPolicy(), *, epoch: int = 1) -> Order:  # noqa: B008
        container = ContainerSpec(
            image=IMAGE,
            exec=_SCRIPTS[job],
            networks=("none",),
            log_driver=self._log_driver,
            stop_signal="SIGKILL" if job is Job.RUNS else "",  # the first process of a container heeds no other
            notify_healthy=job is Job.SLOW,
            health=HealthSpec(test=("CMD", "test", "-e", "/tmp/ready"), interval_s=0.4)
            if job is Job.SLOW
            else None,
        )
        service = ServiceSpec(
            type=ServiceType.ONESHOT if job in (Job.SUCCEEDS, Job.PRINTS) else ServiceType.SIMPLE,
            restart=policy,
            timeout_stop_s=1.0,
        )
        return container_order(unit, container, service, epoch=epoch)

    def container(self, unit: str) -> Any:
        """Return the SDK's view of the unit's container, or None; blocks."""
        found = self.witness.containers.list(all=True, filters={"label": f"unitfleet.unit={unit}"})
        assert len(found) <= 1, found
        return found[0] if found else None

    def _state(self, unit: str) -> dict[str, Any]:
        container = self.container(unit)
        return container.attrs["State"] if container else {}

    async def processes(self, unit: str) -> set[Process]:
        state = await asyncio.to_thread(self._state, unit)
        if not state.get("Pid"):
            return set()
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(state["Pid"])
            # descendants only: a health check runs beside them
            family = [main, *main.children(recursive=True)]
            return {(one.pid, one.create_time()) for one in family if one.status() != psutil.STATUS_ZOMBIE}
        return set()

    async def kill(self, unit: str) -> None:
        state = await asyncio.to_thread(self._state, unit)
        psutil.Process(state["Pid"]).kill()

    async def power_off(self) -> None:
        await self._close()
        await asyncio.to_thread(self.lab.power_off, 0)
        await asyncio.to_thread(self.lab.boot, 0)
