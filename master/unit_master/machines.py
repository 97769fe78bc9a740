"""Which machines are there: the roster, the grace, the brake, and the wait that strict units need. Pure.

A machine is lost when its lease has expired, the rejoin grace is over, its key is not back, and the leader's
own renewals were on time; or when the operator says so (`machines lost`). Absence is counted from when *this*
process saw the key absent, so that no two machines' clocks are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from unit_master.actions import Enroll, Forget, Lose, MachineAction
from unit_master.brake import WINDOW_S, BrakeState, brake
from unit_master.view import ClusterView
from unitfleet.model import Capacity, MachineStatus, Presence, RosterEntry, Wanted

STRICT_MARGIN_S = 0.5
SOON_S = 0.001
"""To look again sooner is to look without rest: a wait that is lost in rounding never ends."""

STRICT_DRIFT = 1.005


@dataclass(frozen=True, slots=True)
class Wait:
    """The leader's wait for a machine with strict units: the fence it read after it saw presence deleted."""

    fence_revision: int
    for_s: float


@dataclass(frozen=True, slots=True)
class Clocks:
    """What the view can't tell: times as this process measured them.

    `absent_for`: machine → seconds since this process first saw its presence absent. `lost_for`: the same since
    it was declared lost (without it the record's wall time is taken). `waits`: strict waits under way.
    `in_doubt`: the leader's own renewals are late, so others are not dead.
    """

    now: float
    absent_for: Mapping[str, float]
    waits: Mapping[str, Wait]
    grace_s: float
    in_doubt: bool = False
    lost_for: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """What to do about machines, when to look again, what the brake says, and whose fence to begin to watch."""

    actions: tuple[MachineAction, ...]
    brake: BrakeState
    begin_wait: tuple[str, ...] = ()
    again_s: float | None = None


NOTHING = MachinePlan((), BrakeState("off"))
"""All machines that were ever seen are there, or were lost long ago."""


def plan_machines(view: ClusterView, clocks: Clocks) -> MachinePlan:
    """Return what is to be done about machines, each with its reason."""
    actions: list[MachineAction] = [*_enrolled(view, clocks.now), *_forgotten(view)]
    overdue, again = _overdue(view, clocks)
    lost_at = {
        machine: clocks.now - clocks.lost_for[machine] if machine in clocks.lost_for else entry.value.since
        for machine, entry in view.roster.items()
        if entry.value.status is MachineStatus.LOST
    }
    known = sum(1 for machine in view.roster if clocks.now - lost_at.get(machine, clocks.now) <= WINDOW_S)
    by_itself = {
        machine: clocks.now - clocks.absent_for.get(machine, 0.0) for machine, told in overdue.items() if not told
    }
    state = brake(by_itself, lost_at, known, view.brake.value if view.brake else None, clocks.now)
    begin: list[str] = []
    for machine, told in sorted(overdue.items()):
        if not told and not state.lets_go:
            continue
        reason = (
            "the operator declared it lost" if told else f"absent for {clocks.absent_for.get(machine, 0):.1f} s"
        )
        strict, live = _strict_units(view, machine)
        if not strict:
            actions.append(Lose(machine, reason))
            continue
        wait = clocks.waits.get(machine)
        if wait is None or wait.fence_revision != view.fences.get(machine, 0):
            begin.append(machine)  # sentence 4: the wait begins by reading the fence, and anew when it moved
            continue
        remaining = strict_wait_s(view, machine) - wait.for_s
        if remaining <= 0:
            actions.append(Lose(machine, reason, live, wait.fence_revision))
        else:
            wait_s = max(remaining, SOON_S)
            again = min(wait_s, again if again is not None else wait_s)
    if state.again_s is not None:
        again = min(state.again_s, again if again is not None else state.again_s)
    return MachinePlan(tuple(actions), state, tuple(begin), again)


