"""Leader election over the store: one leased key, created only when absent, and a term that guards every write.

A term ends when its lease is lost, when it could not be renewed for a whole TTL, or when its holder resigns.
Nothing depends on the holder noticing in time: every write of a leader compares `Term.guard()` in the same
transaction, so a paused leader that wakes up writes nothing (DESIGN: "a paused old leader is harmless").
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from unitfleet import codec, keys
from unitfleet.errors import LeaseLost, OutcomeUnknown, StoreError
from unitfleet.model import Leader
from unitfleet.store import Compare, Delete, EventKind, KeyValue, Put, Store, absent, created_at, holds, unchanged

logger = logging.getLogger(__name__)

TTL_S = 5.0
RENEW_S = 1.25
RETRY_S = 1.0
STALE_S = 0.2
LOOK_AGAIN_S = 5.0


class TermOver(Exception):
    """The term has ended: stop deciding and campaign again."""


@dataclass(slots=True)
class Term:
    """One leadership: the key it holds, and when its lease was last renewed (loop time of the request)."""

    nonce: str
    value: bytes
    create_revision: int
    lease: int
    renewed_at: float

    def guard(self) -> tuple[Compare, ...]:
        """Compares that hold only while this term lasts; the nonce because a restored store rewinds revisions."""
        return (created_at(keys.LEADER, self.create_revision), holds(keys.LEADER, self.value))


class Election:
    """Campaigns for ever, and runs `on_term` while it leads."""

    def __init__(
        self,
        store: Store,
        name: str,
        api: tuple[str, ...],
        *,
        now: Callable[[], float],
        rng: random.Random,
        ttl_s: float = TTL_S,
        renew_s: float = RENEW_S,
    ) -> None:
        self._store = store
        self._name = name
        self._api = api
        self._now = now
        self._rng = rng
        self._ttl_s = ttl_s
        self._renew_s = renew_s
        self.term: Term | None = None

    async def run(self, on_term: Callable[[Term], Awaitable[None]]) -> None:
        """Campaign, lead, and campaign again; returns only by cancellation, resigning on the way out."""
        while True:
            try:
                term = await self._campaign()
            except StoreError as error:
                logger.warning("could not campaign: %s", error)
                await asyncio.sleep(RETRY_S * (0.5 + self._rng.random()))
                continue
            logger.info("elected leader %s, term %d", self._name, term.create_revision)
            self.term = term
            try:
                await self._lead(term, on_term)
            finally:
                self.term = None
                await self._resign(term)

    async def _campaign(self) -> Term:
        known = 0  # the revision of what the last try, or the watch, has told
        while True:
            listing = await self._store.list(keys.LEADER)
            if listing.revision < known:  # read from a member that lags: it would say the same again at once
                known = 0
                await asyncio.sleep(STALE_S)
                continue
            if listing.items:
                await self._remove_leftover(listing.items[0])
                known = await self._wait_for_end(listing.revision)
                continue
            lease = await self._store.grant(self._ttl_s)
            began = asyncio.get_running_loop().time()
            nonce = f"{self._rng.getrandbits(64):016x}"
            value = codec.encode(Leader(nonce=nonce, name=self._name, api=self._api, since=self._now()))
            created, known = await self._try(value, lease.id)
            if created:
                return Term(nonce, value, created, lease.id, began)
            await self._store.revoke(lease.id)
            # a store that answers by an old view shows no leader: asked without rest, it would do nothing else
            await asyncio.sleep(RETRY_S * self._rng.random())

    async def _try(self, value: bytes, lease: int) -> tuple[int, int]:
        """Create the leader key; return its create revision, or 0 when another was first, and the store's."""
        try:
            result = await self._store.txn([absent(keys.LEADER)], [Put(keys.LEADER, value, lease)])
            return result.revision if result.succeeded else 0, result.revision
        except OutcomeUnknown:
            held = await self._store.get(keys.LEADER)
            return held.create_revision if held is not None and held.value == value else 0, 0

    async def _remove_leftover(self, held: KeyValue) -> None:
        """Remove a leader key without a lease: no master wrote it, so that it would stand for ever.

        A leader whose key was written over leads no more: its guard holds the value.
        """
        if held.lease:
            return
        logger.error("removed %s: somebody wrote it by hand, and nobody could lead", keys.LEADER)
        await self._store.txn([unchanged(keys.LEADER, held.mod_revision)], [Delete(keys.LEADER)])

    async def _wait_for_end(self, seen_revision: int) -> int:
        """Wait until the leader's key is deleted and return that revision; 0: it is to be looked at again."""
        try:
            watching = self._store.watch(keys.LEADER, start_revision=seen_revision + 1)
            async with asyncio.timeout(LOOK_AGAIN_S), aclosing(watching) as watch:
                async for batch in watch:
                    if any(event.kind is EventKind.DELETE for event in batch.events):
                        return batch.revision
        except TimeoutError:
            pass  # look again: a watch may have missed it
        return 0

    async def _lead(self, term: Term, on_term: Callable[[Term], Awaitable[None]]) -> None:
        """Lead until the term is over, in a task of its own.

        The end of the term and that of this master may come in one moment: a task group would raise the first
        and lose the second, and a master that was told to end would campaign again.
        """
        work = asyncio.create_task(self._serve(term, on_term), name="term")
        try:
            await asyncio.wait((work,))
        finally:
            work.cancel()
            await asyncio.wait((work,))
        work.result()

    async def _serve(self, term: Term, on_term: Callable[[Term], Awaitable[None]]) -> None:
        async def decide() -> None:
            await on_term(term)
            raise TermOver("the leader's work ended")

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(decide(), name="lead")
                tasks.create_task(self._renew(term), name="renew term")
        except* TermOver as over:
            logger.warning("term %d is over: %s", term.create_revision, over.exceptions[0])

    async def _renew(self, term: Term) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(0.0, term.renewed_at + self._renew_s - loop.time()))
            asked = loop.time()
            try:
                await self._store.keepalive(term.lease, self._renew_s)
                term.renewed_at = asked
            except LeaseLost as error:
                raise TermOver(str(error)) from error
            except StoreError as error:  # refused counts as silent: the lease decides
                if loop.time() - term.renewed_at >= self._ttl_s:
                    raise TermOver(f"not renewed for {self._ttl_s:g} s: {error}") from error
                await asyncio.sleep(min(0.1, self._renew_s / 4))

    async def _resign(self, term: Term) -> None:
        """Give the lease back, so that another master leads at once; without the store it expires by itself."""
        try:
            async with asyncio.timeout(1.0):
                await self._store.revoke(term.lease)
        except (StoreError, TimeoutError) as error:
            logger.info("left term %d to expire: %s", term.create_revision, error)
