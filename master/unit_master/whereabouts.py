"""Where a unit was, and when, by its history: which machines hold lines of a time. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from unitfleet.model import Stay

OVERLAP_S = 120.0
"""A copy that was moved away runs on until its successor does, and stops in its own time."""


@dataclass(frozen=True, slots=True)
class Place:
    """A stay on a machine: placed at `since`, placed elsewhere at `until` (infinity: it has not been)."""

    machine: str
    epoch: int
    since: float
    until: float

    def during(self, since: float, until: float) -> bool:
        """Tell whether lines of this stay may lie between two times."""
        return self.since <= until and self.until + OVERLAP_S >= since


def places(stays: Iterable[Stay], *, everywhere: bool) -> list[Place]:
    """Return the stays in order; `everywhere`: of a global unit, where one stay does not end another."""
    ordered = sorted(stays, key=lambda stay: stay.epoch)
    found: list[Place] = []
    for index, stay in enumerate(ordered):
        later = [
            next_stay.at
            for next_stay in ordered[index + 1 :]
            if not everywhere or next_stay.machine in ("", stay.machine)
        ]
        if stay.machine:
            found.append(Place(stay.machine, stay.epoch, stay.at, later[0] if later else math.inf))
    return found


def spells(found: Iterable[Place], machine: str, since: float, until: float) -> tuple[float, float] | None:
    """Return from when to when the unit was on a machine between two times; None when it was not."""
    times = [
        (max(place.since, since), min(place.until, until))
        for place in found
        if place.machine == machine and place.during(since, until)
    ]
    return (min(begin for begin, _ in times), max(end for _, end in times)) if times else None
