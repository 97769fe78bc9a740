"""A small cluster all of whose writes and driver calls are tapped, with an API that may die like the rest."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from simulation.taps import Life, Tap, TapDriver, TapStore
from simulation.test_promises import settled
from simulation.witness import LOOK_S
from simulation.world import TEXT, UNITS, SimMachine, SimMaster, World, now
from unit_agent.driver import Driver, Order
from unit_agent.drivers.fake import Behaviour, FakeDriver, FakeHost
from unit_agent.strict.deadlines import Deadlines
from unit_agent.strict.fake import FakeRegister
from unit_master.cache import Cache
from unit_master.changes import Changer
from unit_master.orders import Orders
from unit_master.secrets.keep import Secrets
from unitfleet import codec, keys
from unitfleet.api import Change, Changed
from unitfleet.errors import NotFound, Refused, StoreError
from unitfleet.memory import MemoryStore
from unitfleet.model import TargetState, Unit
from unitfleet.store import Event, EventKind

T = TypeVar("T")

API = "api"
DOWN_S = 0.3
"""How long a process that was killed is away: an agent's lease outlives that, a leader's too."""

RELIST_S = 15.0
"""In place of minutes: what a missed event leaves undone is done by then, and a run has less to wait for."""

STORY_S = 90.0
"""Within which each step of a story comes to its end, whatever is done to it."""

TRIES = 6
SECRETS_KEY = "5e" * 32


class Unanswered(Exception):
    """The API died over a command."""


class SimApi:
    """A master's API without its HTTP: the commands under way die with it."""

    def __init__(self, admin: TapStore) -> None:
        self.name = API
        self._admin = admin
        self.store: MemoryStore = admin.client(API)
        self._task: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self.changer: Changer
        self.orders: Orders
        self.secrets: Secrets

    @property
    def up(self) -> bool:
        """Whether it runs."""
        return self._task is not None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start it."""
        self._tasks = tasks
        self.store = self._admin.client(API)
        cache = Cache(self.store, relist_s=RELIST_S)
        self.changer = Changer(self.store, cache, now=now, rng=random.Random(len(self._calls)))
        self.orders = Orders(self.store, cache, now=now)
        self.secrets = Secrets(self.store, cache, SECRETS_KEY, now=now)
        self._task = tasks.create_task(_unless_killed(cache.run()), name=API)

    async def kill(self) -> None:
        """kill -9 it."""
        victims = [task for task in (self._task, *self._calls) if task is not None]
        self._task, self._calls = None, set()
        for task in victims:
            task.cancel()
        if victims:
            await asyncio.wait(victims)

    async def call(self, command: Callable[[SimApi], Awaitable[T]]) -> T:
        """Give a command and return its answer; raises what it raises, or `Unanswered`."""
        answers: list[T] = []
        errors: list[Exception] = []

        async def carry_out() -> None:
            try:
                answers.append(await command(self))
            except Exception as error:
                errors.append(error)

        if not self.up:
            raise Unanswered
        task = self._tasks.create_task(_unless_killed(carry_out()), name="command")
        self._calls.add(task)
        await asyncio.wait([task])
        self._calls.discard(task)
        if errors:
            raise errors[0]
        if not answers:
            raise Unanswered
        return answers[0]


async def _carry_out(changes: list[Change], api: SimApi) -> Changed:
    return await api.changer.carry_out(changes)


async def _unless_killed(work: Awaitable[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await work


class SimDelivery:
    """Opens every secret of a unit, as an agent that writes files would, and remembers them."""

    def __init__(self) -> None:
        self.given: dict[str, dict[str, bytes]] = {}

    async def put(self, order: Order, values: Callable[[str], bytes]) -> Path:
        self.given[order.placement.unit] = {secret.name: values(secret.name) for secret in order.spec.secrets}
        return Path("/secrets") / order.placement.unit

    async def remove(self, unit: str) -> None:
        self.given.pop(unit, None)

    async def sweep(self, known: object) -> None:
        """Nothing is left by what was killed: it is all in memory."""


class CrashMachine(SimMachine):
    """A machine whose driver for `[Service]` is tapped."""

    def __init__(self, name: str, admin: MemoryStore, dice: random.Random, tap: Tap) -> None:
        super().__init__(name, admin, dice)
        self._tap = tap
        self.host.usual = Behaviour(pull_s=0.1, start_s=0.1, stop_s=0.1, image="sha256:1234")
        self.timings = replace(self.timings, relist_s=RELIST_S, verify_s=RELIST_S, look_s=RELIST_S)
        self.private_key = f"{int(name[1:]):02x}" * 32
        self.delivery: SimDelivery = SimDelivery()
        deadlines = Deadlines(self.timings.ttl_s, asyncio.get_running_loop().time)
        self.register: FakeRegister = FakeRegister(self.host, deadlines)

    def drivers(self) -> list[Driver]:
        containers = FakeDriver(FakeHost(now), "docker")  # holds nothing: it makes this a machine with a warm set
        return [TapDriver(self._tap, self._tap.life(self.name), self.host, "process"), containers]


class CrashWorld(World):
    """Three machines, two masters and an API. The processes named in `off` stay down, whatever died before."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self.off: set[str] = set()
        self.killed = False
        self.dying = 0
        self.over = False
        self.ends_by_itself: set[str] = set()
        self.strict = ""
        self._watches: list[asyncio.Task[None]] = []
        self.effects: list[str] = []  # of commands, where they were not as they should be
        admin = TapStore(self.tap, Life("desk"))
        super().__init__(1, machines=3, admin=admin)
        for master in self.masters.values():
            master.relist_s = RELIST_S
            master.secrets_key = SECRETS_KEY
        self.api = SimApi(admin)
        self.tap.kill = self._kill

    def machine(self, name: str) -> SimMachine:
        return CrashMachine(name, self.admin, self.dice, self.tap)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with super().running():
            self.api.start(self._tasks)
            try:
                yield
            finally:
                self.over = True
                await self.api.kill()
                for watch in self._watches:
                    watch.cancel()

    # ------------------------------------------------------------------ deaths

    def _kill(self, process: str) -> None:
        self.killed = True
        self.dying += 1
        self.say(f"{process} is killed")
        self._tasks.create_task(self._die_and_return(process), name=f"death of {process}")

    async def _die_and_return(self, process: str) -> None:
        part = self._part(process)
        await part.kill()
        await asyncio.sleep(DOWN_S)
        self.dying -= 1
        if not (part.up or self.over or process in self.off):
            self.say(f"{process} starts again")
            part.start(self._tasks)

    def guard(self, unit: str) -> None:
        """Have a warden on every host from now on, and hold this unit to one copy at a time."""
        self.strict = unit
        machines = [machine for machine in self.machines.values() if isinstance(machine, CrashMachine)]
        self._watches = [self._tasks.create_task(machine.register.watch()) for machine in machines]
        self._watches.append(self._tasks.create_task(self._count_copies(unit)))

    async def _count_copies(self, unit: str) -> None:
        """P4: a strict unit never has two copies, not even for a moment."""
        while True:
            if len(places := self.runs(unit)) > 1:
                self.effects.append(f"P4: strict {unit} runs on {places}")
            await asyncio.sleep(LOOK_S)

    def _part(self, process: str) -> SimMachine | SimMaster | SimApi:
        if process == API:
            return self.api
        return self.machines.get(process) or self.masters[process]

    async def power_off(self, name: str) -> None:
        """Take a machine's power, until `boot`."""
        self.say(f"{name} loses power")
        self.off.add(name)
        self.witness.power_fails(name)
        machine = self.machines[name]
        await machine.power_off()
        if isinstance(machine, CrashMachine):
            machine.register.reboot()

    def boot(self, name: str) -> None:
        """Give it its power back."""
        self.say(f"{name} boots")
        self.off.discard(name)
        if not self.machines[name].up:
            self.machines[name].start(self._tasks)

    async def take_the_leader(self) -> None:
        """kill -9 the leading master for good."""
        leader = self.cache.view.leader
        assert leader is not None
        self.off.add(leader.value.name)
        self.say(f"{leader.value.name} is killed for good")
        await self.masters[leader.value.name].kill()

    # ------------------------------------------------------------------ the user

    async def ask(self, *changes: Change) -> None:
        """Give wishes until each is answered, as a user does; hold them to one effect, whole or not there."""
        for change in changes:
            if change.target is not None:
                self.wishes[change.name] = change.target
        left = list(changes)
        before = self.admin.server.history.revision
        for asked in range(1, TRIES + 1):
            with contextlib.suppress(Unanswered, StoreError):
                answer = await self.api.call(partial(_carry_out, left))
                for result in answer.items:
                    if result.error is None or (result.error.code == "not_found" and asked > 1):
                        left = [change for change in left if change.name != result.name]
                    elif result.error.code not in ("unavailable", "unknown_outcome"):
                        self.effects.append(f"{result.name}: {result.error.message}")
            self._whole(changes)
            if not left:
                break
            self.say(f"user: no answer about {', '.join(change.name for change in left)}")
            await asyncio.sleep(0.5)
        self.say(f"user: {', '.join(change.name for change in changes)}: {'no answer' if left else 'ok'}")
        for change in changes:
            if change in left:
                self.effects.append(f"{change.name} was never answered")
            starts_anew = change.restart or change.name in self.ends_by_itself
            self._one_effect(keys.unit(change.name), before, twice=starts_anew and self.killed)

    async def command(self, key: str, command: Callable[[SimApi], Awaitable[object]]) -> None:
        """Give a command that writes `key` until it is answered; hold it to one effect.

        What is refused by an old view is right in time; and what is not found when it is asked for again is done.
        """
        before = self.admin.server.history.revision
        for asked in range(1, TRIES + 1):
            try:
                await self.api.call(command)
                break
            except NotFound:
                if asked > 1:
                    break
                raise
            except (Unanswered, StoreError, Refused) as error:
                self.say(f"user: not done: {error!r}")
                await asyncio.sleep(asked)
        else:
            self.effects.append(f"a command about {key} was never answered")
        self._one_effect(key, before, twice=keys.split(key)[0] in ("brake", "warm"))

    def _whole(self, changes: tuple[Change, ...]) -> None:
        """What was written of a wish is all of it: no unit stands without its text."""
        history = self.admin.server.history
        for change in changes:
            held = history.get(keys.unit(change.name))
            if held is None:
                continue
            unit = codec.decode(held.value, Unit, held.key)
            if unit.target is not TargetState.DESTROYED and history.get(keys.spec(unit.spec)) is None:
                self.effects.append(f"{change.name} stands without its text")

    def _one_effect(self, key: str, before: int, *, twice: bool) -> None:
        """A command that was given again wrote once; with `twice`, the second time is another command."""
        found = [event for event in self._events_since(before, key) if event.kind is EventKind.PUT]
        if len(found) > (2 if twice else 1):
            self.effects.append(f"{key} was written {len(found)} times by one command")

    def _events_since(self, revision: int, key: str) -> list[Event]:
        batches = self.admin.server.history.since(revision + 1, key)
        return [event for batch in batches for event in batch.events if event.kv.key == key]

    # ------------------------------------------------------------------ waiting

    async def until(self, what: str, condition: Callable[[], object]) -> None:
        """Wait for something that the story comes to."""
        end = asyncio.get_running_loop().time() + STORY_S
        while not condition():
            assert asyncio.get_running_loop().time() < end, f"never came: {what}"
            await asyncio.sleep(0.1)

    async def rest(self) -> None:
        """Wait until the cluster is as the user asked, by the promises of the simulation."""
        await self.until("who was killed is back", lambda: not self.dying)
        await settled(self)

    def runs(self, unit: str) -> list[str]:
        """Return the machines on which a unit has a process."""
        return sorted(name for name, machine in self.machines.items() if unit in machine.host.running())


def text(more: str = "", service: str = "", start: str = TEXT) -> str:
    """Return a unit's text: `more` in [X-Fleet], `service` in [Service]."""
    return start.replace("[X-Fleet]\n", f"{service}[X-Fleet]\n{more}")


def launched(name: str, contents: str = "", *, changed: bool = False) -> Change:
    """Return the wish to run a unit, by the text that the simulation has of it if none is given."""
    return Change(name=name, text=contents or TEXT + UNITS[name], target=TargetState.LAUNCHED, replace=changed)
