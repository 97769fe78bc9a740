"""Who makes room for a unit of a higher `Priority=` that fits nowhere else: which units of which machine. Pure.

Leaving copies are let go first: where it fits once they are gone, it waits and nobody is evicted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from unit_master.rules import conflicting, replacers
from unit_master.scene import Host, Scene, claims, millis
from unit_master.scheduler import fits
from unit_master.view import ClusterView
from unitfleet.model import CopyPhase, OnLoss, Requirements, Wanted

ROOM = ("conflicts", "replaces", "ports", "resources")
"""The rules that refuse a host for what is placed there: the last ones, so that all others take the unit."""

EVICTED = "evicted from "
"""What every reason of an eviction begins with."""

Evictable = Callable[[str, str], bool]
"""Says whether a unit may be ordered away from a machine now."""


@dataclass(frozen=True, slots=True)
class Eviction:
    """The machine on which the unit will fit, and whom it evicts there, in name order: none when it only waits."""

    machine: str
    units: tuple[str, ...]


def make_room(
    unit: Requirements, scene: Scene, evictable: Evictable, *, but: Collection[str] = ()
) -> Eviction | None:
    """Return how `unit`, which fits nowhere, comes to fit on one host at the least cost, or None.

    The evicted have the lowest priorities, and of such sets the smallest; a unit that is slow to move (strict, a
    oneshot amid its work, one with data on its host) goes only where there is no other way.
    """
    hosts = [
        host
        for machine, host in sorted(scene.hosts.items())
        if machine not in but
        and unit.unit not in host.units
        and (refusal := fits(unit, host, scene)) is not None
        and refusal.rule in ROOM
    ]
    for host in hosts:
        if host.leaving and _fits_without(unit, host, host.leaving, scene):
            return Eviction(host.id, ())
    for among in (_is_quick_to_move, _is_any):
        found = [
            (highest, len(names), host.id, names)
            for host in hosts
            for highest, names in _cheapest(unit, host, scene, evictable, among)
        ]
        if found:
            _, _, machine, names = min(found)
            return Eviction(machine, names)
    return None


def evictable(view: ClusterView, spoken: Collection[str]) -> Evictable:
    """Return who may be ordered away: whoever is placed there, and of whom nothing else was decided in this pass.

    What has finished would run again elsewhere.
    """

    def may_go(unit: str, machine: str) -> bool:
        held, state = view.placements_of(unit).get(machine), view.states_of(unit).get(machine)
        finished = state is not None and state.value.phase is CopyPhase.FINISHED
        return held is not None and held.value.wanted is not Wanted.GONE and not finished and unit not in spoken

    return may_go


def evicted(view: ClusterView, unit: str) -> tuple[str, str] | None:
    """Return from which machine a unit was evicted ("" once it has left it), and why; None when it was not.

    Its history tells: what came of the eviction is said until the unit is placed again, or not wanted any more.
    """
    stays = view.stays.get(unit)
    last = stays[max(stays)].value if stays else None
    if last is None or last.machine or not last.reason.startswith(EVICTED):
        return None
    held = view.placements_of(unit).items()
    leaving = next((machine for machine, entry in held if entry.value.reason == last.reason), "")
    return (leaving, last.reason) if leaving or unit in view.pending else None


def _cheapest(
    unit: Requirements, host: Host, scene: Scene, evictable: Evictable, among: Callable[[Requirements], bool]
) -> Iterable[tuple[int, tuple[str, ...]]]:
    """Return this host's set with the lowest priorities, and the highest of these; nothing when there is none."""
    lower = {
        name: other
        for name, other in host.units.items()
        if other.priority < unit.priority
        and not other.is_global
        and name not in host.leaving
        and among(other)
        and evictable(name, host.id)
    }
    for highest in sorted({other.priority for other in lower.values()}):
        pool = {name: other for name, other in lower.items() if other.priority <= highest}
        names = _smallest(unit, host, pool)
        if names is not None and _fits_without(unit, host, {*names, *host.leaving}, scene):
            return [(highest, tuple(sorted(names)))]
    return []


def _smallest(unit: Requirements, host: Host, pool: dict[str, Requirements]) -> set[str] | None:
    """Return a smallest set of `pool` without which the host has what `unit` needs, or None.

    What stands in its way by name goes; of the others those first that give most of what is missing.
    """
    blocking = {*conflicting(unit, host), *replacers(unit, host)}
    blocking.update(name for thing in claims(unit) for name in host.taken.get(thing, ()))
    chosen = blocking - host.leaving - {unit.unit}
    if not chosen <= pool.keys():
        return None
    missing = _missing(unit, host, chosen)
    rest = pool.keys() - chosen
    added: list[str] = []
    while any(amount > 0 for amount in missing):
        given, _, name = min(
            ((-_given(pool[name], missing), pool[name].priority, name) for name in rest), default=(0.0, 0, "")
        )
        if not given:
            return None
        rest = rest - {name}
        added.append(name)
        missing = _missing(unit, host, {*chosen, *added})
    for name in sorted(added, key=lambda name: (-pool[name].priority, name)):
        others = [other for other in added if other != name]
        if not any(amount > 0 for amount in _missing(unit, host, {*chosen, *others})):
            added = others
    return {*chosen, *added}


def _missing(unit: Requirements, host: Host, gone: Collection[str]) -> tuple[int, ...]:
    """Return what the unit needs beyond what is left once `gone`, and all that leave, are."""
    reserved = [0] * 5
    for name, other in host.units.items():
        if name not in gone and name not in host.leaving and name != unit.unit:
            reserved = [held + more for held, more in zip(reserved, _amounts(other), strict=True)]
    whole = host.capacity
    capacity = (millis(whole.cpu), whole.memory, whole.disk, whole.egress, whole.ingress)
    return tuple(
        needs - max(most - held, 0) if needs else 0
        for needs, most, held in zip(_amounts(unit), capacity, reserved, strict=True)
    )


def _given(other: Requirements, missing: tuple[int, ...]) -> float:
    """Return how much of what is missing a unit would give back: 1 for all of one resource."""
    return sum(min(held, lacks) / lacks for held, lacks in zip(_amounts(other), missing, strict=True) if lacks > 0)


def _amounts(unit: Requirements) -> tuple[int, ...]:
    return millis(unit.cpu), unit.memory, unit.disk, unit.egress, unit.ingress


def _fits_without(unit: Requirements, host: Host, gone: Collection[str], scene: Scene) -> bool:
    """Say whether the host takes the unit once these are gone."""
    emptied = dataclasses.replace(
        host,
        units={},
        leaving=set(),
        cpu_millis=0,
        memory_reserved=0,
        disk_reserved=0,
        egress_reserved=0,
        ingress_reserved=0,
        cpu_load=0,
        memory_load=0,
        taken={},
        wary=set(),
        replacing=set(),
    )
    for name, other in host.units.items():
        if name not in gone:
            emptied.add(other)
    emptied.leaving = host.leaving - set(gone)
    return fits(unit, emptied, scene) is None


def _is_quick_to_move(unit: Requirements) -> bool:
    return not (unit.strict or unit.oneshot or unit.on_loss is OnLoss.WAIT)


def _is_any(unit: Requirements) -> bool:
    return True