def strict_wait_s(view: ClusterView, machine: str) -> float:
    """Return how long a strict copy on `machine` may outlive its presence: TTL x 1.005 + 0.5 s."""
    return view.roster[machine].value.ttl_s * STRICT_DRIFT + STRICT_MARGIN_S


def _enrolled(view: ClusterView, now: float) -> list[MachineAction]:
    found: list[MachineAction] = []
    for machine, present in sorted(view.presence.items()):
        value = present.value
        known = view.roster.get(machine)
        resources = view.resources.get(machine)
        capacity = resources.value.capacity if resources else value.capacity
        if known is None or known.value.status is MachineStatus.LOST:
            came_back = known is not None
            entry = RosterEntry(
                id=machine,
                name=value.name,
                status=MachineStatus.READY,
                join=known.value.join + 1 if known else 1,
                address=value.address,
                metadata=value.metadata,
                capacity=capacity,
                since=now,
                reason="came back" if came_back else "joined",
                ttl_s=value.ttl_s,
            )
            found.append(Enroll(entry, "returned" if came_back else "joined"))
            continue
        if _says_the_same(known.value, value, capacity):
            continue
        entry = msgspec.structs.replace(
            known.value,
            name=value.name,
            address=value.address,
            metadata=value.metadata,
            capacity=_steadied(known.value.capacity, capacity),
            ttl_s=value.ttl_s,
        )
        found.append(Enroll(entry, ""))
    return found


def _says_the_same(known: RosterEntry, present: Presence, capacity: Capacity) -> bool:
    """Whether the roster has what a machine says of itself; asked of every machine whenever one changes."""
    return (
        known.name == present.name
        and known.address == present.address
        and known.metadata == present.metadata
        and known.ttl_s == present.ttl_s
        and (known.capacity == capacity or _steadied(known.capacity, capacity) == known.capacity)
    )


def _steadied(old: Capacity, new: Capacity) -> Capacity:
    """Keep the old capacity while the new differs by less than a tenth: a disk's last bytes are no news."""
    pairs = ((old.cpu, new.cpu), (old.memory, new.memory), (old.disk, new.disk))
    return old if all(abs(a - b) <= 0.1 * max(a, b) for a, b in pairs) else new


def _forgotten(view: ClusterView) -> list[MachineAction]:
    found: list[MachineAction] = []
    for machine, ordered in sorted(view.machine_specs.items()):
        known = view.roster.get(machine)
        if known is None or machine in view.presence or known.value.status is not MachineStatus.LOST:
            continue
        if ordered.value.removed_join == known.value.join:
            found.append(Forget(machine))
    return found


def _overdue(view: ClusterView, clocks: Clocks) -> tuple[dict[str, bool], float | None]:
    """Return the machines to be declared lost (value: whether the operator said so), and when the next is due."""
    overdue: dict[str, bool] = {}
    again: float | None = None
    for machine, entry in view.roster.items():
        if entry.value.status is not MachineStatus.READY or machine in view.presence:
            continue
        ordered = view.machine_specs.get(machine)
        if ordered is not None and ordered.value.lost_join == entry.value.join:
            overdue[machine] = True
            continue
        remaining = clocks.grace_s - clocks.absent_for.get(machine, 0.0)
        if remaining <= 0 and not clocks.in_doubt:
            overdue[machine] = False
        else:
            wait = max(remaining, 0.1)
            again = wait if again is None else min(again, wait)
    return overdue, again


def _strict_units(view: ClusterView, machine: str) -> tuple[bool, tuple[str, ...]]:
    """Return whether a strict copy may run there, and the strict units whose placements are to become `gone`.

    One that is ordered `gone` and has not acknowledged it may not have heard of it: it runs until its deadline.
    """
    found, live = False, []
    for unit in sorted(view.on_machine.get(machine, ())):
        placement = view.placements_of(unit)[machine].value
        spec = view.spec(unit, placement.spec)
        if spec is not None and spec.requirements.strict:
            found = True
            if placement.wanted is not Wanted.GONE:
                live.append(unit)
    return found, tuple(live)
