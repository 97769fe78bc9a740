"""What a fault is, and the registry of its kinds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from chaos.rig import GRACE_S, HOSTS, MASTERS, MEMBERS, TTL_S
from chaos.witness.processes import Copy

if TYPE_CHECKING:
    from chaos.rig import Rig
    from chaos.witness.witness import Witness

UNNOTICED_S = TTL_S / 2
"""A host that is silent for no longer, and is at work again at once, was not away for anybody."""

SETTLES_S = 2 * 15.0
"""How long until everything is right again: what is promised, doubled."""

MACHINES = tuple(f"m{n + 1}" for n in range(HOSTS))
MASTER_NAMES = tuple(f"master{n + 1}" for n in range(MASTERS))
MEMBER_NAMES = tuple(f"etcd{n}" for n in range(MEMBERS))


@dataclass(slots=True)
class Fault:
    """One fault that is to happen: to `target`, for `lasts_s` seconds.

    `touches` are the parts that two faults at once can't both have.
    """

    target: str
    lasts_s: float
    kind: str = field(default="", init=False)
    touches: frozenset[str] = field(default=frozenset(), init=False)
    settles_s: float = field(default=SETTLES_S, init=False)
    note: str = field(default="", init=False)

    async def begin(self, rig: Rig, witness: Witness) -> None:
        """Let it happen."""
        raise NotImplementedError

    async def end(self, rig: Rig, witness: Witness) -> None:
        """End it: from here on all has to become right by itself."""
        raise NotImplementedError

    def excuses(self, copy: Copy, lost: Set[str]) -> bool:
        """Tell whether this copy may end, by this fault; `lost`: machines that were declared lost meanwhile."""
        return False

    def stops_strict(self, copy: Copy) -> bool:
        """Tell whether a strict copy may end by it: its machine can't renew its fence while it lasts."""
        return False

    def unnoticed(self) -> str:
        """Return the machine that may not be declared lost by this fault alone, "" when there is none."""
        return ""


@dataclass(slots=True)
class Silencing(Fault):
    """A fault that keeps the agent of a machine from renewing its lease.

    Its units may start elsewhere once it is lost. `at_once`: it is at work again as soon as the fault ends, so
    that a short one is not noticed.
    """

    at_once: bool = field(default=True, init=False)

    def excuses(self, copy: Copy, lost: Set[str]) -> bool:
        """Its units may move when it was lost."""
        return self.stops_strict(copy) and copy.machine in lost

    def stops_strict(self, copy: Copy) -> bool:
        return copy.machine == self.target.split()[0]

    def unnoticed(self) -> str:
        """Its machine, when it was away for half a lease at most."""
        return self.target if self.at_once and self.lasts_s <= UNNOTICED_S else ""


F = TypeVar("F", bound=Fault)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault under its name; `draw` makes one. `single`: never together with another."""

    name: str
    what: str
    family: str
    make: Callable[[str, float], Fault]  # of a target, and for how long
    draw: Callable[[random.Random], Fault]
    single: bool = False


KINDS: dict[str, Kind] = {}


def kind(
    name: str,
    targets: Iterable[str],
    lasts: Callable[[random.Random], float],
    touches: Callable[[str], Iterable[str]],
    *,
    single: bool = False,
) -> Callable[[type[F]], type[F]]:
    """Enter a class of faults under `name`, with its targets, how long it lasts and what it touches."""
    choices = tuple(targets)

    def enter(cls: type[F]) -> type[F]:
        def make(target: str, lasts_s: float) -> Fault:
            fault = cls(target, lasts_s)
            fault.kind, fault.touches = name, frozenset(touches(target))
            return fault

        def draw(rng: random.Random) -> Fault:
            return make(rng.choice(choices), round(lasts(rng), 2))

        KINDS[name] = Kind(name, (cls.__doc__ or "").split("\n")[0], cls.__module__, make, draw, single)
        return cls

    return enter


def around_the_ttl(rng: random.Random) -> float:
    """Draw a time well within the lease, near its end, or past it with the grace."""
    low, high = rng.choice(((0.3, 1.5), (2.5, TTL_S + GRACE_S), (TTL_S + GRACE_S + 0.5, TTL_S + GRACE_S + 5.0)))
    return rng.uniform(low, high)


def past_the_ttl(rng: random.Random) -> float:
    """Draw a time past a lease of a machine or a leader."""
    return rng.uniform(TTL_S + 0.5, TTL_S + GRACE_S + 3.0)


def an_outage(rng: random.Random) -> float:
    """Draw a time around the lease's, or many times as long."""
    return rng.uniform(15.0, 40.0) if rng.random() < 0.25 else around_the_ttl(rng)


def no_time(rng: random.Random) -> float:
    """A fault that is over as it happens."""
    return 0.0
