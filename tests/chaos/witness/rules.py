"""The rules by which copies are judged, as functions of what was seen."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set

from chaos.witness.engine import Happened
from chaos.witness.processes import Copy
from chaos.workload import Shape, Wanted
from unitfleet.model import TargetState


def unit_wrong(shape: Shape, wanted: Wanted, copies: Mapping[Copy, str], machines: int) -> list[str]:
    """Return what is not as the user was told, of one unit: its `copies` that execute, each with its command."""
    runs = wanted.target is TargetState.LAUNCHED and not shape.once
    places = sorted(copy.machine for copy in copies)
    due = machines if shape.everywhere else 1
    if not runs:
        return [f"I3: {shape.name} runs on {places}, and should not"] if copies else []
    if len(copies) != due or len(set(places)) != due:
        return [f"I1: {shape.name} runs on {places or 'no machine'}"]
    meant = f"sleep {wanted.number}"
    return [f"I3: {shape.name} runs {text!r}, not {meant!r}" for text in copies.values() if text != meant]


def twice(copies: Iterable[Copy], strict: Set[str]) -> dict[str, list[tuple[str, str]]]:
    """Return the strict units of which more than one copy executes now, with where."""
    by_unit: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for copy in copies:
        if copy.unit in strict:
            by_unit[copy.unit].add((copy.machine, copy.id))
    return {unit: sorted(found) for unit, found in by_unit.items() if len(found) > 1}


def overlaps(events: Iterable[Happened], strict: Set[str], executing: Set[str], now: float) -> list[str]:
    """Return strict containers whose intervals from start to die overlap, by the Engines' events.

    `executing` are the ids of containers that execute now; one whose end no Engine told is left to /proc. Those
    that end without having begun were there before the first event.
    """
    started: dict[tuple[str, str], float] = {}
    intervals: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for each in sorted(events):
        if each.unit not in strict:
            continue
        key = (each.unit, each.container)
        if each.action == "start":
            started[key] = each.at
        elif each.action == "die":
            intervals[each.unit].append((started.pop(key, 0.0), each.at, each.container))
    for (unit, container), began in started.items():
        if container in executing:
            intervals[unit].append((began, now, container))
    return [
        f"I2: {unit} ran in {one[:12]} until {ended:.2f}, in {other[:12]} from {began:.2f}"
        for unit, spans in intervals.items()
        for (_, ended, one), (began, _, other) in itertools.pairwise(sorted(spans))
        if began < ended and one != other
    ]


def touched(
    before: Set[Copy],
    after: Set[Copy],
    seen: Set[Copy],
    freed: Set[Copy],
    named: Set[str],
    shapes: Sequence[Shape],
) -> list[str]:
    """I5: return the copies that ended, and those that began, for no reason.

    `seen` are all that executed meanwhile, `freed` those of `before` that the faults may touch, `named` the units
    of commands. What goes with a unit may go wherever that goes.
    """
    peers = {shape.name: shape.peer for shape in shapes if shape.peer}
    everywhere = {shape.name for shape in shapes if shape.everywhere}
    once = {shape.name for shape in shapes if shape.once}
    free = {copy.unit for copy in freed} | set(named)
    free |= {unit for unit, peer in peers.items() if peer in free}
    places = {(copy.unit, copy.machine) for copy in freed}

    def may(copy: Copy) -> bool:
        return (copy.unit, copy.machine) in places if copy.unit in everywhere else copy.unit in free

    def may_end(copy: Copy) -> bool:
        return copy in freed or copy.unit in named or (copy.unit in peers and copy.unit in free)

    found = [f"I5: {copy} has ended" for copy in sorted(before - after) if not may_end(copy)]
    new = sorted(copy for copy in seen - before if copy.unit not in once)
    return found + [f"I5: {copy} has begun" for copy in new if not may(copy)]


def moved(before: Set[Copy], after: Set[Copy]) -> list[str]:
    """Return the copies that began: `unit machine`, and `unit from>to` where it was elsewhere."""
    were: dict[str, set[str]] = defaultdict(set)
    for copy in before:
        were[copy.unit].add(copy.machine)
    found = []
    for copy in sorted(after - before):
        there = copy.machine in were[copy.unit] or not were[copy.unit]
        found.append(f"{copy.unit} {'' if there else min(were[copy.unit]) + '>'}{copy.machine}")
    return found
