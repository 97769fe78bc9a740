"""The leader's decisions and agents that obey, on a view alone: no store, no time.

For what has to hold once everything has come to rest, over thousands of small fleets.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from random import Random

import msgspec

from harness.builders import Built, a_listing
from unit_master.actions import UnitAction
from unit_master.agenda import Agenda
from unit_master.apply import Scribe
from unit_master.reconcile import plan_units
from unit_master.view import ClusterView
from unitfleet import codec, keys
from unitfleet.model import CopyPhase, MachineSpec, Placement, TargetState, UnitState, Wanted
from unitfleet.store import Batch, Event, EventKind, KeyValue, Op, Put

MOST_PASSES = 50


class Obedient:
    """One fleet. `decided` holds every action of its leader."""

    def __init__(self, *built: Built) -> None:
        self.view = ClusterView()
        self.view.apply_listing(a_listing(*built, epoch=1))
        self.decided: list[UnitAction] = []
        self._agenda = Agenda()
        self._agenda.note(None)
        self._numbers = itertools.count(1)

    def write(self, ops: Iterable[Op]) -> None:
        """Carry out operations as one transaction."""
        revision = self.view.revision + 1
        events = []
        for op in ops:
            value = op.value if isinstance(op, Put) else b""
            kind = EventKind.PUT if isinstance(op, Put) else EventKind.DELETE
            events.append(Event(kind, KeyValue(op.key, value, revision, revision, 1)))
        self._agenda.note(self.view.apply_batch(Batch(revision, tuple(events))))

    def put(self, built: Built) -> None:
        """Write what was built."""
        self.write(Put(key, value) for key, value in built.pieces)

    def want(self, unit: str, target: TargetState) -> None:
        """Set a unit's target state."""
        wanted = msgspec.structs.replace(self.view.units[unit].value, target=target)
        self.write([Put(keys.unit(unit), codec.encode(wanted))])

    def drain(self, machine: str, drained: bool) -> None:
        """Order a machine drained, or not."""
        self.write([Put(keys.machine_spec(machine), codec.encode(MachineSpec(id=machine, drained=drained)))])

    def lead(self) -> None:
        """Have the leader decide and write until it has nothing to do."""
        for _ in range(MOST_PASSES):
            scene, names = self._agenda.turn(self.view, 1.0)
            actions = plan_units(self.view, 0.0, names, scene)
            if actions:
                self.decided += actions
                self._agenda.decided(names, actions)
                for txn in Scribe(self.view, "leader", 0.0, lambda: next(self._numbers)).batches(actions, 40):
                    self.write([*txn.ops, *([Put(keys.EPOCH, b"%d" % txn.epoch)] if txn.epoch else [])])
            elif self._agenda.is_done:
                return
        raise AssertionError(f"the leader never rests: {self.decided[-3:]}")

    def obey(self, random: Random, most: float = 1.0) -> None:
        """Have agents carry out orders, each with a chance of `most`."""
        orders = [entry.value for held in self.view.placements.values() for entry in held.values()]
        for order in orders:
            told = self.view.states_of(order.unit).get(order.machine)
            if (told is None or told.value.epoch != order.epoch) and random.random() < most:
                self.write([Put(keys.state(order.machine, order.unit), codec.encode(_obeyed(order)))])

    def rest(self, random: Random) -> None:
        """Go on until nobody has anything to do."""
        for _ in range(MOST_PASSES):
            revision = self.view.revision
            self.lead()
            self.obey(random)
            if self.view.revision == revision:
                return
        raise AssertionError(f"it never comes to rest: {self.decided[-3:]}")

    def overlooked(self) -> list[UnitAction]:
        """Return what a new leader, who looks at every unit, would decide."""
        return plan_units(self.view, 0.0)


def _obeyed(order: Placement) -> UnitState:
    phases = {Wanted.GONE: CopyPhase.GONE, Wanted.LAUNCHED: CopyPhase.RUNNING, Wanted.LOADED: CopyPhase.LOADED}
    return UnitState(
        unit=order.unit,
        machine=order.machine,
        incarnation=order.incarnation,
        epoch=order.epoch,
        restart=order.restart,
        spec=order.spec,
        phase=phases[order.wanted],
        active="active" if order.wanted is Wanted.LAUNCHED else "inactive",
    )
