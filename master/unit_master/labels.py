"""Metadata that an operator sets on a machine, live: what its record becomes, and which units would move. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import msgspec

from unit_master.actions import Evict, Gone, Pend, Place, UnitAction
from unit_master.order import in_order
from unit_master.reconcile import plan_units
from unit_master.scene import Scene, scene_of
from unit_master.view import ClusterView, Entry
from unitfleet.api import Foreseen, Move
from unitfleet.errors import Refused
from unitfleet.model import MachineSpec

MOSTKEYS = 100
KEY = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_./-]{0,127}")
VALUE = re.compile(r"[^\s=,'\"\x00-\x1f\x7f]{0,256}")


def labelled(view: ClusterView, machine: str, labels: Mapping[str, str]) -> MachineSpec:
    """Return the machine's record with these labels; an empty value takes one away. Raises `Refused`.

    What the machine's own agent says is hidden where it is taken away; of what an operator set nothing is left.
    """
    entry = view.machine_specs.get(machine)
    held = entry.value if entry else MachineSpec(id=machine)
    own = _own(view, machine)
    metadata = dict(held.metadata)
    for key, value in labels.items():
        if not KEY.fullmatch(key):
            raise Refused(
                f"cannot label {view.machine_name(machine)}: {key[:60]!a} is no key", hint="write zone=a"
            )
        if not VALUE.fullmatch(value):
            what = f"{value[:60]!a} is no value that a unit could ask for"
            raise Refused(
                f"cannot label {view.machine_name(machine)}: {what}", hint="without blanks, quotes, = and ,"
            )
        if value or key in own:
            metadata[key] = value
        else:
            metadata.pop(key, None)
    if len(metadata) > MOSTKEYS:
        raise Refused(f"cannot label {view.machine_name(machine)}: more than {MOSTKEYS} keys", hint="")
    return msgspec.structs.replace(held, metadata=metadata)


def foresee(view: ClusterView, machine: str, spec: MachineSpec, now: float) -> Foreseen:
    """Return what becomes of units when the machine's record is `spec`: what the leader would decide only then.

    Asked of the leader's own plan, with units that are there, that wait, or whose place depends on others.
    """
    after = dataclasses.replace(view, machine_specs={**view.machine_specs, machine: Entry(spec, 0, 0)})
    present, future = scene_of(view), scene_of(after)
    there = view.on_machine.get(machine, set())
    names = there | _followers(present, there) | view.pending.keys() | present.everywhere
    ordered = in_order(view, names)
    before = {_gist(view, action) for action in plan_units(view, now, ordered, present)}
    told = [_gist(after, action) for action in plan_units(after, now, ordered, future)]
    moves = tuple(move for move in told if move is not None and move not in before)
    return Foreseen(
        rev=view.revision,
        machine=machine,
        machine_name=view.machine_name(machine),
        metadata=after.metadata(machine),
        moves=moves,
    )


def _gist(view: ClusterView, action: UnitAction) -> Move | None:
    """Return what an action is to somebody who looks where units run, or None."""
    name = view.machine_name
    match action:
        case Place(unit, target, _, reason, moved_from):
            return Move(unit=unit, source=name(moved_from) if moved_from else "", target=name(target), why=reason)
        case Gone(unit, source, reason) | Evict(unit, source, reason):
            return Move(unit=unit, source=name(source), why=reason)
        case Pend(pending):
            places = sorted(name(machine) for machine in view.placements_of(pending.unit))
            stays = ", ".join(places)
            return Move(unit=pending.unit, source=stays, target=stays, why=pending.message)
    return None


def _followers(scene: Scene, units: set[str]) -> set[str]:
    """Return those that follow these units (MachineOf), and those that follow them."""
    found, new = set[str](), units
    while new:
        new = {follower for peer in new for follower in scene.followers.get(peer, ())} - found
        found |= new
    return found


def _own(view: ClusterView, machine: str) -> Mapping[str, str]:
    present, known = view.presence.get(machine), view.roster.get(machine)
    return present.value.metadata if present else known.value.metadata if known else {}
