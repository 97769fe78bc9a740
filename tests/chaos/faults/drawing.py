"""Which faults there are, and which one a seed's number is."""

from __future__ import annotations

import random
from collections.abc import Sequence

from chaos.faults import daemons, disks, hosts, runtimes, store
from chaos.faults.fault import KINDS, Fault

FAMILIES = (daemons, store, hosts, runtimes, disks)

PAIRS = 0.3
"""Share of the faults of a run that come with a second one."""


def draw(seed: int, number: int, only: Sequence[str] = (), *, pairs: float = PAIRS) -> list[Fault]:
    """Return the fault of this number, or the pair: always the same for a seed."""
    rng = random.Random(f"{seed}/{number}")
    names = list(only) or list(KINDS)
    rest = names[number % len(names) :] + names[: number % len(names)] if only else []
    first = KINDS[rest[0] if rest else rng.choice(names)].draw(rng)
    return _with_second(first, rng, names) if rng.random() < pairs else [first]


def every_kind(seed: int, rounds: int, *, at_most_s: float) -> list[list[Fault]]:
    """Return so many rounds in which each kind happens at least once, some beside another, none for longer."""
    rng = random.Random(f"{seed}/every kind")
    names = sorted(KINDS)
    rng.shuffle(names)
    names.sort(key=lambda name: KINDS[name].single)  # those that go with no other come last
    drawn = [KINDS[name].draw(rng) for name in names]
    found = [[fault] for fault in drawn[max(0, len(drawn) - rounds) :]]
    for fault in drawn[: len(drawn) - rounds]:
        host = next(each for each in found if len(each) == 1 and _together(each[0], fault))
        host.append(fault)
    while len(found) < rounds:
        found.append(_with_second(KINDS[rng.choice(names)].draw(rng), rng, names))
    for fault in (fault for faults in found for fault in faults):
        fault.lasts_s = min(fault.lasts_s, at_most_s)
    return found


def _with_second(first: Fault, rng: random.Random, names: Sequence[str]) -> list[Fault]:
    for _ in range(20):
        second = KINDS[rng.choice(names)].draw(rng)
        if _together(first, second):
            return [first, second]
    return [first]


def _together(one: Fault, other: Fault) -> bool:
    alone = KINDS[one.kind].single or KINDS[other.kind].single
    return not alone and not one.touches & other.touches
