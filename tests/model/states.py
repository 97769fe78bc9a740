"""States as numbers: units, machines and the rest are numbered once, and a state is a tuple of their numbers.

Machines are interchangeable and epochs are ranks. `States.canonical` orders the one and closes gaps in the other,
so that states which differ by name alone are one.
"""

from __future__ import annotations

from model.numbering import Epochs, Numbers, epochs_of, has_gaps, rank_of, renamed, together, with_ranks
from model.rules import Rules
from model.state import Budget, Held, Late, Machine, Mode, Roster, Slot, Unit, Wait, World
from unitfleet.model import TargetState

State = tuple[int, int, int, int, tuple[int, ...]]
"""Numbers of the units, the budget, the held transaction and the late report (0: none), and each machine."""

_Named = tuple[tuple[int, ...], int, tuple[int, ...] | None]
"""Machines and late report under canonical names, and where each machine stood before; None: there."""


class States:
    """The states that were met under one set of rules."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._units = Numbers[tuple[Unit, ...]]()
        self._budgets = Numbers[Budget]()
        self._held = Numbers[Held | None]()
        self._late = Numbers[Late | None]()
        self._machines = Numbers[Machine]()
        self._held(None)  # number 0
        self._late(None)
        self._epochs: dict[int, Epochs] = {}
        self._ranks: dict[tuple[int, Epochs], int] = {}
        self._names: dict[tuple[tuple[int, ...], int], _Named] = {}
        self._unmoved = tuple(range(rules.machines))

    def initial(self) -> State:
        """Return the state in which every unit was just launched."""
        rules = self.rules
        unit = Unit(TargetState.LAUNCHED, 0, 0, 0, TargetState.LAUNCHED)
        slots = (Slot(),) * rules.units
        there = Machine(Mode.UP, True, True, Roster.READY, False, True, Wait.NONE, slots)
        away = Machine(Mode.OFF, False, False, Roster.REMOVED, False, True, Wait.NONE, slots)
        machines = [there] * (rules.machines - rules.joining) + [away] * rules.joining
        raw = (
            self._units((unit,) * rules.units),
            self._budgets(Budget(*rules.budget)),
            0,
            0,
            tuple(map(self._machines, machines)),
        )
        return self.canonical(raw)[0]

    def world(self, state: State) -> World:
        """Return a state in words."""
        return World(
            self._units.values[state[0]],
            self._budgets.values[state[1]],
            self._held.values[state[2]],
            self._late.values[state[3]],
            tuple(self._machines.values[m] for m in state[4]),
        )

    def canonical(self, state: State) -> tuple[State, tuple[int, ...] | None]:
        """Return the state that stands for it, and where each machine stood before, None when they stood so."""
        units, budget, held, late, machines = state
        known = self._names.get((machines, late))
        if known is None:
            known = self._names[machines, late] = self._ordered(machines, late)
        machines, late, order = known
        if order is not None and held:
            held = self._held(renamed(self._held.values[held], order))
        return (units, budget, held, late, machines), order

    def _ordered(self, machines: tuple[int, ...], late: int) -> _Named:
        epochs = self._epochs_of(machines, late)
        if has_gaps(epochs):
            machines = tuple([self._ranked(m, epochs) for m in machines])
            late = self._late(self._report_ranked(late, epochs))
        order = tuple(sorted(range(len(machines)), key=machines.__getitem__))
        if order == self._unmoved:
            return machines, late, None
        report = self._late.values[late]
        if report is not None:
            late = self._late(report._replace(machine=order.index(report.machine)))
        return tuple([machines[m] for m in order]), late, order

    def _ranked(self, number: int, epochs: Epochs) -> int:
        known = self._ranks.get((number, epochs))
        if known is None:
            machine = with_ranks(self._machines.values[number], epochs)
            known = self._ranks[number, epochs] = self._machines(machine)
        return known

    def _report_ranked(self, late: int, epochs: Epochs) -> Late | None:
        known = self._late.values[late]
        if known is None:
            return None
        rank = rank_of(known.report.epoch, epochs[known.unit])
        return known._replace(report=known.report._replace(epoch=rank))

    def _epochs_of(self, machines: tuple[int, ...], late: int) -> Epochs:
        found = []
        for number in machines:
            epochs = self._epochs.get(number)
            if epochs is None:
                epochs = self._epochs[number] = epochs_of(self._machines.values[number])
            found.append(epochs)
        return together(found, self._late.values[late])

    @staticmethod
    def _with(machines: tuple[int, ...], m: int, number: int) -> tuple[int, ...]:
        if m < 0 or machines[m] == number:
            return machines
        return (*machines[:m], number, *machines[m + 1 :])
