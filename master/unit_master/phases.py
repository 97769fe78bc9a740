"""Which phase a unit is in, whether that is as wanted, and why not: pure functions of a `ClusterView`.

A copy counts only when it reports the present incarnation, text and restart number at the epoch of its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from unit_master import retries
from unit_master.scene import Scene, scene_of
from unit_master.scheduler import fits
from unit_master.view import ClusterView
from unitfleet import keys
from unitfleet.bandwidth import asked
from unitfleet.model import (
    CopyPhase,
    MachineStatus,
    OnLoss,
    Pending,
    Placement,
    TargetState,
    Unit,
    UnitState,
    Wanted,
)
from unitfleet.spec import UnitSpec

UNREADABLE = "unreadable"
WAITING = "waiting-for-machine"

_LEAST_GOOD_FIRST = (
    "failed",
    "pending",
    WAITING,
    "placed",
    "pulling",
    "starting",
    "restarting",
    "stopping",
    "loaded",
    "running",
    "finished",
)


@dataclass(frozen=True, slots=True)
class Seen:
    """How one copy, or the lack of one, looks beside what is wanted."""

    phase: str
    settled: bool = False
    ok: bool = False
    why: str = ""
    since: float = 0.0


_EXECUTING = (CopyPhase.STARTING, CopyPhase.RUNNING, CopyPhase.STOPPING, CopyPhase.RESTARTING)

_PHASES = {
    CopyPhase.WAITING: "placed",
    CopyPhase.PULLING: "pulling",
    CopyPhase.STARTING: "starting",
    CopyPhase.RUNNING: "running",
    CopyPhase.STOPPING: "stopping",
    CopyPhase.RESTARTING: "restarting",
    CopyPhase.LOADED: "starting",  # of a launched unit: made, and about to be started
    CopyPhase.FINISHED: "finished",
    CopyPhase.FAILED: "failed",
    CopyPhase.GONE: "placed",
}


class Phases:
    """Judges the units of one `ClusterView` at one moment; what they share is computed once."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._scene: Scene | None = None

    def seen(self, unit: Unit, spec: UnitSpec | None, pending: Pending | None) -> Seen:
        if unit.target is TargetState.DESTROYED:
            return Seen("destroying", why=self._leaving(unit) or "no copy is left: it is about to be deleted")
        if is_template(unit.name):
            return Seen("inactive", settled=True, ok=True)
        if unit.target is TargetState.INACTIVE:
            why = self._leaving(unit)
            return Seen("stopping", why=why) if why else Seen("inactive", settled=True, ok=True)
        placed = live(self._view, unit)
        if spec is not None and spec.requirements.is_global:
            return self._everywhere(unit, spec, placed, pending)
        if placed:
            return self._at(unit, spec, placed[0], pending)
        if spec is None:
            why = f"cannot read its unit file: {self._view.unreadable(unit.name, unit.spec)}"
            return Seen(UNREADABLE, settled=True, why=why)
        return self._pending(pending)

    def _pending(self, pending: Pending | None) -> Seen:
        if pending is not None:
            return Seen("pending", why=pending.message, since=pending.since)
        if self._view.leader is None:
            return Seen("pending", why="not looked at yet: no master leads at this moment")
        return Seen("pending", why="not looked at yet")

    def _everywhere(
        self, unit: Unit, spec: UnitSpec, placements: list[Placement], pending: Pending | None
    ) -> Seen:
        """Return the least good of a global unit's copies; machines that are lost do not count."""
        counted = [p for p in placements if machine_status(self._view, p.machine) != MachineStatus.LOST]
        seen = [self._at(unit, spec, placement, None) for placement in counted]
        self._scene = self._scene or scene_of(self._view)
        for machine, host in sorted(self._scene.hosts.items()):
            placed = machine in self._view.placements_of(unit.name)
            if not placed and fits(asked(spec.requirements, unit.bandwidth), host, self._scene) is None:
                seen.append(Seen("pending", why=f"not placed on {host.name} yet"))
        if not seen:
            return self._pending(pending)
        worst = min(seen, key=lambda one: _LEAST_GOOD_FIRST.index(one.phase))
        return Seen(
            worst.phase,
            settled=all(one.settled for one in seen),
            ok=all(one.ok for one in seen),
            why=worst.why,
            since=worst.since,
        )

    def _at(self, unit: Unit, spec: UnitSpec | None, place: Placement, pending: Pending | None) -> Seen:
        """Return how a unit that should be there is at its place."""
        entry = self._view.states_of(unit.name).get(place.machine)
        state = entry.value if entry and entry.value.incarnation == unit.incarnation else None
        reports = state is not None and state.epoch == place.epoch and differs(unit, state) is None
        if reports and state is not None and state.phase is CopyPhase.FINISHED:
            return Seen("finished", settled=True, ok=unit.target is TargetState.LAUNCHED, since=state.since)
        status = machine_status(self._view, place.machine)
        if status != MachineStatus.READY:
            return self._waiting(spec, place.machine, status, pending)
        if state is None or not reports:
            return self._unanswered(unit, place, state)
        if place.wanted.value != unit.target.value:
            return self._unordered(unit, place, state)
        if state.phase is CopyPhase.FAILED:
            return self._failed(unit, spec, place, state)
        return self._reported(place, state)

    def _unanswered(self, unit: Unit, place: Placement, state: UnitState | None) -> Seen:
        name = self._view.machine_name(place.machine)
        outdated = differs(unit, state) if state is not None else None
        if state is not None and outdated is not None and unit.target is TargetState.LAUNCHED:
            if state.epoch == place.epoch and state.phase in (CopyPhase.PULLING, CopyPhase.WAITING):
                return Seen(_PHASES[state.phase], why=_progress(state) or outdated, since=place.placed_at)
            if state.epoch == place.epoch and state.phase is CopyPhase.FAILED:
                return Seen("failed", settled=_ordered(unit, place), why=state.message, since=state.since)
            return Seen("restarting", why=f"{outdated}: {name} still has the former copy", since=place.placed_at)
        told = self._view.bad.get(keys.state(place.machine, unit.name))
        why = f"{told}; {name} writes it anew in a while" if told else f"{name} has not answered yet"
        return Seen("placed", why=why, since=place.placed_at)

    def _unordered(self, unit: Unit, place: Placement, state: UnitState) -> Seen:
        if unit.target is TargetState.LOADED:
            return Seen("stopping", why="the leader has not ordered it loaded yet", since=state.since)
        return Seen("placed", why="the leader has not ordered it launched yet", since=place.placed_at)

    def _failed(self, unit: Unit, spec: UnitSpec | None, place: Placement, state: UnitState) -> Seen:
        """Return how a unit is that failed at its place: that is the end unless another machine is to try it."""
        why = state.message or f"failed on {self._view.machine_name(place.machine)}"
        if place.tried:
            names = [self._view.machine_name(machine) for machine in retries.tried(place)]
            why += f"; it failed on {', '.join(names[:-1])} and {names[-1]}"
        return Seen("failed", not self._goes_on(unit, spec, place, state), why=why, since=state.since)

    def _goes_on(self, unit: Unit, spec: UnitSpec | None, place: Placement, state: UnitState) -> bool:
        if spec is None or len(retries.tried(place)) >= retries.MOST_HOSTS:
            return False
        needs = asked(spec.requirements, unit.bandwidth)
        if not retries.keeps_failing(needs, place, state):
            return False
        self._scene = self._scene or scene_of(self._view)
        return retries.elsewhere(needs, place, state, self._scene) is not None

    def _reported(self, place: Placement, state: UnitState) -> Seen:
        """Return how a current copy is that answers the present order."""
        since = state.since or place.placed_at
        name = self._view.machine_name(place.machine)
        launched = place.wanted is Wanted.LAUNCHED
        match state.phase:
            case CopyPhase.RUNNING if launched:
                why = (state.message or "its health check fails") if state.health == "unhealthy" else ""
                return Seen("running", settled=True, ok=True, why=why, since=since)
            case CopyPhase.LOADED if not launched:
                return Seen("loaded", settled=True, ok=True, since=since)
            case CopyPhase.RUNNING | CopyPhase.STARTING | CopyPhase.RESTARTING if not launched:
                return Seen("stopping", why=f"{name} has not stopped it yet", since=since)
            case CopyPhase.GONE:
                return Seen("placed", why=f"{name} has not made a copy yet", since=since)
        why = state.message or _progress(state) or f"{_PHASES[state.phase]} on {name}"
        return Seen(_PHASES[state.phase], why=why, since=since)

    def _waiting(self, spec: UnitSpec | None, machine: str, status: str, pending: Pending | None) -> Seen:
        name = self._view.machine_name(machine)
        known = self._view.roster.get(machine)
        if status == MachineStatus.SUSPECT:
            why = f"{name} is suspect: its agent is not heard from"
            if spec is not None and spec.requirements.strict:
                why += "; it is strict, so it moves once its copy there has surely ended"
            return Seen(WAITING, why=why, since=known.value.since if known else 0.0)
        since = known.value.since if known else 0.0
        why = f"{name} is lost" + (f" since {_clock(since)}" if since else "")
        needs = spec.requirements if spec else None
        if needs is not None and needs.on_loss is OnLoss.WAIT:
            after = "" if needs.on_loss_after_s is None else f":{needs.on_loss_after_s:g}s"
            why += f"; waits for it (OnMachineLoss=wait{after})"
        elif pending is not None:
            why += f"; {pending.message}"
        else:
            why += "; not placed anew yet"
        return Seen(WAITING, why=why, since=since)

    def _leaving(self, unit: Unit) -> str:
        """Return what still has to go before a unit is inactive, "" when nothing has.

        A copy on a lost machine that was ordered gone holds nothing up: it goes when the machine returns.
        """
        waits = []
        for machine, entry in sorted(self._view.placements_of(unit.name).items()):
            name = self._view.machine_name(machine)
            lost = machine_status(self._view, machine) == MachineStatus.LOST
            if entry.value.wanted is not Wanted.GONE:
                waits.append(f"{name} is not told yet")
            elif not lost:
                waits.append(f"{name} has not stopped it yet")
        for machine, state in sorted(self._view.states_of(unit.name).items()):
            unplaced = machine not in self._view.placements_of(unit.name)
            lost = machine_status(self._view, machine) == MachineStatus.LOST
            if unplaced and not lost and state.value.phase in _EXECUTING:
                waits.append(f"{self._view.machine_name(machine)} still runs a copy")
        return ", ".join(waits)


