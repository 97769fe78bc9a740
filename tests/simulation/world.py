"""A whole cluster in one process on a virtual clock: real masters and agents, a store and hosts in memory.

`World(seed)` draws everything from one seed: who crashes, which link is cut or slow, which answers are lost,
what the user wishes. Nothing in it waits for real, so a minute of cluster takes a fraction of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any

from simulation.witness import UPLINK, Witness
from unit_agent.agent import Agent
from unit_agent.driver import Driver
from unit_agent.drivers.fake import Behaviour, FakeDriver, FakeHost
from unit_agent.local_copy import MemoryCopy
from unit_agent.machine import Facts
from unit_agent.secrets.delivery import Delivery, NoDelivery
from unit_agent.strict.deadlines import Deadlines
from unit_agent.strict.register import NoRegister, Register
from unit_agent.timings import TIMINGS
from unit_master.cache import RELIST_S, Cache
from unit_master.changes import Changer
from unit_master.leader import Leader
from unit_master.orders import MachineOrder, Orders
from unitfleet import codec, keys
from unitfleet.api import Change, NetLimit
from unitfleet.election import Election, Term
from unitfleet.errors import UnitfleetError
from unitfleet.memory import MemoryStore
from unitfleet.model import BrakeOrder, Capacity, Cluster, TargetState
from unitfleet.profiles import Profile
from unitfleet.sealing import public_key
from unitfleet.store import Put

TEXT = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/ad\nRestart=always\nRestartSec=0.2\n[X-Fleet]\n"
UNITS = {
    "a.service": "Conflicts=b.service\n",
    "b.service": "",
    "c.service": "Spread=zone\n",
    "d.service": "MachineOf=c.service\n",
    "e.service": "Global=true\n",
}
GRACE_S = 1.0


def now() -> float:
    """Wall time of the simulation, the same for all: no decision may compare two machines' clocks."""
    return 1_000_000.0 + asyncio.get_running_loop().time()


class SimMachine:
    """A host with its agent. Copies and the local copy outlive the agent; a power loss ends the copies."""

    def __init__(self, name: str, admin: MemoryStore, dice: random.Random) -> None:
        self.name = name
        self.host = FakeHost(now, dice.getrandbits(32))
        self.host.usual = Behaviour(
            pull_s=dice.choice((0.0, 0.0, 0.5)),
            start_s=dice.choice((0.0, 0.1, 1.0)),
            stop_s=dice.choice((0.0, 0.3)),
        )
        self.now = now
        self.agent: Agent | None = None  # the last one that was started
        self.timings = TIMINGS[Profile.FAST]
        self.private_key = ""
        self.delivery: Delivery = NoDelivery()
        self.register: Register = NoRegister()
        self._local = MemoryCopy()
        self._admin = admin
        self._dice = dice
        self._boots = 1
        self.store = admin.client(name)
        self._task: asyncio.Task[None] | None = None
        self.up = False

    def drivers(self) -> list[Driver]:
        """Return the drivers that the next agent is given."""
        return [FakeDriver(self.host, "process")]

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start the agent."""
        facts = Facts(
            id=self.name,
            name=self.name,
            boot_id=f"boot-{self._boots}",
            fingerprint=self.name,
            metadata={"zone": f"z{int(self.name[1:]) % 2}"},
            capacity=Capacity(cpu=4, memory=8 << 30, egress=UPLINK),
            public_key=public_key(self.private_key) if self.private_key else "",
        )
        cut = self.store.link.is_cut
        self.store = self._admin.client(self.name)
        if cut:
            self.store.link.cut()
        self.agent = Agent(
            self.store,
            self.drivers(),
            facts,
            self._local,
            now=self.now,
            rng=random.Random(self._dice.getrandbits(32)),
            timings=self.timings,
            private_key=self.private_key,
            delivery=self.delivery,
            deadlines=Deadlines(self.timings.ttl_s, asyncio.get_running_loop().time),
            register=self.register,
        )
        self._task = self.spawn(tasks, until_killed(self.agent.run()), f"agent {self.name}")
        self.up = True

    def spawn(self, tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Let the agent's process begin."""
        return tasks.create_task(work, name=name)

    async def kill(self) -> None:
        """kill -9 the agent: its copies run on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._task = None
        self.up = False

    async def power_off(self) -> None:
        """End the agent and every process of the host at once."""
        await self.kill()
        self.host.power_off()
        self._boots += 1


class SimMaster:
    """A master without its HTTP: cache, election, leader."""

    def __init__(self, name: str, admin: MemoryStore, dice: random.Random) -> None:
        self.name = name
        self.now = now
        self.relist_s = RELIST_S
        self.secrets_key = ""
        self._admin = admin
        self._dice = dice
        self.store = admin.client(name)
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether it runs."""
        return self._task is not None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start it."""
        self.store = self._admin.client(self.name)
        self._task = self.spawn(tasks, until_killed(self._run(self.store)), f"master {self.name}")

    def spawn(self, tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Let the master's process begin."""
        return tasks.create_task(work, name=name)

    async def kill(self) -> None:
        """kill -9 it: what it was sending may or may not arrive, and it resigns nothing."""
        if self._task is not None:
            self.store.link.cut()
            self._task.cancel()
            await asyncio.wait([self._task])
        self._task = None

    async def _run(self, store: MemoryStore) -> None:
        cache = Cache(store, relist_s=self.relist_s)
        rng = random.Random(self._dice.getrandbits(32))
        election = Election(store, store.link.name, (), now=self.now, rng=rng)

        async def lead(term: Term) -> None:
            leader = Leader(store, cache, term, now=self.now, grace_s=GRACE_S, secrets_key=self.secrets_key)
            await leader.run()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(cache.run(), name="cache")
            tasks.create_task(election.run(lead), name="election")


