"""The duty `logs`: takes in what every copy writes, by whatever driver, and serves it from the local store.

For each copy one reader follows `Driver.output` from the mark that the store keeps beside the lines: a restart of
the agent, of the container or of its Engine neither loses a line nor takes one twice. A reader that falls behind
because the disk is slow waits; a unit that writes beyond the cap loses lines, and a line says how many. None of it
holds a unit up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from aiohttp import web

from unit_agent.backoff import Backoff, pause
from unit_agent.driver import Copy, OutputUnreadable
from unit_agent.duty import Context
from unit_agent.logs import marks
from unit_agent.logs.files import FileReader
from unit_agent.logs.rate import TELL_S, RateCap
from unit_agent.logs.runs import Run, noted
from unit_agent.logs.segments import SegmentStore
from unit_agent.logs.serve import LogRoutes
from unit_agent.output import OutputLine
from unitfleet.errors import DriverError, UnitfleetError
from unitfleet.logkeys import log_files
from unitfleet.shipped import GAP

logger = logging.getLogger(__name__)

FOLDER = "logs"
RUNS = "runs.json"
RETRY_S = (0.2, 10.0)
SAVE_RUNS_S = 0.5
LOOK_S = 0.5
DROPPING_S = 0.05
"""After lines that were made and dropped: a driver that can't leave them out beforehand may not take the agent's
time. Its own bounds drop the rest."""


class Collector:
    """The duty. `store` is open once `opened` is set; sinks read it from there."""

    def __init__(self, context: Context) -> None:
        config = context.config
        self.opened = asyncio.Event()
        self.store = SegmentStore(context.state_dir / FOLDER, config.log_limits, time.time, self._happened)
        self._agent = context.agent
        self._rate = config.log_rate_cap
        self._changed: dict[str, asyncio.Event] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._reading: set[str] = set()
        self._runs: dict[str, tuple[Run, ...]] = {}
        self._unsaved: set[str] = set()
        self._save = asyncio.Event()
        self._caps: dict[str, _Capped] = {}
        self._routes = LogRoutes(self)

    @property
    def name(self) -> str:
        return "logs"

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        if self.opened.is_set():
            self._note(unit, before, after)
        self._read(unit)

    def order_changed(self, unit: str) -> None:
        """Nothing to do: what a unit writes does not depend on its order."""

    def routes(self) -> Sequence[web.RouteDef]:
        return self._routes.routes()

    def reads(self, unit: str) -> bool:
        """Tell whether output of the unit is being read: more may come."""
        return unit in self._reading

    def runs(self, unit: str) -> tuple[Run, ...]:
        """Return the last runs of the unit here."""
        return self._runs.get(unit, ())

    @property
    def machine_name(self) -> str:
        """This machine's name."""
        return self._agent.facts.name

    def is_here(self, unit: str) -> bool:
        """Tell whether a copy of the unit is here, or one is wanted."""
        return self._agent.copies.find(unit) is not None or unit in self._agent.sync.placements

    async def run(self) -> None:
        if not self.opened.is_set():
            await self.store.open()
            await self._load_runs()
            self.opened.set()
        self._reading.clear()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self.store.run(), name="log store")
                self._tasks.create_task(self._keep_runs(), name="runs")
                self._tasks.create_task(self._keep_accounts(), name="accounts")
                self._tasks.create_task(self._look(), name="copies")
        finally:
            self._tasks = None

    async def _look(self) -> None:
        """Take up what no change tells of: copies that a driver held before its first list."""
        while True:
            for unit in self._agent.copies.units() - self._reading:
                self._note(unit, None, self._agent.copies.find(unit))
                self._read(unit)
            await asyncio.sleep(LOOK_S)

    def _happened(self, kind: str, message: str) -> None:
        self._agent.happened(kind, "", message)

    # --- reading

    def _read(self, unit: str) -> None:
        """See to it that the unit's output is read while a copy of it is here."""
        if (event := self._changed.get(unit)) is not None:
            event.set()
        if self._tasks is None or unit in self._reading or self._agent.copies.find(unit) is None:
            return
        self._reading.add(unit)
        self._tasks.create_task(self._follow(unit), name=f"output of {unit}")

    async def _follow(self, unit: str) -> None:
        """Read the output of a unit's copies, one after the other, until none is left."""
        changed = self._changed[unit] = asyncio.Event()
        backoff = Backoff(random.Random(), *RETRY_S)
        unreadable = ""
        try:
            while (copy := self._agent.copies.find(unit)) is not None:
                changed.clear()
                if copy.id == unreadable:
                    await changed.wait()
                    continue
                try:
                    await self._follow_all(unit, copy)
                    backoff.reset()
                except OutputUnreadable as error:
                    unreadable = copy.id
                    logger.warning("%s", error)
                    self._agent.happened("logs-unreadable", unit, str(error))
                    self._take_note(unit, copy.epoch, f"no lines: {error}")
                except DriverError as error:
                    logger.debug("could not read the output of %s: %s", unit, error)
                    await pause(changed, backoff.next())
                    continue
                if self._agent.copies.find(unit) is copy:
                    await changed.wait()
        finally:
            self._reading.discard(unit)
            self._changed.pop(unit, None)
            if unit in self._caps:
                self._tell_dropped(unit, self._caps.pop(unit), at_once=True)
            for watcher in self.store.watchers(unit):
                watcher.set()

    async def _follow_all(self, unit: str, copy: Copy) -> None:
        """Read what a copy writes, to its streams and to files; raises `DriverError`."""
        failed: DriverError | None = None
        async with asyncio.TaskGroup() as tasks:
            files = tasks.create_task(self._follow_files(unit, copy))
            try:
                await self._follow_copy(unit, copy)
            except DriverError as error:
                failed = error
            if self._root(unit, copy) is not None:
                files.cancel()  # else it ends by itself, with what was written last
        if failed is not None:
            raise failed

    async def _follow_copy(self, unit: str, copy: Copy) -> None:
        driver = self._agent.copies.driver(copy.driver)
        if driver is None:
            raise DriverError(f"cannot read the output of {unit}: the {copy.driver} driver is not here")
        loop = asyncio.get_running_loop()
        known = self._caps.get(unit)
        if known is not None:
            self._tell_dropped(unit, known, at_once=True)
        cap = known.cap if known is not None else RateCap(self._rate, loop.time())
        mark = marks.latest(self.store.marks(unit))
        capped = self._caps[unit] = _Capped(cap, copy.epoch, mark)
        async with contextlib.aclosing(driver.output(unit, mark, cap)) as batches:
            async for lines, capped.mark in batches:
                kept = admitted(cap, lines, loop.time())
                if kept or not cap.owes_account:  # else what was dropped would be lost untold, were we killed now
                    self.store.take(unit, kept, copy.epoch, marks=marks.kept(capped.mark))
                await self.store.room()
                if len(kept) < len(lines):
                    await asyncio.sleep(DROPPING_S)

    async def _follow_files(self, unit: str, copy: Copy) -> None:
        """Read the files that the unit's text names, while the copy is this one."""
        globs = await self._log_files(unit)
        if globs:
            reader = FileReader(self.store, unit, copy.epoch, globs, self._rate, whole=copy.driver == "docker")
            try:
                await reader.run(lambda: self._root(unit, copy))
            except OSError as error:
                logger.warning("could not read the log files of %s: %s", unit, error)

    async def _log_files(self, unit: str) -> tuple[str, ...]:
        try:
            order = await self._agent.order(unit)
        except UnitfleetError as error:
            logger.debug("could not tell the log files of %s: %s", unit, error)
            return ()
        return log_files(order.spec) if order is not None else ()

    def _root(self, unit: str, copy: Copy) -> str | None:
        """Return the directory that the copy sees as `/`; "" while it does not run, None when it is gone."""
        now = self._agent.copies.find(unit)
        if now is None or now.id != copy.id:
            return None
        if copy.driver == "process":
            return "/"
        return f"/proc/{now.pid}/root" if now.pid else ""

    def _take_note(self, unit: str, epoch: int, text: str, mark: str | None = None) -> None:
        """Write a line of our own among the unit's."""
        line = (time.time(), GAP, text.encode())
        behind = marks.latest(self.store.marks(unit)) if mark is None else mark
        self.store.take(unit, [line], epoch, marks=marks.kept(behind))

    def _tell_dropped(self, unit: str, capped: _Capped, *, at_once: bool = False) -> None:
        """Tell what was dropped of a unit that has fallen silent since."""
        if account := capped.cap.account(asyncio.get_running_loop().time(), at_once=at_once):
            self._take_note(unit, capped.epoch, account, capped.mark)

    # --- runs

    def _note(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        known = self._runs.get(unit, ())
        now = noted(known, before, after, time.time())
        if now != known:
            self._runs[unit] = now
            self._unsaved.add(unit)
            self._save.set()

    async def _load_runs(self) -> None:
        for unit, told in (await self.store.notes(RUNS)).items():
            with contextlib.suppress(msgspec.MsgspecError):
                self._runs[unit] = msgspec.json.decode(told, type=tuple[Run, ...])

    async def _keep_runs(self) -> None:
        while True:
            await self._save.wait()
            self._save.clear()
            units, self._unsaved = self._unsaved, set()
            notes = {unit: msgspec.json.encode(self._runs[unit]) for unit in units}
            for error in await self.store.note(RUNS, notes):
                logger.debug("could not note a run: %s", error)
            await asyncio.sleep(SAVE_RUNS_S)

    async def _keep_accounts(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            for unit, capped in self._caps.items():
                if capped.cap.owes_account:
                    self._tell_dropped(unit, capped)


@dataclass(slots=True)
class _Capped:
    """A copy that is read: its cap, and the mark behind all that was read of it, dropped or not."""

    cap: RateCap
    epoch: int
    mark: str


def admitted(cap: RateCap, lines: Sequence[OutputLine], now: float) -> Sequence[OutputLine]:
    """Return the lines that the cap lets through, and before them one that tells of those it did not.

    It goes by when they were written: what waited while the agent was away is not dropped for that. A line that
    tells of others is never dropped.
    """
    if not lines:
        return ()
    passes = cap.admit(len(lines), sum(len(text) for _, _, text in lines), lines[-1][0])
    kept = lines if passes else [line for line in lines if line[1] == GAP]
    account = cap.account(now, at_once=bool(kept))
    return [(lines[0][0], GAP, account.encode()), *kept] if account else kept


def logs(context: Context) -> Collector:
    """Make the duty."""
    return Collector(context)
