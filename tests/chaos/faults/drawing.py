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
    first = KINDS[rest[0] if rest else rng.choice(names)]
    faults = [first.draw(rng)]
    if first.single or rng.random() >= pairs:
        return faults
    for _ in range(20):
        second = KINDS[rng.choice(names)]
        fault = second.draw(rng)
        if not second.single and not fault.touches & faults[0].touches:
            return [*faults, fault]
    return faults
