"""Following units to their goals: from the revision of the command, until each is settled or time is up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from unitctl.client import Api, Units
from unitctl.failures import Detached, Unreachable
from unitctl.goal import LAST_WORD, Goal, Verdict, judge, worth_telling
from unitctl.narrate import Narrator
from unitctl.phrases import step, units_text, waiting_for
from unitctl.stream import PAUSE_S, Ended, Feed, Lost, UnitFeed
from unitfleet.api import StreamMessage, UnitView

# A refusal may be older than the command: the scheduler gets this long to look again.
GRACE_S = 0.4
SLOW_S = 5.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How the wait for one unit ended; `view` None when the unit is no more."""

    name: str
    goal: Goal
    verdict: Verdict
    view: UnitView | None


class Wait:
    """One wait for some units. `patient`: what no machine takes is waited for like the rest."""

    def __init__(
        self, api: Api, goals: Mapping[str, Goal], narrator: Narrator, *, timeout: float, patient: bool
    ) -> None:
        self._api = api
        self._goals = goals
        self._narrator = narrator
        self._patient = patient
        self._deadline = time.monotonic() + timeout
        self._rev = 0
        self._views: dict[str, UnitView | None] = {}
        self._changed: dict[str, float] = {}
        self._unplaced: dict[str, float] = {}
        self._remarked: dict[str, str] = {}

    def run(self, since: int) -> list[Ending]:
        """Wait from the revision of the command on. Raises Detached on ctrl-C, Unreachable without any API."""
        try:
            with self._narrator:
                return self._follow(since)
        except KeyboardInterrupt:
            names = list(self._goals)
            unit = names[0] if len(names) == 1 else "…"
            raise Detached(
                f"stopped waiting for {units_text(names)}; the command goes on by itself",
                see=f"unitctl status {unit} | unitctl events -f",
            ) from None

    def _follow(self, since: int) -> list[Ending]:
        listed = self._first(since)
        self._take(StreamMessage(rev=listed.rev, snapshot=True, units=listed.items))
        feed = UnitFeed(self._api.transport, tuple(self._goals), listed.rev)
        lost: Unreachable | None = None
        if self._open():
            feed.start()
        try:
            while self._open():
                now = time.monotonic()
                if now >= self._deadline:
                    if lost is not None:
                        raise lost
                    break
                match self._next(feed, now):
                    case StreamMessage() as message:
                        if lost is not None:
                            self._narrator.remark("the connection is back")
                        lost = None
                        self._take(message)
                    case Lost(error=Unreachable() as error):
                        if lost is None:
                            self._narrator.remark(f"lost the connection, trying again: {'; '.join(error.details)}")
                        lost = error
                    case Ended(error=error):
                        raise error
                if self._open():
                    self._tell_unplaced()
                    self._remark_slow()
        finally:
            feed.close()
        return [
            Ending(name=name, goal=goal, verdict=self._verdict(name), view=self._views.get(name))
            for name, goal in self._goals.items()
        ]

    def _first(self, since: int) -> Units:
        """Read the units as of the command's revision; the command was taken, so a short outage is waited out."""
        told = False
        while True:
            try:
                return self._api.known(self._goals, min_revision=since)
            except Unreachable as error:
                if time.monotonic() >= self._deadline:
                    raise
                if not told:
                    self._narrator.remark(f"no answer, trying again: {'; '.join(error.details) or error.message}")
                told = True
                time.sleep(PAUSE_S)

    def _next(self, feed: Feed, now: float) -> object:
        """Read on until something comes, or there is something to look at: a grace or the deadline is over."""
        ends = [at + GRACE_S for at in self._unplaced.values() if at + GRACE_S > now]
        return feed.next(min([self._deadline, now + 1.0, *ends]) - now)

    def _take(self, message: StreamMessage) -> None:
        if message.rev < self._rev:
            return  # from an endpoint that is not yet as far
        self._rev = message.rev
        for view in message.units:
            if view.name in self._goals:
                self._see(view.name, view)
        for name in message.gone:
            if name in self._goals:
                self._see(name, None)
        if message.snapshot:
            present = {view.name for view in message.units}
            for name in self._goals:
                if name not in present:
                    self._see(name, None)

    def _see(self, name: str, view: UnitView | None) -> None:
        first = name not in self._views
        old = self._views.get(name)
        if view is None or old is None or step(old) != step(view):
            self._changed[name] = time.monotonic()
        self._views[name] = view
        verdict = self._verdict(name)
        if verdict is Verdict.NOT_PLACED:
            self._unplaced.setdefault(name, time.monotonic())
        else:
            self._unplaced.pop(name, None)
            news = not first or (verdict is not Verdict.DONE and view is not None and view.phase != "failed")
            if view is not None and news and worth_telling(self._goals[name], view):
                self._narrator.saw(view)
        if verdict is Verdict.DONE:
            self._narrator.ended(name, LAST_WORD.get(self._goals[name]) or (step(view) if view else ""))

    def _verdict(self, name: str) -> Verdict:
        return judge(self._goals[name], self._views.get(name))

    def _open(self) -> bool:
        """Whether there is anything left to wait for."""
        return any(self._is_open(name) for name in self._goals)

    def _is_open(self, name: str) -> bool:
        match self._verdict(name):
            case Verdict.WAITING:
                return True
            case Verdict.NOT_PLACED:
                since = self._unplaced.get(name, 0.0)
                return self._patient or time.monotonic() < since + GRACE_S
            case _:
                return False

    def _tell_unplaced(self) -> None:
        """Tell of those that no machine takes while the wait for others goes on."""
        for name, since in self._unplaced.items():
            view = self._views.get(name)
            if view is not None and time.monotonic() >= since + GRACE_S:
                self._narrator.saw(view)

    def _remark_slow(self) -> None:
        """Say once why a unit has not moved for some seconds."""
        now = time.monotonic()
        for name, view in self._views.items():
            if view is None or now - self._changed.get(name, now) < SLOW_S or not self._is_open(name):
                continue
            text = waiting_for(view)
            if self._remarked.get(name) != text:
                self._remarked[name] = text
                self._narrator.remark(f"{name}: {text}")
