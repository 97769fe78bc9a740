"""Tokens: how they are made, what of them stands in the store, and how they are taken back.

`uft_<id>_<secret>`; the store has the id and the SHA-256 of the secret. A secret of 256 random bits can't be
guessed from its digest, so no slow hash is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import secrets
from collections.abc import Callable

from unit_master.cache import Cache
from unit_master.view import ClusterView
from unitfleet import codec, keys
from unitfleet.accessapi import TokenMade, TokenOrder, TokenView
from unitfleet.errors import BadRecord, InvalidName, NotFound, OutcomeUnknown, Refused
from unitfleet.model import Token, TokenName
from unitfleet.problems import nearest
from unitfleet.store import Delete, Put, Store, absent, unchanged

logger = logging.getLogger(__name__)

SECRET_BYTES = 32
ID_BYTES = 6
LONGEST_TTL_S = 10 * 365 * 86400.0
CATCH_UP_S = 5.0
RESERVED = frozenset({"admin", "local", "cluster", "prometheus", "nobody"})
"""Names that callers without a token in the store have."""

_PREFIX = "uft"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


def split(text: str) -> tuple[str, str] | None:
    """Take a token apart into id and secret; None for what is none."""
    prefix, _, rest = text.partition("_")
    id, _, secret = rest.partition("_")
    return (id, secret) if prefix == _PREFIX and id and secret else None


def digest_of(secret: str) -> str:
    """Return what the store has of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def find(view: ClusterView, text: str) -> Token | None:
    """Return the token that `text` is, expired or not; an unknown id takes as long as a wrong secret."""
    id, secret = split(text) or ("", text)
    entry = view.tokens.get(id)
    expected = entry.value.digest if entry is not None else digest_of("")
    right = hmac.compare_digest(digest_of(secret).encode(), expected.encode())
    return entry.value if entry is not None and right else None


def expired(token: Token, now: float) -> bool:
    """Whether a token's time is over, by this master's clock."""
    return 0 < token.expires_at <= now


def shown(token: Token, now: float) -> TokenView:
    """Return a token as the API shows it."""
    return TokenView(
        id=token.id,
        name=token.name,
        role=token.role,
        created_by=token.created_by,
        created_at=token.created_at,
        expires_at=token.expires_at,
        expired=expired(token, now),
    )


def name_fault(name: str) -> str | None:
    """Return why a token can't be called this, or None."""
    if not _NAME.fullmatch(name):
        return "it must be 1 to 64 letters, digits and _ . @ -, beginning with a letter or digit"
    return "it means a caller without a token of its own" if name in RESERVED else None


class Tokens:
    """Writes tokens. Several masters may: a name is taken by a key of its own."""

    def __init__(self, store: Store, cache: Cache, *, now: Callable[[], float]) -> None:
        self._store = store
        self._cache = cache
        self._now = now

    async def create(self, order: TokenOrder, by: str) -> TokenMade:
        """Make a token; its secret is in the answer alone. Raises `InvalidName`, `Refused`."""
        fault = name_fault(order.name)
        if fault is not None:
            raise InvalidName(f"cannot call a token {order.name[:80]!a}: {fault}")
        if order.ttl_s is not None and not (math.isfinite(order.ttl_s) and 0 < order.ttl_s <= LONGEST_TTL_S):
            raise Refused(
                f"cannot create token {order.name}: it can't live for {order.ttl_s:g} s",
                hint="give it up to ten years, or no end at all",
            )
        now = self._now()
        id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
        token = Token(
            id=id,
            name=order.name,
            role=order.role,
            digest=digest_of(secret),
            created_by=by,
            created_at=now,
            expires_at=now + order.ttl_s if order.ttl_s else 0.0,
        )
        revision = await self._write(token)
        logger.info("created token %s (%s, %s) for %s", token.name, token.id, token.role, by)
        await self._cache.wait_for(revision, CATCH_UP_S)
        return TokenMade(rev=revision, token=f"{_PREFIX}_{id}_{secret}", view=shown(token, now))

    async def remove(self, wanted: str) -> int:
        """Remove a token by its name or id, and return the revision; raises `NotFound`, `Refused`."""
        name, id = await self._named(wanted)
        compares, deletes = [], []
        for key in (keys.token(id), keys.token_name(name)):
            if (held := await self._store.get(key)) is not None:
                compares.append(unchanged(key, held.mod_revision))
                deletes.append(Delete(key))
        result = await self._store.txn(compares, deletes)
        if not result.succeeded:
            raise Refused(f"cannot remove token {name}: somebody changes it at this moment", hint="try again")
        logger.info("removed token %s (%s)", name, id)
        await self._cache.wait_for(result.revision, CATCH_UP_S)
        return result.revision

    async def _write(self, token: Token) -> int:
        name_key = keys.token_name(token.name)
        name = codec.encode(TokenName(name=token.name, id=token.id))
        compares = [absent(name_key), absent(keys.token(token.id))]
        try:
            result = await self._store.txn(
                compares, [Put(keys.token(token.id), codec.encode(token)), Put(name_key, name)]
            )
        except OutcomeUnknown:
            held = await self._store.get(name_key)
            if held is None or held.value != name:
                raise
            return held.mod_revision
        if not result.succeeded:
            raise Refused(
                f"cannot create token {token.name}: there is one of this name",
                hint=f"unitctl token rm {token.name}, or take another name",
            )
        return result.revision

    async def _named(self, wanted: str) -> tuple[str, str]:
        """Return name and id of the token that a name or an id means, as the store has it; raises `NotFound`."""
        try:
            if _NAME.fullmatch(wanted) and (held := await self._store.get(keys.token_name(wanted))) is not None:
                return wanted, codec.decode(held.value, TokenName, held.key).id
            if _NAME.fullmatch(wanted) and (kept := await self._store.get(keys.token(wanted))) is not None:
                return codec.decode(kept.value, Token, kept.key).name, wanted
        except BadRecord as error:
            raise Refused(f"cannot remove token {wanted}: {error}", hint="etcdctl del removes the key") from error
        known = sorted(self._cache.view.token_names)
        raise NotFound(
            f"cannot find token {wanted[:80]!a}: there is none of this name or id",
            hint=nearest(wanted, known) or "unitctl token ls shows them",
        )
