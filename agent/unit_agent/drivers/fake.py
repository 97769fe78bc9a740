"""A driver in memory, for simulations and for tests of the agent; it passes the drivers' contract.

A `FakeHost` is the machine: its copies outlive any `FakeDriver` made on it, as real ones outlive their agent.
Waits are timers of the running loop, so a virtual clock moves it. `Behaviour` programs delays and faults.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace

from unit_agent.driver import SYSTEM_WORDS, Copy, LogLine, Marks, Order, Progress, Remains, Report
from unit_agent.output import Limit, OutputBatch
from unit_agent.restart import WATCHDOG, Ended, Exit, History, cause_of, decide
from unitfleet.errors import DriverError
from unitfleet.model import Cause, CopyPhase
from unitfleet.spec import RestartPolicy


@dataclass(slots=True)
class Behaviour:
    """How a unit behaves on this host, in seconds and counts. A `run_s` of None runs until it is stopped."""

    pull_s: float = 0.0
    pull_fails: int = 0
    create_fails: int = 0
    start_s: float = 0.0
    start_fails: int = 0
    run_s: float | None = None
    exit: Exit = field(default_factory=Exit)
    stop_s: float = 0.0
    stop_fails: int = 0
    image: str = ""
    prints: tuple[str, ...] = ()  # at each start, to stdout
    complains: tuple[str, ...] = ()  # after those, to stderr
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)  # of commands run there
    tick_s: float = 0.0  # prints "tick 1", "tick 2", … this often while it runs


@dataclass(slots=True)
class _Held:
    copy: Copy
    policy: RestartPolicy
    history: History = field(default_factory=History)
    timer: asyncio.TimerHandle | None = None
    lines: deque[tuple[int, LogLine]] = field(default_factory=lambda: deque(maxlen=10_000))
    printed: int = 0
    number: int = 0  # of the copy

    def disarm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class FakeHost:
    """A machine in memory. `wall` gives seconds since 1970; `behaviours` is by unit, `usual` for the others."""

    def __init__(self, wall: Callable[[], float] = lambda: 0.0, seed: int = 0) -> None:
        self.wall = wall
        self.behaviours: dict[str, Behaviour] = {}
        self.usual = Behaviour()
        self.list_fails = 0
        self.kept: dict[str, Copy] = {}  # copies that were set aside, by scene
        self._dice = random.Random(seed)
        self._held: dict[str, _Held] = {}
        self._pids = iter(range(1000, 10**9))
        self._numbers = iter(range(1, 10**9))
        # a dict for a set: told in one order in every run, so that a seed repeats
        self._watchers: dict[asyncio.Queue[str], None] = {}

    @property
    def copies(self) -> dict[str, Copy]:
        """What the host holds, by unit: a witness for tests."""
        return {unit: held.copy for unit, held in self._held.items()}

    def running(self) -> set[str]:
        """Return the units that have a process here right now."""
        return {unit for unit, held in self._held.items() if held.copy.pid}

    def behaviour(self, unit: str) -> Behaviour:
        """Return how this unit behaves."""
        return self.behaviours.get(unit, self.usual)

    def crash(self, unit: str, exit: Exit | None = None) -> None:
        """End the unit's process as if by itself; without `exit`, killed by SIGSEGV."""
        held = self._held[unit]
        if held.copy.pid:
            self._exited(unit, exit or Exit(signal="SIGSEGV"))

    def power_off(self) -> None:
        """End everything at once, as a reboot would: what ran is LOADED then; what had finished stays so."""
        for unit, held in self._held.items():
            held.disarm()
            if held.copy.phase is not CopyPhase.FINISHED:
                self._become(unit, CopyPhase.LOADED, message="", restarts=0)
        self._tell("")

    def halt(self, unit: str) -> None:
        """End every process of the unit for good, as the warden of strict units does."""
        held = self._held[unit]
        if held.copy.executing:
            held.disarm()
            self._become(unit, CopyPhase.LOADED, message="", restarts=0)

    def print(self, unit: str, text: str, stream: str = "stdout") -> None:
        """Let the unit write a line."""
        held = self._held[unit]
        held.printed += 1
        held.lines.append((held.printed, LogLine(self.wall(), stream, text)))
        self._tell(unit)

    def _tell(self, unit: str) -> None:
        for queue in self._watchers:
            queue.put_nowait(unit)

    def _become(
        self, unit: str, phase: CopyPhase, *, message: str, pid: int = 0, restarts: int | None = None
    ) -> None:
        held = self._held[unit]
        active, sub = SYSTEM_WORDS[phase]
        since = self.wall() if active != held.copy.active else held.copy.since
        if restarts is None:
            restarts = held.copy.restarts
        held.copy = replace(
            held.copy,
            phase=phase,
            active=active,
            sub=sub,
            message=message,
            pid=pid,
            since=since,
            restarts=restarts,
        )
        self._tell(unit)

    def _begin(self, unit: str, restarts: int) -> None:
        held = self._held[unit]
        loop = asyncio.get_running_loop()
        held.history = held.history.started(loop.time(), held.policy)
        held.copy = replace(held.copy, cause=held.copy.cause if restarts else Cause.NONE)
        self._become(unit, CopyPhase.STARTING, message="", pid=next(self._pids), restarts=restarts)
        held.timer = loop.call_later(self.behaviour(unit).start_s, self._came_up, unit)

    def _came_up(self, unit: str) -> None:
        held, behaviour = self._held[unit], self.behaviour(unit)
        held.disarm()
        if behaviour.start_fails:
            behaviour.start_fails -= 1
            self._exited(unit, Exit(1))
            return
        for text in behaviour.prints:
            self.print(unit, text)
        for text in behaviour.complains:
            self.print(unit, text, "stderr")
        self._become(unit, CopyPhase.RUNNING, message="", pid=held.copy.pid)
        if behaviour.run_s is not None:
            held.timer = asyncio.get_running_loop().call_later(behaviour.run_s, self._exited, unit, behaviour.exit)
        elif behaviour.tick_s:
            self._tick(unit, 1)

    def _tick(self, unit: str, number: int) -> None:
        self.print(unit, f"tick {number}")
        loop = asyncio.get_running_loop()
        self._held[unit].timer = loop.call_later(self.behaviour(unit).tick_s, self._tick, unit, number + 1)

    def _end(self, unit: str) -> None:
        """Tell the unit's process to end, once."""
        held = self._held[unit]
        if held.copy.phase is not CopyPhase.STOPPING:
            held.disarm()
            self._become(unit, CopyPhase.STOPPING, message="", pid=held.copy.pid)
            loop = asyncio.get_running_loop()
            held.timer = loop.call_later(self.behaviour(unit).stop_s, self._ended, unit)

    def _ended(self, unit: str) -> None:
        self._become(unit, CopyPhase.LOADED, message="", restarts=0)

    def _exited(self, unit: str, exit: Exit, *, for_good: bool = False) -> None:
        held = self._held[unit]
        held.disarm()
        if held.copy.phase is CopyPhase.STOPPING:
            self._become(unit, CopyPhase.LOADED, message="", restarts=0)
            return
        loop = asyncio.get_running_loop()
        outcome = decide(held.policy, exit, held.history, loop.time(), self._dice)
        if for_good:
            outcome = Ended(CopyPhase.FAILED, str(exit))
        held.copy = replace(held.copy, cause=Cause(cause_of(exit)))
        if isinstance(outcome, Ended):
            self._become(unit, CopyPhase(outcome.phase), message=outcome.why)
            return
        held.history = outcome.history
        self._become(unit, CopyPhase.RESTARTING, message=outcome.why)
        held.timer = loop.call_later(outcome.delay_s, self._begin, unit, held.copy.restarts + 1)


