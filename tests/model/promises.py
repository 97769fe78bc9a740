"""The promises: what holds in every state (I2, I4, I6, I7), and what holds at rest (I3, I5, I8, I9)."""

from __future__ import annotations

from collections.abc import Sequence

from model.leader import newest
from model.rules import Rules
from model.state import Machine, Mode, Op, Phase, Placement, Report, Roster, Slot, Unit
from unitfleet.model import TargetState, Wanted

LAUNCHED, DESTROYED = TargetState.LAUNCHED, TargetState.DESTROYED


def wrong_with_units(units: Sequence[Unit]) -> str:
    """I6: return what is wrong with what is wanted, or ""."""
    for unit in units:
        if unit.target is not unit.last and not (unit.last is None and unit.target is DESTROYED):
            return "I6: an acknowledged command is lost"
    return ""


def executing(rules: Rules, machine: Machine) -> tuple[int, ...]:
    """Return for each unit what executes on the machine: 0 nothing, 1 an ordinary copy, 2 a strict one."""
    return tuple(
        (2 if rules.is_strict(u, slot.copy.text) else 1) if slot.copy is not None and slot.copy.runs else 0
        for u, slot in enumerate(machine.slots)
    )


def two_strict_copies(rules: Rules, units: Sequence[Unit], copies: Sequence[Sequence[int]]) -> str:
    """I2: beside an executing copy of a strict unit there is no other; `copies`: `executing` of every machine."""
    for u, unit in enumerate(units):
        there = [kinds[u] for kinds in copies if kinds[u]]
        if len(there) > 1 and 2 in there and rules.is_strict(u, unit.text):
            return "I2: two executing copies of a strict unit"
    return ""


def wrong_with_machine(rules: Rules, machine: Machine) -> str:
    """I7: return what is wrong on one machine, or ""."""
    if not (rules.conflicts or rules.priority):
        return ""
    slots = machine.slots
    if all(slot.placement is not None and slot.placement.wanted is Wanted.LAUNCHED for slot in slots):
        return "I7: two units in conflict are placed on one machine"
    ready = machine.mode is Mode.UP and machine.synced and machine.roster is Roster.READY
    # a copy that came back after `machines rm` has no placement yet
    both = all(slot.placement is not None and slot.copy is not None and slot.copy.runs for slot in slots)
    return "I7: two units in conflict run on one ready machine" if ready and both else ""


def wrong_with_plan(rules: Rules, units: Sequence[Unit], machines: Sequence[Machine], op: Op) -> str:
    """I4, the leader's half: an ordinary copy that is wanted goes only when a newer one runs."""
    if op.kind != "gone" or units[op.unit].target is not LAUNCHED or rules.is_strict(op.unit, units[op.unit].text):
        return ""
    if rules.priority and op.unit == 1 and units[0].target is LAUNCHED and not _is_settled(machines):
        return ""  # evicted: a unit of a higher priority has no place, or has to leave it
    held = machines[op.machine].slots[op.unit].placement
    if held is None or not held.current or (rules.is_global and not machines[op.machine].matches):
        return ""
    for m, machine in enumerate(machines):
        other = machine.slots[op.unit]
        if m != op.machine and other.placement is not None and other.placement.epoch > held.epoch:
            if other.report == Report(Phase.RUNS, other.placement.epoch):
                return ""
    return "I4: a wanted copy is ordered gone and no newer one runs"


def _is_settled(machines: Sequence[Machine]) -> bool:
    """Whether unit 0 has a place that it does not have to leave."""
    place = newest(machines, 0)
    return place is not None and machines[place].roster is Roster.READY and not machines[place].drained


def wrong_at_rest(rules: Rules, units: Sequence[Unit], machines: Sequence[Machine]) -> str:
    """No fair step is left: return what is not as the user asked for, or ""."""
    for u in range(len(units)):
        wrong = _Rest(rules, units, machines, u).wrong()
        if wrong:
            return wrong
    if rules.machine_of and all(unit.target is LAUNCHED for unit in units):
        places = [newest(machines, u) for u in (0, 1)]
        able = any(machine.mode is Mode.UP and not machine.drained for machine in machines)
        if able and None not in places and places[0] != places[1]:
            return "I7: MachineOf does not hold at rest"
    return ""


