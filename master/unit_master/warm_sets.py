"""The leader tells machines what to hold warm: writes `warm-set/<machine>` where it is not as planned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from unit_master.cache import Cache
from unit_master.warming import plan_warm_sets
from unitfleet import codec, keys
from unitfleet.election import Term
from unitfleet.errors import StoreError
from unitfleet.loop import reconcile_forever
from unitfleet.model import WarmSet
from unitfleet.store import Put, Store, unchanged

logger = logging.getLogger(__name__)

INTERVAL_S = 30.0
PAUSE_S = 0.2
"""Changes come in bursts: those of this time are answered together."""

BATCH = 40
CATCH_UP_S = 5.0
RETRY_S = 1.0

_CONCERNS = frozenset(
    "units specs pins warm machines machine-spec roster images warm-set".split()
)  # kinds of keys that a plan is made of


class WarmSets:
    """Keeps every machine's warm set and turns as they should be, for one term.

    `still_leads` is asked when a transaction found something else than was seen, and raises when the term is over.
    """

    def __init__(self, store: Store, cache: Cache, term: Term, still_leads: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._cache = cache
        self._term = term
        self._still_leads = still_leads

    async def run(self) -> None:
        """Write until cancelled."""
        with self._cache.subscribe(_CONCERNS) as subscription:

            async def plan() -> float | None:
                subscription.take()
                return await self._pass()

            await reconcile_forever(plan, subscription.changed, INTERVAL_S)

    async def _pass(self) -> float | None:
        await asyncio.sleep(PAUSE_S)
        try:
            planned = plan_warm_sets(self._cache.view)
            for start in range(0, len(planned), BATCH):
                await self._write(planned[start : start + BATCH])
        except StoreError as error:
            logger.warning("could not tell machines what to hold warm: %s", error)
            return RETRY_S
        return None

    async def _write(self, sets: Sequence[WarmSet]) -> None:
        revisions = self._cache.view.revisions
        compares = [*self._term.guard()]
        for one in sets:
            for key in (keys.warm_set(one.id), keys.presence(one.id)):
                compares.append(unchanged(key, revisions.get(key, 0)))
        result = await self._store.txn(compares, [Put(keys.warm_set(one.id), codec.encode(one)) for one in sets])
        if not result.succeeded:
            await self._still_leads()
        await self._cache.wait_for(result.revision, CATCH_UP_S)
