"""Which hosts hold units that a pattern names, which hold units whose patterns name another, who claims what.

The scene keeps it up with every unit that it counts, so that Conflicts=, Replaces= and Avoid= are answered for all
hosts at once. Patterns are looked up by what they begin with, up to their first wildcard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set

from unit_master.patterns import names_any
from unitfleet.model import Requirements

_LITERAL = re.compile(r"[^*?\[\\]*")

Counts = dict[str, int]
"""Host → how many units there."""


class Neighbours:
    """What is counted on hosts, by name. `seats` is the scene's own: unit → the hosts that count it."""

    def __init__(self, seats: Mapping[str, Set[str]]) -> None:
        self._seats = seats
        self._by_stem: dict[
            str, set[str]
        ] = {}  # what stands before the first @ of a name → names that are counted
        self._asked = _Patterns()  # those that were asked for once
        self._named: dict[str, Counts] = {}  # such a pattern → units that it names
        self._saying = _Patterns()  # those of Conflicts= of units that are counted
        self._warding: dict[str, Counts] = {}  # such a pattern → units that say it, and are not named by it
        self._selfish: dict[str, Counts] = {}  # … and are: no two of them go together
        self._replacing = _Patterns()
        self._replacers: dict[str, Counts] = {}
        self._called: dict[str, Counts] = {}  # container name → units that have it

    def add(self, unit: Requirements, machine: str) -> None:
        """Count a unit on a host."""
        if self._by_stem is not None:
            self._by_stem.setdefault(_stem(unit.unit), set()).add(unit.unit)
        self._count(unit, machine, +1)

    def remove(self, unit: Requirements, machine: str) -> None:
        """Count it there no more."""
        if self._by_stem is not None and not self._seats.get(unit.unit):
            held = self._by_stem[_stem(unit.unit)]
            held.discard(unit.unit)
            if not held:
                del self._by_stem[_stem(unit.unit)]
        self._count(unit, machine, -1)

    def named(self, pattern: str) -> Counts:
        """Return the hosts with units that the pattern names; the answer keeps itself up to date."""
        counts = self._named.get(pattern)
        if counts is None:
            counts = self._named[pattern] = {}
            self._asked.add(pattern)
            stem, at, _ = _beginning(pattern).partition("@")
            for unit in self._of(stem) if at else self._seats:
                if names_any((pattern,), unit):
                    for machine in self._seats[unit]:
                        counts[machine] = counts.get(machine, 0) + 1
        return counts

    def shunned_by(self, unit: Requirements) -> list[str]:
        """Return the hosts that are none for this unit by its name, and not by what it asks for.

        On them a unit's Conflicts= name it (but none that it names itself), or one has its container's name.
        """
        found: list[str] = []
        for pattern in self._saying.naming(unit.unit):
            found += self._warding.get(pattern, ())
            if pattern not in unit.conflicts:
                found += self._selfish.get(pattern, ())
        if unit.container_name:
            found += self._called.get(unit.container_name, ())
        return found

    def is_replaced(self, unit: str) -> bool:
        """Say whether any unit names it in Replaces=."""
        return any(self._replacers.get(pattern) for pattern in self._replacing.naming(unit))

    def at_odds(self, unit: Requirements, machine: str) -> bool:
        """Say whether on its machine is a unit that it conflicts with, by either's Conflicts=."""
        for pattern in unit.conflicts:
            if self.named(pattern).get(machine, 0) > names_any((pattern,), unit.unit):
                return True
        for pattern in self._saying.naming(unit.unit):
            others = self._selfish.get(pattern, {}).get(machine, 0) - (pattern in unit.conflicts)
            if others > 0 or machine in self._warding.get(pattern, ()):
                return True
        return False

    def _of(self, stem: str) -> Iterable[str]:
        """Return the units whose names have this before the first `@`."""
        if self._by_stem is None:
            self._by_stem = {}
            for unit in self._seats:
                self._by_stem.setdefault(_stem(unit), set()).add(unit)
        return self._by_stem.get(stem, ())

    def _count(self, unit: Requirements, machine: str, by: int) -> None:
        for pattern in self._asked.naming(unit.unit):
            _shift(self._named[pattern], machine, by)
        for pattern in unit.conflicts:
            self._saying.add(pattern)
            kind = self._selfish if names_any((pattern,), unit.unit) else self._warding
            _shift(kind.setdefault(pattern, {}), machine, by)
        for pattern in unit.replaces:
            self._replacing.add(pattern)
            _shift(self._replacers.setdefault(pattern, {}), machine, by)
        if unit.container_name:
            _shift(self._called.setdefault(unit.container_name, {}), machine, by)


class _Patterns:
    """A set of patterns that answers which of them name a unit."""

    def __init__(self) -> None:
        self._by_beginning: dict[str, list[str]] = {}
        self._lengths: tuple[int, ...] = ()

    def add(self, pattern: str) -> None:
        start = _beginning(pattern)
        held = self._by_beginning.setdefault(start, [])
        if pattern not in held:
            held.append(pattern)
            self._lengths = tuple(sorted({*self._lengths, len(start)}))

    def naming(self, unit: str) -> list[str]:
        found: list[str] = []
        if not self._lengths:
            return found
        for length in self._lengths:
            if length > len(unit):
                break
            for pattern in self._by_beginning.get(unit[:length], ()):
                if names_any((pattern,), unit):
                    found.append(pattern)
        return found


def _stem(unit: str) -> str:
    return unit.partition("@")[0]


def _beginning(pattern: str) -> str:
    match = _LITERAL.match(pattern)
    return match[0] if match else ""


def _shift(counts: Counts, machine: str, by: int) -> None:
    count = counts.get(machine, 0) + by
    if count:
        counts[machine] = count
    else:
        counts.pop(machine, None)
