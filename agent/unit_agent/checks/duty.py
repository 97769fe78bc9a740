"""The duty `checks`: asks every running copy whose unit has a `Check=`, and has those ended that are not well.

What it knows of a run is kept on disk at each change, so that a new agent does not take healthy copies from their
users until it has asked them itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web

from unit_agent.checks.ask import Answer, ask, session
from unit_agent.checks.state import HEALTHY, STARTING, UNHEALTHY, Follows, State, follows, next_in, step
from unit_agent.driver import Copy
from unit_agent.duty import Context
from unitfleet.api import HealthOutput
from unitfleet.errors import DriverError
from unitfleet.model import CopyPhase
from unitfleet.spec import CheckKind, CheckSpec, UnitSpec

logger = logging.getLogger(__name__)

FILE = "checks.json"
OUTPUTS = 5  # kept of each unit
AT_ONCE = 64  # questions over the network
COMMANDS_AT_ONCE = 4  # each costs a process, in a container some 100 ms of CPU
JITTER = 0.1  # of an interval: copies that started together are not asked in step
LOOK_S = 5.0

Run = tuple[str, int]
"""What tells one run of a copy from the next: its id and the process."""


class Kept(msgspec.Struct, frozen=True):
    """What `checks.json` says of one run."""

    run: Run
    health: str
    why: str = ""


@dataclass(slots=True)
class _Past:
    """What outlives the runs of a unit: what its checks said, and how many runs in a row were never healthy."""

    of: tuple[str, str, int]  # spec, incarnation, restart number
    barren: int = 0
    outputs: deque[HealthOutput] = field(default_factory=lambda: deque(maxlen=OUTPUTS))


@dataclass(slots=True, eq=False)
class _Watched:
    """One run that is asked. `ending` while the driver ends it."""

    copy: Copy
    spec: UnitSpec
    check: CheckSpec
    state: State
    past: _Past
    why: str = ""
    ending: bool = False
    task: asyncio.Task[None] | None = None


def run_of(copy: Copy) -> Run:
    """Return what tells this run from the copy's next."""
    return copy.id, copy.pid


