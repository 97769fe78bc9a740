"""A store that tells how long its calls took, and which revision it was last heard at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

from unitfleet.store import (
    Batch,
    Compare,
    KeyValue,
    Lease,
    Listing,
    MemberStatus,
    Op,
    Store,
    StoreStatus,
    TxnResult,
)

Observe = Callable[[str, float], None]
"""Takes the call's name and its seconds, failed calls too."""


class MeasuredStore:
    """Another store, measured; a watch is not, for it has no end."""

    def __init__(self, store: Store, observe: Observe) -> None:
        self._store = store
        self._observe = observe
        self.revision = 0
        """The highest revision that an answer named: what a view of the store is behind by is its lag."""

    async def get(self, key: str) -> KeyValue | None:
        with self._timed("get"):
            return await self._store.get(key)

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        with self._timed("list"):
            found = await self._store.list(prefix, revision=revision)
        self._saw(found.revision)
        return found

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        with self._timed("txn"):
            result = await self._store.txn(compares, then, otherwise)
        self._saw(result.revision)
        return result

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        with self._timed("put"):
            revision = await self._store.put(key, value, lease)
        self._saw(revision)
        return revision

    async def delete(self, key: str) -> int:
        with self._timed("delete"):
            revision = await self._store.delete(key)
        self._saw(revision)
        return revision

    def watch(self, prefix: str, *, start_revision: int) -> AsyncGenerator[Batch, None]:
        return self._store.watch(prefix, start_revision=start_revision)

    async def grant(self, ttl_s: float, lease_id: int = 0) -> Lease:
        with self._timed("grant"):
            return await self._store.grant(ttl_s, lease_id)

    async def keepalive(self, lease_id: int, timeout_s: float) -> float:
        with self._timed("keepalive"):
            return await self._store.keepalive(lease_id, timeout_s)

    async def revoke(self, lease_id: int) -> None:
        with self._timed("revoke"):
            await self._store.revoke(lease_id)

    async def compact(self, revision: int) -> None:
        with self._timed("compact"):
            await self._store.compact(revision)

    async def status(self) -> StoreStatus:
        with self._timed("status"):
            return await self._store.status()

    async def members(self) -> tuple[MemberStatus, ...]:
        with self._timed("status"):
            return await self._store.members()

    async def close(self) -> None:
        await self._store.close()

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield
        finally:
            self._observe(name, loop.time() - began)

    def _saw(self, revision: int) -> None:
        self.revision = max(self.revision, revision)
