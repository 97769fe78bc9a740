"""Random walks of the placement protocol with the real decisions: who moves next is drawn by a seed.

After every step what must always hold is checked; at the end faults cease, every machine moves, and the
cluster must come to rest as the user last wished.
"""

from __future__ import annotations

import random

import pytest

from harness.effort import examples
from harness.steps import STRICT_TEXT, Held, Steps
from unit_master.view import ClusterView
from unitfleet.model import MachineStatus, TargetState, UnitState, Wanted

UNITS = {"a.service": "Conflicts=b.service", "b.service": "", "c.service": "", "d.service": "MachineOf=c.service"}
STRICT = "s.service"
WITH_STRICT = {STRICT: "", "a.service": ""}
MACHINES = ("m1", "m2", "m3", "m4")
STEPS = 60


class Walk:
    """One walk: draws steps, keeps what was delayed, and checks."""

    def __init__(self, seed: int, steps: Steps, units: dict[str, str] = UNITS) -> None:
        self.dice = random.Random(seed)
        self.steps = steps
        self.units = units
        self.delayed: list[tuple[int, Held]] = []
        self.late_states: list[tuple[str, UnitState]] = []
        self.terms = 0
        self.trace: list[str] = []

    async def step(self) -> None:
        moves = [
            (6, self.leads),
            (8, self.agent_moves),
            (3, self.wishes),
            (1, self.delays),
            (2, self.delayed_lands),
            (1, self.cuts_or_heals),
            (1, self.loses_lease),
            (0.5, self.powers_off),
            (0.5, self.new_leader),
            (0.5, self.drains),
            (0.5, self.removes),
            (0.7, self.report_is_late),
            (4 if STRICT in self.units else 0, self.renews),
            (2 if STRICT in self.units else 0, self.deadline_passes),
            (8 if STRICT in self.units else 0, self.agent_rounds),
        ]
        move = self.dice.choices([move for _, move in moves], [weight for weight, _ in moves])[0]
        self.trace.append(move.__name__)
        await move()
        self.always()

    async def leads(self) -> None:
        for held in await self.steps.plans():
            if self.dice.random() < 0.3:
                break
            for action in held.actions:
                self.trace.append(f"  {action}")
            await self.steps.lands(held)

    async def delays(self) -> None:
        planned = await self.steps.plans()
        if planned:
            self.delayed.append((self.terms, self.dice.choice(planned)))

    async def delayed_lands(self) -> None:
        if self.delayed:
            term, held = self.delayed.pop(self.dice.randrange(len(self.delayed)))
            landed = await self.steps.lands(held)
            assert term == self.terms or not landed, "I1: a transaction of an old term landed"

    async def agent_moves(self) -> None:
        machine = self.dice.choice(list(self.steps.machines.values()))
        if not machine.alive:
            return
        kind = self.dice.randrange(3)
        if kind == 1:
            self.steps.acts(machine.name, self.dice.randrange(1, 6))
        elif machine.reaches_store and kind == 0:
            await self.steps.sees(machine.name)
        elif machine.reaches_store:
            await self.steps.reports(machine.name)

    async def agent_rounds(self) -> None:
        machine = self.dice.choice(list(self.steps.machines.values()))
        if machine.alive and machine.reaches_store:
            await self.steps.round(machine.name)

    async def report_is_late(self) -> None:
        machine = self.dice.choice(list(self.steps.machines.values()))
        for key, state in await self.steps.states(machine.name):
            if state is not None and machine.reaches_store and machine.alive:
                self.late_states.append((key, state))
        if self.late_states and self.dice.random() < 0.5:
            key, state = self.late_states.pop()
            if self.steps.machines[state.machine].alive:
                await self.steps._put_state((key, state))
            self.late_states.clear()  # a newer report of an agent never lands before an older one

    async def renews(self) -> None:
        machine = self.dice.choice(list(self.steps.machines.values()))
        if machine.alive and machine.reaches_store:
            for unit in self.steps.wants_fence(machine.name):
                await self.steps.renews(machine.name, unit)

    async def deadline_passes(self) -> None:
        """Only of a machine that can't renew: dead, cut off, or with nothing left to renew for."""
        machine = self.dice.choice(list(self.steps.machines.values()))
        if not (machine.alive and machine.reaches_store and self.steps.wants_fence(machine.name)):
            self.steps.deadline_passes(machine.name)

    async def wishes(self) -> None:
        name = self.dice.choice(list(self.units))
        now = self.steps.acknowledged.get(name)
        view = await self.steps.view()
        if name not in view.units or now is TargetState.DESTROYED:
            await self.steps.create(name, self.units[name], text=STRICT_TEXT if name == STRICT else "")
        elif now is TargetState.LAUNCHED and self.dice.random() < 0.3:
            await self.steps.restart(name)
        else:
            await self.steps.wish(name, self.dice.choice((*TargetState, *[TargetState.LAUNCHED] * 4)))

    async def cuts_or_heals(self) -> None:
        machine = self.dice.choice(list(self.steps.machines.values()))
        machine.reaches_store = not machine.reaches_store

    async def loses_lease(self) -> None:
        name = self.dice.choice(MACHINES)
        machine = self.steps.machines[name]
        await self.steps.expires(name)
        if machine.reaches_store and machine.alive and self.dice.random() < 0.5:
            await self.steps.joins(name)

    async def powers_off(self) -> None:
        name = self.dice.choice(MACHINES)
        if self.steps.machines[name].alive:
            self.steps.power_off(name)
        else:
            await self.boots(name)

    async def boots(self, name: str) -> None:
        self.steps.machines[name].alive = True
        if self.steps.machines[name].reaches_store:
            await self.steps.joins(name)

    async def new_leader(self) -> None:
        self.terms += 1
        await self.steps.new_term()

    async def drains(self) -> None:
        await self.steps.order(self.dice.choice(MACHINES), drained=self.dice.random() < 0.4)

    async def removes(self) -> None:
        name = self.dice.choice(MACHINES)
        entry = (await self.steps.view()).roster.get(name)
        if entry is not None and entry.value.status is MachineStatus.LOST:
            await self.steps.order(name, removed_join=entry.value.join)

    def always(self) -> None:
        assert len(self.steps.runs(STRICT)) <= 1, f"I2: a strict unit runs on {self.steps.runs(STRICT)}"
        for machine in self.steps.machines.values():
            for (copy, number), starts in machine.births.items():
                assert number == 0 or starts <= 1 + self.reboots(machine.name), (
                    f"I8: {copy} restarted {starts} times"
                )

    def reboots(self, name: str) -> int:
        return self.trace.count("powers_off")

    async def ends(self) -> None:
        """Faults cease: everything heals, every delayed write lands or fails, and the cluster rests."""
        for name, machine in self.steps.machines.items():
            machine.reaches_store = True
            await self.boots(name)
            await self.steps.order(name)
        while self.delayed:
            await self.delayed_lands()
        await self.steps.rest(rounds=60)
        view = await self.steps.view()
        for name in self.units:
            wanted = self.steps.acknowledged.get(name)
            running = self.steps.runs(name)
            if wanted is TargetState.DESTROYED or wanted is None:
                assert name not in view.units, f"I3: {name} is never deleted"
            else:
                assert view.units[name].value.target is wanted, "I6: an acknowledged command was lost"
            if wanted is TargetState.LAUNCHED:
                if name == "d.service" and self.steps.acknowledged.get("c.service") not in (
                    TargetState.LAUNCHED,
                    TargetState.LOADED,
                ):
                    assert len(running) <= 1
                    continue
                assert len(running) == 1, f"I3: {name} runs on {running}"
                copy = self.steps.machines[running[0]].copies[name]
                unit = view.units[name].value
                assert copy.incarnation == unit.incarnation, f"I5: {name} of a former incarnation runs on"
                assert copy.restart == unit.restart, f"I8: the restart of {name} was never done"
            else:
                assert running == [], f"I3: {name} runs although it is {wanted}"
        self.at_rest(view)
        a, b = self.steps.runs("a.service"), self.steps.runs("b.service")
        assert not set(a) & set(b), "I7: two units in conflict run on one machine"
        c, d = self.steps.runs("c.service"), self.steps.runs("d.service")
        assert not d or not c or c == d, "I7: MachineOf does not hold at rest"

    def at_rest(self, view: ClusterView) -> None:
        for unit, placements in view.placements.items():
            for machine, entry in placements.items():
                assert entry.value.wanted is not Wanted.GONE, f"I3: {unit} never leaves {machine}"
        for unit, states in view.states.items():
            for machine, state in states.items():
                held = view.placements_of(unit).get(machine)
                assert held is not None and held.value.epoch == state.value.epoch, (
                    f"I3: {unit} on {machine}: stale"
                )


@pytest.mark.parametrize("units", [UNITS, WITH_STRICT], ids=["ordinary", "strict"])
@pytest.mark.parametrize("first", range(0, 300, 30))
async def test_random_walks_keep_every_promise(first: int, units: dict[str, str]) -> None:
    for seed in range(first, first + examples(30, 3)):
        walk = Walk(seed, await Steps.of(*MACHINES), units)
        try:
            for _ in range(STEPS if units is UNITS else 2 * STEPS):
                await walk.step()
            await walk.ends()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n" + "\n".join(walk.trace)) from error