class FakeDriver:
    """The `Driver` of a `FakeHost`. `name` is the driver it stands in for."""

    def __init__(self, host: FakeHost, name: str = "fake") -> None:
        self._host = host
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def list(self) -> Sequence[Copy]:
        if self._host.list_fails:
            self._host.list_fails -= 1
            raise DriverError(f"cannot list copies: the {self._name} driver does not answer")
        return [held.copy for held in self._host._held.values()]

    async def find(self, unit: str) -> Copy | None:
        held = self._host._held.get(unit)
        return None if held is None else held.copy

    async def prepare(self, order: Order, report: Report) -> str:
        behaviour = self._host.behaviour(order.placement.unit)
        for percent in range(0, 100, 25) if behaviour.pull_s else ():
            report(Progress(CopyPhase.PULLING, percent))
            await asyncio.sleep(behaviour.pull_s / 4)
        if behaviour.pull_fails:
            behaviour.pull_fails -= 1
            raise DriverError(f"cannot pull the image of {order.placement.unit}: programmed to fail")
        return behaviour.image

    async def create(self, order: Order) -> Copy:
        placement = order.placement
        held = self._host._held.get(placement.unit)
        if held is not None:
            there = (held.copy.spec, held.copy.incarnation, held.copy.restart)
            if there != (placement.spec, placement.incarnation, placement.restart):
                raise DriverError(f"cannot create {placement.unit}: another copy of it is here, remove it first")
            return held.copy
        behaviour = self._host.behaviour(placement.unit)
        if behaviour.create_fails:
            behaviour.create_fails -= 1
            raise DriverError(f"cannot create {placement.unit}: programmed to fail")
        copy = Copy(
            unit=placement.unit,
            driver=self._name,
            id=f"{self._name}-{placement.unit}",
            spec=placement.spec,
            incarnation=placement.incarnation,
            epoch=placement.epoch,
            restart=placement.restart,
            phase=CopyPhase.LOADED,
            image=behaviour.image,
            since=self._host.wall(),
        )
        number = next(self._host._numbers)
        self._host._held[placement.unit] = _Held(copy, order.spec.service.restart, number=number)
        self._host._tell(placement.unit)
        return copy

    async def start(self, order: Order) -> Copy:
        unit = order.placement.unit
        held = self._host._held.get(unit)
        if held is None:
            raise DriverError(f"cannot start {unit}: no copy of it is here")
        if not held.copy.executing:
            held.history = History()
            self._host._begin(unit, 0)
        await self._until(unit, lambda copy: copy.phase is not CopyPhase.STARTING)
        return held.copy

    async def marks(self, unit: str) -> Marks:
        if unit not in self._host.copies:
            raise DriverError(f"cannot tell the processes of {unit}: no copy of it is here")
        return Marks(variables=(f"COPY={self._host.copies[unit].id}",))

    async def stop(self, unit: str) -> None:
        held = self._host._held.get(unit)
        if held is None or not held.copy.executing:
            return
        behaviour = self._host.behaviour(unit)
        if behaviour.stop_fails:
            behaviour.stop_fails -= 1
            raise DriverError(f"cannot stop {unit}: programmed to fail")
        self._host._end(unit)
        await self._until(unit, lambda copy: not copy.executing)

    async def _until(self, unit: str, condition: Callable[[Copy], bool]) -> None:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._host._watchers[queue] = None
        try:
            while (held := self._host._held.get(unit)) is not None and not condition(held.copy):
                await queue.get()
        finally:
            self._host._watchers.pop(queue, None)

    async def remove(self, unit: str) -> None:
        held = self._host._held.get(unit)
        if held is None:
            return
        if held.copy.executing:
            raise DriverError(f"cannot remove {unit}: it is {held.copy.phase}, stop it first")
        del self._host._held[unit]
        self._host._tell(unit)

    async def execute(self, unit: str, words: Sequence[str], timeout_s: float) -> tuple[int, str]:
        held = self._here(unit)
        if not held.copy.pid:
            raise DriverError(f"cannot run {words[0]} for {unit}: it does not run")
        return self._host.behaviour(unit).answers.get(words[0], (0, ""))

    async def fail(self, unit: str, why: str, *, again: bool) -> None:
        held = self._host._held.get(unit)
        if held is not None and held.copy.phase is CopyPhase.RUNNING:
            self._host._exited(unit, Exit(1, cause=WATCHDOG, text=why), for_good=not again)

    async def examine(self, unit: str) -> Remains:
        held = self._here(unit)
        return Remains(exit_code=None, finished=held.copy.since)

    async def keep(self, unit: str, scene: str, directory: str) -> str:
        held = self._here(unit)
        await self.remove(unit)
        self._host.kept[scene] = held.copy
        return scene

    async def discard(self, copy_id: str, scene: str) -> None:
        self._host.kept.pop(scene, None)

    def _here(self, unit: str) -> _Held:
        held = self._host._held.get(unit)
        if held is None:
            raise DriverError(f"cannot find {unit}: no copy of it is here")
        return held

    async def events(self) -> AsyncGenerator[str, None]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._host._watchers[queue] = None
        try:
            yield ""
            while True:
                yield await queue.get()
        finally:
            self._host._watchers.pop(queue, None)

    async def logs(self, unit: str, *, lines: int, follow: bool) -> AsyncGenerator[LogLine, None]:
        held = self._host._held.get(unit)
        if held is None:
            raise DriverError(f"cannot read the output of {unit}: no copy of it is here")
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._host._watchers[queue] = None
        try:
            seen = held.printed
            for _, line in list(held.lines)[-lines:] if lines else ():
                yield line
            while follow and self._host._held.get(unit) is held:
                fresh = [(number, line) for number, line in held.lines if number > seen]
                for number, line in fresh:
                    seen = number
                    yield line
                if not fresh:
                    await queue.get()
        finally:
            self._host._watchers.pop(queue, None)

    async def output(self, unit: str, mark: str, limit: Limit | None = None) -> AsyncGenerator[OutputBatch, None]:
        held = self._here(unit)
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._host._watchers[queue] = None
        whose, _, seen = mark.partition("@")
        last = int(seen) if whose == str(held.number) else 0
        try:
            while True:
                there = self._host._held.get(unit) is held
                fresh = [(number, line) for number, line in held.lines if number > last]
                if fresh:
                    last = fresh[-1][0]
                    lines = [(line.at, line.stream, line.text.encode()) for _, line in fresh]
                    yield lines, f"{held.number}@{last}"
                elif there:
                    await queue.get()
                else:
                    return
        finally:
            self._host._watchers.pop(queue, None)

    async def close(self) -> None:
        """Nothing to let go of."""
