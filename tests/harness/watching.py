"""Take batches from a watch, with a deadline, and close it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from unitfleet.store import Batch, Store


async def take(
    store: Store, prefix: str, start_revision: int, count: int, *, within_s: float = 5.0
) -> list[Batch]:
    """Return the first `count` batches that have events."""
    return await _take(store, prefix, start_revision, lambda taken: len(taken) == count, within_s)


async def take_until(
    store: Store, prefix: str, start_revision: int, revision: int, *, within_s: float = 5.0
) -> list[Batch]:
    """Return the batches that have events, up to that of `revision`."""
    return await _take(store, prefix, start_revision, lambda taken: taken[-1].revision >= revision, within_s)


async def _take(
    store: Store, prefix: str, start_revision: int, enough: Callable[[list[Batch]], bool], within_s: float
) -> list[Batch]:
    taken: list[Batch] = []
    watch = store.watch(prefix, start_revision=start_revision)
    async with asyncio.timeout(within_s), contextlib.aclosing(watch):
        async for batch in watch:
            if batch.events:
                taken.append(batch)
                if enough(taken):
                    break
    return taken
