"""When a command is done with a unit: pure judgement of what the API shows of it."""

from __future__ import annotations

from enum import StrEnum

from unitctl.phrases import UNPLACED
from unitfleet.api import CopyView, UnitView
from unitfleet.model import TargetState


class Goal(StrEnum):
    """What a command waits for."""

    START = "start"
    RESTART = "restart"
    LOAD = "load"
    STOP = "stop"
    UNLOAD = "unload"
    DESTROY = "destroy"


class Verdict(StrEnum):
    """How far a unit is from its goal."""

    WAITING = "waiting"
    NOT_PLACED = "not placed"  # no machine takes it, as things are
    FAILED = "failed"
    DONE = "done"


TARGET = {
    Goal.START: TargetState.LAUNCHED,
    Goal.RESTART: TargetState.LAUNCHED,
    Goal.LOAD: TargetState.LOADED,
    Goal.STOP: TargetState.LOADED,
    Goal.UNLOAD: TargetState.INACTIVE,
    Goal.DESTROY: TargetState.DESTROYED,
}

# The last word on the way to a goal; of a start it is the phase.
LAST_WORD = {Goal.STOP: "stopped", Goal.UNLOAD: "inactive", Goal.DESTROY: "destroyed"}

_IDLE = ("", "loaded", "finished", "failed", "gone")


def judge(goal: Goal, view: UnitView | None) -> Verdict:
    """Judge a unit as of a revision not older than the command; None: it is no more."""
    if goal in (Goal.STOP, Goal.UNLOAD, Goal.DESTROY):
        return _judge_end(goal, view)
    if view is None or view.target is not TARGET[goal]:
        return Verdict.FAILED  # another command has overtaken this one
    if view.phase in UNPLACED:
        return Verdict.NOT_PLACED if view.pending is not None or _awaits_lost(view) else Verdict.WAITING
    if not view.settled:
        return Verdict.WAITING
    return Verdict.DONE if view.ok else Verdict.FAILED


def worth_telling(goal: Goal, view: UnitView) -> bool:
    """Whether a phase is news on the way to a goal: to one who stops a unit, that it runs is none."""
    if goal in (Goal.STOP, Goal.UNLOAD, Goal.DESTROY):
        return view.phase in ("stopping", "destroying")
    return view.phase != "pending" or view.pending is not None


def _judge_end(goal: Goal, view: UnitView | None) -> Verdict:
    if view is None or (goal is Goal.DESTROY and view.target is not TargetState.DESTROYED):
        return Verdict.DONE  # one of that name that is not to go was made anew since
    if view.target is not TARGET[goal]:
        return Verdict.FAILED
    if goal is Goal.DESTROY:
        return Verdict.WAITING
    stopped = goal is Goal.STOP and all(_idle(copy) for copy in view.copies if _reachable(copy))
    return Verdict.DONE if view.ok or stopped else Verdict.WAITING


def _awaits_lost(view: UnitView) -> bool:
    """Whether its place is on a lost machine. A suspect one is soon back, or lost and the unit moved."""
    return bool(view.copies) and not _reachable(view.copies[0])


def _reachable(copy: CopyView) -> bool:
    return copy.machine_status != "lost"


def _idle(copy: CopyView) -> bool:
    return copy.phase in _IDLE and copy.wanted != "launched"
