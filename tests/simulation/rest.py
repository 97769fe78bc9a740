"""What a fleet is like once every misfortune is over: as its user last wished, and quiet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from simulation.fleet import Fleet
from simulation.units import Kind
from unit_agent.driver import Copy
from unit_master.view import ClusterView
from unitfleet.model import CopyPhase, TargetState, Unit, Wanted

SETTLE_S = 240.0
QUIET = 3  # looks one after the other, a second apart, that find nothing


async def settled(fleet: Fleet) -> None:
    """Wait until everything is as the user last wished, and stays so."""
    unsettled = ["not looked yet"]
    quiet = 0
    for _ in range(int(SETTLE_S)):
        fleet.accept_store()
        unsettled = differences(fleet)
        quiet = 0 if unsettled else quiet + 1
        if quiet >= QUIET:
            return
        await asyncio.sleep(1.0)
    raise AssertionError("; ".join(unsettled))


def differences(fleet: Fleet) -> list[str]:
    """What is not as it should be at rest, by the store and by what really runs."""
    found: list[str] = []
    places = {kind.name: _runs(fleet, kind.name) for kind in fleet.units}
    for kind in fleet.units:
        found += _wish(fleet, kind)
        found += _copies(fleet, kind, places[kind.name])
        for other in kind.apart_from:
            if set(places[kind.name]) & set(places[other]):
                found.append(f"{kind.name} and {other} share a machine")
        if kind.beside and places[kind.name] and places[kind.beside] and places[kind.name] != places[kind.beside]:
            found.append(f"{kind.name} is not where {kind.beside} is")
    return found + _leftovers(fleet)


def _runs(fleet: Fleet, name: str) -> list[str]:
    return sorted(machine.name for machine in fleet.machines.values() if name in machine.host.running())


def _wish(fleet: Fleet, kind: Kind) -> list[str]:
    """I3: what was acknowledged last stands."""
    wish, unit = fleet.wishes.get(kind.name), fleet.witness.view.units.get(kind.name)
    if wish in (None, TargetState.DESTROYED):
        return [] if unit is None else [f"I3: {kind.name} is never deleted"]
    if unit is None or unit.value.target is not wish:
        return [f"I3: the wish {wish} for {kind.name} is lost"]
    return []


def _copies(fleet: Fleet, kind: Kind, runs: list[str]) -> list[str]:
    """I1: one copy, the one that is wanted, or as many as there are machines, or none."""
    unit = fleet.witness.view.units.get(kind.name)
    if fleet.wishes.get(kind.name) is not TargetState.LAUNCHED:
        return [f"I1: {kind.name} is not launched and runs on {runs}"] if runs else []
    if kind.run_s is not None:
        return [] if _finished(fleet, kind) and not runs else [f"I1: {kind.name} has not finished"]
    if kind.everywhere and runs != sorted(fleet.machines):
        return [f"I1: global {kind.name} runs on {runs}"]
    if _waits(fleet, kind):
        return []  # it may run where it was, and is placed nowhere anew
    if not kind.everywhere and len(runs) != 1:
        return [f"I1: {kind.name} runs on {runs}"]
    if unit is None:
        return []  # told by `_wish`
    copies = {machine: fleet.machines[machine].host.copies[kind.name] for machine in runs}
    return [
        f"I1: {kind.name} on {machine} is not the copy that is wanted"
        for machine, copy in copies.items()
        if not _is_wanted(fleet, unit.value, copy)
    ]


def _is_wanted(fleet: Fleet, unit: Unit, copy: Copy) -> bool:
    """Whether a copy is of this unit, not of one of its name that was destroyed, and of its last restart."""
    restarted_since = fleet.restored and copy.restart > unit.restart  # by a wish that the store has lost
    return copy.incarnation == unit.incarnation and (copy.restart == unit.restart or restarted_since)


def _finished(fleet: Fleet, kind: Kind) -> bool:
    """Whether it ended well, or failed by a misfortune: it is not run again by itself."""
    for machine, state in fleet.witness.view.states_of(kind.name).items():
        failed = state.value.phase is CopyPhase.FAILED and kind.name in fleet.machines[machine].host.crashed
        if failed or state.value.phase is CopyPhase.FINISHED:
            return True
    return False


def _waits(fleet: Fleet, kind: Kind) -> bool:
    """Whether it follows a unit that is on no machine."""
    return bool(kind.beside) and not fleet.witness.view.placements_of(kind.beside)


def _leftovers(fleet: Fleet) -> list[str]:
    """I4: no record and no copy without the other."""
    return leftovers(fleet.witness.view, lambda unit: _waits(fleet, fleet.kind(unit)))


def leftovers(view: ClusterView, waits: Callable[[str], bool]) -> list[str]:
    """Return the keys that should not be there at rest; what still runs of a unit that `waits` stays as it is."""
    found = [
        f"I4: {unit} never leaves {machine}"
        for unit, placements in view.placements.items()
        for machine, entry in placements.items()
        if entry.value.wanted is Wanted.GONE
    ]
    for unit, states in view.states.items():
        for machine, state in states.items():
            held = view.placements_of(unit).get(machine)
            if not waits(unit) and (held is None or held.value.epoch != state.value.epoch):
                found.append(f"I4: the state of {unit} on {machine} speaks of nothing")
    return found
