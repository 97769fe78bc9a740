"""Which units the store speaks of, and in which order they are decided. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Set

from unit_master.view import ClusterView
from unitfleet import keys


def names_of(view: ClusterView) -> Set[str]:
    """Return every unit that the store speaks of."""
    return view.units.keys() | view.placements.keys() | view.states.keys() | view.pending.keys()


def in_order(view: ClusterView, names: Iterable[str]) -> list[str]:
    """Return units as they have to be decided: peers before those that follow them, then by `Priority=`."""
    return sorted(names, key=lambda name: (*_rank(view, name), name))


def unreadable_placements(view: ClusterView) -> dict[str, frozenset[str]]:
    """Return by unit the machines that hold an order about it which can't be read."""
    found: dict[str, frozenset[str]] = {}
    for key in view.bad:
        match keys.split(key):
            case "placements", machine, unit:
                found[unit] = found.get(unit, frozenset()) | {machine}
    return found


def _rank(view: ClusterView, name: str) -> tuple[bool, int]:
    """Return whether the unit follows others (MachineOf), and how far it has to wait for others' sake."""
    unit = view.units.get(name)
    spec = view.spec(name, unit.value.spec) if unit else None
    if spec is None:
        return False, 0
    return bool(spec.requirements.machine_of), -spec.requirements.priority
