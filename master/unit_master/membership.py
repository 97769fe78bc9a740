"""Says that this master serves: a key of its own, bound to a lease, so that agents and other masters find it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from importlib.metadata import version

from unitfleet import codec, keys
from unitfleet.errors import BadRecord, LeaseLost, StoreError
from unitfleet.model import MasterRecord
from unitfleet.store import Put, Store, unchanged

logger = logging.getLogger(__name__)

TTL_S = 10.0
RENEW_S = 2.5
RETRY_S = 1.0


class Membership:
    """Keeps `masters/<name>` while `run` runs; without the store the key expires, and is written anew after."""

    def __init__(
        self,
        store: Store,
        name: str,
        api: tuple[str, ...],
        *,
        archive: bool,
        signs: bool = False,
        etcd_user: str = "",
        now: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._store = store
        self._record = MasterRecord(
            name=name,
            nonce=f"{rng.getrandbits(64):016x}",
            api=api,
            archive=archive,
            signs=signs,
            version=version("unitfleet"),
            since=now(),
            etcd_user=etcd_user,
        )
        self._told_of_twin = ""

    async def run(self) -> None:
        """Register and renew until cancelled; the key goes with the master."""
        while True:
            lease = 0
            try:
                lease = (await self._store.grant(TTL_S)).id
                await self._register(lease)
                await self._renew(lease)
            except StoreError as error:
                logger.info("could not keep %s: %s", keys.master(self._record.name), error)
                await asyncio.sleep(RETRY_S)
            finally:
                if lease:
                    await self._leave(lease)

    async def _register(self, lease: int) -> None:
        """Write the key. One that another master of the same name holds is left alone, and told of once."""
        key = keys.master(self._record.name)
        began = asyncio.get_running_loop().time()
        while True:
            held = await self._store.get(key)
            if held is not None and held.lease and (twin := self._twin(held.value, key)):
                longer_than_its_lease = asyncio.get_running_loop().time() - began > 2 * TTL_S
                if longer_than_its_lease and self._told_of_twin != twin.nonce:
                    logger.error(
                        "another master is called %s too (%s): rename one", twin.name, ", ".join(twin.api)
                    )
                    self._told_of_twin = twin.nonce
                await self._store.keepalive(lease, RENEW_S)
                await asyncio.sleep(RENEW_S)
                continue
            put = Put(key, codec.encode(self._record), lease)
            if (await self._store.txn([unchanged(key, held.mod_revision if held else 0)], [put])).succeeded:
                return

    def _twin(self, raw: bytes, key: str) -> MasterRecord | None:
        """Return who else holds the key, None when it is this master, or what it was before a restart."""
        try:
            held = codec.decode(raw, MasterRecord, key)
        except BadRecord:
            return None
        return held if held.nonce != self._record.nonce and held.api != self._record.api else None

    async def _renew(self, lease: int) -> None:
        """Renew until the lease is lost, which ends it without noise."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._store.keepalive(lease, RENEW_S)
                renewed = loop.time()
            except LeaseLost:
                return
            except StoreError:
                if loop.time() - renewed > TTL_S:
                    raise

    async def _leave(self, lease: int) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._store.revoke(lease)
        except (StoreError, TimeoutError) as error:
            logger.debug("left lease %d to expire: %s", lease, error)
