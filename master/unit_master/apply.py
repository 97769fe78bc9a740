"""Carry out the leader's decisions: guarded transactions, batched, one total order of all leader writes.

Every transaction compares the term (the leader key's create revision and value) and the mod revision of
`epoch`; every one that touches a placement raises `epoch`. So a late transaction of this or of an old term
fails, and two decisions of one leader can't pass each other (DESIGN §4, "serial").
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from unit_master.actions import (
    Acknowledged,
    Action,
    Amend,
    DeleteUnit,
    DropState,
    Enroll,
    Evict,
    Forget,
    Gone,
    Lose,
    Pend,
    PinImage,
    Place,
    Unpend,
    Want,
)
from unit_master.view import ClusterView
from unitfleet import codec, keys
from unitfleet.model import Bandwidth, CopyPhase, Happening, MachineStatus, Pin, Placement, Stay, Unit, Wanted
from unitfleet.store import MAX_OPERATIONS, Compare, Delete, Op, Put, absent, unchanged

GUARDS = 3  # two compares of the term, one of the epoch


@dataclass(slots=True)
class Transaction:
    """One batch: what it compares besides the guards, what it does, and for which actions."""

    compares: dict[str, Compare] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    epoch: int = 0  # the counter's value after it, 0 when it writes no placement

    def fits(self, other: Transaction) -> bool:
        """Whether `other` may still be merged into this one within etcd's limits."""
        compares = len(self.compares.keys() | other.compares.keys()) + GUARDS
        if compares > MAX_OPERATIONS or len(self.ops) + len(other.ops) + 1 > MAX_OPERATIONS:
            return False
        return not {op.key for op in self.ops} & {op.key for op in other.ops}  # a key once a transaction

    def take(self, other: Transaction) -> None:
        """Merge `other` into this one."""
        self.compares.update(other.compares)
        self.ops.extend(other.ops)
        self.actions.extend(other.actions)
        self.epoch = max(self.epoch, other.epoch)


