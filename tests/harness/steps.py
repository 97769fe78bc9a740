"""The placement protocol one step at a time: the real decisions, the store in memory, and the test as scheduler.

A story says who moves next: `leader`, `sees`, `acts`, `reports`, a delayed transaction that lands later. So the
shortest traces of the protocol's model are replayed against `plan_units`, `plan_machines`, `Scribe` and the
agent's `plan` and `report`, and random walks go where no story was written.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from unit_agent.driver import Copy
from unit_agent.fence import renewal
from unit_agent.reconcile import Step, plan, report
from unit_master.actions import Action, Lose
from unit_master.apply import Scribe
from unit_master.machines import Clocks, Wait, plan_machines
from unit_master.reconcile import plan_units
from unit_master.view import ClusterView
from unitfleet import codec, keys
from unitfleet.memory import MemoryStore
from unitfleet.model import (
    CopyPhase,
    Leader,
    MachineSpec,
    Placement,
    Presence,
    TargetState,
    Unit,
    UnitState,
    Wanted,
)
from unitfleet.store import Compare, Op, Put, absent, created_at, holds, unchanged

TEXT = "[Service]\nExecStart=/bin/sleep 1000\n"
STRICT_TEXT = TEXT + "[X-Fleet]\nSingleton=strict\n"
STRICT_SPEC = hashlib.sha256(STRICT_TEXT.encode()).hexdigest()


@dataclass(slots=True)
class SteppedMachine:
    """One agent: what it last saw, what it holds, whether the store hears it."""

    name: str
    reaches_store: bool = True
    alive: bool = True
    seen: dict[str, Placement] = field(default_factory=dict)
    copies: dict[str, Copy] = field(default_factory=dict)
    nonces: int = 0
    births: dict[tuple[str, int], int] = field(default_factory=dict)  # (copy, restart number) → starts
    seen_revisions: dict[str, int] = field(default_factory=dict)
    presence_revision: int = 0
    fenced: bool = False  # whether the last fence renewal still holds
    renewals: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """A leader transaction that was planned and has not landed yet."""

    compares: tuple[Compare, ...]
    ops: tuple[Op, ...]
    actions: tuple[Action, ...]


class Steps:
    """A cluster that moves only when told to. Make it with `await Steps.of("m1", "m2")`."""

    def __init__(self, *machines: str) -> None:
        self.store = MemoryStore()
        self.machines = {name: SteppedMachine(name) for name in machines}
        self.leader_value = b""
        self.leader_revision = 0
        self.waits: dict[str, int] = {}
        self.acknowledged: dict[str, TargetState] = {}
        self._now = 1000.0
        self._terms = itertools.count(1)
        self._incarnations = itertools.count(1)
        self._numbers = itertools.count(1)

    @classmethod
    async def of(cls, *machines: str) -> Steps:
        """Make a cluster whose machines have joined and are ready, led by a first term."""
        steps = cls(*machines)
        await steps.store.put(keys.EPOCH, b"0")
        await steps.new_term()
        for name in machines:
            await steps.joins(name)
        await steps.leader()
        return steps

    async def view(self) -> ClusterView:
        """Return the cluster as a linearizable read shows it."""
        view = ClusterView()
        view.apply_listing(await self.store.list(keys.PREFIX))
        return view

    # ------------------------------------------------------------------ the user

    async def create(self, name: str, fleet: str = "", *, text: str = "") -> None:
        """Create the unit, launched; a destroyed one that is still leaving is created anew."""
        text = text or TEXT + (f"[X-Fleet]\n{fleet}\n" if fleet else "")
        digest = hashlib.sha256(text.encode()).hexdigest()
        unit = Unit(
            name=name,
            spec=digest,
            target=TargetState.LAUNCHED,
            generation=1,
            incarnation=f"i{next(self._incarnations)}",
        )
        await self.store.put(keys.spec(digest), text.encode())
        await self._write(unit)

    async def wish(self, name: str, target: TargetState) -> None:
        """Change the unit's target state."""
        await self._change(name, target=target)

    async def restart(self, name: str) -> None:
        """Ask for a restart."""
        unit = await self._unit(name)
        await self._change(name, restart=unit.restart + 1)

    async def replace_text(self, name: str, text: str) -> None:
        """Give a unit another text."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        await self.store.put(keys.spec(digest), text.encode())
        await self._change(name, spec=digest)

    async def order(self, machine: str, **wishes: object) -> None:
        """Write a machine-spec (drained=True, removed_join=1, …)."""
        await self.store.put(
            keys.machine_spec(machine),
            codec.encode(MachineSpec(id=machine, **wishes)),  # type: ignore[arg-type]
        )

    # ------------------------------------------------------------------ the leader

    async def new_term(self) -> None:
        """Another leader takes over; what the old one planned must not land any more."""
        await self.store.delete(keys.LEADER)
        self.leader_value = codec.encode(Leader(nonce=f"n{next(self._terms)}", name="master"))
        result = await self.store.txn([absent(keys.LEADER)], [Put(keys.LEADER, self.leader_value)])
        self.leader_revision = result.revision
        self.waits.clear()

    async def plans(self) -> list[Held]:
        """Return what the leader would write now, a transaction an action, without writing it."""
        view = await self.view()
        waits = {machine: Wait(fence, 1e9) for machine, fence in self.waits.items()}
        absent_for = {machine: 1e9 for machine in view.roster if machine not in view.presence}
        machines = plan_machines(view, Clocks(self._now, absent_for, waits, grace_s=2.0))
        for machine in machines.begin_wait:
            self.waits[machine] = view.fences.get(machine, 0)
        actions: Sequence[Action] = machines.actions or plan_units(view, self._now)
        scribe = Scribe(view, "master", self._now, lambda: next(self._numbers))
        guard = (
            created_at(keys.LEADER, self.leader_revision),
            holds(keys.LEADER, self.leader_value),
            unchanged(keys.EPOCH, view.epoch_revision),
        )
        found = []
        for batch in scribe.batches(actions, 1):
            ops = [*batch.ops, Put(keys.EPOCH, b"%d" % batch.epoch)] if batch.epoch else batch.ops
            found.append(Held((*guard, *batch.compares.values()), tuple(ops), tuple(batch.actions)))
        return found

    async def lands(self, held: Held) -> bool:
        """Let a planned transaction reach the store; return whether its compares held.

        One that declares a machine with strict units lost comes at the end of the leader's wait: by then the
        deadline of every copy that was not renewed since the wait began has passed.
        """
        for action in held.actions:
            if isinstance(action, Lose) and action.fence_revision is not None:
                fence = await self.store.get(keys.fence(action.machine))
                if (fence.mod_revision if fence else 0) == action.fence_revision:
                    self.deadline_passes(action.machine)
        return (await self.store.txn(held.compares, held.ops)).succeeded

    async def leader(self, rounds: int = 30) -> None:
        """Let the leader plan and write until it has nothing more to do."""
        for _ in range(rounds):
            planned = await self.plans()
            if not planned:
                return
            await self.lands(planned[0])
        raise AssertionError(f"the leader never rests: {planned[0].actions}")

    # ------------------------------------------------------------------ machines and their agents

    async def joins(self, name: str) -> None:
        """Create the machine's presence, anew if it had one."""
        machine = self.machines[name]
        machine.nonces += 1
        presence = Presence(
            id=name,
            name=name,
            nonce=f"{name}-{machine.nonces}",
            boot_id="b",
            fingerprint="f",
            address="127.0.0.1",
            port=1,
            drivers=("process", "docker"),
        )
        machine.presence_revision = await self.store.put(keys.presence(name), codec.encode(presence))

    async def expires(self, name: str) -> None:
        """Let the machine's lease end."""
        await self.store.delete(keys.presence(name))

    async def sees(self, name: str) -> None:
        """Let the agent take in its placements as they stand."""
        machine = self.machines[name]
        listing = await self.store.list(keys.placements_of(name))
        machine.seen = {keys.split(kv.key)[2]: codec.decode(kv.value, Placement) for kv in listing.items}
        machine.seen_revisions = {keys.split(kv.key)[2]: kv.mod_revision for kv in listing.items}

    def wants_fence(self, name: str) -> list[str]:
        """Return the strict units that the agent last saw wanted launched."""
        seen = self.machines[name].seen
        return sorted(u for u, p in seen.items() if p.spec == STRICT_SPEC and p.wanted is Wanted.LAUNCHED)

    def deadline_passes(self, name: str) -> None:
        """Let the fence's deadline pass: the agent, or its warden, has ended every strict copy."""
        machine = self.machines[name]
        machine.fenced = False
        for unit, copy in machine.copies.items():
            if copy.spec == STRICT_SPEC and copy.executing:
                machine.copies[unit] = replace(copy, phase=CopyPhase.LOADED, active="inactive", sub="dead")

    async def renews(self, name: str, unit: str) -> bool:
        """Let the agent renew its fence for a strict unit as it last saw it; return whether that held."""
        machine = self.machines[name]
        machine.renewals += 1
        seen = {unit: machine.seen_revisions[unit]}
        compares, ops = renewal(
            name, f"{name}-{machine.nonces}", machine.renewals, machine.presence_revision, seen
        )
        renewed = (await self.store.txn(compares, ops)).succeeded
        machine.fenced |= renewed  # what failed leaves the former deadline as it was
        return renewed

    def acts(self, name: str, most: int = 100) -> None:
        """Let the agent carry out at most `most` steps of its plans on what it last saw."""
        machine = self.machines[name]
        for unit in sorted(machine.seen.keys() | machine.copies.keys()):
            for action in plan(machine.seen.get(unit), machine.copies.get(unit)):
                if most == 0:
                    return
                most -= 1
                if action.step is Step.START and machine.seen[unit].spec == STRICT_SPEC and not machine.fenced:
                    break  # a strict copy starts only by a renewal
                self._step(machine, unit, action.step)

    async def reports(self, name: str) -> None:
        """Let the agent write the states that its view and its copies call for."""
        for put in await self.states(name):
            await self._put_state(put)

    async def states(self, name: str) -> list[tuple[str, UnitState | None]]:
        """Return the state writes the agent would do now: (key, state or None for a deletion)."""
        machine = self.machines[name]
        listing = await self.store.list(keys.states_of(name))
        stood = {keys.split(kv.key)[2]: codec.decode(kv.value, UnitState) for kv in listing.items}
        found: list[tuple[str, UnitState | None]] = []
        for unit in sorted(machine.seen.keys() | machine.copies.keys() | stood.keys()):
            state = report(name, unit, machine.seen.get(unit), machine.copies.get(unit), None)
            if state is not None and state != stood.get(unit):
                found.append((keys.state(name, unit), state))
            elif state is None and unit in stood and unit not in machine.seen and unit not in machine.copies:
                found.append((keys.state(name, unit), None))
        return found

    async def round(self, name: str) -> None:
        """Let the agent see, act and report once."""
        await self.sees(name)
        for unit in self.wants_fence(name):
            if not self.machines[name].fenced:
                await self.renews(name, unit)
        self.acts(name)
        await self.reports(name)

    async def rest(self, rounds: int = 30) -> None:
        """Let leader and reachable agents move until nothing changes any more."""
        for _ in range(rounds):
            before = (await self.store.list(keys.PREFIX)).revision
            await self.leader()
            for name, machine in self.machines.items():
                if machine.alive and machine.reaches_store:
                    await self.round(name)
            if (await self.store.list(keys.PREFIX)).revision == before:
                return
        raise AssertionError("the cluster never comes to rest")

    def runs(self, unit: str) -> list[str]:
        """Return the machines on which a copy of the unit runs, by what really runs there."""
        return [
            name
            for name, machine in self.machines.items()
            if (copy := machine.copies.get(unit)) is not None and copy.phase is CopyPhase.RUNNING
        ]

    def power_off(self, name: str) -> None:
        """End every process of the machine at once."""
        machine = self.machines[name]
        machine.alive = machine.fenced = False
        machine.copies = {
            unit: replace(copy, phase=CopyPhase.LOADED, active="inactive", sub="dead")
            for unit, copy in machine.copies.items()
        }

    def _step(self, machine: SteppedMachine, unit: str, step: Step) -> None:
        copy = machine.copies.get(unit)
        match step:
            case Step.PREPARE:
                pass
            case Step.STOP:
                assert copy is not None
                machine.copies[unit] = replace(copy, phase=CopyPhase.LOADED, active="inactive", sub="dead")
            case Step.REMOVE:
                machine.copies.pop(unit, None)
            case Step.CREATE:
                wanted = machine.seen[unit]
                machine.copies[unit] = Copy(
                    unit,
                    "fake",
                    f"{machine.name}-{wanted.epoch}",
                    wanted.spec,
                    wanted.incarnation,
                    wanted.epoch,
                    wanted.restart,
                    CopyPhase.LOADED,
                )
            case Step.START:
                assert copy is not None
                born = (f"{unit} {copy.incarnation} {copy.id}", copy.restart)
                machine.births[born] = machine.births.get(born, 0) + 1
                machine.copies[unit] = replace(copy, phase=CopyPhase.RUNNING, active="active", sub="running")

    async def _unit(self, name: str) -> Unit:
        kv = await self.store.get(keys.unit(name))
        assert kv is not None, f"{name} is not there"
        return codec.decode(kv.value, Unit)

    async def _change(self, name: str, **changes: object) -> None:
        unit = await self._unit(name)
        await self._write(msgspec.structs.replace(unit, generation=unit.generation + 1, **changes))

    async def _write(self, unit: Unit) -> None:
        await self.store.put(keys.unit(unit.name), codec.encode(unit))
        self.acknowledged[unit.name] = unit.target

    async def _put_state(self, put: tuple[str, UnitState | None]) -> None:
        key, state = put
        if state is None:
            await self.store.delete(key)
        else:
            await self.store.put(key, codec.encode(state))


def wanted_of(view: ClusterView, unit: str) -> dict[str, Wanted]:
    """Return what the leader wants of each machine for the unit."""
    return {machine: entry.value.wanted for machine, entry in view.placements_of(unit).items()}
