"""What a sink is sent next: decided from what the local store holds and what the sink has, without any I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Span = tuple[int, int]
"""What is held of a unit: sequence numbers from first to last, inclusive; last < first: nothing."""

PIECE = 1000
"""Lines of a busy unit that are read at a time, at least: the store unpacks more than that for any one of them."""


@dataclass(frozen=True, slots=True)
class Take:
    """Read so many lines of a unit, from the one after `after` on."""

    unit: str
    after: int
    lines: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Lines of a unit that the store let go before the sink had them, `first` to `last` inclusive."""

    unit: str
    first: int
    last: int

    @property
    def lines(self) -> int:
        """How many."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Plan:
    """The next batch: gaps to tell of, then lines to read. `again`: units whose numbers began anew.

    `waiting` is how many lines wait for this sink in all.
    """

    takes: tuple[Take, ...] = ()
    gaps: tuple[Lost, ...] = ()
    again: tuple[str, ...] = ()
    waiting: int = 0


def next_batch(spans: Mapping[str, Span], offsets: Mapping[str, int], most_lines: int, *, after: str = "") -> Plan:
    """Return what to send to a sink that has each unit up to its offset (none: nothing of it).

    A unit with few lines gets them all in; the others share the rest in pieces worth reading, and take turns, so
    that none waits behind one that never stops: the one behind `after`, by name, is served first. An offset above
    what the store holds is of a store that is gone: it counts from the start.
    """
    waiting: dict[str, tuple[int, int]] = {}
    gaps: list[Lost] = []
    again: list[str] = []
    for unit, (first, last) in spans.items():
        if last < first:
            continue
        offset = offsets.get(unit, 0)
        if offset > last:
            again.append(unit)
            offset = first - 1
        elif offset < first - 1:
            gaps.append(Lost(unit, offset + 1, first - 1))
            offset = first - 1
        if last > offset:
            waiting[unit] = (offset, last - offset)
    ordered = sorted(waiting)
    ordered = [unit for unit in ordered if unit > after] + [unit for unit in ordered if unit <= after]
    shares = _shares({unit: waiting[unit][1] for unit in ordered}, most_lines)
    takes = tuple(Take(unit, waiting[unit][0], lines) for unit, lines in shares.items() if lines)
    total = sum(lines for _, lines in waiting.values())
    return Plan(takes, tuple(sorted(gaps, key=lambda gap: gap.unit)), tuple(sorted(again)), total)


def _shares(waiting: Mapping[str, int], most: int) -> dict[str, int]:
    """Divide `most` among units, none getting more than it has; the first of them get what can't be divided."""
    if not waiting:
        return {}
    fair = most // len(waiting)
    shares = {unit: lines if lines <= fair else 0 for unit, lines in waiting.items()}
    left = most - sum(shares.values())
    busy = [unit for unit in waiting if not shares[unit]]
    each = max(PIECE, left // len(busy)) if busy else 0
    for unit in busy:
        shares[unit] = min(each, waiting[unit], left)
        left -= shares[unit]
    return shares
