"""A model of etcd with switches for its known faults: leases revoked early, a keepalive that lies, stale reads,
events lost, doubled or late, a store that is full, down, or restored from an old snapshot.

What stays true under all of them: a transaction that commits was decided on the keys as they were. Nothing else
that the store says is to be relied on (docs/architecture.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.processes import outside
from unitfleet.errors import StoreFull
from unitfleet.memory import Held, Link, MemoryServer, MemoryStore
from unitfleet.mvcc import History
from unitfleet.store import Batch, Compare, KeyValue, Lease, Listing, Op, Put, TxnResult

T = TypeVar("T")

ELECTION_S = 1.0
"""After a new leader of its own etcd gives every lease its whole time, and so much more."""

Observer = Callable[[Batch, str], None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The keys and leases as they were."""

    history: History
    leases: dict[int, tuple[int, frozenset[str]]]


class EtcdModel(MemoryServer):
    """The server. `observer(batch, writer)` is told every revision as it is committed, and by which client."""

    def __init__(self) -> None:
        super().__init__("simulated")
        self.up = asyncio.Event()
        self.up.set()
        self.is_full = False  # NOSPACE
        self.lies_until = 0.0  # keepalive answers for leases that are gone
        self.observer: Observer = lambda batch, writer: None
        self.unanswered: dict[str, float] = {}  # client → when a write of it was last done and not answered
        self._writer = ""
        self._past: deque[tuple[float, int]] = deque(maxlen=400)

    def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op]) -> TxnResult:
        if self.is_full and any(isinstance(op, Put) for op in (*then, *otherwise)):
            raise StoreFull("cannot write: the store is full")
        return super().txn(compares, then, otherwise)

    def grant(self, ttl_s: float, lease_id: int) -> Lease:
        if self.is_full:
            raise StoreFull("cannot grant a lease: the store is full")
        return super().grant(ttl_s, lease_id)

    def keepalive(self, lease_id: int) -> float:
        if lease_id not in self._leases and asyncio.get_running_loop().time() < self.lies_until:
            return 5.0
        return super().keepalive(lease_id)

    def by(self, writer: str, call: Callable[[], T]) -> T:
        """Do the call in this client's name."""
        self._writer = writer
        try:
            return call()
        finally:
            self._writer = ""

    def revoke_early(self, share: float, dice: random.Random) -> int:
        """End leases that live, as etcd 3.4 does after its leader was paused; return how many."""
        doomed = [lease for lease in self._leases if dice.random() < share]
        for lease in doomed:
            self.revoke(lease)
        return len(doomed)

    def go_down(self) -> None:
        """Answer nobody, and let no lease end."""
        self.up.clear()

    def come_up(self) -> None:
        """Answer again: whoever leads etcd now gives every lease its whole time."""
        now = asyncio.get_running_loop().time()
        for held in self._leases.values():
            held.deadline = now + held.ttl_s + ELECTION_S
        self.up.set()
        self._look_again()

    def stale_revision(self, age_s: float) -> int:
        """Return the revision that the store was at so long ago, as far as it is still to be had."""
        then = asyncio.get_running_loop().time() - age_s
        old = max((revision for at, revision in self._past if at <= then), default=1)
        return max(old, self._history.compact_revision, 1)

    def snapshot(self) -> Snapshot:
        """Return what may be restored later."""
        leases = {lease: (held.ttl_s, frozenset(held.keys)) for lease, held in self._leases.items()}
        return Snapshot(_copied(self.history), leases)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot: the revision is lower than it was, and watches hear nothing until it is not."""
        following = self._history.revision + 1
        self._history = _copied(snapshot.history)
        self._leases.clear()
        self._bound.clear()
        now = asyncio.get_running_loop().time()
        for lease, (ttl_s, held) in snapshot.leases.items():
            self._leases[lease] = Held(ttl_s, now + ttl_s + ELECTION_S, set(held))
            self._bound.update(dict.fromkeys(held, lease))
        for same in self._subscriptions.values():
            for subscription in same:
                subscription.queue.clear()
                subscription.start_revision = max(subscription.start_revision, following)
        self._past.clear()
        self._look_again()

    def _commit(self, operations: Sequence[Op]) -> int:
        before = self._history.revision
        revision = super()._commit(operations)
        if revision != before:
            self._past.append((asyncio.get_running_loop().time(), revision))
            self.observer(self._history.newest, self._writer)
        return revision

    def _expire(self) -> None:
        if self.up.is_set():
            super()._expire()

    def _on_timer(self) -> None:
        if self.up.is_set():
            super()._on_timer()

    def _look_again(self) -> None:
        outside(super()._look_again)


def _copied(history: History) -> History:
    """Copy what changes; keys and values never do."""
    other = copy.copy(history)
    for name, value in vars(history).items():
        if isinstance(value, dict | list):
            setattr(other, name, copy.copy(value))
    other._versions = {key: list(versions) for key, versions in history._versions.items()}
    return other


class ModelLink(Link):
    """A link that ends at the model, with what etcd's members do to one client alone.

    `stale_s`: reads answer as of so many seconds ago, until `stale_until`. `lose_events`, `repeat_events`: so
    many of the next batches of watches are skipped, or followed by one that came before.
    """

    def __init__(self, name: str, server: EtcdModel) -> None:
        super().__init__(name)
        self._server = server
        self.stale_s = 0.0
        self.stale_until = 0.0
        self.lose_events = 0
        self.repeat_events = 0

    async def go(self) -> None:
        await super().go()
        await self._server.up.wait()

    async def come_back(self) -> None:
        await super().come_back()
        await self._server.up.wait()

    @property
    def is_stale(self) -> bool:
        """Whether reads are."""
        return asyncio.get_running_loop().time() < self.stale_until

    def forget(self) -> None:
        """End every fault of this link."""
        self.heal()
        self.slow()
        self.lose()
        self.stale_until = 0.0
        self.lose_events = self.repeat_events = 0


class ModelStore(MemoryStore):
    """A client of the model."""

    server: EtcdModel
    link: ModelLink

    def __init__(self, server: EtcdModel, *, name: str = "store", timeout_s: float = 5.0) -> None:
        super().__init__(server, name=name, timeout_s=timeout_s)
        self.link = ModelLink(name, server)

    def client(self, name: str) -> ModelStore:
        return ModelStore(self.server, name=name, timeout_s=self.timeout_s)

    async def get(self, key: str) -> KeyValue | None:
        if not self.link.is_stale:
            return await super().get(key)
        found = await self.list(key)
        return next((item for item in found.items if item.key == key), None)

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        def read() -> Listing:
            at = revision
            if self.link.is_stale and not revision:
                at = self.server.stale_revision(self.link.stale_s)
            return self.server.history.list(prefix, at)

        return await self._read(read)

    async def watch(self, prefix: str, *, start_revision: int) -> AsyncGenerator[Batch, None]:
        former: list[Batch] = []
        async with contextlib.aclosing(super().watch(prefix, start_revision=start_revision)) as batches:
            async for batch in batches:
                if self.link.lose_events:
                    self.link.lose_events -= 1
                    continue
                yield batch
                former = [*former[-3:], batch]
                if self.link.repeat_events:
                    self.link.repeat_events -= 1
                    yield former[0]

    async def _write(self, call: Callable[[], T]) -> T:
        to_lose = self.link.lose_answers

        def done() -> T:
            if self.link.lose_answers != to_lose or self.link.is_deaf:
                self.server.unanswered[self.link.name] = asyncio.get_running_loop().time()
            return self.server.by(self.link.name, call)

        return await super()._write(done)
