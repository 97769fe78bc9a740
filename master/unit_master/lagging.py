"""Reads after a transaction that failed: not by the old view of a member that lags, a known fault of etcd 3.4."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from unitfleet.errors import OutcomeUnknown
from unitfleet.store import KeyValue, Store

PATIENCE_S = 5.0
AGAIN_S = 0.1


async def read_on(store: Store, names: Sequence[str], refuted: Sequence[int | None]) -> list[KeyValue | None]:
    """Read keys as they are now, where a transaction has found that not all are of the revisions `refuted`.

    Where they seem to be, the store is asked again: by such a view what is done would be done once more. Raises
    `OutcomeUnknown` when it goes on for `PATIENCE_S`.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE_S
    while True:
        found = [await store.get(name) for name in names]
        if [kv.mod_revision if kv else 0 for kv in found] != list(refuted):
            return found
        if loop.time() >= until:
            raise OutcomeUnknown(f"cannot know what became of {names[0]}: the store answers by an old view")
        await asyncio.sleep(AGAIN_S)
