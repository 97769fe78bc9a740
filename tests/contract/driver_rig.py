"""What the drivers' contract needs around a driver: orders to give, a host to switch off, a witness.

One rig a driver: `FakeRig` and `ProcessRig` here, `DockerRig` in docker_rig.py. A rig is made with a directory
of its own and used as an async context; entering it skips the test when the host lacks what it needs, leaving
it ends every process and removes everything that it made, also after a failed test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec
import psutil

from unit_agent.driver import Copy, Driver, Order
from unit_agent.drivers.fake import Behaviour, FakeDriver, FakeHost
from unit_agent.drivers.process import ProcessDriver
from unit_agent.restart import Exit
from unitfleet.model import Placement, Requirements, Wanted
from unitfleet.spec import Command, RestartPolicy, ServiceSpec, ServiceType, UnitSpec

Process = tuple[int, float]  # pid, and when it started: the same pair is the same process

DEADLINE_S = 30.0


class Job(Enum):
    """What a unit of the contract does."""

    RUNS = auto()  # runs until it is stopped, prints nothing
    STUBBORN = auto()  # runs, has a child process, and both ignore SIGTERM; the stop timeout is 1 s
    CANNOT_START = auto()  # names a program (docker: an image or a program) that does not exist
    DIES = auto()  # exits at once with status 3
    SUCCEEDS = auto()  # a oneshot; exits with status 0 at once
    PRINTS = auto()  # a oneshot; prints "line 1" … "line 5" to stdout, then "problem" to stderr, and exits 0
    TICKS = auto()  # prints "tick 1", "tick 2", … every 50 ms until it is stopped
    SLOW = auto()  # takes about a second (or what the driver can make of it) to start, then runs


class DriverRig(Protocol):
    """A host with nothing on it, and its driver."""

    name: str

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def driver(self) -> Driver:
        """Return a new driver object on this host: what a restarted agent has. The rig closes it."""
        ...

    def order(self, unit: str, job: Job, policy: RestartPolicy = RestartPolicy(), *, epoch: int = 1) -> Order:  # noqa: B008
        """Return the order that makes `unit` do `job`; see `placement_of` for its identity."""
        ...

    async def processes(self, unit: str) -> set[Process]:
        """Return the live processes of the unit, as seen from outside the driver; zombies don't count."""
        ...

    async def kill(self, unit: str) -> None:
        """End the unit's main process from outside, as a crash would (SIGKILL)."""
        ...

    async def power_off(self) -> None:
        """Let the host lose power and boot again; drivers made before are of no use after it."""
        ...


def placement_of(unit: str, epoch: int = 1) -> Placement:
    """Return a placement with everything set that a copy carries."""
    return Placement(
        unit=unit,
        machine="m1",
        spec="spec-of-" + unit,
        incarnation="incarnation-1",
        epoch=epoch,
        wanted=Wanted.LAUNCHED,
        restart=2,
        reason="least loaded",
    )


def service_order(unit: str, service: ServiceSpec, driver: str = "process", epoch: int = 1) -> Order:
    """Return an order for a `[Service]` unit."""
    spec = UnitSpec(
        name=unit, description="", requirements=Requirements(unit=unit, drivers=(driver,)), service=service
    )
    return Order(placement_of(unit, epoch), spec)


async def find(driver: Driver, unit: str) -> Copy | None:
    """Return the driver's copy of a unit, and fail if it lists two."""
    found = [copy for copy in await driver.list() if copy.unit == unit]
    assert len(found) <= 1, found
    return found[0] if found else None


async def until(driver: Driver, unit: str, condition: Callable[[Copy], bool]) -> Copy:
    """Wait until the unit's copy meets a condition; fails with what was last seen after DEADLINE_S."""
    seen: Copy | None = None
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                seen = await find(driver, unit)
                if seen is not None and condition(seen):
                    return seen
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{unit} did not get there; last seen: {seen}") from None