class _Rest:
    """One unit at rest, and the machines that are reachable then."""

    def __init__(self, rules: Rules, units: Sequence[Unit], machines: Sequence[Machine], u: int) -> None:
        self.rules = rules
        self.units = units
        self.machines = machines
        self.u = u
        self.unit = units[u]
        self.up = [m for m, machine in enumerate(machines) if machine.mode is Mode.UP]
        self.able = [m for m in self.up if not machines[m].drained]

    def wrong(self) -> str:
        if self.unit.target is DESTROYED:
            return "I3: destroy never ends"
        runs = [m for m in self.up if (copy := self._slot(m).copy) is not None and copy.runs]
        if self.unit.target is not LAUNCHED and runs:
            return "I3: a copy of a unit that is not launched runs"
        where = self._everywhere(runs) if self.rules.is_global else self._somewhere(runs)
        return where or next(filter(None, map(self._copy, runs)), "") or self._keys()

    def _slot(self, m: int) -> Slot:
        return self.machines[m].slots[self.u]

    def _wanted(self) -> bool:
        """Whether it must run somewhere among the reachable machines."""
        if self.unit.target is not LAUNCHED or self._waits_for_a_lost_copy():
            return False
        if self.rules.machine_of and self.u == 1:
            peer = newest(self.machines, 0)
            return peer in self.able
        if self.rules.priority and self.u == 0:
            return bool(self.able)
        if (self.rules.conflicts or self.rules.priority) and self._others_are_there():
            return len(self.able) == self.rules.machines
        return bool(self.able)

    def _others_are_there(self) -> bool:
        return any(unit.target is not None for v, unit in enumerate(self.units) if v != self.u)

    def _waits_for_a_lost_copy(self) -> bool:
        """A strict unit waits for a machine that may run a copy from before it was strict."""
        if not self.rules.is_strict(self.u, self.unit.text):
            return False
        away = [self._slot(m).placement for m in range(len(self.machines)) if m not in self.up]
        return any(p is not None and not self.rules.is_strict(self.u, p.text) for p in away)

    def _somewhere(self, runs: list[int]) -> str:
        if len(runs) > 1:
            return "I3: two copies run"
        if self._wanted() and not runs:
            return "I3: a launched unit does not run"
        if self._wanted() and runs[0] not in self.able:
            return "I3: a copy stays on a drained machine"
        return ""

    def _everywhere(self, runs: list[int]) -> str:
        for m in self.up:
            machine = self.machines[m]
            if self.unit.target is LAUNCHED and machine.matches and not machine.drained and m not in runs:
                return "I3: a global unit does not run on a machine that matches"
            if m in runs and not machine.matches:
                return "I3: a global unit runs on a machine that does not match"
        return ""

    def _copy(self, m: int) -> str:
        copy = self._slot(m).copy
        assert copy is not None
        if not copy.current:
            return "I5: a copy from before destroy + create runs on as the new unit"
        if copy.text != self.unit.text:
            return "I9: a new text was never taken" if self._suits(m) else ""
        return "I8: a restart was never done" if copy.restart != self.unit.restart else ""

    def _suits(self, m: int) -> bool:
        """Whether nothing says that it should leave this machine."""
        follows = self.rules.machine_of and self.u == 1
        return m in self.able and (not follows or newest(self.machines, 0) == m)

    def _keys(self) -> str:
        for m, machine in enumerate(self.machines):
            slot = self._slot(m)
            wrong = self._placement(m, slot.placement)
            if not wrong and slot.report is not None:
                stale = slot.placement is None or slot.report.epoch != slot.placement.epoch
                unknown = machine.roster is Roster.REMOVED and not machine.present
                if stale and (m in self.up or unknown):
                    wrong = "I3: a state stays without its placement"
            if wrong:
                return wrong
        return ""

    def _placement(self, m: int, held: Placement | None) -> str:
        if held is None:
            return ""
        if held.wanted is Wanted.GONE:
            return "I3: a gone placement stays" if m in self.up else ""
        if self.unit.target in (None, DESTROYED, TargetState.INACTIVE):
            return "I3: a placement stays"
        moved = m not in self.up and self._wanted() and not self.rules.is_global
        return "I3: a placement stays" if moved else ""
