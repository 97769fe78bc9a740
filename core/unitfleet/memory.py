"""A store in memory that behaves as etcd does: for simulations, for tests, never for a cluster.

A `MemoryServer` is the etcd; each `MemoryStore` is one client of it, with a `Link` between that simulations
cut, slow down, or let lose answers:

    store = MemoryStore()
    agent = store.client("m1")
    agent.link.cut()

No threads and no tasks: leases end by the running loop's clock, so everything works under virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from unitfleet.errors import LeaseLost, OutcomeUnknown, StoreError, StoreUnavailable
from unitfleet.mvcc import History, check_operations, narrowed
from unitfleet.store import (
    Batch,
    Compare,
    Delete,
    KeyValue,
    Lease,
    Listing,
    MemberStatus,
    Op,
    Put,
    StoreStatus,
    TxnResult,
)

T = TypeVar("T")

MIN_TTL_S = 2
"""etcd's floor with its default election timeout."""


@dataclass(slots=True)
class Held:
    """A lease that lives: what was granted, when it ends (loop time), the keys it holds."""

    ttl_s: int
    deadline: float
    keys: set[str] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class _Subscription:
    """What a watch has yet to deliver, each batch with the loop time of its commit."""

    prefix: str
    start_revision: int
    wake: asyncio.Event
    queue: deque[tuple[float, Batch]] = field(default_factory=deque)


