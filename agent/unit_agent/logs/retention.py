"""What of the local logs has to go, and why. Pure: the store removes what is named here.

Too old goes first; then what a unit holds beyond its share, unless a sink still waits for it; then, beyond the
total, the oldest of all: first what no sink waits for, at last what one does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the local logs: bytes a unit, bytes in all, seconds."""

    unit_bytes: int
    total_bytes: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """A segment that could go. `waited_for`: a sink has not acknowledged all of it."""

    unit: str
    first: int
    size: int
    until: float
    waited_for: bool = False


class Drop(NamedTuple):
    """A segment that has to go, and why, to complete `lines are gone: …`."""

    unit: str
    first: int
    why: str


def excess(units: Iterable[Sequence[Held]], now: float, limits: Limits) -> list[Drop]:
    """Return what has to go. Each unit's segments come oldest first."""
    drops: list[Drop] = []
    left: list[Held] = []
    for segments in units:
        kept = list(segments)
        for drop in _of_unit(kept, now, limits):
            drops.append(drop)
            kept.pop(0)
        left += kept
    total = sum(held.size for held in left)
    if total > limits.total_bytes:
        drops += _over_total(left, total - limits.total_bytes, f"beyond {_size(limits.total_bytes)} in all")
    return drops


def shrink(units: Iterable[Sequence[Held]], wanted: int) -> list[Drop]:
    """Return what goes first when the disk is full and `wanted` bytes are needed."""
    return list(_over_total([held for segments in units for held in segments], wanted, "the disk was full"))


def _of_unit(segments: Sequence[Held], now: float, limits: Limits) -> Iterator[Drop]:
    size = sum(held.size for held in segments)
    for held in segments:
        if now - held.until > limits.age_s:
            yield Drop(held.unit, held.first, f"older than {_span(limits.age_s)}")
        elif size > limits.unit_bytes and not held.waited_for:
            yield Drop(held.unit, held.first, f"beyond {_size(limits.unit_bytes)} of this unit")
        else:
            return
        size -= held.size


def _over_total(held: Sequence[Held], excess_bytes: int, why: str) -> Iterator[Drop]:
    """Name the oldest until enough is named; of one unit always the first, so that no hole is torn."""
    by_unit: dict[str, list[Held]] = {}
    for one in sorted(held, key=lambda one: one.first):
        by_unit.setdefault(one.unit, []).append(one)
    while excess_bytes > 0 and by_unit:
        oldest = min(
            (segments[0] for segments in by_unit.values()), key=lambda one: (one.waited_for, one.until, one.unit)
        )
        yield Drop(oldest.unit, oldest.first, why)
        excess_bytes -= oldest.size
        by_unit[oldest.unit].pop(0)
        if not by_unit[oldest.unit]:
            del by_unit[oldest.unit]


def _size(count: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):g} {unit}"
    return f"{count} bytes"


def _span(seconds: float) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}{'' if seconds == size else 's'}"
    return f"{seconds:g} seconds"
