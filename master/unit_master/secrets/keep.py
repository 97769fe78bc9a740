"""Set and remove secrets. The store has them sealed to the masters' key; nothing here says or logs a value."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable

from unit_master.cache import Cache
from unit_master.lagging import read_on
from unit_master.secrets.plan import foreign
from unitfleet import codec, keys
from unitfleet.accessapi import SecretOrder, SecretSet
from unitfleet.errors import BadRecord, InvalidName, NotFound, OutcomeUnknown, Refused
from unitfleet.model import Secret
from unitfleet.problems import nearest
from unitfleet.sealing import CannotSeal, public_key, seal, unseal
from unitfleet.secretkey import MOST_BYTES, name_fault
from unitfleet.store import Delete, Put, Store, unchanged

logger = logging.getLogger(__name__)

CATCH_UP_S = 5.0
TRIES = 5


class Secrets:
    """Writes secrets. Several masters may, if they share the private `key`; "": this one has none."""

    def __init__(self, store: Store, cache: Cache, key: str, *, now: Callable[[], float]) -> None:
        self._store = store
        self._cache = cache
        self._key = key
        self._now = now

    async def set(self, order: SecretOrder, by: str) -> SecretSet:
        """Give a secret a value; the one that it has already changes nothing. Raises `InvalidName`, `Refused`."""
        name, value = order.name, order.value
        if fault := name_fault(name):
            raise InvalidName(f"cannot call a secret {name[:80]!a}: {fault}")
        if not 0 < len(value) <= MOST_BYTES:
            raise Refused(
                f"cannot set secret {name}: its value has {len(value)} bytes",
                hint=f"a secret has 1 to {MOST_BYTES} bytes",
            )
        self._refuse_other_key(name)
        key = keys.secret(name)
        refuted: int | None = None
        for _ in range(TRIES):
            (kv,) = await read_on(self._store, [key], [refuted])
            held = _read(kv.value, key) if kv is not None else None
            if kv is not None and held is not None and self._is(held, value):
                return SecretSet(rev=kv.mod_revision, name=name, version=held.version, changed=False)
            secret = self._sealed(name, held.version + 1 if held else 1, value, by)
            try:
                result = await self._store.txn(
                    [unchanged(key, kv.mod_revision if kv else 0)], [Put(key, codec.encode(secret))]
                )
            except OutcomeUnknown:
                continue  # what stands there then, tells
            if result.succeeded:
                logger.info("set secret %s, version %d, for %s", name, secret.version, by)
                await self._cache.wait_for(result.revision, CATCH_UP_S)
                return SecretSet(rev=result.revision, name=name, version=secret.version, changed=True)
            refuted = kv.mod_revision if kv else 0
        raise Refused(f"cannot set secret {name}: others change it all the time", hint="try again")

    async def remove(self, name: str) -> int:
        """Remove a secret and return the revision; raises `NotFound`. Copies that run keep what they have."""
        key = keys.secret(name)
        while not name_fault(name) and (held := await self._store.get(key)) is not None:
            result = await self._store.txn([unchanged(key, held.mod_revision)], [Delete(key)])
            if result.succeeded:
                logger.info("removed secret %s", name)
                await self._cache.wait_for(result.revision, CATCH_UP_S)
                return result.revision
        raise NotFound(
            f"cannot find secret {name[:80]!a}: there is none of this name",
            hint=nearest(name, self._cache.view.secrets) or "unitctl secret ls shows them",
        )

    def _refuse_other_key(self, name: str) -> None:
        """Keep masters with different keys from sealing each a part: no leader could open them all."""
        if not self._key:
            raise Refused(
                f"cannot set secret {name}: this master has no key for secrets", hint="ask another master"
            )
        others = [other for other in foreign(self._cache.view, public_key(self._key)) if other != name]
        if others:
            some = ", ".join(others[:3])
            raise Refused(
                f"cannot set secret {name}: this master does not have the key that {some} "
                f"{'is' if len(others) == 1 else 'are'} sealed to",
                hint="give all masters one --secrets-key-file; if that key is lost, remove the secrets first",
            )

    def _is(self, held: Secret, value: bytes) -> bool:
        try:
            return hmac.compare_digest(unseal(held.sealed, self._key), value)
        except CannotSeal:
            return False

    def _sealed(self, name: str, version: int, value: bytes, by: str) -> Secret:
        key = public_key(self._key)
        return Secret(
            name=name,
            version=version,
            id=secrets.token_hex(8),
            key=key,
            sealed=seal(value, key),
            set_by=by,
            set_at=self._now(),
        )


def _read(raw: bytes, key: str) -> Secret | None:
    try:
        return codec.decode(raw, Secret, key)
    except BadRecord:
        return None  # what nobody can read is set anew
