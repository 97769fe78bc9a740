"""What fleet's API shows of units, states and machines, as pure functions of a `ClusterView`.

`current` is what fleet's clients wait for. fleet told a state as soon as its agent had given an order; here it is
told once it is so: a unit is `launched` when its copy runs or has ended, `loaded` when a copy is there, `inactive`
when none is left. A unit that is being destroyed is no more, as far as fleet's clients are concerned.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from unit_master.phases import differs, live, machine_status
from unit_master.view import ClusterView
from unit_master.views import Views
from unitfleet import keys, systemd, unitfile
from unitfleet.fleetapi import Machine, Option, State
from unitfleet.fleetapi import Unit as Shown
from unitfleet.model import CopyPhase, MachineStatus, TargetState, Unit, UnitState
from unitfleet.problems import Problems
from unitfleet.unitfile import UnitFile

INACTIVE = TargetState.INACTIVE.value
LOADED = TargetState.LOADED.value
LAUNCHED = TargetState.LAUNCHED.value

_RANK = {INACTIVE: 0, LOADED: 1, LAUNCHED: 2}
_REACHED = {
    CopyPhase.WAITING: INACTIVE,
    CopyPhase.PULLING: INACTIVE,
    CopyPhase.STARTING: LOADED,
    CopyPhase.RUNNING: LAUNCHED,
    CopyPhase.STOPPING: LAUNCHED,
    CopyPhase.RESTARTING: LAUNCHED,
    CopyPhase.LOADED: LOADED,
    CopyPhase.FINISHED: LAUNCHED,
    CopyPhase.FAILED: LAUNCHED,
    CopyPhase.GONE: INACTIVE,
}
_EXECUTING = (CopyPhase.STARTING, CopyPhase.RUNNING, CopyPhase.STOPPING, CopyPhase.RESTARTING)


def unit_names(view: ClusterView) -> list[str]:
    """Return the names of all units, unreadable ones too, without those that are being destroyed."""
    there = [name for name, entry in view.units.items() if entry.value.target is not TargetState.DESTROYED]
    if view.bad:
        there += [name for name in Views(view).names() if name not in view.units]
    return sorted(there)


def unit(view: ClusterView, name: str) -> Shown | None:
    """Return a unit, None when there is none. One whose record can't be read says so in its description."""
    if (why := view.bad.get(keys.unit(name))) is not None:
        return _unreadable(name, why)
    if name not in view.units or _is_leaving(view, name):
        return None
    held = view.units[name].value
    text = view.texts.get(held.spec)
    if text is None:
        return _unreadable(name, "its text is not in the store")
    placed = [
        each.machine for each in live(view, held) if machine_status(view, each.machine) != MachineStatus.LOST
    ]
    spec = view.spec(name, held.spec)
    is_global = spec is not None and spec.requirements.is_global
    return Shown(
        name=name,
        options=options(text),
        desired_state=held.target.value,
        current_state=current(view, held, is_global=is_global),
        machine_id=placed[0] if placed and not is_global else "",
    )


def current(view: ClusterView, unit: Unit, *, is_global: bool) -> str:
    """Return which state a unit has reached; a global one the least that all of its copies have."""
    states = {
        machine: entry.value
        for machine, entry in view.states_of(unit.name).items()
        if entry.value.incarnation == unit.incarnation and machine_status(view, machine) != MachineStatus.LOST
    }
    if unit.target is TargetState.INACTIVE:
        placed = view.placements_of(unit.name)
        left = [state.phase for machine, state in states.items() if machine in placed or state.phase in _EXECUTING]
        return max((_REACHED[phase] for phase in left), key=_RANK.__getitem__, default=INACTIVE)
    reached = [_reached(unit, states.get(placement.machine)) for placement in live(view, unit)]
    if not is_global:
        return reached[0] if reached else INACTIVE
    return min(reached, key=_RANK.__getitem__, default=INACTIVE)


def _reached(unit: Unit, state: UnitState | None) -> str:
    """Return which state a copy has reached that is to be there."""
    if state is None:
        return INACTIVE
    has_ended = unit.target is TargetState.LOADED and state.phase in (CopyPhase.FAILED, CopyPhase.FINISHED)
    is_former = unit.target is TargetState.LAUNCHED and differs(unit, state) is not None
    if has_ended or is_former:
        return min(LOADED, _REACHED[state.phase], key=_RANK.__getitem__)
    return _REACHED[state.phase]


def reports(view: ClusterView, *, unit_name: str = "", machine: str = "") -> Iterator[UnitState]:
    """Yield what machines that are not lost report, by unit and machine; of one of them if asked for."""
    known = {machine} if machine else view.roster.keys() | view.presence.keys()
    there = {each for each in known if machine_status(view, each) != MachineStatus.LOST}
    for name in [unit_name] if unit_name else sorted(view.states):
        states = view.states_of(name)
        for where in sorted(states) if len(states) > 1 else states:
            if where in there and states[where].value.phase is not CopyPhase.GONE:
                yield states[where].value


def state(view: ClusterView, report: UnitState) -> State:
    """Return a report in fleet's words."""
    text = view.texts.get(report.spec)
    return State(
        name=report.unit,
        hash=fleet_hash(text) if text is not None else "",
        machine_id=report.machine,
        systemd_load_state=report.load,
        systemd_active_state=report.active,
        systemd_sub_state=report.sub,
    )


def machines(view: ClusterView) -> list[Machine]:
    """Return the machines that are there, by id."""
    return [
        Machine(id=machine, primary_ip=entry.value.address, metadata=dict(sorted(view.metadata(machine).items())))
        for machine, entry in sorted(view.presence.items())
        if machine_status(view, machine) == MachineStatus.READY
    ]


@lru_cache(maxsize=1024)
def options(text: str) -> tuple[Option, ...]:
    """Return the lines of a unit text."""
    return tuple(Option(section=each.section, name=each.name, value=each.value) for each in _file(text).options)


@lru_cache(maxsize=4096)
def fleet_hash(text: str) -> str:
    """Return fleet's hash of a unit text."""
    return _file(text).fleet_hash()


def _file(text: str) -> UnitFile:
    """Read a text as fleet does; one that fleet can't read was never fleet's, and is read as systemd does."""
    try:
        return unitfile.parse(text, max_line=None)
    except unitfile.UnreadableUnit:
        return UnitFile(systemd.read(text, Problems()))


def _is_leaving(view: ClusterView, name: str) -> bool:
    return name in view.units and view.units[name].value.target is TargetState.DESTROYED


def _unreadable(name: str, why: str) -> Shown:
    told = Option(section="Unit", name="Description", value=f"unreadable: {why}; destroy it and submit it again")
    return Shown(name=name, options=(told,), desired_state=INACTIVE, current_state=INACTIVE)