def live(view: ClusterView, unit: Unit) -> list[Placement]:
    """Return the unit's live placements of its present incarnation, the newest, its place, first."""
    held = (entry.value for entry in view.placements_of(unit.name).values())
    wanted = [p for p in held if p.wanted is not Wanted.GONE and p.incarnation == unit.incarnation]
    return sorted(wanted, key=lambda placement: -placement.epoch)


def is_template(name: str) -> bool:
    """Say whether a name is a template's; garbage under units/ is none."""
    return 0 <= name.find("@") == name.rfind(".") - 1


def machine_status(view: ClusterView, machine: str) -> str:
    """Return ready, suspect or lost. A machine that is there and not enrolled yet is ready."""
    known = view.roster.get(machine)
    if known is not None and known.value.status is MachineStatus.LOST:
        return MachineStatus.LOST
    if machine in view.presence:
        return MachineStatus.READY
    return MachineStatus.SUSPECT if known is not None else MachineStatus.LOST


def differs(unit: Unit, state: UnitState) -> str | None:
    """Return which wish of the user the copy does not carry yet, or None."""
    if state.incarnation != unit.incarnation:
        return "it belongs to a unit destroyed since"
    if state.spec != unit.spec:
        return "its text was replaced"
    if state.restart < unit.restart:
        return "restart was asked for"
    return None


def _ordered(unit: Unit, place: Placement) -> bool:
    return place.spec == unit.spec and place.restart >= unit.restart and place.wanted.value == unit.target.value


def _progress(state: UnitState) -> str:
    return f"pulling {state.progress} %" if state.progress >= 0 else ""


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
