"""The whole: every step out of a state, fast enough for a search.

The rules are written for readers; speed comes from remembering. What a machine, or the leader, may do next is
asked for once and remembered under the numbers of which states are made (`states.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from model import promises
from model.agent import Move, agent_moves, without_strict_copies
from model.commands import machine_commands, of_older_incarnation, unit_commands
from model.hosts import host_moves
from model.landing import compares, land
from model.leader import as_the_leader_sees, plans
from model.numbering import placed_epochs_of, together
from model.rules import Rules
from model.state import Broken, Held, Key, Late, Op, Wait
from model.states import State, States

Step = tuple[str, int, bool, State]
"""A label, the machine it is about (-1: none), whether it is fair, and the state, not yet canonical."""

_Look = tuple[str, tuple[int, ...]]
"""What is wrong with one machine by itself, and what executes there."""

NOT_DELAYED = ("see_gone", "cancel")


class _Planned(NamedTuple):
    """A transaction the leader may want, and its outcome by (machine number, next epochs)."""

    op: Op
    label: str
    compares: frozenset[Key]
    breaks: str
    landed: dict[tuple[int, tuple[int, ...]], tuple[int, int, tuple[Key, ...]]]


class _Moved(NamedTuple):
    """A `Move`, with the number of the machine after it."""

    move: Move
    machine: int


class Cluster(States):
    """All that may happen under one set of rules. `steps` raises `Broken` for a step that breaks a promise."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self._views: dict[int, int] = {}
        self._looks: dict[int, _Look] = {}
        self._wrong: dict[tuple[int, tuple[_Look, ...]], str] = {}
        self._moves: dict[int, tuple[_Moved, ...]] = {}
        self._plans: dict[tuple[int, tuple[int, ...]], tuple[_Planned, ...]] = {}
        self._spent: dict[tuple[int, str], int | None] = {}

    # ------------------------------------------------------------ promises

    def wrong(self, state: State) -> str:
        """Return which promise does not hold in this state, or ""."""
        units, machines = state[0], state[4]
        looks = tuple([self._look(m) for m in machines])
        found = self._wrong.get((units, looks))
        if found is None:
            wanted = self._units.values[units]
            found = next((wrong for wrong, _ in looks if wrong), "") or promises.wrong_with_units(wanted)
            copies = [copies for _, copies in looks]
            found = self._wrong[units, looks] = found or promises.two_strict_copies(self.rules, wanted, copies)
        return found

    def _look(self, number: int) -> _Look:
        """What is wrong with one machine by itself, and what executes there."""
        look = self._looks.get(number)
        if look is None:
            machine = self._machines.values[number]
            wrong = promises.wrong_with_machine(self.rules, machine)
            look = self._looks[number] = wrong, promises.executing(self.rules, machine)
        return look

    def wrong_at_rest(self, state: State) -> str:
        """Return what is not as the user asked for in a state without fair steps, or ""."""
        world = self.world(state)
        return promises.wrong_at_rest(self.rules, world.units, world.machines)

    # ------------------------------------------------------------ steps

    def steps(self, state: State) -> Iterator[Step]:
        """Yield every step out of the state."""
        budget = state[1]
        yield from self._leader(state)
        if state[2] or state[3]:
            yield from self._delayed(state)
        for m, number in enumerate(state[4]):
            yield from self._machine(state, m, number)
        if "leader" in self.rules.faults and (spent := self._spend(budget, "faults")) is not None:
            yield self._new_leader(state, spent)
        if (spent := self._spend(budget, "commands")) is not None:
            yield from self._unit_commands(state, spent)
            yield from self._machine_commands(state, spent)

    def _spend(self, budget: int, what: str) -> int | None:
        """Return the budget when one of `what` has happened, or None when none is left."""
        if (budget, what) not in self._spent:
            left = self._budgets.values[budget]
            count = getattr(left, what)
            self._spent[budget, what] = self._budgets(left._replace(**{what: count - 1})) if count else None
        return self._spent[budget, what]

    def _leader(self, state: State) -> Iterator[Step]:
        units, budget, held, late, machines = state
        epochs = self._next_epochs(machines, late)
        delays = None if held or "hold" not in self.rules.faults else self._spend(budget, "delays")
        for planned in self._planned(units, machines):
            op, label = planned.op, planned.label
            m = op.machine
            number = machines[m]
            if planned.breaks:
                raise Broken(planned.breaks, label, m)
            after = planned.landed.get((number, epochs))
            if after is None:
                after = planned.landed[number, epochs] = self._land(op, units, self._waited(op, number), epochs)
            yield label, m, True, self._after(state, m, after)
            if delays is not None and op.kind not in NOT_DELAYED:
                delayed = self._held(Held(op, planned.compares, False))
                there = self._with(machines, m, self._waited(op, number))
                yield label + ", delayed", m, False, (units, delays, delayed, late, there)

    def _planned(self, units: int, machines: tuple[int, ...]) -> tuple[_Planned, ...]:
        views = tuple([self._view(m) for m in machines])
        found = self._plans.get((units, views))
        if found is None:
            rules, wanted = self.rules, self._units.values[units]
            seen = [self._machines.values[view] for view in views]
            found = self._plans[units, views] = tuple(
                _Planned(
                    op, f"leader: {op}", compares(rules, op), promises.wrong_with_plan(rules, wanted, seen, op), {}
                )
                for op in plans(rules, wanted, seen)
            )
        return found

    def _view(self, number: int) -> int:
        view = self._views.get(number)
        if view is None:
            view = self._views[number] = self._machines(as_the_leader_sees(self._machines.values[number]))
        return view

    def _waited(self, op: Op, number: int) -> int:
        """When the leader's wait is over, the deadline of every strict copy not renewed since has passed."""
        machine = self._machines.values[number]
        if op.kind == "lost" and machine.wait is Wait.COUNTS:
            return self._machines(without_strict_copies(self.rules, machine))
        return number

    def _land(self, op: Op, units: int, number: int, epochs: tuple[int, ...]) -> tuple[int, int, tuple[Key, ...]]:
        landed = land(self.rules, op, self._units.values[units], self._machines.values[number], epochs)
        return self._units(landed.units), self._machines(landed.machine), landed.writes

    def _after(self, state: State, m: int, landed: tuple[int, int, tuple[Key, ...]]) -> State:
        _, budget, held, late, machines = state
        units, number, writes = landed
        return units, budget, self._survives(held, writes), late, self._with(machines, m, number)

    def _delayed(self, state: State) -> Iterator[Step]:
        units, budget, number, late, machines = state
        held, report = self._held.values[number], self._late.values[late]
        if held is not None:
            m = held.op.machine
            label = f"the delayed transaction lands: {held.op}"
            if held.old_term:
                raise Broken("I1: a transaction of an old term lands", label, m)
            landed = self._land(held.op, units, machines[m], self._next_epochs(machines, late))
            yield label, m, True, self._after((units, budget, 0, late, machines), m, landed)
        if report is not None:
            machine = self._machines.values[machines[report.machine]]
            slot = machine.slots[report.unit]._replace(report=report.report)
            there = self._with(machines, report.machine, self._machines(machine.with_slot(report.unit, slot)))
            label = f"the late report of {{m}} on unit {report.unit} lands: {report.report.phase}"
            yield label, report.machine, True, (units, budget, number, 0, there)

    def _machine(self, state: State, m: int, number: int) -> Iterator[Step]:
        moves = self._moves.get(number)
        if moves is None:
            moves = self._moves[number] = self._moved(number)
        units, budget, held, late, machines = state
        before, behind = machines[:m], machines[m + 1 :]
        for (label, _, fair, writes, spends, report, breaks), after in moves:
            spent, under_way = budget, late
            if spends:
                left = self._spend(budget, spends)
                if left is None or (report is not None and late):
                    continue
                spent = left
                if report is not None:
                    under_way = self._late(Late(m, *report))
            if breaks:
                raise Broken(breaks, label, m)
            kept = self._survives(held, ((writes, m),)) if held and writes else held
            yield label, m, fair, (units, spent, kept, under_way, (*before, after, *behind))

    def _moved(self, number: int) -> tuple[_Moved, ...]:
        machine = self._machines.values[number]
        moves = chain(agent_moves(self.rules, machine), host_moves(self.rules, machine))
        return tuple(_Moved(move, self._machines(move.machine)) for move in moves)

    def _new_leader(self, state: State, spent: int) -> Step:
        """A new term: what was planned in the old one may still try to land, and waits begin anew."""
        units, _, held, late, machines = state
        known = self._held.values[held]
        if known is not None:
            held = self._survives(self._held(known._replace(old_term=True)), (("term", 0),))
        anew = tuple(self._machines(self._machines.values[m]._replace(wait=Wait.NONE)) for m in machines)
        return "FAULT the leader changes", -1, False, (units, spent, held, late, anew)

    def _unit_commands(self, state: State, spent: int) -> Iterator[Step]:
        units, _, held, late, machines = state
        wanted = self._units.values[units]
        for u, unit in enumerate(wanted):
            kept = self._survives(held, (("unit", u),))
            for command, new in unit_commands(self.rules, unit):
                there = machines
                if command == "create":
                    there = tuple(
                        self._machines(of_older_incarnation(self._machines.values[m], u)) for m in machines
                    )
                number = self._units((*wanted[:u], new, *wanted[u + 1 :]))
                yield f"COMMAND {command} unit {u}", -1, False, (number, spent, kept, late, there)

    def _machine_commands(self, state: State, spent: int) -> Iterator[Step]:
        units, _, held, late, machines = state
        drained = any(self._machines.values[m].drained for m in machines)
        for m, number in enumerate(machines):
            for command, machine in machine_commands(self.rules, self._machines.values[number]):
                if command == "drain" and drained:
                    continue
                kept = held
                if command == "machines rm":
                    wrote = [("placements", u) for u in range(self.rules.units)]
                    kept = self._survives(held, (*wrote, ("epoch", 0)))
                there = self._with(machines, m, self._machines(machine))
                yield f"COMMAND {command} {{m}}", m, False, (units, spent, kept, late, there)

    # ------------------------------------------------------------ parts of a state

    def _next_epochs(self, machines: tuple[int, ...], late: int) -> tuple[int, ...]:
        """Return the epoch after every one that anything still speaks of, for each unit."""
        if self.rules.bug == "epoch_per_unit":
            placed = [placed_epochs_of(self._machines.values[m]) for m in machines]
            return tuple([bits.bit_length() + 1 for bits in together(placed, None)])
        return tuple([bits.bit_length() + 1 for bits in self._epochs_of(machines, late)])

    def _survives(self, held: int, writes: tuple[Key, ...]) -> int:
        """Return the held transaction after a write: 0 when it compares one of the keys."""
        if held:
            known = self._held.values[held]
            assert known is not None
            if not known.compares.isdisjoint(writes):
                return 0
        return held
