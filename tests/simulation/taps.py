"""Taps on what a process does to the outside: every write to the store, every call of a driver.

A `Tap` numbers them as *points*, the same in every run of a story, and troubles the process at one of them: at a
`Moment` of the call, by a `Trouble`. See `simulation.crash_points`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from unit_agent.driver import Copy, Order, Report
from unit_agent.drivers.fake import FakeDriver, FakeHost
from unitfleet import keys
from unitfleet.errors import DriverUnavailable, OutcomeUnknown, StoreUnavailable, UnitfleetError
from unitfleet.memory import MemoryServer, MemoryStore
from unitfleet.store import Batch, Compare, KeyValue, Lease, Listing, Op, TxnResult

T = TypeVar("T")

STALE_S = 2.0
"""How long a view stays behind: shorter than what makes an agent doubt its store for good."""

DYING_S = 0.02
"""How long a process still goes by an answer that was lost, before it is killed."""

DRIVER = "driver"


class Moment(Enum):
    """Where in a call it happens."""

    BEFORE = "before"  # the call never takes effect
    AFTER = "after"  # it took effect and was answered
    LOST = "answer lost"  # it took effect, and the caller is told an error


class Trouble(Enum):
    """What happens to the process there."""

    CRASH = "crash"  # it is killed, and starts again
    STALE = "stale view"  # for `STALE_S` it reads the store as it was before the call; a driver's lists come late
    MISSED = "missed event"  # the next event that it would hear never comes


@dataclass(frozen=True, slots=True)
class Point:
    """The `number`-th time that a process makes a call: kinds of keys that it writes, or the driver's verb."""

    process: str
    call: str
    number: int

    @property
    def of_driver(self) -> bool:
        """Whether it is a call of a driver, not a write to the store."""
        return self.call.startswith(DRIVER)

    @property
    def has_effect(self) -> bool:
        """Whether it changes anything outside."""
        return self.call not in (f"{DRIVER} list", f"{DRIVER} find")

    def __str__(self) -> str:
        return f"{self.process} {self.call} #{self.number}"


@dataclass(frozen=True, slots=True)
class Perturbation:
    """What is done to one run of a story."""

    point: Point
    moment: Moment
    trouble: Trouble

    def __str__(self) -> str:
        return f"{self.trouble.value} at {self.point}, {self.moment.value}"


class Life:
    """One run of a process, from its start to its end: dead, none of its calls goes through or comes back."""

    def __init__(self, process: str) -> None:
        self.process = process
        self.dead = False
        self.stale_until = 0.0
        self.stale_revision = 0
        self.late_until = 0.0
        self.misses = 0  # 1: the next event that it hears of the store
        self.missed_revision = 0
        self.misses_copy = False  # the next event of its driver

    @property
    def is_stale(self) -> bool:
        """Whether it reads of the store what was, not what is."""
        return asyncio.get_running_loop().time() < self.stale_until

    @property
    def lists_late(self) -> bool:
        """Whether its driver takes so long to list its copies that others come and go meanwhile."""
        return asyncio.get_running_loop().time() < self.late_until

    async def end(self) -> None:
        """Die: for whoever calls, nothing comes any more."""
        self.dead = True
        await asyncio.Event().wait()


class Tap:
    """Knows all points of a run, and where it is to be troubled. `kill` is told which process is to die now."""

    def __init__(self, perturbation: Perturbation | None = None) -> None:
        self.perturbation = perturbation
        self.kill: Callable[[str], None] = lambda process: None
        self.points: list[Point] = []
        self.recording = False
        self.hit = False
        self.left_out: set[str] = set()  # units of whose copies no list tells
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._lives: dict[str, Life] = {}

    def life(self, process: str) -> Life:
        """Return the life that a process has now."""
        return self._lives[process]

    def begins(self, process: str) -> Life:
        """Let a process live anew."""
        self._lives[process] = Life(process)
        return self._lives[process]

    async def call(
        self,
        life: Life,
        name: str,
        work: Callable[[], Awaitable[T]],
        begin_staleness: Callable[[], None],
        unanswered: Callable[[str], UnitfleetError],
        refused: Callable[[str], UnitfleetError],
    ) -> T:
        """Do `work`, or what the perturbation makes of it; `unanswered` and `refused` make the caller's errors."""
        if life.dead:
            await life.end()
        self._numbers[life.process, name] += 1
        point = Point(life.process, name, self._numbers[life.process, name])
        if self.recording:
            self.points.append(point)
        if self.perturbation is None or self.perturbation.point != point:
            result = await work()
            if life.dead:
                await life.end()
            return result
        self.hit = True
        moment, trouble = self.perturbation.moment, self.perturbation.trouble
        match trouble:
            case Trouble.STALE:
                begin_staleness()
            case Trouble.MISSED if point.of_driver:
                life.misses_copy = True
            case Trouble.MISSED:
                life.misses = 1
        if moment is not Moment.BEFORE:
            result = await work()
        if trouble is Trouble.CRASH:
            if moment is Moment.LOST:
                asyncio.get_running_loop().call_later(DYING_S, self._die, life)
            else:
                self._die(life)
                await life.end()
        if moment is Moment.BEFORE:
            raise refused(f"cannot {name}: it never went out, as programmed")
        if moment is Moment.LOST:
            raise unanswered(f"cannot know what became of {name}: its answer was lost, as programmed")
        return result

    def _die(self, life: Life) -> None:
        if not life.dead:
            life.dead = True
            self.kill(life.process)


