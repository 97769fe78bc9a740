"""The `process` driver: `[Service]` units on hosts without systemd, each under a supervisor of its own.

The driver makes directories, starts supervisors and asks them; all that must outlive the agent is theirs
(`unit_agent.supervisor`). Who a living supervisor is, its lock says; who its unit's processes are, their
identity (pid, start time, boot id) and the token in their environment. When a supervisor died while its unit
ran, what is left of the unit is ended first and the unit started afresh, by `list`, which an agent calls when
it starts and at each event. What can't be ended makes the copy FAILED: a second one never starts.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from unit_agent.driver import Copy, LogLine, Marks, Order, Remains, Report
from unit_agent.drivers.cgroup_settings import refusal
from unit_agent.drivers.open_outputs import OpenOutputs
from unit_agent.drivers.output_reader import OutputReader
from unit_agent.drivers.output_tail import OutputTail, OutputWatch
from unit_agent.drivers.process_command import run_in_place
from unit_agent.drivers.process_refusals import refuse
from unit_agent.drivers.supervisors import MARGIN_S, Supervisors, to_the_end
from unit_agent.drivers.unit_cgroup import Cgroups, UnitCgroup
from unit_agent.drivers.unit_directory import UnitDirectory
from unit_agent.encoding import encode_name
from unit_agent.output import Limit, OutputBatch
from unit_agent.strict.deadlines import Deadlines
from unit_agent.supervisor import processes
from unitfleet.errors import DriverError
from unitfleet.spec import ServiceSpec

logger = logging.getLogger(__name__)

OUTPUT_BYTES = 10 * 1024 * 1024  # each of two files a unit
LOOK_FOR_OUTPUT_S = 0.1
_TOKEN = 12  # characters of a copy's token tell it from the next copy
LONGEST_WHY = 300  # characters of a reason that a supervisor is told


class ProcessDriver:
    """Runs units under `root`. `machine` is this machine's name; `boot_id` is the kernel's unless given.

    Without `cgroups` units with limits are refused.
    """

    def __init__(
        self,
        root: Path,
        machine: str,
        *,
        boot_id: str = "",
        output_bytes: int = OUTPUT_BYTES,
        cgroups: Cgroups | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._units = root / "units"
        self._machine = machine
        self._boot_id = boot_id or processes.boot_id()
        self._output_bytes = output_bytes
        self._locks: dict[str, asyncio.Lock] = {}
        self._watchers: set[asyncio.Queue[str]] = set()
        self._cgroups = cgroups
        self._swept = False
        self._deadlines = deadlines or Deadlines(math.inf)
        self._supervisors = Supervisors(self._boot_id, self._tell, cgroups, self._deadlines)
        self._outputs = OpenOutputs()
        self._watch = OutputWatch()

    @property
    def name(self) -> str:
        return "process"

    async def list(self) -> Sequence[Copy]:
        copies = []
        for directory in await asyncio.to_thread(self._directories if self._swept else self._first_directories):
            if (copy := await self._recovered(directory)) is not None:
                copies.append(copy)
        return copies

    async def find(self, unit: str) -> Copy | None:
        directory = await asyncio.to_thread(self._find, unit)
        return None if directory is None else await self._recovered(directory)

    async def prepare(self, order: Order, report: Report) -> str:
        return ""

    async def create(self, order: Order) -> Copy:
        placement = order.placement
        refuse(order)
        directory = await asyncio.to_thread(self._find, placement.unit)
        if directory is None:
            await asyncio.to_thread(self._refuse_limits, order)
            directory = await to_the_end(lambda: self._create(order))
            logger.info("created %s in %s", placement.unit, directory.path)
            self._tell(placement.unit)
            return await self._copy(directory)
        there = tuple(directory.order[name] for name in ("spec", "incarnation", "restart"))
        if there != (placement.spec, placement.incarnation, placement.restart):
            raise DriverError(f"cannot create {placement.unit}: another copy of it is here, remove it first")
        return await self._copy(directory)

    async def start(self, order: Order) -> Copy:
        unit = order.placement.unit
        directory = await asyncio.to_thread(self._find, unit)
        if directory is None:
            raise DriverError(f"cannot start {unit}: no copy of it is here")
        async with self._lock(unit):
            by = self._deadlines.start_by(unit)
            verb = "start" if by is None else f"start-by {by}"
            await self._supervisors.ask(directory, verb, _start_limit_s(order.spec.service))
        return await self._copy(directory)

    async def marks(self, unit: str) -> Marks:
        directory = await self._here(unit, "tell the processes of")
        groups = () if self._cgroups is None else (f"{self._cgroups.name(unit)}/",)
        return Marks(groups, (f"{processes.TOKEN}={directory.order['token']}",))

    async def stop(self, unit: str) -> None:
        directory = await asyncio.to_thread(self._find, unit)
        if directory is None:
            return
        limit_s = _stop_limit_s(directory.order["service"])
        async with self._lock(unit):
            if await asyncio.to_thread(directory.is_supervised):
                await self._supervisors.ask(directory, "stop", limit_s)
            else:
                await to_the_end(lambda: self._supervisors.end_orphan(directory))

    async def remove(self, unit: str) -> None:
        directory = await asyncio.to_thread(self._find, unit)
        if directory is None:
            return
        copy = await self._copy(directory)
        if copy.executing:
            raise DriverError(f"cannot remove {unit}: it is {copy.phase}, stop it first")
        await self._outputs.read_out(unit)
        async with self._lock(unit):
            if await asyncio.to_thread(directory.is_supervised):
                await self._supervisors.dismiss(directory)
            else:
                await to_the_end(lambda: self._supervisors.end_orphan(directory))
            self._supervisors.forget(unit)
            await to_the_end(directory.remove)
        self._locks.pop(unit, None)
        logger.info("removed %s", unit)
        self._tell(unit)

    async def execute(self, unit: str, words: Sequence[str], timeout_s: float) -> tuple[int, str]:
        directory = await self._here(unit, f"run {words[0]} for")
        if not (await self._copy(directory)).executing:
            raise DriverError(f"cannot run {words[0]} for {unit}: it does not run")
        return await run_in_place(directory, words, timeout_s)

    async def fail(self, unit: str, why: str, *, again: bool) -> None:
        directory = await asyncio.to_thread(self._find, unit)
        if directory is None or not await asyncio.to_thread(directory.is_supervised):
            return
        verb = "fail" if again else "give-up"
        async with self._lock(unit):
            limit_s = _stop_limit_s(directory.order["service"])
            await self._supervisors.ask(directory, f"{verb} {' '.join(why.split())[:LONGEST_WHY]}", limit_s)

    async def examine(self, unit: str) -> Remains:
        directory = await self._here(unit, "look at")
        state = await self._supervisors.state(directory)
        return Remains(
            exit_code=state.get("exit_code"),
            finished=state["since"],
            size=await asyncio.to_thread(directory.size),
            inspect={"directory": str(directory.path), "state": state, "service": without_values(directory.order)},
        )

    async def keep(self, unit: str, scene: str, directory: str) -> str:
        here = await self._here(unit, "keep")
        if (copy := await self._copy(here)).executing:
            raise DriverError(f"cannot keep {unit}: it is {copy.phase}")
        async with self._lock(unit):
            if await asyncio.to_thread(here.is_supervised):
                await self._supervisors.dismiss(here)
            self._supervisors.forget(unit)
            await to_the_end(lambda: here.set_aside(Path(directory)))
        self._locks.pop(unit, None)
        self._tell(unit)
        return directory

    async def discard(self, copy_id: str, scene: str) -> None:
        """All of it lies in its scene's directory."""

    async def events(self) -> AsyncGenerator[str, None]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield ""
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)

    async def logs(self, unit: str, *, lines: int, follow: bool) -> AsyncGenerator[LogLine, None]:
        directory = await asyncio.to_thread(self._find, unit)
        if directory is None:
            raise DriverError(f"cannot read the output of {unit}: no copy of it is here")
        reader = OutputReader(directory.path)
        try:
            for line in await asyncio.to_thread(reader.last, lines):
                yield line
            while follow and directory.path.exists():
                fresh = await asyncio.to_thread(reader.more)
                for line in fresh:
                    yield line
                if not fresh:
                    await asyncio.sleep(LOOK_FOR_OUTPUT_S)
        finally:
            reader.close()

    async def output(self, unit: str, mark: str, limit: Limit | None = None) -> AsyncGenerator[OutputBatch, None]:
        directory = await self._here(unit, "read the output of")
        try:
            tail = await asyncio.to_thread(OutputTail, directory.path, directory.order["token"][:_TOKEN], mark)
        except OSError as error:
            raise DriverError(f"cannot read the output of {unit}: {error}") from error
        try:
            with (
                self._watch.watching(directory.path) as changed,
                self._outputs.reading(unit, changed.set) as all_read,
            ):
                while True:
                    changed.clear()
                    gone = tail.gone
                    if lines := await asyncio.to_thread(tail.more):
                        yield lines, tail.mark
                    elif gone:
                        return
                    else:
                        all_read.set()
                        await changed.wait()
        except OSError as error:
            raise DriverError(f"cannot read the output of {unit}: {error}") from error
        finally:
            tail.close()

    async def close(self) -> None:
        self._supervisors.close()
        await asyncio.sleep(0)  # the transports close in the loop's next turn

    # What is here.

    def _lock(self, unit: str) -> asyncio.Lock:
        return self._locks.setdefault(unit, asyncio.Lock())

    def _tell(self, unit: str) -> None:
        for queue in self._watchers:
            queue.put_nowait(unit)

    def _find(self, unit: str) -> UnitDirectory | None:
        path = self._units / encode_name(unit)
        return UnitDirectory(path) if path.exists() else None

    async def _here(self, unit: str, doing: str) -> UnitDirectory:
        directory = await asyncio.to_thread(self._find, unit)
        if directory is None:
            raise DriverError(f"cannot {doing} {unit}: no copy of it is here")
        return directory

    async def cgroup(self, unit: str) -> UnitCgroup:
        """Return the control groups of a unit's copy; none where it has none."""
        directory = await asyncio.to_thread(self._find, unit)
        return UnitCgroup() if directory is None else directory.cgroup

    def _refuse_limits(self, order: Order) -> None:
        unit, limits = order.placement.unit, order.spec.limits
        if reason := refusal(unit, limits) if self._cgroups is None else self._cgroups.refusal(unit, limits):
            raise DriverError(reason)

    def _create(self, order: Order) -> UnitDirectory:
        try:
            return UnitDirectory.create(self._units, order, self._machine, self._output_bytes, self._boot_id)
        except OSError as error:
            raise DriverError(f"cannot create {order.placement.unit}: {error}") from error

    def _first_directories(self) -> Sequence[UnitDirectory]:
        """Return what is here, and clear the control groups of what no longer is."""
        self._swept = True
        found = self._directories()
        if self._cgroups is not None:
            self._cgroups.sweep({directory.unit for directory in found})
        return found

    def _directories(self) -> Sequence[UnitDirectory]:
        try:
            names = sorted(entry.name for entry in os.scandir(self._units))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise DriverError(f"cannot list copies in {self._units}: {error}") from error
        found = []
        for name in names:
            if not name.startswith("."):
                try:
                    found.append(UnitDirectory(self._units / name))
                except DriverError:
                    if (self._units / name).exists():  # else it was removed meanwhile
                        raise
        return found

    async def _recovered(self, directory: UnitDirectory) -> Copy | None:
        """Return the copy that a directory is, put right where its supervisor died; None when it just went."""
        if not self._lock(directory.unit).locked():
            async with self._lock(directory.unit):
                if directory.path.exists():
                    await self._supervisors.recover(directory)
        return await self._copy(directory) if directory.path.exists() else None

    async def _copy(self, directory: UnitDirectory) -> Copy:
        return directory.copy(self.name, await self._supervisors.state(directory))


def without_values(order: dict[str, Any]) -> dict[str, Any]:
    """Return what a unit's order says of its service, with the names of its variables alone."""
    service: dict[str, Any] = order["service"]
    return service | {"environment": [[name, "…"] for name, _ in service["environment"]]}


def _start_limit_s(service: ServiceSpec) -> float | None:
    steps = len(service.start_pre) + len(service.start) + len(service.start_post)
    if service.timeout_start_s is None or service.timeout_stop_s is None:
        return None
    stops = len(service.stop) + len(service.stop_post) + 2
    return steps * service.timeout_start_s + stops * (service.timeout_stop_s + MARGIN_S)


def _stop_limit_s(service: dict[str, Any]) -> float | None:
    limit_s: float | None = service["timeout_stop_s"]
    if limit_s is None:
        return None
    return (len(service["stop"]) + len(service["stop_post"]) + 2) * (limit_s + MARGIN_S)
