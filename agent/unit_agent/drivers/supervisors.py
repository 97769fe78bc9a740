"""The supervisors that a process driver starts and asks, and what becomes of a unit whose supervisor died."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

from unit_agent.drivers.supervisor_link import SupervisorGone, SupervisorLink, connect, spawn
from unit_agent.drivers.unit_cgroup import Cgroups
from unit_agent.drivers.unit_directory import UnitDirectory, failed, may_have_processes, restarting
from unit_agent.spawned import reap
from unit_agent.strict.deadlines import Deadlines
from unitfleet.errors import DriverError
from unitfleet.model import CopyPhase

logger = logging.getLogger(__name__)

T = TypeVar("T")

MARGIN_S = 30.0  # beyond what a unit's own timeouts allow, before a supervisor is taken for stuck
MOST_DEATHS, DEATHS_WITHIN_S = 5, 60.0  # of one unit's supervisors; beyond, the unit is failed
ATTEMPTS = 5  # a supervisor may end just as we ask it; the next one is ours
DISMISSED_S = 5.0  # how long a supervisor may take to go


class Supervisors:
    """One connection a unit. The caller sees to it that calls about one unit never overlap.

    `tell(unit)` is called whenever a supervisor says that something changed, and when it goes.
    """

    def __init__(
        self, boot_id: str, tell: Callable[[str], None], cgroups: Cgroups | None, deadlines: Deadlines
    ) -> None:
        self._boot_id = boot_id
        self._cgroups = cgroups
        self._deadlines = deadlines
        self._tell = tell
        self._links: dict[str, SupervisorLink] = {}
        self._spawned: set[int] = set()
        self._deaths: dict[str, list[float]] = {}  # when supervisors were found dead, lately
        self._closed = False

    async def state(self, directory: UnitDirectory) -> dict[str, Any]:
        """Return the unit's present state: what its supervisor says is newer than its file if the disk is full."""
        link = self._links.get(directory.unit)
        if link is not None and link.open and link.state is not None:
            return link.state
        return await asyncio.to_thread(directory.state, self._boot_id)

    def forget(self, unit: str) -> None:
        """Let go of what is known of a unit that is removed."""
        self._deaths.pop(unit, None)
        link = self._links.pop(unit, None)
        if link is not None:
            link.close()

    def close(self) -> None:
        """Let go of every connection; supervisors and units run on."""
        self._closed = True
        for unit in list(self._links):
            self.forget(unit)

    async def recover(self, directory: UnitDirectory) -> None:
        """Connect to the directory's supervisor; put right what a dead one left."""
        reap(self._spawned)
        if await asyncio.to_thread(directory.is_supervised):
            await self._connect(directory)
            return
        state = await asyncio.to_thread(directory.state, self._boot_id)
        if state["phase"] == CopyPhase.FAILED or not may_have_processes(state):
            return
        problem = self._too_many_deaths(directory.unit)
        stays = state["phase"] != CopyPhase.STOPPING and self._deadlines.may_run(directory.unit)
        again = stays and not problem
        try:
            then = restarting("its supervisor died, what it left was ended") if again else {}
            await to_the_end(lambda: directory.end_remains(state, failed({}, problem) if problem else then))
        except DriverError as error:
            problem = error.message
        if problem:
            logger.error("left %s failed: %s", directory.unit, problem)
        elif again:
            try:
                await to_the_end(lambda: self._supervise(directory, start=True))
            except DriverError as error:
                message = error.message
                await to_the_end(lambda: directory.write_state(failed(directory.state(self._boot_id), message)))
                logger.error("left %s failed: %s", directory.unit, message)
                return
            logger.warning("started %s afresh: its supervisor died, what it left was ended", directory.unit)
            await self._connect(directory)

    def _too_many_deaths(self, unit: str) -> str:
        now = asyncio.get_running_loop().time()
        deaths = [*(at for at in self._deaths.get(unit, ()) if at > now - DEATHS_WITHIN_S), now]
        self._deaths[unit] = deaths
        if len(deaths) <= MOST_DEATHS:
            return ""
        return f"its supervisor died {len(deaths)} times within {DEATHS_WITHIN_S:g} s"

    async def dismiss(self, directory: UnitDirectory) -> None:
        """Let a supervisor go that has nothing to do, or only lingers for what KillMode= has spared."""
        try:
            async with asyncio.timeout(MARGIN_S):
                link = await self._connect(directory)
                if link is not None and (problem := await link.ask("quit")):
                    raise DriverError(f"cannot remove {directory.unit}: {problem}")
        except SupervisorGone:
            pass
        except TimeoutError as error:
            raise DriverError(f"cannot remove {directory.unit}: its supervisor does not answer") from error
        until = asyncio.get_running_loop().time() + DISMISSED_S
        while await asyncio.to_thread(directory.is_supervised):
            if asyncio.get_running_loop().time() > until:
                raise DriverError(f"cannot remove {directory.unit}: its supervisor did not end")
            await asyncio.sleep(0.02)

    async def _connect(self, directory: UnitDirectory) -> SupervisorLink | None:
        unit = directory.unit
        link = self._links.get(unit)
        if link is not None and link.open:
            return link
        link = await connect(directory, lambda: self._changed(unit))
        if link is not None:
            self._links[unit] = link
        return link

    def _changed(self, unit: str) -> None:
        if not self._closed:
            reap(self._spawned)
            self._tell(unit)

    async def _supervised(self, directory: UnitDirectory) -> SupervisorLink | None:
        """Return a connection to the unit's supervisor, started if there is none; None if it ended just now."""
        await to_the_end(lambda: self._supervise(directory))
        return await self._connect(directory)

    def _supervise(self, directory: UnitDirectory, *, start: bool = False) -> None:
        """Start a supervisor unless there is one; never while something of the unit runs without.

        With `start` it starts the unit before it is asked; what ran before was ended by the caller.
        """
        lock = directory.take_lock()
        if lock is not None:
            try:
                if not start:
                    self.end_orphan(directory)
                if self._cgroups is not None:
                    try:
                        directory.enter(self._cgroups.make(directory.unit, directory.limits))
                    except OSError as error:
                        raise DriverError(f"cannot make the cgroup of {directory.unit}: {error}") from error
                pid = spawn(directory, self._boot_id, lock, start=start)
                self._spawned.add(pid)
                if self._cgroups is not None:
                    self._cgroups.take_in(pid)
            finally:
                os.close(lock)

    def end_orphan(self, directory: UnitDirectory) -> None:
        """Make sure that nothing of a unit without a supervisor runs; raises `DriverError` when it can't be."""
        state = directory.state(self._boot_id)
        if may_have_processes(state):
            directory.end_remains(state)

    async def ask(self, directory: UnitDirectory, verb: str, limit_s: float | None) -> None:
        """Have the unit's supervisor carry out a command, within `limit_s` (None: however long it takes).

        Starts one if there is none. Raises `DriverError` when the command fails or takes longer.
        """
        try:
            async with asyncio.timeout(limit_s):
                for _ in range(ATTEMPTS):
                    link = await self._supervised(directory)
                    if link is not None:
                        try:
                            problem = await link.ask(verb)
                        except SupervisorGone:
                            reap(self._spawned)
                            continue
                        if problem:
                            raise DriverError(f"cannot {_plain(verb)} {directory.unit}: {problem}")
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise DriverError(
                f"cannot {_plain(verb)} {directory.unit}: its supervisor did not in {limit_s:g} s"
            ) from error
        raise DriverError(
            f"cannot {_plain(verb)} {directory.unit}: its supervisor ended {ATTEMPTS} times before it answered",
            hint=f"see {directory.path / 'supervisor.log'}",
        )


def _plain(verb: str) -> str:
    """Return a command as a user would call it, without what belongs to it."""
    return verb.partition(" ")[0].partition("-")[0]


async def to_the_end(work: Callable[[], T]) -> T:
    """Run brief blocking work in a thread, and when cancelled, wait for it: nobody else may be amid it."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