class ChecksDuty:
    """Asks, remembers, and tells the agent (`unit_agent.checks.source.HealthSource`)."""

    def __init__(self, context: Context) -> None:
        self._agent = context.agent
        self._file = context.state_dir / FILE
        self._dice = random.Random()
        self._changed = asyncio.Event()
        self._watched: dict[str, _Watched] = {}
        self._past: dict[str, _Past] = {}
        self._kept = _read(self._file)
        self._save = asyncio.Event()
        self._room = {
            CheckKind.HTTP: (network := asyncio.Semaphore(AT_ONCE)),
            CheckKind.TCP: network,
            CheckKind.EXEC: asyncio.Semaphore(COMMANDS_AT_ONCE),
        }
        context.agent.health = self

    @property
    def name(self) -> str:
        return "checks"

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        if unit in self._watched or (after is not None and self._check_of(after)):
            self._changed.set()

    def order_changed(self, unit: str) -> None:
        """Nothing hangs on orders: checks are of copies that run."""

    def routes(self) -> Sequence[web.RouteDef]:
        return ()

    def health(self, copy: Copy) -> tuple[str, str] | None:
        """Return how a copy is; one that was not asked yet is starting, unless it was before this agent came."""
        watched, run = self._watched.get(copy.unit), run_of(copy)
        if watched is not None and run_of(watched.copy) == run:
            return watched.state.health, watched.why
        kept = self._kept.get(copy.unit)
        if kept is not None and kept.run == run:
            return kept.health, kept.why
        return (STARTING, "not checked yet") if self._check_of(copy) else None

    def outputs(self, unit: str) -> tuple[HealthOutput, ...]:
        """Return what the last checks of a unit said, oldest first."""
        past = self._past.get(unit)
        return tuple(past.outputs) if past else ()

    async def run(self) -> None:
        """Keep a question going for each copy that has one."""
        try:
            async with session() as http, asyncio.TaskGroup() as tasks:
                tasks.create_task(self._save_changes(), name="save checks")
                while True:
                    self._changed.clear()
                    self._follow_copies(tasks, http)
                    try:
                        async with asyncio.timeout(LOOK_S):
                            await self._changed.wait()
                    except TimeoutError:
                        pass  # a text may have become known meanwhile
        finally:
            self._kept |= self._known()
            self._watched.clear()

    def _known(self) -> dict[str, Kept]:
        """Return the health of every run that is asked, to go on from."""
        return {
            unit: Kept(run_of(watched.copy), watched.state.health, watched.why)
            for unit, watched in self._watched.items()
        }

    def _check_of(self, copy: Copy) -> UnitSpec | None:
        spec = self._agent.texts.known(copy.unit, copy.spec)
        return spec if spec is not None and spec.check is not None else None

    def _follow_copies(self, tasks: asyncio.TaskGroup, http: aiohttp.ClientSession) -> None:
        """Ask every run that runs now, and no other."""
        units = self._agent.copies.units()
        for unit in self._past.keys() - units - self._agent.sync.placements.keys():
            del self._past[unit]
        copies = {unit: copy for unit in units if (copy := self._agent.copies.find(unit)) is not None}
        running = {unit: copy for unit, copy in copies.items() if copy.phase is CopyPhase.RUNNING}
        for unit, watched in list(self._watched.items()):
            copy = running.get(unit)
            if copy is None or run_of(copy) != run_of(watched.copy):
                self._let_go(unit, watched)
            else:
                watched.copy = copy
        for unit, copy in running.items():
            if unit not in self._watched and (spec := self._check_of(copy)) is not None:
                self._watch(tasks, http, copy, spec)

    def _let_go(self, unit: str, watched: _Watched) -> None:
        if watched.task is not None:
            watched.task.cancel()
        del self._watched[unit]
        self._save.set()

    def _watch(self, tasks: asyncio.TaskGroup, http: aiohttp.ClientSession, copy: Copy, spec: UnitSpec) -> None:
        assert spec.check is not None
        began = asyncio.get_running_loop().time() - max(0.0, time.time() - copy.since if copy.since else 0.0)
        state = State(began)
        kept = self._kept.pop(copy.unit, None)
        why = "not checked yet"
        if kept is not None and kept.run == run_of(copy):
            state = State(began, health=kept.health, was_healthy=kept.health == HEALTHY)
            why = kept.why
        identity = (copy.spec, copy.incarnation, copy.restart)
        past = self._past.get(copy.unit)
        if past is None or past.of != identity:
            past = self._past[copy.unit] = _Past(identity)
        watched = self._watched[copy.unit] = _Watched(copy, spec, spec.check, state, past, why)
        watched.task = tasks.create_task(self._ask_on(tasks, http, watched), name=f"check {copy.unit}")
        self._agent.tell(copy.unit)

    async def _ask_on(self, tasks: asyncio.TaskGroup, http: aiohttp.ClientSession, watched: _Watched) -> None:
        check = watched.check
        while True:
            driver = self._agent.copies.driver(watched.copy.driver)
            if driver is not None and not watched.ending:
                async with self._room[check.kind]:
                    answer = await ask(check, watched.copy, driver, http)
                follow = self._take(watched, answer)
                if follow is not Follows.NOTHING:
                    watched.ending = True  # in a task of its own: the end of the run ends this one
                    tasks.create_task(self._end(watched, follow), name=f"end {watched.copy.unit}")
            pause = next_in(check, watched.state)
            await asyncio.sleep(pause * self._dice.uniform(1 - JITTER, 1 + JITTER))

    def _take(self, watched: _Watched, answer: Answer) -> Follows:
        """Take an answer in, tell what changed, and return what follows."""
        unit, before, past = watched.copy.unit, watched.state, watched.past
        past.outputs.append(HealthOutput(at=time.time(), ok=answer.well, text=answer.text))
        now = asyncio.get_running_loop().time()
        state = watched.state = step(watched.check, before, well=answer.well, now=now)
        why = _why(watched.check, state, answer)
        if state.health != before.health:
            logger.info("saw %s become %s: %s", unit, state.health, answer.text)
            if UNHEALTHY in (state.health, before.health):
                self._agent.happened(state.health, unit, why or answer.text)
            self._save.set()
        if state.health != before.health or why != watched.why:
            watched.why = why
            self._agent.tell(unit)
        return follows(state, watched.spec.service.restart.when, past.barren)

    async def _end(self, watched: _Watched, follow: Follows) -> None:
        """Have the driver end a run that is not well; where it can't, the next answer tries again."""
        copy, past = watched.copy, watched.past
        driver = self._agent.copies.driver(copy.driver)
        why = watched.why
        if follow is Follows.GIVE_UP:
            why += f"; it was never healthy in {past.barren + 1} runs"
        try:
            now = self._agent.copies.find(copy.unit)
            if driver is not None and now is not None and run_of(now) == run_of(copy):
                logger.warning("ended %s: %s", copy.unit, why)
                await driver.fail(copy.unit, why, again=follow is Follows.RESTART)
                past.barren = 0 if watched.state.was_healthy else past.barren + 1
        except DriverError as error:
            logger.warning("could not end %s, which is unhealthy: %s", copy.unit, error)
        finally:
            watched.ending = False

    async def _save_changes(self) -> None:
        while True:
            await self._save.wait()
            self._save.clear()
            here = self._agent.copies.units()
            kept = {unit: one for unit, one in self._kept.items() if unit in here} | self._known()
            try:
                await asyncio.to_thread(_write, self._file, kept)
            except OSError as error:
                logger.error("could not save the health of copies: %s", error)
            await asyncio.sleep(1.0)  # one write for all that change together


def _why(check: CheckSpec, state: State, answer: Answer) -> str:
    if state.health == HEALTHY:
        return ""
    if state.health == STARTING:
        return f"waits for its check: {answer.text}"
    if answer.well:
        return f"its check {check.target} succeeds again"
    return f"its check failed {state.failures} times in a row: {answer.text}"


def _read(file: Path) -> dict[str, Kept]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Kept])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        logger.warning("could not read %s: copies are asked anew: %s", file, error)
        return {}


def _write(file: Path, kept: dict[str, Kept]) -> None:
    new = file.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(kept))
    new.replace(file)
