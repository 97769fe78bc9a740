"""The agent's half of the protocol, for one machine: it sees, fences, starts, stops and reports.

`agent/unit_agent/reconcile.py`, `fence.py` and `strict/` in few words. Which machine it is does not matter, so the
moves of a machine are asked for once and remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from model.rules import Rules
from model.state import Copy, Fence, Machine, Mode, Phase, Placement, Report, Slot, Wait
from unitfleet.model import Wanted


class Move(NamedTuple):
    """What one machine may do next, by itself or by misfortune.

    `writes`: the key that it writes and a transaction may compare (`presence`, `fence` or ""). `fair`: it comes
    sooner or later. `spends`: `faults` or `delays`, or "". `late`: this report of a unit is under way then.
    `breaks`: the promise that it breaks, or "".
    """

    label: str
    machine: Machine
    fair: bool = True
    writes: str = ""
    spends: str = ""
    late: tuple[int, Report] | None = None
    breaks: str = ""


def agent_moves(rules: Rules, machine: Machine) -> Iterator[Move]:
    """Yield what the agent of this machine may do next."""
    if machine.mode is Mode.UP:
        yield from _joins(machine)
    for unit, slot in enumerate(machine.slots):
        yield from _fences(rules, machine, unit, slot)
    if machine.mode is Mode.UP or machine.mode is Mode.CUT:
        for unit, slot in enumerate(machine.slots):
            yield from _acts(rules, machine, unit, slot)
    if machine.mode is Mode.UP and machine.synced:
        for unit, slot in enumerate(machine.slots):
            yield from _reports(rules, machine, unit, slot)


def without_strict_copies(rules: Rules, machine: Machine) -> Machine:
    """Return it when the deadline of every strict unit has passed: agent or warden has ended their copies."""
    slots = tuple(_ended(rules, unit, slot) for unit, slot in enumerate(machine.slots))
    return machine._replace(slots=slots)


def sees(slot: Slot) -> Slot:
    """Return the slot once its agent has seen the placement as it stands."""
    fence = slot.fence
    if slot.seen != slot.placement and fence is Fence.COVERS:
        fence = Fence.FORMER
    return slot._replace(seen=slot.placement, fence=fence)


def _joins(machine: Machine) -> Iterator[Move]:
    if not machine.present:
        yield Move("agent {m} makes its presence", machine._replace(present=True), writes="presence")
    if not machine.synced:
        slots = tuple(map(sees, machine.slots))
        yield Move("agent {m} lists its placements", machine._replace(synced=True, slots=slots))


def _fences(rules: Rules, machine: Machine, unit: int, slot: Slot) -> Iterator[Move]:
    """Sentence 10: only a transaction that compares presence and placement, as seen and launched, is a renewal."""
    seen = slot.seen
    asks = seen is not None and seen.wanted is Wanted.LAUNCHED and rules.is_strict(unit, seen.text)
    as_seen = seen == slot.placement or not rules.says("fence_placement")
    if machine.mode is Mode.UP and asks:
        renewed = machine.with_slot(unit, slot._replace(fence=Fence.COVERS))
        if rules.bug == "keepalive_fence":
            if slot.fence is not Fence.COVERS:
                yield Move(f"agent {{m}} takes a keepalive for a fence of unit {unit}", renewed)
        elif machine.synced and machine.present and as_seen:
            if slot.fence is not Fence.COVERS or machine.wait is Wait.COUNTS:
                wait = Wait.RENEWED if machine.wait else Wait.NONE
                renewed = renewed._replace(wait=wait)
                yield Move(f"agent {{m}} renews the fence of unit {unit}", renewed, writes="fence")
    if slot.fence and (machine.mode is not Mode.UP or not asks or not as_seen):
        ended = machine.with_slot(unit, _ended(rules, unit, slot))
        yield Move(f"deadline of unit {unit} on {{m}} passes", ended)


def _ended(rules: Rules, unit: int, slot: Slot) -> Slot:
    copy = slot.copy
    if copy is not None and copy.runs and rules.is_strict(unit, copy.text):
        copy = copy._replace(runs=False)
    return slot._replace(copy=copy, fence=Fence.NONE)


def _acts(rules: Rules, machine: Machine, unit: int, slot: Slot) -> Iterator[Move]:
    """Do what `unit_agent.reconcile.plan` says; a missing placement is no order."""
    seen, copy = slot.seen, slot.copy
    if machine.mode is Mode.UP and machine.synced and seen != slot.placement:
        yield Move(f"agent {{m}} sees unit {unit}: {_said(slot.placement)}", machine.with_slot(unit, sees(slot)))
    removed = machine.with_slot(unit, slot._replace(copy=None))
    if seen is None:
        if copy is not None and (not copy.runs or rules.bug == "stop_on_absence"):
            wrong = "I4: a running copy is stopped because its key is missing"
            ordinary = copy.runs and not rules.is_strict(unit, copy.text)
            label = f"agent {{m}} removes what is left of unit {unit}"
            yield Move(label, removed, breaks=wrong if ordinary else "")
    elif copy is not None and copy.epoch > seen.epoch:
        return  # an order older than the copy
    elif seen.wanted is not Wanted.LAUNCHED:
        if copy is not None:
            yield Move(f"agent {{m}} stops unit {unit} ({seen.wanted}, epoch {seen.epoch})", removed)
    elif copy is None or not copy.runs:
        if _may_start(rules, machine, unit, slot, seen):
            born = Copy(True, seen.epoch, seen.current, seen.restart, seen.text, seen.restart)
            label = f"agent {{m}} starts unit {unit} at epoch {seen.epoch}, text {seen.text}"
            yield Move(label, machine.with_slot(unit, slot._replace(copy=born)))
    elif rules.says("incarnation") and copy.current != seen.current:
        yield Move(f"agent {{m}} removes unit {unit} of an older incarnation", removed)
    elif copy.text != seen.text:
        yield Move(f"agent {{m}} removes unit {unit} of the former text", removed)
    elif copy.restart < seen.restart:
        again = copy.born >= seen.restart
        wrong = "I8: a copy born of a restart is restarted by it again" if again else ""
        yield Move(f"agent {{m}} restarts unit {unit}: stop", removed, breaks=wrong)


def _may_start(rules: Rules, machine: Machine, unit: int, slot: Slot, seen: Placement) -> bool:
    if not rules.is_strict(unit, seen.text):
        return True
    fenced = slot.fence is Fence.COVERS if rules.says("fence_covers") else slot.fence is not Fence.NONE
    return fenced and machine.synced


def _reports(rules: Rules, machine: Machine, unit: int, slot: Slot) -> Iterator[Move]:
    if slot.seen is None and slot.placement is None and slot.copy is None and slot.report is not None:
        if rules.says("orphan"):
            forgotten = machine.with_slot(unit, slot._replace(report=None))
            yield Move(f"agent {{m}} deletes its state of unit {unit}", forgotten)
    report = _report(rules, slot)
    if report is not None and report != slot.report:
        label = f"agent {{m}} reports unit {unit}: {report.phase} at epoch {report.epoch}"
        yield Move(label, machine.with_slot(unit, slot._replace(report=report)))
        if "late" in rules.faults:
            yield Move(f"{label}, late", machine, fair=False, spends="delays", late=(unit, report))


def _report(rules: Rules, slot: Slot) -> Report | None:
    seen, copy = slot.seen, slot.copy
    if seen is None:
        orphan = copy is not None and copy.runs and rules.says("orphan")
        return Report(Phase.RUNS, copy.epoch) if orphan and copy is not None else None
    if seen.wanted is Wanted.LAUNCHED:
        wanted = copy is not None and copy.runs and (copy.restart, copy.text) == (seen.restart, seen.text)
        if wanted and copy is not None and rules.says("incarnation"):
            wanted = copy.current == seen.current
        return Report(Phase.RUNS if wanted else Phase.NOT_YET, seen.epoch)
    if copy is not None:
        return None
    return Report(Phase.GONE if seen.wanted is Wanted.GONE else Phase.LOADED, seen.epoch)


def _said(placement: Placement | None) -> str:
    if placement is None:
        return "no key"
    return f"{placement.wanted} at epoch {placement.epoch}, text {placement.text}"
