"""A fleet drawn from its seed: machines, masters, units and misfortunes, on models of etcd, hosts and clocks.

All decisions are those of the real code: agents, masters, the API's writes. What the models can do to them is in
`simulation.misfortunes`; what is held against them in `simulation.fleet_witness` and `simulation.rest`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from dataclasses import replace
from typing import Any

from harness.processes import Process
from simulation.etcd_model import EtcdModel, ModelStore, Snapshot
from simulation.fleet_witness import FleetWitness
from simulation.host_model import ModelCopy, ModelDriver, ModelHost
from simulation.units import Group, Kind, drawn
from simulation.world import SimMachine, SimMaster, World, now, until_killed
from unit_agent.driver import Driver
from unit_agent.drivers.fake import Behaviour
from unit_agent.restart import Exit
from unit_agent.strict.deadlines import Deadlines
from unit_agent.strict.fake import FakeRegister
from unit_agent.timings import TIMINGS
from unitfleet.api import Change
from unitfleet.errors import StoreError
from unitfleet.model import TargetState
from unitfleet.profiles import Profile


class Clock:
    """One computer's wall clock: it is set now and then."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return now() + self.ahead_s


class ModelMachine(SimMachine):
    """A machine on models. Its agent is a process that can be paused."""

    store: ModelStore
    host: ModelHost

    def __init__(self, name: str, admin: ModelStore, dice: random.Random) -> None:
        super().__init__(name, admin, dice)
        self.clock = Clock()
        self.now = self.clock
        usual = self.host.usual
        self.host = ModelHost(self.clock, dice.getrandbits(32))
        self.host.usual = usual
        self.process = Process()
        self.register: FakeRegister
        self.disk = ModelCopy()
        self._local = self.disk

    def drivers(self) -> list[Driver]:
        return [ModelDriver(self.host, "process"), ModelDriver(self.host, "docker")]

    async def watch(self) -> None:
        """Be this host's warden, until cancelled."""
        await self.register.watch()

    async def power_off(self) -> None:
        await super().power_off()
        self.register.reboot()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        former = self.store.link
        super().start(tasks)
        self.store.link.stale_s, self.store.link.stale_until = former.stale_s, former.stale_until

    def spawn(self, tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        self.process = Process()
        return self.process.spawn(tasks, work, name)

    async def kill(self) -> None:
        if self._task is not None:
            self.store.link.cut()
            self.process.resume()
        await super().kill()
        self.store.link.heal()


class ModelMaster(SimMaster):
    """A master on models: a process that can be paused, of a new name in the store each time it starts."""

    store: ModelStore

    def __init__(self, name: str, admin: ModelStore, dice: random.Random) -> None:
        super().__init__(name, admin, dice)
        self.clock = Clock()
        self.now = self.clock
        self.process = Process()
        self._starts = 0

    def spawn(self, tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        self._starts += 1
        self.store.link.name = f"{self.name}.{self._starts}"
        self.process = Process()
        return self.process.spawn(tasks, work, name)

    async def kill(self) -> None:
        if self._task is not None:
            self.store.link.cut()
            self.process.resume()
        await super().kill()


class Fleet(World):
    """The cluster of one seed. `always`: groups of units that it surely has."""

    admin: ModelStore
    machines: dict[str, ModelMachine]  # type: ignore[assignment]
    masters: dict[str, ModelMaster]  # type: ignore[assignment]

    def __init__(self, seed: int, always: Collection[Group] = ()) -> None:
        dice = random.Random(seed)
        self.server = EtcdModel()
        self.profile = dice.choice((Profile.FAST, Profile.FAST, Profile.DEFAULT))
        self.relist_s = dice.choice((15.0, 30.0))
        self.units: tuple[Kind, ...] = drawn(dice, always)
        self.faults: Counter[str] = Counter()
        self.commands = 0
        self.snapshot: Snapshot | None = None
        self.snapshot_wishes: dict[str, TargetState] = {}
        self.restored = self.restoring = False
        self.restored_at = 0.0
        self.ending = False
        machines = dice.choice((3, 3, 3, 4, 4, 5, 6))
        super().__init__(seed, machines, dice.choice((2, 2, 3)), ModelStore(self.server))
        self.desk_relist_s = self.relist_s
        strict = [kind.name for kind in self.units if kind.strict]
        hosts = {name: machine.host for name, machine in self.machines.items()}
        self.witness: FleetWitness = FleetWitness(self.admin, hosts, strict)
        self.witness.unanswered = self.server.unanswered
        self.server.observer = self.witness.observed
        for name, host in hosts.items():
            host.observer = _named(self.witness, name)

    def machine(self, name: str) -> ModelMachine:
        machine = ModelMachine(name, self.admin, self.dice)
        machine.timings = replace(TIMINGS[self.profile], relist_s=self.relist_s, verify_s=self.relist_s)
        clock = asyncio.get_running_loop().time
        machine.register = FakeRegister(
            machine.host, Deadlines(machine.timings.ttl_s, clock), machine.host.fenced.add
        )
        for kind in self.units:
            if kind.run_s is not None:
                usual = machine.host.usual
                machine.host.behaviours[kind.name] = Behaviour(
                    start_s=usual.start_s, run_s=kind.run_s, exit=Exit(0, command=True)
                )
        return machine

    def master(self, name: str) -> ModelMaster:
        master = ModelMaster(name, self.admin, self.dice)
        master.relist_s = self.relist_s
        return master

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with super().running():
            strict = any(kind.strict for kind in self.units)
            machines = self.machines.values() if strict else ()
            wardens = [self._tasks.create_task(until_killed(machine.watch())) for machine in machines]
            try:
                yield
            finally:
                for warden in wardens:
                    warden.cancel()

    @property
    def parts(self) -> list[ModelMachine | ModelMaster]:
        """Every machine and every master."""
        return [*self.machines.values(), *self.masters.values()]

    @property
    def tasks(self) -> asyncio.TaskGroup:
        """Where what lives as long as the fleet runs."""
        return self._tasks

    def kind(self, name: str) -> Kind:
        """Return a unit of this fleet by name."""
        return next(kind for kind in self.units if kind.name == name)

    # ------------------------------------------------------------------ the user

    async def wish(self, name: str, target: TargetState | None, *, restart: bool = False) -> None:
        text = self.kind(name).text if target not in (None, TargetState.DESTROYED) else None
        if await self.change(Change(name=name, text=text, target=target, restart=restart)) and target:
            self.wishes[name] = target

    async def change(self, change: Change) -> bool:
        """Give a wish and tell whether it was acknowledged."""
        what = "restart" if change.restart else change.target or change.bandwidth
        if not self.server.up.is_set():
            self.say(f"user: {change.name} {what}: no store")
            return False
        self.commands += 1
        try:
            (result,) = (await self._changer.carry_out([change])).items
            why = result.error.message if result.error else ""
        except StoreError as error:
            why = error.message
        self.say(f"user: {change.name} {what}: {why or 'ok'}")
        return not why

    # ------------------------------------------------------------------ misfortunes

    def later(self, delay_s: float, call: Callable[[], object]) -> None:
        """Call it in so many seconds."""
        asyncio.get_running_loop().call_later(delay_s, call)

    @property
    def now(self) -> float:
        """Virtual seconds since the fleet began."""
        return asyncio.get_running_loop().time()

    def store_has_space(self) -> None:
        """End NOSPACE."""
        self.server.is_full = False

    def store_comes_up(self) -> None:
        """End an outage of the whole store."""
        if not self.server.up.is_set() and not self.restoring:
            self.server.come_up()

    def take_snapshot(self) -> None:
        """Remember the store as it is, and what was acknowledged until then."""
        self.snapshot = self.server.snapshot()
        self.snapshot_wishes = dict(self.wishes)

    async def restore(self) -> None:
        """Let the store be as in the snapshot: what was acknowledged since is lost, as the operator knows.

        Masters are stopped meanwhile, and started anew: a watch would be silent until the revision is what it was.
        The store is away for as long as a lease: what the snapshot does not know of strict copies ends by then.
        """
        assert self.snapshot is not None
        self.restoring = True
        for master in self.masters.values():
            await master.kill()
        self.server.go_down()
        await asyncio.sleep(self.profile.ttl_s)
        self.server.restore(self.snapshot)
        self.restoring = False
        self.store_comes_up()
        self.wishes = dict(self.snapshot_wishes)
        self.restored_at = self.now
        self.witness.store_restored(self.server)
        self.restored = True
        self._desk.cancel()
        self.open_desk()
        for master in self.masters.values():
            if not master.up:
                master.start(self._tasks)

    def accept_store(self) -> None:
        """Be the operator: let every agent that keeps everything trust the store as it is.

        Not sooner than a lease's time after the restore: by then the strict copies that the store has forgotten
        have stopped, for nothing renewed their fence.
        """
        if self.now < self.restored_at + self.profile.ttl_s + 1.0:
            return
        for machine in self.machines.values():
            agent = machine.agent
            if machine.up and agent is not None and agent.sync.keep_everything:
                self.say(f"operator: {machine.name} accepts the store")
                machine.process.spawn(self._tasks, agent.accept_store(), f"{machine.name} accepts the store")

    async def heal(self) -> None:
        """Let every misfortune end."""
        self.ending = True
        self.store_comes_up()
        self.store_has_space()
        self.server.lies_until = 0.0
        for part in self.parts:
            part.store.link.forget()
            part.process.resume()
        for machine in self.machines.values():
            machine.host.forget()
            machine.disk.is_full = False
        self.admin.link.forget()
        self.accept_store()
        if self.restored:  # the desk has to see what is in the store now
            await asyncio.sleep(max(0.0, self.restored_at + self.relist_s + 1.0 - self.now))
        with contextlib.suppress(StoreError):
            await super().heal()


def _named(witness: FleetWitness, machine: str) -> Callable[..., None]:
    return lambda before, after, by_misfortune: witness.copy_changed(machine, before, after, by_misfortune)