class TapStore(MemoryStore):
    """A client whose writes are points. `client` begins a new life of the process that it is named for."""

    def __init__(self, tap: Tap, life: Life, server: MemoryServer | None = None, *, name: str = "store") -> None:
        super().__init__(server, name=name)
        self._tap = tap
        self._life = life

    def client(self, name: str) -> TapStore:
        return TapStore(self._tap, self._tap.begins(name), self.server, name=name)

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        kinds = sorted({keys.split(op.key)[0] for op in then})
        return await self._tapped("+".join(kinds), lambda: super(TapStore, self).txn(compares, then, otherwise))

    async def grant(self, ttl_s: float, lease_id: int = 0) -> Lease:
        return await self._tapped("grant", lambda: super(TapStore, self).grant(ttl_s, lease_id))

    async def revoke(self, lease_id: int) -> None:
        await self._tapped("revoke", lambda: super(TapStore, self).revoke(lease_id))

    async def compact(self, revision: int) -> None:
        await self._tapped("compact", lambda: super(TapStore, self).compact(revision))

    async def get(self, key: str) -> KeyValue | None:
        if not self._life.is_stale:
            return await super().get(key)
        listing = await self.list(key)
        return next((item for item in listing.items if item.key == key), None)

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        if self._life.is_stale and revision == 0:
            revision = self._life.stale_revision
        return await super().list(prefix, revision=revision)

    async def watch(self, prefix: str, *, start_revision: int) -> AsyncGenerator[Batch, None]:
        async for batch in super().watch(prefix, start_revision=start_revision):
            if self._life.misses:
                self._life.misses, self._life.missed_revision = 0, batch.revision
            if batch.revision != self._life.missed_revision:
                yield batch

    async def _tapped(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        return await self._tap.call(self._life, name, work, self._become_stale, OutcomeUnknown, StoreUnavailable)

    def _become_stale(self) -> None:
        """See nothing of this write and of what comes, for a while: a member that lags."""
        loop = asyncio.get_running_loop()
        self._life.stale_until = loop.time() + STALE_S
        self._life.stale_revision = self.server.history.revision
        self.link.slow(watch_delay_s=STALE_S)
        loop.call_later(STALE_S, self.link.slow)


class TapDriver(FakeDriver):
    """A driver whose calls are points: those by which an agent runs units, not those of its duties."""

    def __init__(self, tap: Tap, life: Life, host: FakeHost, name: str) -> None:
        super().__init__(host, name)
        self._tap = tap
        self._life = life

    async def list(self) -> Sequence[Copy]:
        async def look() -> Sequence[Copy]:
            seen = await super(TapDriver, self).list()
            if self._life.lists_late:
                await asyncio.sleep(STALE_S)  # what was when it was asked, not what is
            return [copy for copy in seen if copy.unit not in self._tap.left_out]

        return await self._do("list", look)

    async def find(self, unit: str) -> Copy | None:
        return await self._do("find", lambda: super(TapDriver, self).find(unit))

    async def prepare(self, order: Order, report: Report) -> str:
        return await self._do("prepare", lambda: super(TapDriver, self).prepare(order, report))

    async def create(self, order: Order) -> Copy:
        return await self._do("create", lambda: super(TapDriver, self).create(order))

    async def start(self, order: Order) -> Copy:
        return await self._do("start", lambda: super(TapDriver, self).start(order))

    async def stop(self, unit: str) -> None:
        await self._do("stop", lambda: super(TapDriver, self).stop(unit))

    async def remove(self, unit: str) -> None:
        await self._do("remove", lambda: super(TapDriver, self).remove(unit))

    async def events(self) -> AsyncGenerator[str, None]:
        async for unit in super().events():
            if unit and self._life.misses_copy:
                self._life.misses_copy = False
                continue
            yield unit

    async def _do(self, verb: str, work: Callable[[], Awaitable[T]]) -> T:
        name = f"{DRIVER} {verb}"
        return await self._tap.call(
            self._life, name, work, self._become_stale, DriverUnavailable, DriverUnavailable
        )

    def _become_stale(self) -> None:
        self._life.late_until = asyncio.get_running_loop().time() + STALE_S
