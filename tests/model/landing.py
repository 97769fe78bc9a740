"""What a leader's transaction compares, and what it writes when it lands.

`master/unit_master/apply.py` in few words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from model.rules import Rules
from model.state import Key, Machine, Op, Roster, Slot, Unit, Wait
from unitfleet.model import Wanted


class Landed(NamedTuple):
    """The units and the machine that it names after a transaction, and the keys that it wrote."""

    units: tuple[Unit, ...]
    machine: Machine
    writes: tuple[Key, ...]


def compares(rules: Rules, op: Op) -> frozenset[Key]:
    """Return the keys that the transaction compares."""
    found: set[Key] = set()
    if rules.bug != "no_term_guard":
        found.add(("term", 0))
    if op.unit >= 0:
        found |= {("unit", op.unit), ("placements", op.unit)}
    if op.kind == "place":
        found.add(("presence", op.machine))
    if op.kind == "lost" and rules.says("loss_guard"):
        found |= {("presence", op.machine), ("fence", op.machine)}
    if rules.says("serial"):
        found.add(("epoch", 0))
    return frozenset(found)


def land(rules: Rules, op: Op, units: tuple[Unit, ...], machine: Machine, next_epochs: Sequence[int]) -> Landed:
    """Carry out a transaction on the machine it names; `next_epochs`: what a new placement of each unit gets."""
    match op.kind:
        case "ready":
            return Landed(units, machine._replace(roster=Roster.READY), ())
        case "cancel":
            return Landed(units, machine._replace(wait=Wait.NONE), ())
        case "see_gone":
            return Landed(units, machine._replace(wait=Wait.COUNTS), ())
        case "lost":
            return _lose(rules, units, machine, next_epochs)
    unit, slot = op.unit, machine.slots[op.unit]
    wrote: tuple[Key, ...] = (("placements", unit), ("epoch", 0))
    match op.kind:
        case "delete_unit":
            gone = units[unit]._replace(target=None, restart=0, text=0, band=0)
            return Landed((*units[:unit], gone, *units[unit + 1 :]), machine, (("unit", unit),))
        case "drop_state":
            slot, wrote = slot._replace(report=None), ()
        case "acknowledged":
            slot = slot._replace(placement=None, report=None)
        case "gone" if rules.bug == "delete_not_gone":
            slot = slot._replace(placement=None, report=None)
        case "amend":
            slot = slot._replace(placement=op.placement)
        case _:
            assert op.placement is not None
            slot = slot._replace(placement=op.placement._replace(epoch=next_epochs[unit]))
    return Landed(units, machine.with_slot(unit, slot), wrote)


def _lose(rules: Rules, units: tuple[Unit, ...], machine: Machine, next_epochs: Sequence[int]) -> Landed:
    """Sentence 10: lost, and its strict placements `gone`, in one transaction."""
    lost = machine._replace(roster=Roster.LOST, wait=Wait.NONE)
    wrote: list[Key] = []
    if rules.says("loss_guard"):
        for unit, slot in enumerate(lost.slots):
            held = slot.placement
            if held is not None and held.wanted is not Wanted.GONE and rules.is_strict(unit, held.text):
                gone = held._replace(wanted=Wanted.GONE, epoch=next_epochs[unit])
                lost = lost.with_slot(unit, slot._replace(placement=gone))
                wrote += [("placements", unit), ("epoch", 0)]
    return Landed(units, lost, tuple(wrote))


def removed(machine: Machine) -> Machine:
    """Return a machine after `machines rm`: all the store held of it is gone, what runs there runs."""
    slots = tuple(Slot(None, None, s.seen, s.copy, s.fence) for s in machine.slots)
    return machine._replace(roster=Roster.REMOVED, wait=Wait.NONE, slots=slots)
