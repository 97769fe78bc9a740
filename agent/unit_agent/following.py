"""Keeping up with the keys under a prefix: a list, then a watch from there, and a list anew every so often."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from unit_agent.backoff import Backoff, pause
from unitfleet.errors import Compacted, StoreError
from unitfleet.loop import run_out
from unitfleet.store import Batch, Listing, Store

logger = logging.getLogger(__name__)

JITTER = 0.2  # agents started together don't list together


class Follower:
    """Calls `listed` with every key under `prefix`, then `changed` with each batch after it, for ever.

    It lists anew after a compaction, when it is told to, and every `interval_s` ± 20 % (a watch is a hint). A
    `StoreError`, also one that `listed` or `changed` raises, is tried again after a back-off.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        listed: Callable[[Listing], Awaitable[None]],
        changed: Callable[[Batch], Awaitable[None]],
        interval_s: float,
        backoff: Backoff,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._listed = listed
        self._changed = changed
        self._interval_s = interval_s
        self._backoff = backoff
        self._rng = rng
        self._scope: asyncio.Timeout | None = None
        self._hurry = asyncio.Event()
        self._relist = False
        self._away = False

    def relist(self) -> None:
        """List anew, now."""
        self._relist = True
        self._hurry.set()
        if self._scope is not None:
            run_out(self._scope)

    def hurry(self) -> None:
        """Cut a back-off short: the store answers again."""
        if self._away:
            self._hurry.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self._hurry.clear()
            self._relist = False
            try:
                await self._follow()
            except Compacted as error:
                logger.debug("listed %s anew: %s", self._prefix, error)
            except StoreError as error:
                if not self._away:
                    logger.warning("lost sight of %s: %s", self._prefix, error)
                self._away = True
                await pause(self._hurry, self._backoff.next())

    async def _follow(self) -> None:
        listing = await self._store.list(self._prefix)
        await self._listed(listing)
        self._backoff.reset()
        if self._away:
            logger.info("saw %s again", self._prefix)
            self._away = False
        interval = self._interval_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
        if self._relist:
            return  # told to while it listed
        scope = asyncio.timeout(interval)
        try:
            async with scope:
                self._scope = scope
                await self._watch(listing.revision + 1)
        except TimeoutError:
            if not scope.expired():
                raise
        finally:
            self._scope = None

    async def _watch(self, start_revision: int) -> None:
        async with aclosing(self._store.watch(self._prefix, start_revision=start_revision)) as batches:
            async for batch in batches:
                await self._changed(batch)