class Scribe:
    """Writes actions down as transactions against one view. Epochs go up from the view's counter."""

    def __init__(self, view: ClusterView, writer: str, now: float, event_number: Callable[[], int]) -> None:
        self._view = view
        self._writer = writer
        self._now = now
        self._number = event_number
        self._epoch = max(view.epoch, view.highest_epoch)

    def batches(self, actions: Iterable[Action], most: int) -> list[Transaction]:
        """Return the transactions for `actions`, at most `most` actions each, in order.

        Placements that follow each other go machine by machine: their order is nobody's matter, and an agent that
        hears of all of its own at once answers at once.
        """
        found: list[Transaction] = []
        for action in _gathered(actions):
            for piece in self._write(action):
                if found and len(found[-1].actions) < most and found[-1].fits(piece):
                    found[-1].take(piece)
                else:
                    found.append(piece)
        return found

    def _write(self, action: Action) -> Sequence[Transaction]:
        txn = Transaction(actions=[action])
        match action:
            case Place() | Want():
                self._place(txn, action)
            case Amend():
                self._amend(txn, action)
            case Gone():
                self._gone(txn, action.unit, action.machine, action.reason)
            case Evict(unit, machine, reason):
                self._gone(txn, unit, machine, reason, kind="evicted")
                stay = Stay(unit=unit, machine="", epoch=txn.epoch, at=self._now, reason=reason)
                txn.ops.append(Put(keys.stay(unit, txn.epoch), codec.encode(stay)))
            case Acknowledged(unit, machine):
                self._compare(txn, keys.placement(machine, unit))
                self._compare(txn, keys.state(machine, unit))
                txn.ops += [Delete(keys.placement(machine, unit)), Delete(keys.state(machine, unit))]
                self._raise(txn)
            case DropState(unit, machine):
                self._compare(txn, keys.state(machine, unit))
                self._compare(txn, keys.placement(machine, unit))
                txn.ops.append(Delete(keys.state(machine, unit)))
            case DeleteUnit(unit):
                self._compare(txn, keys.unit(unit))
                last = Stay(unit=unit, machine="", epoch=self._view.epoch, at=self._now, reason="destroyed")
                self._raise(txn)
                txn.ops += [Delete(keys.unit(unit)), Put(keys.stay(unit, txn.epoch), codec.encode(last))]
                self._tell(txn, "destroyed", "no copy is left", unit=unit)
            case Pend(pending):
                self._compare(txn, keys.unit(pending.unit))
                txn.ops.append(Put(keys.pending(pending.unit), codec.encode(pending)))
                self._tell(txn, "pending", pending.message, unit=pending.unit)
            case Unpend(unit):
                self._compare(txn, keys.pending(unit))
                txn.ops.append(Delete(keys.pending(unit)))
            case PinImage(spec, image):
                txn.compares[keys.pin(spec)] = absent(keys.pin(spec))
                txn.ops.append(Put(keys.pin(spec), codec.encode(Pin(spec=spec, image=image))))
            case Enroll(entry, event):
                self._compare(txn, keys.roster(entry.id))
                self._compare(txn, keys.presence(entry.id))
                txn.ops.append(Put(keys.roster(entry.id), codec.encode(entry)))
                if event:
                    self._tell(txn, event, f"{entry.name} {event}", machine=entry.id)
            case Lose():
                self._lose(txn, action)
            case Forget(machine):
                return self._forget(machine)
        return (txn,)

    def _compare(self, txn: Transaction, key: str) -> None:
        txn.compares[key] = unchanged(key, self._view.revisions.get(key, 0))

    def _raise(self, txn: Transaction) -> int:
        self._epoch += 1
        txn.epoch = self._epoch
        return self._epoch

    def _place(self, txn: Transaction, action: Place | Want) -> None:
        unit = self._view.units[action.unit].value
        pin = self._view.pins.get(unit.spec)
        epoch = self._raise(txn)
        placement = Placement(
            unit=action.unit,
            machine=action.machine,
            spec=unit.spec,
            incarnation=unit.incarnation,
            epoch=epoch,
            wanted=action.wanted,
            restart=unit.restart,
            reason=action.reason,
            image=pin.value.image if pin else "",
            bandwidth=self._bandwidth(unit, action),
            tried=action.tried if isinstance(action, Place) else (),
            placed_at=self._now,
        )
        self._compare(txn, keys.unit(action.unit))
        self._compare(txn, keys.placement(action.machine, action.unit))
        txn.ops.append(Put(keys.placement(action.machine, action.unit), codec.encode(placement)))
        if isinstance(action, Want):
            return
        self._compare(txn, keys.presence(action.machine))
        stay = Stay(unit=action.unit, machine=action.machine, epoch=epoch, at=self._now, reason=action.reason)
        txn.ops.append(Put(keys.stay(action.unit, epoch), codec.encode(stay)))
        name = self._view.machine_name(action.machine)
        kind = "moved" if action.moved_from else "placed"
        self._tell(txn, kind, f"on {name}: {action.reason}", unit=action.unit, machine=action.machine, epoch=epoch)

    def _bandwidth(self, unit: Unit, action: Place | Want) -> Bandwidth | None:
        """Return what a placement guarantees: where it is only renewed, a new guarantee is a matter of `Amend`."""
        held = self._view.placements_of(unit.name).get(action.machine)
        if isinstance(action, Want) and held is not None and held.value.spec == unit.spec:
            return held.value.bandwidth
        return unit.bandwidth

    def _amend(self, txn: Transaction, action: Amend) -> None:
        """Write a placement with its unit's bandwidth and all else as it was, its epoch too: no copy is touched.

        The counter is raised all the same: it is what keeps the leader's transactions in one order.
        """
        unit = self._view.units[action.unit].value
        held = self._view.placements_of(action.unit)[action.machine].value
        self._compare(txn, keys.unit(action.unit))
        self._compare(txn, keys.placement(action.machine, action.unit))
        self._raise(txn)
        amended = msgspec.structs.replace(held, bandwidth=unit.bandwidth)
        txn.ops.append(Put(keys.placement(action.machine, action.unit), codec.encode(amended)))
        name = self._view.machine_name(action.machine)
        told = f"on {name}: {action.reason}"
        self._tell(txn, "limited", told, unit=action.unit, machine=action.machine, epoch=held.epoch)

    def _gone(self, txn: Transaction, unit: str, machine: str, reason: str, *, kind: str = "gone") -> None:
        held = self._view.placements_of(unit).get(machine)
        state = self._view.states_of(unit).get(machine)
        epoch = self._raise(txn)
        if held is not None:
            gone = msgspec.structs.replace(held.value, wanted=Wanted.GONE, epoch=epoch, reason=reason)
        elif state is not None:  # an orphan: what its agent reports is all that is known of it
            gone = Placement(
                unit=unit,
                machine=machine,
                spec=state.value.spec,
                incarnation=state.value.incarnation,
                epoch=epoch,
                wanted=Wanted.GONE,
                restart=state.value.restart,
                reason=reason,
                placed_at=self._now,
            )
        else:
            raise AssertionError(f"nothing of {unit} on {machine} to order gone")
        self._compare(txn, keys.unit(unit))
        self._compare(txn, keys.placement(machine, unit))
        txn.ops.append(Put(keys.placement(machine, unit), codec.encode(gone)))
        name = self._view.machine_name(machine)
        told = reason if kind == "evicted" else f"leaves {name}: {reason}"
        self._tell(txn, kind, told, unit=unit, machine=machine, epoch=epoch)

    def _lose(self, txn: Transaction, action: Lose) -> None:
        machine = action.machine
        entry = self._view.roster[machine].value
        lost = msgspec.structs.replace(entry, status=MachineStatus.LOST, since=self._now, reason=action.reason)
        self._compare(txn, keys.roster(machine))
        txn.compares[keys.presence(machine)] = absent(keys.presence(machine))
        if action.fence_revision is not None:
            txn.compares[keys.fence(machine)] = unchanged(keys.fence(machine), action.fence_revision)
        txn.ops.append(Put(keys.roster(machine), codec.encode(lost)))
        for unit in action.strict_units:
            self._gone(txn, unit, machine, f"{entry.name} is lost")
        self._tell(txn, "lost", f"{entry.name} is lost: {action.reason}", machine=machine)

    def _forget(self, machine: str) -> Sequence[Transaction]:
        """Clear a removed machine: its placements and states in pieces, its roster entry with the last one.

        What a finished oneshot left there stays until the unit is destroyed, so that it is not run again.
        """
        view = self._view
        prefixes = (keys.placements_of(machine), keys.states_of(machine))
        doomed = [
            key
            for key in sorted(view.revisions)
            if key.startswith(prefixes) and not self._finished(machine, keys.split(key)[2])
        ]
        doomed += [key for key in (keys.resources(machine), keys.fence(machine)) if key in view.revisions]
        pieces: list[Transaction] = []
        for start in range(0, len(doomed), 100):
            piece = Transaction(actions=[Forget(machine)])
            self._compare(piece, keys.roster(machine))
            piece.ops += [Delete(key) for key in doomed[start : start + 100]]
            self._raise(piece)
            pieces.append(piece)
        last = Transaction(actions=[Forget(machine)])
        self._compare(last, keys.roster(machine))
        self._compare(last, keys.machine_spec(machine))
        last.compares[keys.presence(machine)] = absent(keys.presence(machine))
        last.ops += [Delete(keys.roster(machine)), Delete(keys.machine_spec(machine))]
        name = view.roster[machine].value.name
        self._tell(last, "removed", f"{name} was removed by the operator", machine=machine)
        return (*pieces, last)

    def _finished(self, machine: str, unit: str) -> bool:
        state = self._view.states_of(unit).get(machine)
        return state is not None and state.value.phase is CopyPhase.FINISHED and unit in self._view.units

    def _tell(
        self, txn: Transaction, kind: str, message: str, *, unit: str = "", machine: str = "", epoch: int = 0
    ) -> None:
        event = Happening(
            at=self._now, kind=kind, writer=self._writer, unit=unit, machine=machine, epoch=epoch, message=message
        )
        txn.ops.append(Put(keys.event(int(self._now // 3600), self._writer, self._number()), codec.encode(event)))


def _gathered(actions: Iterable[Action]) -> Iterator[Action]:
    """Sort runs of placements by machine; each keeps its turn among those of its machine."""
    for placing, run in itertools.groupby(actions, key=lambda action: isinstance(action, Place)):
        held = list(run)
        yield from sorted(held, key=_machine_of) if placing else held


def _machine_of(action: Action) -> str:
    return action.machine if isinstance(action, Place) else ""
