"""The leader's half of the protocol: which transactions it may want.

`master/unit_master/reconcile.py` and `machines.py` in few words. It sees the store and its own notes on
machines, never what hosts hold (`as_the_leader_sees`). Which machine takes a unit best is left open: every
candidate is tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model.rules import Rules
from model.state import Machine, Mode, Op, Phase, Placement, Report, Roster, Slot, Unit, Wait
from unitfleet.model import TargetState, Wanted


def as_the_leader_sees(machine: Machine) -> Machine:
    """Return the machine without what only its host knows."""
    slots = tuple(Slot(slot.placement, slot.report) for slot in machine.slots)
    return machine._replace(mode=Mode.UP, synced=True, slots=slots)


def plans(rules: Rules, units: Sequence[Unit], machines: Sequence[Machine]) -> Iterator[Op]:
    """Yield every transaction that the leader may want in this state."""
    for m, machine in enumerate(machines):
        yield from _machine(rules, m, machine)
    for u, unit in enumerate(units):
        yield from _Plan(rules, units, machines, u, unit).ops()


def runs(slot: Slot) -> bool:
    """Say whether a placement was reported to run as it is wanted."""
    return slot.placement is not None and slot.report == Report(Phase.RUNS, slot.placement.epoch)


def newest(machines: Sequence[Machine], unit: int) -> int | None:
    """Return the place of a unit: the machine of its newest live placement, or None."""
    live = [
        (placement.epoch, m)
        for m, machine in enumerate(machines)
        if (placement := machine.slots[unit].placement) is not None and placement.wanted is not Wanted.GONE
    ]
    return max(live)[1] if live else None


def promised(units: Sequence[Unit], machines: Sequence[Machine]) -> bool:
    """Say whether unit 0 waits for a place, so that what unit 1 leaves is promised to it."""
    return units[0].target is TargetState.LAUNCHED and newest(machines, 0) is None


def _machine(rules: Rules, m: int, machine: Machine) -> Iterator[Op]:
    """Sentences 5 and 10: a machine with strict copies is lost after a wait that begins with its fence."""
    if machine.present:
        if machine.roster is not Roster.READY:
            yield Op("ready", m)
        if machine.wait:
            yield Op("cancel", m)
    elif machine.roster is Roster.READY:
        if not _strict_copy_may_run(rules, machine) or rules.bug == "no_wait":
            yield Op("lost", m)
        elif machine.wait is Wait.NONE or (machine.wait is Wait.RENEWED and rules.says("loss_guard")):
            yield Op("see_gone", m)
        else:
            yield Op("lost", m)


def _strict_copy_may_run(rules: Rules, machine: Machine) -> bool:
    """Whether any order there is of a strict text: one that is `gone` and not acknowledged counts."""
    for unit, slot in enumerate(machine.slots):
        placement = slot.placement
        if placement is not None and rules.is_strict(unit, placement.text):
            if placement.wanted is not Wanted.GONE or rules.says("wait_for_gone"):
                return True
    return False


class _Plan:
    """What the leader may want of one unit."""

    def __init__(
        self, rules: Rules, units: Sequence[Unit], machines: Sequence[Machine], u: int, unit: Unit
    ) -> None:
        self.rules = rules
        self.units = units
        self.machines = machines
        self.u = u
        self.unit = unit
        self.strict = rules.is_strict(u, unit.text)
        self.placements = {m: slot.placement for m, slot in enumerate(self._slots()) if slot.placement is not None}
        self.live = {m: held for m, held in self.placements.items() if held.wanted is not Wanted.GONE}

    def _slots(self) -> Iterator[Slot]:
        for machine in self.machines:
            yield machine.slots[self.u]

    def ops(self) -> Iterator[Op]:
        yield from self._acknowledged()
        match self.unit.target:
            case None:
                yield from self._orphans(None)
            case TargetState.DESTROYED | TargetState.INACTIVE:
                yield from self._end()
                yield from self._orphans(None)
            case _ if self.rules.is_global:
                yield from self._other_incarnations()
                yield from self._everywhere()
                yield from self._amended()
            case _:
                yield from self._other_incarnations()
                yield from self._before_it_was_strict()
                yield from self._somewhere()
                yield from self._amended()

    # ------------------------------------------------------------ what was said and done

    def _acknowledged(self) -> Iterator[Op]:
        for m, held in self.placements.items():
            told = self.machines[m].slots[self.u].report == Report(Phase.GONE, held.epoch)
            if held.wanted is Wanted.GONE and (told or self._unknown(m)):
                yield self._op("acknowledged", m)

    def _orphans(self, place: int | None) -> Iterator[Op]:
        """Sentence 4: states without a placement."""
        if not self.rules.says("orphan"):
            return
        newer_runs = place is not None and runs(self.machines[place].slots[self.u])
        unwanted = self.unit.target is not TargetState.LAUNCHED or newer_runs
        for m, slot in enumerate(self._slots()):
            if slot.report is not None and slot.placement is None:
                yield from self._orphan(m, slot.report, unwanted)

    def _orphan(self, m: int, report: Report, unwanted: bool) -> Iterator[Op]:
        if report.phase is not Phase.RUNS or self._unknown(m):
            yield self._op("drop_state", m)
        elif unwanted:
            yield self._gone(m)

    # ------------------------------------------------------------ not to run

    def _end(self) -> Iterator[Op]:
        for m in self.live:
            yield self._gone(m)
        leaving = any(self.machines[m].roster is Roster.READY for m in self.placements)
        if self.unit.target is TargetState.DESTROYED and not self.live and not leaving:
            yield self._op("delete_unit", -1)

    def _other_incarnations(self) -> Iterator[Op]:
        if self.rules.says("incarnation"):
            for m, held in list(self.live.items()):
                if not held.current:
                    yield self._gone(m)
                    del self.live[m]

    def _before_it_was_strict(self) -> Iterator[Op]:
        """Sentence 11: a copy of an ordinary text has no deadline, so it goes before a strict one is placed."""
        if self.strict and self.rules.says("strict_anew"):
            for m, held in list(self.live.items()):
                if not self.rules.is_strict(self.u, held.text):
                    yield self._gone(m)
                    del self.live[m]

    # ------------------------------------------------------------ one place

    def _somewhere(self) -> Iterator[Op]:
        new = max(self.live, key=lambda m: self.live[m].epoch, default=None)
        if new is None or self._must_leave(new):
            yield from self._leave(new)
        else:
            yield from self._settle(new)
        yield from self._orphans(new)

    def _must_leave(self, m: int) -> bool:
        machine = self.machines[m]
        if machine.roster is not Roster.READY or machine.drained:
            return True
        if not machine.present:
            return False  # suspect
        if self.rules.machine_of and self.u == 1:
            return newest(self.machines, 0) != m
        if self.rules.conflicts and self.u == 1:
            other = machine.slots[0].placement
            return other is not None and other.wanted is not Wanted.GONE
        return False

    def _leave(self, new: int | None) -> Iterator[Op]:
        if self.strict and self._former_copy_may_run():
            return
        takers = [m for m in range(len(self.machines)) if m != new and self._takes(m)]
        if not takers:
            yield from self._stays(new)
            yield from self._evicts(new)
        elif new is not None and (self.strict or self.rules.bug == "break_first"):
            yield self._gone(new)  # break before make
        else:
            for m in takers:
                yield self._writes("place", m)

    def _evicts(self, new: int | None) -> Iterator[Op]:
        """Order the unit of a lower priority away where this one fits then, unless it fits soon anyway."""
        if not self.rules.priority or self.u != 0 or self.unit.target is not TargetState.LAUNCHED:
            return
        rooms = [
            (m, machine.slots[1].placement)
            for m, machine in enumerate(self.machines)
            if m != new and self._is_open(m) and m not in self.placements
        ]
        if any(held is not None and held.wanted is Wanted.GONE for _, held in rooms):
            return
        for m, held in rooms:
            if held is not None:
                yield Op("gone", m, 1, held._replace(wanted=Wanted.GONE))

    def _former_copy_may_run(self) -> bool:
        for m, held in self.placements.items():
            ready = self.machines[m].roster is Roster.READY
            if ready and m not in self.live:
                return True  # it goes, or is about to
            if not ready and not self.rules.is_strict(self.u, held.text) and self.rules.says("strict_anew"):
                return True  # it has no deadline: what became of it nobody can tell
        return False

    def _takes(self, m: int) -> bool:
        machine, held = self.machines[m], self.placements.get(m)
        if not self._is_open(m):
            return False
        if self.rules.priority and self.u == 1 and promised(self.units, self.machines):
            return False  # the room that is made is for the other one
        if (self.rules.conflicts or self.rules.priority) and any(
            s.placement for v, s in enumerate(machine.slots) if v != self.u
        ):
            return False  # leaving copies keep their Conflicts
        if self.rules.machine_of and self.u == 1 and newest(self.machines, 0) != m:
            return False
        if held is None:
            return True
        return self.rules.says("reaffirm") if held.wanted is not Wanted.GONE else not self.rules.says("gone_final")

    def _is_open(self, m: int) -> bool:
        machine = self.machines[m]
        return machine.present and not machine.drained and machine.roster is Roster.READY

    def _stays(self, new: int | None) -> Iterator[Op]:
        """Sentence 7: what has nowhere to go stays, takes restarts and stops, but no new text."""
        ready = [m for m in self.live if self.machines[m].roster is Roster.READY]
        if not ready or not self.rules.says("nowhere_stays"):
            return
        if self.strict and not self.rules.says("nowhere_strict"):
            return
        m = max(ready, key=lambda m: self.live[m].epoch)
        held, wanted = self.live[m], self._wanted()
        stops = wanted is Wanted.LOADED and held.wanted is Wanted.LAUNCHED
        other = m != new or held.restart < self.unit.restart or held.wanted is not wanted
        if stops or (held.text == self.unit.text and other):
            yield self._writes("want", m)
        elif m == new and self.rules.says("nowhere_others"):
            if wanted is Wanted.LOADED or runs(self.machines[m].slots[self.u]):
                yield from self._others_go(m)

    def _settle(self, m: int) -> Iterator[Op]:
        if self._changed(self.live[m]):
            yield self._writes("want", m)
        elif self._wanted() is Wanted.LOADED or runs(self.machines[m].slots[self.u]):
            yield from self._others_go(m)

    def _changed(self, held: Placement) -> bool:
        wanted = self._wanted()
        return held.text != self.unit.text or held.restart < self.unit.restart or held.wanted is not wanted

    def _amended(self) -> Iterator[Op]:
        """Sentence 9: another bandwidth at the same epoch, where nothing else is to be written."""
        for m, held in self.live.items():
            there = self.machines[m].roster is Roster.READY
            if there and held.band != self.unit.band and not self._changed(held):
                yield Op("amend", m, self.u, held._replace(band=self.unit.band))

    def _others_go(self, m: int) -> Iterator[Op]:
        for other in self.live:
            if other != m:
                yield self._gone(other)

    # ------------------------------------------------------------ one place on every machine

    def _everywhere(self) -> Iterator[Op]:
        for m, machine in enumerate(self.machines):
            slot, ready = machine.slots[self.u], machine.roster is Roster.READY and machine.present
            if m in self.live:
                if ready and not machine.matches:
                    yield self._gone(m)
                elif self._changed(self.live[m]):
                    yield self._writes("want", m)
            elif slot.placement is not None:
                if slot.placement.wanted is Wanted.GONE and not self.rules.says("gone_final"):
                    if ready and machine.matches and not machine.drained:
                        yield self._writes("place", m)
            elif ready and machine.matches and not machine.drained:
                yield self._writes("place", m)
            elif slot.report is not None and (machine.roster is not Roster.REMOVED or self._unknown(m)):
                yield from self._orphan(m, slot.report, True)

    # ------------------------------------------------------------ words for the above

    def _wanted(self) -> Wanted:
        return Wanted.LAUNCHED if self.unit.target is TargetState.LAUNCHED else Wanted.LOADED

    def _unknown(self, m: int) -> bool:
        """Whether it was removed and no agent is there: nobody would read an order."""
        machine = self.machines[m]
        return self.rules.says("orphan_known") and machine.roster is Roster.REMOVED and not machine.present

    def _op(self, kind: str, m: int) -> Op:
        return Op(kind, m, self.u)

    def _gone(self, m: int) -> Op:
        held = self.placements.get(m)
        if held is None:  # an orphan: nothing more is known of it
            held = Placement(Wanted.GONE, 0, False, 0, 0)
        return Op("gone", m, self.u, held._replace(wanted=Wanted.GONE))

    def _writes(self, kind: str, m: int) -> Op:
        unit, band = self.unit, self.unit.band
        if kind == "want" and self.live[m].text == unit.text:
            band = self.live[m].band  # a matter of `amend`
        return Op(kind, m, self.u, Placement(self._wanted(), 0, True, unit.restart, unit.text, band))