class MemoryServer:
    """The keys, leases and subscriptions that all clients share. Every method is atomic."""

    def __init__(self, cluster_id: str = "memory") -> None:
        self.cluster_id = cluster_id
        self._history = History()
        self._leases: dict[int, Held] = {}
        self._bound: dict[str, int] = {}
        self._next_lease = 1
        self._next_end = math.inf
        # dicts in place of sets: woken in one order in every run, so that a seed repeats
        self._subscriptions: dict[str, dict[_Subscription, None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def history(self) -> History:
        """The keys as they are now: leases that have run out are gone."""
        self._expire()
        return self._history

    def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op]) -> TxnResult:
        """Do `then` or `otherwise`; raises `LeaseLost` when a key would be bound to no lease."""
        check_operations(compares, then)
        check_operations(compares, otherwise)
        succeeded = all(self.history.holds(compare) for compare in compares)
        operations = then if succeeded else otherwise
        for op in operations:
            if isinstance(op, Put) and op.lease and op.lease not in self._leases:
                raise LeaseLost(f"cannot write {op.key}: lease {op.lease:x} is gone")
        return TxnResult(succeeded, self._commit(operations))

    def grant(self, ttl_s: float, lease_id: int) -> Lease:
        """Make a lease of whole seconds, as etcd does."""
        self._expire()
        if lease_id in self._leases:
            raise StoreError(f"cannot grant lease {lease_id:x}: it exists")
        if not lease_id:
            while self._next_lease in self._leases:
                self._next_lease += 1
            lease_id = self._next_lease
            self._next_lease += 1
        granted = max(MIN_TTL_S, math.ceil(ttl_s))
        self._leases[lease_id] = Held(granted, _now() + granted)
        self._look_again()
        return Lease(lease_id, granted)

    def keepalive(self, lease_id: int) -> float:
        """Begin a lease's time anew; raises `LeaseLost`."""
        self._expire()
        held = self._leases.get(lease_id)
        if held is None:
            raise LeaseLost(f"cannot renew lease {lease_id:x}: it is gone")
        held.deadline = _now() + held.ttl_s
        return held.ttl_s

    def revoke(self, lease_id: int) -> None:
        """End a lease; its keys go in one revision. A simulation may call it to end a lease before its time."""
        self._expire()
        held = self._leases.pop(lease_id, None)
        if held is not None:
            self._commit([Delete(key) for key in sorted(held.keys)])

    def subscribe(self, prefix: str, start_revision: int, wake: asyncio.Event) -> _Subscription:
        """Queue what changed under `prefix` from `start_revision` on, and what will; raises `Compacted`."""
        backlog = self.history.since(start_revision, prefix)
        subscription = _Subscription(prefix, start_revision, wake)
        subscription.queue.extend((_now(), batch) for batch in backlog)
        self._subscriptions.setdefault(prefix, {})[subscription] = None
        return subscription

    def unsubscribe(self, subscription: _Subscription) -> None:
        """Queue nothing more."""
        same = self._subscriptions[subscription.prefix]
        same.pop(subscription, None)
        if not same:
            del self._subscriptions[subscription.prefix]

    def _commit(self, operations: Sequence[Op]) -> int:
        """Apply, move the keys between leases, tell the watches; return the store's revision."""
        batch = self._history.apply(operations)
        touched: dict[_Subscription, None] = {}
        for event in batch.events:
            key = event.kv.key
            if held := self._leases.get(self._bound.pop(key, 0)):
                held.keys.discard(key)
            if event.kv.lease:
                self._bound[key] = event.kv.lease
                self._leases[event.kv.lease].keys.add(key)
            for length in range(len(key) + 1):
                touched |= self._subscriptions.get(key[:length], {})
        for subscription in touched:
            if batch.revision >= subscription.start_revision:
                subscription.queue.append((_now(), narrowed(batch, subscription.prefix)))
                subscription.wake.set()
        return batch.revision

    def _expire(self) -> None:
        """End every lease whose time is over, the earliest first."""
        now = _now()
        if now < self._next_end:
            return
        over = [(held.deadline, lease_id) for lease_id, held in self._leases.items() if held.deadline <= now]
        for _, lease_id in sorted(over):
            keys = self._leases.pop(lease_id).keys
            self._commit([Delete(key) for key in sorted(keys)])
        self._next_end = min((held.deadline for held in self._leases.values()), default=math.inf)

    def _look_again(self) -> None:
        """Have `_expire` called when the earliest lease may end; renewals in between only make that early."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._next_end = min((held.deadline for held in self._leases.values()), default=math.inf)
        if self._leases:
            self._timer = asyncio.get_running_loop().call_at(self._next_end, self._on_timer)

    def _on_timer(self) -> None:
        self._expire()
        self._look_again()  # a loop may call a hair too early: then nothing has expired yet


class Link:
    """The way between one client and the server, and the switches by which a simulation spoils it.

    While cut, a call fails at its deadline unless the link heals before, and watches stall; healed, they go on
    from where they were, or raise `Compacted` like any watch that comes back too late. It may be cut in one
    direction alone: then requests are done and their answers are lost, or watches go on and requests are lost.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.delay_s = 0.0
        self.watch_delay_s = 0.0
        self.lose_answers = 0
        self.lose_requests = 0
        self._there = asyncio.Event()
        self._back = asyncio.Event()
        self._there.set()
        self._back.set()
        self._wakes: dict[asyncio.Event, None] = {}

    @property
    def is_cut(self) -> bool:
        """Whether something does not pass."""
        return not (self._there.is_set() and self._back.is_set())

    @property
    def is_deaf(self) -> bool:
        """Whether nothing comes back from the server."""
        return not self._back.is_set()

    def cut(self, *, there: bool = True, back: bool = True) -> None:
        """Let nothing pass, in either direction or in one."""
        if there:
            self._there.clear()
        if back:
            self._back.clear()
        self.wake()

    def heal(self) -> None:
        """Let everything pass again."""
        self._there.set()
        self._back.set()
        self.wake()

    def slow(self, *, delay_s: float = 0.0, watch_delay_s: float = 0.0) -> None:
        """Delay each direction of a call, and each batch of a watch, by so many seconds."""
        self.delay_s = delay_s
        self.watch_delay_s = watch_delay_s
        self.wake()

    def lose(self, *, answers: int = 0, requests: int = 0) -> None:
        """Lose the answers of the next writes that happen, then the requests of the next, which never do.

        Both raise `OutcomeUnknown` in the caller, at its deadline.
        """
        self.lose_answers = answers
        self.lose_requests = requests

    def wake(self) -> None:
        """Let every watch look at the switches again."""
        for wake in self._wakes:
            wake.set()

    @contextlib.contextmanager
    def waking(self) -> Iterator[asyncio.Event]:
        """Give an event that is set on every change of the link."""
        wake = asyncio.Event()
        self._wakes[wake] = None
        try:
            yield wake
        finally:
            del self._wakes[wake]

    async def go(self) -> None:
        """Travel to the server; give other tasks a turn even when it takes no time."""
        await asyncio.sleep(self.delay_s)
        await self._there.wait()

    async def come_back(self) -> None:
        """Travel from the server."""
        await asyncio.sleep(self.delay_s)
        await self._back.wait()