class FakeRig:
    """The fake on its in-memory host."""

    name = "fake"

    def __init__(self, directory: Path) -> None:
        self._host = FakeHost(wall=time.time, seed=1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._host.power_off()

    def driver(self) -> Driver:
        return FakeDriver(self._host)

    def order(self, unit: str, job: Job, policy: RestartPolicy = RestartPolicy(), *, epoch: int = 1) -> Order:  # noqa: B008
        behaviour = Behaviour()
        match job:
            case Job.CANNOT_START:
                behaviour.start_fails = 1000
            case Job.DIES:
                behaviour.run_s, behaviour.exit = 0.01, Exit(3)
            case Job.SUCCEEDS:
                behaviour.run_s = 0.0
            case Job.PRINTS:
                behaviour.run_s = 0.0
                behaviour.prints = tuple(f"line {number}" for number in range(1, 6))
                behaviour.complains = ("problem",)
            case Job.TICKS:
                behaviour.tick_s = 0.05
            case Job.SLOW:
                behaviour.start_s = 0.5
            case Job.STUBBORN:
                behaviour.stop_s = 0.1
            case Job.RUNS:
                behaviour.answers["/bin/sh"] = (4, f"{unit}\n")
        self._host.behaviours[unit] = behaviour
        return service_order(unit, ServiceSpec(restart=policy), "fake", epoch)

    async def processes(self, unit: str) -> set[Process]:
        copy = self._host.copies.get(unit)
        return {(copy.pid, 0.0)} if copy is not None and copy.pid else set()

    async def kill(self, unit: str) -> None:
        self._host.crash(unit, Exit(signal="SIGKILL"))

    async def power_off(self) -> None:
        self._host.power_off()


SH = "/bin/sh"
TICKS = 'n=0; while :; do n=$((n+1)); echo "tick $n"; sleep 0.05; done'
PRINTS = 'for n in 1 2 3 4 5; do echo "line $n"; done; sleep 0.2; echo problem >&2'
STUBBORN = "trap '' TERM; sleep 1000 & while :; do wait; done"


def shell(script: str) -> tuple[Command, ...]:
    """Return an Exec line that runs a script, `$` untouched."""
    return (Command(words=(SH, "-c", script), literal=True),)


class ProcessRig:
    """The process driver on this very host; its witness looks for the mark in each process's environment."""

    name = "process"

    def __init__(self, directory: Path) -> None:
        self.root = directory / "state"
        self.mark = f"{random.SystemRandom().getrandbits(64):x}"
        self.boot_id = "boot-1"
        self._drivers: list[ProcessDriver] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()
        await self._end_all()

    async def _close(self) -> None:
        for driver in self._drivers:
            await driver.close()
        self._drivers.clear()

    async def _end_all(self) -> None:
        # Supervisors first: they would start their units again.
        async with asyncio.timeout(DEADLINE_S):
            while victims := [*self.supervisors(), *self._marked()]:
                for victim in victims:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        victim.kill()
                await asyncio.sleep(0.01)

    def driver(self) -> ProcessDriver:
        driver = ProcessDriver(self.root, machine="m1", boot_id=self.boot_id)
        self._drivers.append(driver)
        return driver

    def order(self, unit: str, job: Job, policy: RestartPolicy = RestartPolicy(), *, epoch: int = 1) -> Order:  # noqa: B008
        oneshot = job in (Job.SUCCEEDS, Job.PRINTS)
        start = {
            Job.RUNS: (Command(words=("/bin/sleep", "1000")),),
            Job.STUBBORN: shell(STUBBORN),
            Job.CANNOT_START: (Command(words=("/does/not/exist",)),),
            Job.DIES: shell("exit 3"),
            Job.SUCCEEDS: shell("exit 0"),
            Job.PRINTS: shell(PRINTS),
            Job.TICKS: shell(TICKS),
            Job.SLOW: (Command(words=("/bin/sleep", "1000")),),
        }[job]
        service = ServiceSpec(
            type=ServiceType.ONESHOT if oneshot else ServiceType.SIMPLE,
            start_pre=(Command(words=("/bin/sleep", "1")),) if job is Job.SLOW else (),
            start=start,
            restart=policy,
            timeout_stop_s=1.0 if job is Job.STUBBORN else 20.0,
        )
        return self.service(unit, service, epoch=epoch)

    def service(self, unit: str, service: ServiceSpec, *, epoch: int = 1) -> Order:
        """Return an order for any service, marked so that the witness finds its processes."""
        environment = (*service.environment, ("RIG_MARK", f"{self.mark}/{unit}/"))
        return service_order(unit, msgspec.structs.replace(service, environment=environment), epoch=epoch)

    def supervisors(self) -> list[psutil.Process]:
        """Return the supervisors of this rig's units."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if any(word.startswith(f"{self.root}/") for word in words) and "supervisor" in " ".join(words):
                    found.append(process)
        return found

    def _marked(self, unit: str | None = None) -> list[psutil.Process]:
        wanted = f"RIG_MARK={self.mark}/{f'{unit}/' if unit is not None else ''}".encode()
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(psutil.Error, OSError):
                if wanted in Path(f"/proc/{pid}/environ").read_bytes():
                    process = psutil.Process(pid)
                    if process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return found

    async def processes(self, unit: str) -> set[Process]:
        return {(process.pid, process.create_time()) for process in self._marked(unit)}

    async def kill(self, unit: str) -> None:
        (process,) = self._marked(unit)
        process.kill()

    async def power_off(self) -> None:
        await self._close()
        await self._end_all()
        self.boot_id = "boot-2"


def is_root() -> bool:
    """Tell whether tests may switch users."""
    return os.geteuid() == 0
