"""The secrets that this machine was given: followed in the store, kept on disk sealed, opened when a copy is made.

An agent sees its own prefix alone, and opens nothing that no unit here is about to use. What is on disk lets a
host that boots without the store start its units.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

from unit_agent.backoff import Backoff
from unit_agent.driver import Order
from unit_agent.following import Follower
from unit_agent.local_copy import LocalCopy, read_record
from unit_agent.secrets.delivery import Delivery
from unit_agent.sync import Sync
from unit_agent.timings import Timings
from unitfleet import codec, keys
from unitfleet.errors import BadRecord, DriverError, DriverUnavailable
from unitfleet.model import Sealed
from unitfleet.sealing import CannotSeal, unseal
from unitfleet.secretkey import name_fault
from unitfleet.store import Batch, EventKind, KeyValue, Listing, Store

logger = logging.getLogger(__name__)

FOLDER = "sealed"

SOON_S = 2.0
"""The leader seals a secret right after it has placed a unit: so long a start waits for that."""


class Given:
    """One machine's secrets. `private` is its key; `on_change` gets the names of those that came or changed.

    While the store is not trusted (`Sync.keep_everything`) nothing of it is taken, and nothing is dropped.
    """

    def __init__(
        self,
        store: Store,
        local: LocalCopy,
        machine: str,
        private: str,
        delivery: Delivery,
        sync: Sync,
        timings: Timings,
        rng: random.Random,
        on_change: Callable[[set[str]], None],
    ) -> None:
        self._local = local
        self._machine = machine
        self._private = private
        self._sync = sync
        self._on_change = on_change
        self._delivery = delivery
        self._sealed: dict[str, Sealed] = {}
        self._came = asyncio.Event()  # set, and replaced, when some of them did
        self._follower = Follower(
            store,
            keys.sealed_of(machine),
            listed=self._take_listing,
            changed=self._take_batch,
            interval_s=timings.relist_s,
            backoff=Backoff(rng, *timings.store_retry_s),
            rng=rng,
        )

    async def load(self) -> None:
        """Take up what the local copy holds for this machine."""
        for name in await self._local.names(FOLDER):
            kept = await read_record(self._local, f"{FOLDER}/{name}", Sealed)
            if kept is not None and kept.machine == self._machine:
                self._sealed[kept.name] = kept

    async def run(self) -> None:
        """Keep up with the store, once it is known to be ours, until cancelled."""
        await self._sync.synced.wait()
        await self._follower.run()

    def relist(self) -> None:
        """Look anew what there is."""
        self._follower.relist()

    def hurry(self) -> None:
        """Cut a back-off short: the store answers again."""
        self._follower.hurry()

    async def verify(self, order: Order) -> None:
        """Raise what `deliver` would, before an old copy of the unit is stopped for nothing."""
        await self._wait_for(order)
        for secret in order.spec.secrets:
            self._open(order.placement.unit, secret.name)

    async def deliver(self, order: Order) -> Order:
        """Return the order with the files of its secrets written, as they are now.

        Raises `DriverUnavailable` for a secret that this machine was not given yet, `DriverError` for one that it
        can't open or write: a unit is never started without.
        """
        if not order.spec.secrets:
            return order
        await self._wait_for(order)
        values = partial(self._open, order.placement.unit)
        return replace(order, credentials=str(await self._delivery.put(order, values)))

    async def withdraw(self, unit: str) -> None:
        """Remove the files of a copy that is gone."""
        await self._delivery.remove(unit)

    async def sweep(self, known: Collection[str]) -> None:
        """Remove the files of units that are not known here."""
        await self._delivery.sweep(known)

    async def _wait_for(self, order: Order) -> None:
        """Wait a moment for what is not here yet."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SOON_S):
                while any(secret.name not in self._sealed for secret in order.spec.secrets):
                    await self._came.wait()

    def _open(self, unit: str, name: str) -> bytes:
        sealed = self._sealed.get(name)
        if sealed is None:
            why = "it was removed, or not sealed yet"
            raise DriverUnavailable(f"cannot start {unit}: secret {name} is not here: {why}")
        if not sealed.sealed:
            raise DriverUnavailable(f"cannot start {unit}: secret {name} could not be sealed: {sealed.why}")
        try:
            return unseal(sealed.sealed, self._private)
        except CannotSeal as error:
            raise DriverError(f"cannot start {unit}: secret {name} can't be read here: {error}") from error

    async def _take_listing(self, listing: Listing) -> None:
        if self._sync.keep_everything:
            return
        found = {name: sealed for item in listing.items if (name := _name(item)) and (sealed := self._read(item))}
        for name in self._sealed.keys() - {_name(item) for item in listing.items}:
            await self._drop(name)
        changed = {name for name, sealed in found.items() if self._sealed.get(name) != sealed}
        for name in sorted(changed):
            await self._keep(found[name])
        self._tell(changed)

    async def _take_batch(self, batch: Batch) -> None:
        if self._sync.keep_everything:
            return
        changed: set[str] = set()
        for event in batch.events:
            if event.kind is EventKind.DELETE:
                await self._drop(_name(event.kv))
            elif (sealed := self._read(event.kv)) is not None and self._sealed.get(sealed.name) != sealed:
                await self._keep(sealed)
                changed.add(sealed.name)
        self._tell(changed)

    def _tell(self, changed: set[str]) -> None:
        if changed:
            self._came.set()
            self._came = asyncio.Event()
            self._on_change(changed)

    async def _keep(self, sealed: Sealed) -> None:
        self._sealed[sealed.name] = sealed
        try:
            await self._local.write(_document(sealed.name), codec.encode(sealed))
        except OSError as error:
            logger.error("could not save secret %s, sealed as it is: %s", sealed.name, error)

    async def _drop(self, name: str) -> None:
        self._sealed.pop(name, None)
        try:
            await self._local.delete(_document(name))
        except OSError as error:
            logger.error("could not remove secret %s from the local copy: %s", name, error)

    def _read(self, item: KeyValue) -> Sealed | None:
        try:
            sealed = codec.decode(item.value, Sealed, item.key)
        except BadRecord as error:
            logger.error("ignored a secret: %s", error)
            return None
        # a name becomes that of a file: one that leads elsewhere is nobody's
        if keys.sealed(self._machine, sealed.name) != item.key or name_fault(sealed.name):
            logger.error("ignored a secret: %s speaks of another", item.key)
            return None
        return sealed


def _name(item: KeyValue) -> str:
    return keys.split(item.key)[-1]


def _document(name: str) -> str:
    return f"{FOLDER}/{name}.json"
