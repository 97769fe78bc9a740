"""The leader seals secrets for machines: writes `sealed/<machine>/<secret>` where it is not as planned."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence

from unit_master.cache import Cache
from unit_master.secrets.plan import CONCERNS, Seal, Unseal, plan_sealed
from unitfleet import codec, keys
from unitfleet.election import Term
from unitfleet.errors import StoreError
from unitfleet.loop import reconcile_forever
from unitfleet.model import Sealed
from unitfleet.sealing import CannotSeal, public_key, seal, unseal
from unitfleet.store import Compare, Delete, Op, Put, Store, unchanged

logger = logging.getLogger(__name__)

INTERVAL_S = 30.0
RETRY_S = 1.0
CATCH_UP_S = 5.0

MOST_AT_ONCE = 20
"""Three compares each: etcd takes 128 in one transaction."""

MOST_BYTES = 512 * 1024
"""Of sealed values in one transaction: etcd refuses requests over 1.5 MiB."""


class Sealer:
    """Keeps what machines are given as it should be, for one term. `key` is the masters' private key, "": none.

    `still_leads` is asked when a transaction found something else than was seen, and raises when the term is over.
    """

    def __init__(
        self, store: Store, cache: Cache, term: Term, key: str, still_leads: Callable[[], Awaitable[None]]
    ) -> None:
        self._store = store
        self._cache = cache
        self._term = term
        self._key = key
        self._still_leads = still_leads

    async def run(self) -> None:
        """Write until cancelled."""
        with self._cache.subscribe(CONCERNS) as subscription:

            async def plan() -> float | None:
                subscription.take()
                return await self._pass()

            await reconcile_forever(plan, subscription.changed, INTERVAL_S)

    async def _pass(self) -> float | None:
        view = self._cache.view
        if not view.secrets and not view.sealed:
            return None
        try:
            planned = plan_sealed(view, self._public())
            for batch in _batches(planned):
                if not await self._write(batch):
                    self._cache.list_soon()  # not as it was seen: perhaps an event of it never came
                    return RETRY_S
        except StoreError as error:
            logger.warning("could not seal secrets for machines: %s", error)
            return RETRY_S
        return 0.0 if planned else None  # what changed meanwhile is planned anew

    async def _write(self, batch: Sequence[Seal | Unseal]) -> bool:
        view = self._cache.view
        compares: list[Compare] = [*self._term.guard()]
        ops: list[Op] = []
        for one in batch:
            name = one.secret.name if isinstance(one, Seal) else one.name
            key = keys.sealed(one.machine, name)
            compares.append(unchanged(key, view.revisions.get(key, 0)))
            if isinstance(one, Unseal):
                ops.append(Delete(key))
                continue
            for basis in (keys.secret(name), keys.presence(one.machine)):
                compares.append(unchanged(basis, view.revisions.get(basis, 0)))
            ops.append(Put(key, codec.encode(self._sealed(one))))
        result = await self._store.txn(compares, ops)
        if not result.succeeded:
            await self._still_leads()
        await self._cache.wait_for(result.revision, CATCH_UP_S)
        if result.succeeded:
            self._log(batch)
        return result.succeeded

    def _sealed(self, one: Seal) -> Sealed:
        secret = one.secret
        sealed, why, own = "", "", self._public()
        try:
            if not own or secret.key != own:
                why = "the leading master does not have the key that it was sealed to"
            else:
                sealed = seal(unseal(secret.sealed, self._key), one.key)
        except CannotSeal as error:
            why = str(error)
        if why:
            logger.error("could not seal secret %s for %s: %s", secret.name, one.machine, why)
        return Sealed(
            machine=one.machine,
            name=secret.name,
            version=secret.version,
            id=secret.id,
            key=one.key,
            sealed=sealed,
            why=why,
            tried=own if why else "",
        )

    def _public(self) -> str:
        return public_key(self._key) if self._key else ""

    def _log(self, batch: Sequence[Seal | Unseal]) -> None:
        for one in batch:
            machine = self._cache.view.machine_name(one.machine)
            if isinstance(one, Seal):
                logger.info("sealed secret %s, version %d, for %s", one.secret.name, one.secret.version, machine)
            else:
                logger.info("took secret %s back from %s: nothing there needs it", one.name, machine)


def _batches(planned: Sequence[Seal | Unseal]) -> Iterator[list[Seal | Unseal]]:
    batch: list[Seal | Unseal] = []
    size = 0
    for one in planned:
        more = len(one.secret.sealed) if isinstance(one, Seal) else 0
        if batch and (len(batch) == MOST_AT_ONCE or size + more > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += more
    if batch:
        yield batch
