"""The words of the protocol's model: what stands in the store, what a host holds, and who may still do what.

All are values. `None` is a key or a copy that is not there. Epochs are ranks within their unit (1 is the oldest
that anything still speaks of), so that a search has an end; time is order and nothing else.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple

from unitfleet.model import TargetState, Wanted


class Mode(StrEnum):
    """What has become of a host and its agent."""

    UP = "up"
    CUT = "cut"  # the agent works, the store is out of reach
    DEAD = "dead"  # no agent; copies run on
    OFF = "off"


class Roster(StrEnum):
    """What the leader holds of a machine."""

    READY = "ready"
    LOST = "lost"
    REMOVED = "removed"


class Phase(StrEnum):
    """What an agent reports of a unit."""

    RUNS = "runs"  # as its placement wants it
    NOT_YET = "not yet"
    LOADED = "loaded"
    GONE = "gone"


class Wait(IntEnum):
    """The leader's wait for a machine with strict units."""

    NONE = 0
    COUNTS = 1  # it saw presence gone, read the fence, and waits
    RENEWED = 2  # the fence was renewed since


class Fence(IntEnum):
    """The deadline of a strict unit on a host."""

    NONE = 0  # past, or there never was one
    FORMER = 1  # ahead, by a renewal of an older placement
    COVERS = 2  # ahead, by a renewal of the placement as seen


class Unit(NamedTuple):
    """What the user wants; `target` is None when there is no key. `last` is what was acknowledged (I6)."""

    target: TargetState | None
    restart: int
    text: int
    band: int
    last: TargetState | None


class Placement(NamedTuple):
    """An order to one machine. `current`: of the unit's present incarnation. `band`: what an amendment changes."""

    wanted: Wanted
    epoch: int
    current: bool
    restart: int
    text: int
    band: int = 0


class Report(NamedTuple):
    """What stands under `states/`."""

    phase: Phase
    epoch: int


class Copy(NamedTuple):
    """What a host has of a unit: an executing copy, or what one left. `born`: its restart number at birth (I8)."""

    runs: bool
    epoch: int
    current: bool
    restart: int
    text: int
    born: int


class Slot(NamedTuple):
    """One unit on one machine. `seen` is what the agent last saw of the placement, and its fsynced copy."""

    placement: Placement | None = None
    report: Report | None = None
    seen: Placement | None = None
    copy: Copy | None = None
    fence: Fence = Fence.NONE


class Machine(NamedTuple):
    """One machine: its host, its keys, the leader's notes on it, and a slot for each unit."""

    mode: Mode
    synced: bool
    present: bool
    roster: Roster
    drained: bool
    matches: bool  # a Global unit's metadata
    wait: Wait
    slots: tuple[Slot, ...]

    def with_slot(self, unit: int, slot: Slot) -> Machine:
        """Return it with another slot for `unit`."""
        return self._replace(slots=(*self.slots[:unit], slot, *self.slots[unit + 1 :]))


class Op(NamedTuple):
    """A leader's transaction: its kind, machine (-1: none), unit (-1: none), and what it writes."""

    kind: str
    machine: int
    unit: int = -1
    placement: Placement | None = None  # its epoch is given when it lands

    def __str__(self) -> str:
        of = f" unit {self.unit}" if self.unit >= 0 else ""
        what = self.placement
        writes = f" ({what.wanted}, restart {what.restart}, text {what.text})" if what else ""
        return f"{self.kind}{of}{writes}"


Key = tuple[str, int]
"""A key that a transaction compares: `term`, `epoch`, `unit`/`placements` of a unit, `presence`/`fence`."""


class Held(NamedTuple):
    """A transaction planned earlier that has not landed; a write to a key it compares has killed it."""

    op: Op
    compares: frozenset[Key]
    old_term: bool


class Late(NamedTuple):
    """An agent's report that is still under way."""

    machine: int
    unit: int
    report: Report


class Budget(NamedTuple):
    """What may still happen."""

    commands: int
    faults: int
    delays: int


class World(NamedTuple):
    """One state of everything."""

    units: tuple[Unit, ...]
    budget: Budget
    held: Held | None
    late: Late | None
    machines: tuple[Machine, ...]


class Broken(Exception):
    """A promise does not hold."""