async def until_killed(work: Awaitable[None]) -> None:
    """Do the work; to be cancelled is its end."""
    with contextlib.suppress(asyncio.CancelledError):
        await work


class World:
    """The cluster, its user, and its misfortunes."""

    def __init__(self, seed: int, machines: int = 4, masters: int = 2, admin: MemoryStore | None = None) -> None:
        self.dice = random.Random(seed)
        self.desk_relist_s = RELIST_S
        self.admin = admin or MemoryStore()
        self.machines = {f"m{n}": self.machine(f"m{n}") for n in range(1, machines + 1)}
        self.masters = {f"master{n}": self.master(f"master{n}") for n in range(1, masters + 1)}
        self.wishes: dict[str, TargetState] = {}
        self.trace: list[str] = []
        self.witness = Witness(self.admin, {name: machine.host for name, machine in self.machines.items()})
        self._incarnations = random.Random(1)
        self._tasks: asyncio.TaskGroup
        self._desk: asyncio.Task[None]
        self._changer: Changer
        self._orders: Orders
        self.cache: Cache

    def machine(self, name: str) -> SimMachine:
        """Make a machine of this world."""
        return SimMachine(name, self.admin, self.dice)

    def master(self, name: str) -> SimMaster:
        """Make a master of this world."""
        return SimMaster(name, self.admin, self.dice)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start everything; leaving ends it."""
        await self.admin.txn([], [Put(keys.CLUSTER, codec.encode(Cluster(id="simulated")))])
        async with asyncio.TaskGroup() as self._tasks:
            self.open_desk()
            watches = self._tasks.create_task(self.witness.run())
            for part in self._parts:
                part.start(self._tasks)
            try:
                yield
            finally:
                for part in self._parts:
                    await part.kill()
                for task in (self._desk, watches):
                    task.cancel()

    def open_desk(self) -> None:
        """Let the user's wishes be carried out by a master's API that has just begun."""
        self.cache = Cache(self.admin.client("desk"), relist_s=self.desk_relist_s)
        self._changer = Changer(self.admin, self.cache, now=now, rng=self._incarnations)
        self._orders = Orders(self.admin, self.cache, now=now)
        self._desk = self._tasks.create_task(until_killed(self.cache.run()))

    def say(self, text: str) -> None:
        """Add a line to the story that a failure tells."""
        self.trace.append(f"{asyncio.get_running_loop().time():7.2f} {text}")

    # ------------------------------------------------------------------ the user

    async def wish(self, name: str, target: TargetState | None, *, restart: bool = False) -> None:
        """Ask for a target state or a restart; what is acknowledged is remembered."""
        text = TEXT + UNITS[name] if target not in (None, TargetState.DESTROYED) else None
        (result,) = (
            await self._changer.carry_out([Change(name=name, text=text, target=target, restart=restart)])
        ).items
        self.say(
            f"user: {name} {'restart' if restart else target}: {result.error.message if result.error else 'ok'}"
        )
        if result.error is None and target is not None:
            self.wishes[name] = target

    async def order(self, machine: str, order: MachineOrder) -> None:
        """Give an order about a machine; a refusal is an answer too."""
        try:
            await self._orders.machine(machine, order)
            self.say(f"user: {order} {machine}: ok")
        except UnitfleetError as error:
            self.say(f"user: {order} {machine}: {error.message}")

    # ------------------------------------------------------------------ the seed's choice

    async def something_happens(self) -> None:
        """Draw a wish or a misfortune."""
        moves = (
            (8, self._wishes),
            (2, self._restarts),
            (1.5, self._limits),
            (1.5, self._drains),
            (1, self._removes),
            (2, self._agent_dies_or_returns),
            (1.5, self._power_fails_or_returns),
            (2, self._link_is_cut_or_heals),
            (1, self._link_is_slow),
            (2, self._answers_are_lost),
            (1, self._lease_is_revoked),
            (1.5, self._master_dies_or_returns),
            (1, self._a_copy_crashes),
            (0.5, self._store_compacts),
        )
        move = self.dice.choices([move for _, move in moves], [weight for weight, _ in moves])[0]
        await move()

    @property
    def _parts(self) -> list[SimMachine | SimMaster]:
        return [*self.masters.values(), *self.machines.values()]

    def _machine(self) -> SimMachine:
        return self.dice.choice(list(self.machines.values()))

    def _any_store(self) -> MemoryStore:
        return self.dice.choice(self._parts).store

    async def _wishes(self) -> None:
        name = self.dice.choice(list(UNITS))
        weights = (6, 1, 1, 1)
        states = (TargetState.LAUNCHED, TargetState.LOADED, TargetState.INACTIVE, TargetState.DESTROYED)
        await self.wish(name, self.dice.choices(states, weights)[0])

    async def _restarts(self) -> None:
        await self.wish(self.dice.choice(list(UNITS)), None, restart=True)

    async def _limits(self) -> None:
        name = self.dice.choice(list(UNITS))
        rate = self.dice.choice((None, UPLINK // 5, UPLINK // 3, UPLINK // 2, UPLINK))
        wish = NetLimit(reset=True) if rate is None else NetLimit(egress=rate)
        (result,) = (await self._changer.carry_out([Change(name=name, bandwidth=wish)])).items
        self.say(f"user: {name} net limit {rate}: {result.error.message if result.error else 'ok'}")

    async def _drains(self) -> None:
        order = self.dice.choice(
            (MachineOrder.DRAIN, MachineOrder.UNDRAIN, MachineOrder.CORDON, MachineOrder.UNCORDON)
        )
        await self.order(self._machine().name, order)

    async def _removes(self) -> None:
        await self.order(self._machine().name, self.dice.choice((MachineOrder.LOST, MachineOrder.RM)))

    async def _agent_dies_or_returns(self) -> None:
        machine = self._machine()
        self.say(f"agent of {machine.name} {'is killed' if machine.up else 'starts'}")
        if machine.up:
            await machine.kill()
        else:
            machine.start(self._tasks)

    async def _power_fails_or_returns(self) -> None:
        machine = self._machine()
        self.say(f"{machine.name} {'loses power' if machine.up else 'boots'}")
        if machine.up:
            self.witness.power_fails(machine.name)
            await machine.power_off()
        else:
            machine.start(self._tasks)

    async def _link_is_cut_or_heals(self) -> None:
        link = self._any_store().link
        self.say(f"link of {link.name} {'heals' if link.is_cut else 'is cut'}")
        if link.is_cut:
            link.heal()
        else:
            link.cut()

    async def _link_is_slow(self) -> None:
        link = self._any_store().link
        delay = self.dice.choice((0.0, 0.05, 0.5, 2.0))
        self.say(f"link of {link.name} takes {delay} s")
        link.slow(delay_s=delay, watch_delay_s=self.dice.choice((0.0, delay, 3.0)))

    async def _answers_are_lost(self) -> None:
        link = self._any_store().link
        self.say(f"{link.name} loses an answer or a request")
        link.lose(answers=self.dice.randrange(3), requests=self.dice.randrange(2))

    async def _lease_is_revoked(self) -> None:
        kv = await self.admin.get(keys.presence(self._machine().name))
        if kv is not None and kv.lease:
            self.say(f"lease of {kv.key} is revoked")
            self.admin.server.revoke(kv.lease)

    async def _master_dies_or_returns(self) -> None:
        master = self.dice.choice(list(self.masters.values()))
        self.say(f"{master.name} {'is killed' if master.up else 'starts'}")
        if master.up:
            await master.kill()
        else:
            master.start(self._tasks)

    async def _a_copy_crashes(self) -> None:
        machine = self._machine()
        if machine.host.running():
            unit = self.dice.choice(sorted(machine.host.running()))
            self.say(f"{unit} crashes on {machine.name}")
            self.witness.crashes(machine.name, unit)
            machine.host.crash(unit)

    async def _store_compacts(self) -> None:
        await self.admin.compact(self.cache.view.revision)

    # ------------------------------------------------------------------ the end

    async def heal(self) -> None:
        """Let every misfortune end: all run, all links are whole, no machine is drained, no uplink is full."""
        self.say("everything heals")
        for part in self._parts:
            part.store.link.heal()
            part.store.link.slow()
            part.store.link.lose()
            if not part.up:
                part.start(self._tasks)
        await self.cache.wait_for(0, 5.0)
        for name in self.cache.view.machine_specs.keys() & self.cache.view.roster.keys():
            for order in (MachineOrder.UNDRAIN, MachineOrder.UNCORDON):
                with contextlib.suppress(UnitfleetError):
                    await self._orders.machine(name, order)
        limited = [name for name, entry in self.cache.view.units.items() if entry.value.bandwidth is not None]
        await self._changer.carry_out([Change(name=name, bandwidth=NetLimit(reset=True)) for name in limited])
        await self._orders.brake(BrakeOrder.AUTO)
