"""What is remembered of one container between two looks at it: how it ended, and what follows from that.

It lives as long as the agent. A new agent goes on from the record that `docker_verdicts` kept of it, and reads
everything else from the container itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from unit_agent.causes import Evidence, cause_of, explain
from unit_agent.driver import Copy
from unit_agent.drivers.docker_seen import HostTimes, Seen, ended_with_host, exit_of
from unit_agent.drivers.docker_verdicts import RESTARTS, Remembered
from unit_agent.restart import (
    FAILED,
    TIMED_OUT,
    WATCHDOG,
    Ended,
    Exit,
    History,
    RestartAfter,
    decide,
    is_clean,
)
from unitfleet.model import Cause
from unitfleet.spec import ServiceType


@dataclass(slots=True, eq=False)
class Track:
    """One container. Times are the loop's. `lock` is held by whoever starts or stops it."""

    seen: Seen
    looked: float = float("-inf")  # when the inspect began that gave `seen`
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    history: History = field(default_factory=History)
    restarts: int = 0
    due: float = 0.0  # of the restart that `outcome` asks for
    was_healthy: bool = False
    overdue: bool = False  # it did not become healthy in its time
    broken: str = ""  # why it was ended as one that broke
    for_good: bool = False  # and that is no matter of Restart=
    cause: Cause = Cause.NONE  # of its last end
    oom_kills: int = 0  # processes that the kernel killed for memory in this run
    oom_lived: int = 0  # of those, what its main process has outlived
    alarmed: bool = False  # a task waits to see whether it outlives one
    beginning: bool = False  # the Engine was told to start it and has not answered
    stopping: bool = False
    note: str = ""  # why it could not be looked at
    waiting: bool = False  # a task waits for `due`
    guarded: bool = False  # a task waits for it to be overdue
    refreshing: bool = False  # a task looks at it
    again: bool = False  # and is to look once more
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    shown: tuple[tuple[object, ...], Copy] | None = (
        None  # the copy that it was last shown as, and what that hangs on
    )
    _verdict: RestartAfter | Ended | None = None
    _judged: tuple[str, float, float, str] | None = None  # the run that the verdict is of

    @property
    def starting(self) -> bool:
        """Whether it runs but counts as started only once it is healthy."""
        seen = self.seen
        return seen.running and seen.kept.notify_healthy and not self.was_healthy and seen.health != ""

    @property
    def outcome(self) -> RestartAfter | Ended | None:
        """Return what follows from its end; None when it did not end by itself."""
        current = self.seen.ended and not self.seen.stopped_on_order and self._judged == self.seen.run
        return self._verdict if current else None

    def saw(self, seen: Seen, looked: float, started: float) -> None:
        """Take a new look; `started` is the loop's time of `seen.started`."""
        if self._judged is None and not self.history.starts and seen.started:
            self.history = History((started,))
        self.seen, self.looked, self.note = seen, looked, ""
        if seen.running and (seen.health == "healthy" or not seen.kept.notify_healthy):
            self.was_healthy = True
        self.changed.set()
        self.changed = asyncio.Event()

    def is_judged(self, seen: Seen) -> bool:
        """Tell whether it was decided what follows from the end that `seen` shows."""
        return self._judged == seen.run

    def awaits_judgement(self, host: HostTimes) -> bool:
        """Tell whether it ended by itself and nobody decided yet what follows.

        What ended with its host or Engine is the agent's to start anew, but for a oneshot that ended well.
        """
        seen = self.seen
        if not seen.ended or seen.stopped_on_order or self.stopping or self._judged == seen.run:
            return False
        done = seen.kept.type is ServiceType.ONESHOT and is_clean(seen.kept.restart, exit_of(seen))
        return done or not ended_with_host(seen, host)

    def judge(self, ended: float, dice: random.Random) -> RestartAfter | Ended:
        """Decide what follows from the end at loop time `ended`, once for each end."""
        exit = exit_of(self.seen, TIMED_OUT if self.overdue else "")
        if self.broken:
            exit = Exit(exit.code, cause=WATCHDOG, text=self.broken)
        verdict = decide(self.seen.kept.restart, exit, self.history, ended, dice)
        if self.for_good:
            verdict = Ended(FAILED, str(exit))
        kills = max(self.oom_kills, int(self.seen.oom_killed))
        evidence = Evidence(
            oom_kills=kills,
            memory_limit=self.seen.memory_limit,
            forks_refused=int(self.seen.said_tasks),
            tasks_max=self.seen.tasks_max,
            said_files=self.seen.said_files,
        )
        cause = cause_of(exit, evidence, clean=is_clean(self.seen.kept.restart, exit))
        verdict.why = explain(cause, exit, evidence, verdict.why)
        self.cause = Cause(cause)
        self._verdict, self._judged = verdict, self.seen.run
        if isinstance(verdict, RestartAfter):
            self.history, self.due = verdict.history, ended + verdict.delay_s
        return verdict

    def remembered(self, wall: Callable[[float], float]) -> Remembered:
        """Return what a new agent can't see on the container; `wall` makes the loop's time one since 1970."""
        verdict = self._verdict if self._judged == self.seen.run else None
        return Remembered(
            started=self.seen.started,
            finished=self.seen.finished,
            error=self.seen.error,
            verdict="" if verdict is None else RESTARTS if isinstance(verdict, RestartAfter) else verdict.phase,
            why="" if verdict is None else verdict.why,
            delay_s=verdict.delay_s if isinstance(verdict, RestartAfter) else 0.0,
            starts=tuple(wall(start) for start in self.history.starts),
            quick=self.history.quick,
            restarts=self.restarts,
            cause=self.cause,
            broken=self.broken,
            for_good=self.for_good,
            overdue=self.overdue,
        )

    def recall(self, told: Remembered, loop_time: Callable[[float], float]) -> None:
        """Go on from what the agent before this one remembered; `loop_time` is the other way round.

        A record of the run before the one that shows tells that it was restarted since.
        """
        seen = self.seen
        history = History(tuple(loop_time(start) for start in told.starts), told.quick)
        if told.started == seen.started:
            self.history, self.restarts, self.cause = history, told.restarts, told.cause
            self.broken, self.for_good, self.overdue = told.broken, told.for_good, told.overdue
            if told.verdict and (told.finished, told.error) == (seen.finished, seen.error):
                self._judged = seen.run
                if told.verdict == RESTARTS:
                    self._verdict = RestartAfter(told.delay_s, told.why, history)
                    self.due = loop_time(seen.finished) + told.delay_s
                else:
                    self._verdict = Ended(told.verdict, told.why)
        elif told.verdict == RESTARTS and seen.started > told.started:
            self.history = history.started(loop_time(seen.started), seen.kept.restart)
            self.restarts, self.cause = told.restarts + 1, told.cause

    def begun(self, at: float, *, afresh: bool) -> None:
        """Note a start; `afresh` when it was ordered rather than a restart."""
        history = History() if afresh else self.history
        self.history = history.started(at, self.seen.kept.restart)
        self.restarts = 0 if afresh else self.restarts + 1
        self._verdict, self._judged = None, self.seen.run  # what ended before is no matter any more
        self.was_healthy = self.overdue = self.for_good = False
        self.broken = ""
        self.oom_kills = self.oom_lived = 0
        self.alarmed = False
        if afresh:
            self.cause = Cause.NONE