class MemoryStore:
    """One client's view of a `MemoryServer`; a `unitfleet.store.Store`.

    `MemoryStore()` has a server of its own; `client` gives another view of it. Calls fail `timeout_s` seconds
    (loop time) after they began when the link is cut. Watches yield one batch a revision and no progress.
    """

    def __init__(
        self,
        server: MemoryServer | None = None,
        *,
        name: str = "store",
        timeout_s: float = 5.0,
    ) -> None:
        self.server = server or MemoryServer()
        self.link = Link(name)
        self.timeout_s = timeout_s
        self._closed = False

    def client(self, name: str) -> MemoryStore:
        """Return another client of the same server, with a link of its own."""
        return MemoryStore(self.server, name=name, timeout_s=self.timeout_s)

    async def get(self, key: str) -> KeyValue | None:
        """Return the key as it is now, or None."""
        return await self._read(lambda: self.server.history.get(key))

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        """Return every key under `prefix` as of one revision (0: now); raises `Compacted`."""
        return await self._read(lambda: self.server.history.list(prefix, revision))

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        """Do `then` if every compare holds, else `otherwise`, atomically."""
        return await self._write(lambda: self.server.txn(compares, then, otherwise))

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        """Write a key and return the revision."""
        return (await self.txn((), (Put(key, value, lease),))).revision

    async def delete(self, key: str) -> int:
        """Delete a key, present or not, and return the revision."""
        return (await self.txn((), (Delete(key),))).revision

    async def watch(self, prefix: str, *, start_revision: int) -> AsyncGenerator[Batch, None]:
        """Yield every change under `prefix` from `start_revision` on, a batch a revision; raises `Compacted`."""
        following = max(1, start_revision)
        with self.link.waking() as wake:
            while not self._closed:
                await self._until(wake, lambda: self._closed or not self.link.is_cut)
                if self._closed:
                    return
                subscription = self.server.subscribe(prefix, following, wake)
                try:
                    while not (self._closed or self.link.is_deaf):
                        wake.clear()
                        if batch := self._due(subscription):
                            following = batch.revision + 1
                            yield batch
                        else:
                            await self._turn(subscription)
                finally:
                    self.server.unsubscribe(subscription)

    async def grant(self, ttl_s: float, lease_id: int = 0) -> Lease:
        """Make a lease of at least `ttl_s` seconds; `lease_id` 0 lets the store choose."""
        return await self._write(lambda: self.server.grant(ttl_s, lease_id))

    async def keepalive(self, lease_id: int, timeout_s: float) -> float:
        """Renew a lease and return its remaining seconds; raises `LeaseLost`."""
        return await self._read(lambda: self.server.keepalive(lease_id), timeout_s)

    async def revoke(self, lease_id: int) -> None:
        """End a lease and delete its keys; a lease that is gone already is fine."""
        await self._write(lambda: self.server.revoke(lease_id))

    async def compact(self, revision: int) -> None:
        """Forget what was before `revision`. Already compacted is fine."""
        await self._write(lambda: self.server.history.compact(revision))

    async def status(self) -> StoreStatus:
        """Say how the store is."""
        return await self._read(lambda: StoreStatus("memory", 0, True, self.server.cluster_id))

    async def members(self) -> tuple[MemberStatus, ...]:
        """Ask the server how it is; a cut link is told as a member that does not answer."""
        try:
            status = await self.status()
        except StoreUnavailable as error:
            return (MemberStatus(self.link.name, trouble=error.message),)
        return (MemberStatus(self.link.name, version=status.version, has_leader=True),)

    async def close(self) -> None:
        """End this client's watches and refuse its calls; the server and its other clients go on."""
        self._closed = True
        self.link.wake()

    async def _read(self, call: Callable[[], T], timeout_s: float | None = None) -> T:
        """Ask the server something that may be asked again; raises `StoreUnavailable` at the deadline."""
        self._refuse_when_closed()
        try:
            async with asyncio.timeout(self.timeout_s if timeout_s is None else timeout_s):
                await self.link.go()
                answer = call()
                await self.link.come_back()
        except TimeoutError:
            raise StoreUnavailable(f"cannot reach the store from {self.link.name}: no answer in time") from None
        return answer

    async def _write(self, call: Callable[[], T]) -> T:
        """Let the server do something; raises `StoreUnavailable` before, `OutcomeUnknown` after it was sent."""
        self._refuse_when_closed()
        sent = False
        try:
            async with asyncio.timeout(self.timeout_s):
                await self.link.go()
                sent = True
                if self.link.lose_answers:
                    self.link.lose_answers -= 1
                    call()
                    await asyncio.Event().wait()
                if self.link.lose_requests:
                    self.link.lose_requests -= 1
                    await asyncio.Event().wait()
                answer = call()
                await self.link.come_back()
        except TimeoutError:
            if sent:
                raise OutcomeUnknown(f"cannot know a write of {self.link.name}: its answer was lost") from None
            raise StoreUnavailable(f"cannot reach the store from {self.link.name}: no answer in time") from None
        return answer

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"cannot reach the store from {self.link.name}: this client was closed")

    def _due(self, subscription: _Subscription) -> Batch | None:
        """Take the next batch if it has arrived."""
        if subscription.queue and subscription.queue[0][0] + self.link.watch_delay_s <= _now():
            return subscription.queue.popleft()[1]
        return None

    async def _turn(self, subscription: _Subscription) -> None:
        """Wait until the next batch arrives, or something about the subscription or the link changes."""
        arrival = subscription.queue[0][0] + self.link.watch_delay_s if subscription.queue else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(arrival):
                await subscription.wake.wait()

    @staticmethod
    async def _until(wake: asyncio.Event, condition: Callable[[], bool]) -> None:
        while not condition():
            wake.clear()
            await wake.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()
