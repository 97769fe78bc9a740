"""What the leader may decide to do: one value each, with its reason. `apply` makes transactions of them."""

from __future__ import annotations

from dataclasses import dataclass

from unitfleet.model import Pending, RosterEntry, Wanted


@dataclass(frozen=True, slots=True)
class Place:
    """Give a unit a new place. `moved_from` names the machine of its former one, `tried` those it failed on."""

    unit: str
    machine: str
    wanted: Wanted
    reason: str
    moved_from: str = ""
    tried: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Want:
    """Renew a placement where it is: another wanted state, restart number or text."""

    unit: str
    machine: str
    wanted: Wanted
    reason: str


@dataclass(frozen=True, slots=True)
class Amend:
    """Let a placement carry the unit's bandwidth as it is now; nothing else of it changes, not even its epoch."""

    unit: str
    machine: str
    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """Order a copy to go; its agent acknowledges."""

    unit: str
    machine: str
    reason: str


@dataclass(frozen=True, slots=True)
class Evict:
    """Order a copy to go, so that a unit of a higher priority finds room; written into the unit's history too."""

    unit: str
    machine: str
    reason: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A copy is gone and its agent said so: delete placement and state."""

    unit: str
    machine: str


@dataclass(frozen=True, slots=True)
class DropState:
    """Delete a state that speaks of nothing: no copy, no placement."""

    unit: str
    machine: str


@dataclass(frozen=True, slots=True)
class DeleteUnit:
    """A destroyed unit has no copy left on a reachable machine: delete it."""

    unit: str


@dataclass(frozen=True, slots=True)
class Pend:
    """Say why a unit is not placed, or not as it should be."""

    pending: Pending


@dataclass(frozen=True, slots=True)
class Unpend:
    """Nothing keeps the unit any more."""

    unit: str


@dataclass(frozen=True, slots=True)
class PinImage:
    """Pin the digest that an agent reported first for a spec."""

    spec: str
    image: str


@dataclass(frozen=True, slots=True)
class Enroll:
    """Write a machine's roster entry: it joined, came back, or changed what it says of itself."""

    entry: RosterEntry
    event: str  # "" for a mere change


@dataclass(frozen=True, slots=True)
class Lose:
    """Declare a machine lost, and in the same transaction its strict placements `gone`.

    `fence_revision` is what fence/<machine> was when the wait began; None when no strict unit is there.
    """

    machine: str
    reason: str
    strict_units: tuple[str, ...] = ()
    fence_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """Clear every key of a machine that the operator removed."""

    machine: str


UnitAction = Place | Want | Amend | Gone | Evict | Acknowledged | DropState | DeleteUnit | Pend | Unpend | PinImage
MachineAction = Enroll | Lose | Forget
Action = UnitAction | MachineAction
