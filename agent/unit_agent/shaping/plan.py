"""What to do so that a host's shaping stands as wanted: a pure difference, each step with its reason.

Carried out in order, any number of the steps leaves a state from which a next plan goes on. A class is changed in
one step, without a gap; what can't be changed is removed and made anew, inner things first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unit_agent.shaping.layout import Layout, stand
from unit_agent.shaping.shape import HostShape
from unit_agent.shaping.things import Class, Filter, Ifb, Key, Mark, Qdisc, Rules, TcSeen, Thing, handle_text


@dataclass(frozen=True, slots=True)
class Put:
    """Make a thing, or change the one that stands under its key (`instead`)."""

    thing: Thing
    reason: str
    instead: Thing | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a thing away, with all that is inside of it."""

    thing: Thing
    reason: str


Op = Put | Remove

_REMOVED_FIRST: tuple[type, ...] = (Rules, Mark, Filter, Class, Qdisc, Ifb)


@dataclass(frozen=True, slots=True)
class Plan:
    """What should stand, and the steps to it."""

    layout: Layout
    ops: tuple[Op, ...]


def plan(wanted: HostShape, seen: TcSeen) -> Plan:
    """Return the steps from what is seen to what is wanted, and what can't be had at all."""
    layout = stand(wanted, dict(seen.foreign))
    return Plan(layout, difference(layout.things, seen.things))


def difference(wanted: Sequence[Thing], seen: Sequence[Thing]) -> tuple[Op, ...]:
    """Return the steps from one set of things to another; `wanted` is in the order of making."""
    target = {thing.key: thing for thing in wanted}
    standing: dict[Key, Thing] = {}
    doubled: list[Remove] = []
    for thing in seen:
        if standing.setdefault(thing.key, thing) is not thing:
            doubled.append(Remove(thing, "it stands twice"))
    other = {key: thing for key, thing in standing.items() if target.get(key) != thing}
    removed = [
        Remove(thing, _why_not(thing, target.get(key)))
        for key, thing in other.items()
        if not _can_change(thing, target.get(key))
    ]
    emptied = {(op.thing.device, op.thing.handle) for op in removed if isinstance(op.thing, Class)}
    already = {op.thing.key for op in removed}
    if emptied:
        removed += [
            Remove(thing, f"{describe(thing)} holds a class that has to go")  # the kernel calls it busy
            for key, thing in standing.items()
            if isinstance(thing, Filter) and (thing.device, thing.target) in emptied and key not in already
        ]
    holders = [op.thing for op in removed if isinstance(op.thing, Qdisc | Ifb)]
    inside = {
        key for key, thing in standing.items() if holders and any(_is_inside(thing, holder) for holder in holders)
    }
    gone = {op.thing.key for op in removed} | inside
    removals = [op for op in (*doubled, *removed) if op.thing.key not in inside]
    removals.sort(key=lambda op: (_REMOVED_FIRST.index(type(op.thing)), _depth(op.thing)))
    puts: list[Op] = []
    for thing in wanted:
        key = thing.key
        if key in other or key in gone or key not in standing:
            now = None if key in gone else standing.get(key)
            puts.append(Put(thing, _why(thing, now), now))
    return (*removals, *puts)


def _can_change(thing: Thing, target: Thing | None) -> bool:
    """Tell whether the kernel turns one into the other in place."""
    match thing, target:
        case Class(), Class():
            return thing.parent == target.parent
        case (Mark(), Mark()) | (Rules(), Rules()):
            return True
    return False


def _is_inside(thing: Thing, holder: Qdisc | Ifb) -> bool:
    """Tell whether a thing goes with its holder: a device's qdisc, a qdisc's classes and filters."""
    match thing, holder:
        case Qdisc() | Class() | Filter(), Ifb():
            return thing.device == holder.name
        case Class(), Qdisc():
            return thing.device == holder.device and thing.handle >> 16 == holder.handle >> 16
        case Filter(), Qdisc():
            return thing.device == holder.device and thing.parent >> 16 == holder.handle >> 16
    return False


def _depth(thing: Thing) -> int:
    """Return where a thing comes among its kind: leaves before the class that holds them."""
    return int(isinstance(thing, Class) and thing.handle & 0xFFFF == 1)


def _why(thing: Thing, now: Thing | None) -> str:
    if now is None:
        return f"{describe(thing)} is missing"
    if isinstance(thing, Class) and isinstance(now, Class):
        parts = [
            f"{word} is {8 * getattr(now, name)} bit/s, wanted {8 * getattr(thing, name)}"
            for word, name in (("rate", "rate"), ("ceiling", "ceil"))
            if getattr(now, name) != getattr(thing, name)
        ]
        return f"{describe(thing)}: {', '.join(parts) or 'burst or priority differ'}"
    return f"{describe(thing)} is not as wanted"


def _why_not(thing: Thing, target: Thing | None) -> str:
    return f"{describe(thing)} is {'not as wanted' if target else 'needed by no unit'}"


def describe(thing: Thing) -> str:
    """Name a thing in words."""
    match thing:
        case Ifb():
            return f"interface {thing.name}"
        case Qdisc():
            return f"{thing.kind} qdisc {handle_text(thing.handle)} on {thing.device}"
        case Class():
            return f"class {handle_text(thing.handle)} on {thing.device}"
        case Filter():
            where = f" from {thing.source}" if thing.source else ""
            return f"filter of {handle_text(thing.parent)}{where} on {thing.device}"
        case Mark():
            return f"net_cls of {thing.path}"
        case Rules():
            return f"the rule set of {thing.program}"
