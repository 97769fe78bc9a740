"""What an agent does about one unit, as a pure function of its placement and its copy.

The placement protocol's agent half (docs/architecture.md). A copy is stopped only on positive evidence: a
placement of this machine that says `gone`, `loaded`, another text, incarnation or a higher restart number, at
an epoch not lower than the copy's own. Absence of a placement stops nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from unit_agent.driver import Copy
from unitfleet.model import CopyPhase, Placement, UnitState, Wanted


class Step(Enum):
    """One call of a driver."""

    PREPARE = "prepare"
    STOP = "stop"
    REMOVE = "remove"
    CREATE = "create"
    START = "start"


@dataclass(frozen=True, slots=True)
class Action:
    """A step and why it is taken; the reason goes to the log and to the events."""

    step: Step
    reason: str


@dataclass(frozen=True, slots=True)
class Activity:
    """What the agent is about with a unit that its copy does not show: a pull, a wait, a failed attempt."""

    phase: CopyPhase
    message: str = ""
    progress: int = -1


_SETTLED = (CopyPhase.FAILED, CopyPhase.FINISHED)


def plan(wanted: Placement | None, copy: Copy | None) -> tuple[Action, ...]:
    """Return the steps, in order, that lead from `copy` to what `wanted` says; () when there is nothing to do.

    Every prefix of the steps may be all that is done: the plan made from there leads to the same end.
    """
    if wanted is None:
        if copy is None or copy.executing:
            return ()  # a missing key is not an order: the leader answers a reported orphan with `gone`
        return (Action(Step.REMOVE, "not placed here and not running"),)
    if copy is not None and copy.epoch > wanted.epoch:
        return ()  # an order older than the copy
    match wanted.wanted:
        case Wanted.GONE:
            return _end(copy, f"ordered gone at epoch {wanted.epoch}: {wanted.reason}")
        case Wanted.LOADED:
            return _load(wanted, copy)
        case Wanted.LAUNCHED:
            return _launch(wanted, copy)


def amends(before: Placement | None, after: Placement | None) -> bool:
    """Tell whether the placement was only given another bandwidth: that orders nothing of the copy."""
    return (
        before is not None
        and after is not None
        and msgspec.structs.replace(before, bandwidth=None) == msgspec.structs.replace(after, bandwidth=None)
    )


def _end(copy: Copy | None, reason: str) -> tuple[Action, ...]:
    if copy is None:
        return ()
    stop = (Action(Step.STOP, reason),) if copy.executing else ()
    return (*stop, Action(Step.REMOVE, reason))


def _load(wanted: Placement, copy: Copy | None) -> tuple[Action, ...]:
    if copy is None:
        return _make("wanted loaded")
    outdated = _outdated(wanted, copy)
    if outdated is None and copy.phase is CopyPhase.LOADED:
        return ()
    # made anew, so that a stopped copy is never mistaken for one that ended by itself
    return _remake(copy, outdated or f"wanted loaded at epoch {wanted.epoch}, not running")


def _launch(wanted: Placement, copy: Copy | None) -> tuple[Action, ...]:
    if copy is None:
        reason = f"placed here at epoch {wanted.epoch}: {wanted.reason}"
        return (*_make(reason), Action(Step.START, reason))
    outdated = _outdated(wanted, copy)
    if outdated is None and copy.phase in _SETTLED and copy.epoch < wanted.epoch:
        outdated = f"it ended before epoch {wanted.epoch}"
    if outdated is not None:
        return (*_remake(copy, outdated), Action(Step.START, outdated))
    if copy.phase is CopyPhase.LOADED:
        return (Action(Step.START, "loaded, wanted launched"),)
    return ()


def _outdated(wanted: Placement, copy: Copy) -> str | None:
    """Return why `copy` is not the one that is wanted, or None. Only the user's own changes make it so."""
    if copy.incarnation != wanted.incarnation:
        return "another unit of the same name, destroyed since"
    if copy.spec != wanted.spec:
        return "its text was replaced"
    if copy.restart < wanted.restart:
        return f"restart {wanted.restart} was asked for"
    return None


def _make(reason: str) -> tuple[Action, ...]:
    return (Action(Step.PREPARE, reason), Action(Step.CREATE, reason))


def _remake(copy: Copy, reason: str) -> tuple[Action, ...]:
    """Prepare first: whatever takes long is done while the old copy still serves."""
    return (Action(Step.PREPARE, reason), *_end(copy, reason), Action(Step.CREATE, reason))


def report(
    machine: str, unit: str, wanted: Placement | None, copy: Copy | None, activity: Activity | None
) -> UnitState | None:
    """Return the state to write for a unit, or None when no key should speak of it.

    The phases that the leader acts on are exact: `running` and `finished` only of the copy that is wanted,
    `gone` only when nothing of it is left.
    """
    if wanted is None:
        if copy is None or not copy.executing:
            return None
        return _state_of(machine, copy, copy.epoch)
    if wanted.wanted is Wanted.GONE:
        if copy is None:
            return _state_without(machine, wanted, Activity(CopyPhase.GONE))
        if copy.epoch > wanted.epoch:
            return _state_of(machine, copy, copy.epoch)
        return _with(_state_of(machine, copy, wanted.epoch), activity or Activity(CopyPhase.STOPPING))
    if copy is None:
        return _state_without(machine, wanted, activity or Activity(CopyPhase.WAITING))
    if copy.epoch > wanted.epoch:
        # of a store that was restored: told as it is, the leader orders it anew above this epoch
        return _state_of(machine, copy, copy.epoch)
    state = _state_of(machine, copy, wanted.epoch)
    if activity is not None:
        return _with(state, activity)
    if plan(wanted, copy):
        return _with(state, Activity(CopyPhase.WAITING))  # not yet the copy that is wanted
    return state


def _state_of(machine: str, copy: Copy, epoch: int) -> UnitState:
    return UnitState(
        unit=copy.unit,
        machine=machine,
        incarnation=copy.incarnation,
        epoch=epoch,
        restart=copy.restart,
        spec=copy.spec,
        phase=copy.phase,
        active=copy.active,
        sub=copy.sub,
        health=copy.health,
        driver=copy.driver,
        copy_id=copy.id,
        pid=copy.pid,
        address=copy.address,
        ports=copy.ports,
        image=copy.image,
        since=copy.since,
        restarts=copy.restarts,
        cause=copy.cause,
        message=copy.message,
    )


def _state_without(machine: str, wanted: Placement, activity: Activity) -> UnitState:
    return UnitState(
        unit=wanted.unit,
        machine=machine,
        incarnation=wanted.incarnation,
        epoch=wanted.epoch,
        restart=wanted.restart,
        spec=wanted.spec,
        phase=activity.phase,
        active="failed" if activity.phase is CopyPhase.FAILED else "inactive",
        sub="failed" if activity.phase is CopyPhase.FAILED else "dead",
        progress=activity.progress,
        message=activity.message,
    )


def _with(state: UnitState, activity: Activity) -> UnitState:
    return msgspec.structs.replace(
        state, phase=activity.phase, progress=activity.progress, message=activity.message or state.message
    )
