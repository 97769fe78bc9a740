"""A join token: one word by which a new host finds its masters, knows them, and is known by them, once.

    ufj1.<base64url of msgpack [endpoints, digest of the CA, id, secret], then a checksum of four bytes>

Whoever has the word can join a machine until it is used up; it is a secret like a password. Pure.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from unitfleet.errors import InvalidConfig

PREFIX = "ufj1."
SECRET_BYTES = 24
ID_BYTES = 5
CA_BYTES = 32
_SUM = 4

_ID = re.compile(r"[0-9A-Za-z]{1,64}")
_HINT = "copy it whole, or make a new one: unitctl machines join-token"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a token carries. `ca` is the SHA-256 of the authority's DER, in hexadecimal digits."""

    endpoints: tuple[str, ...]
    ca: str
    id: str
    secret: str

    def __repr__(self) -> str:
        """Say which token it is, never its secret."""
        return f"JoinToken({self.id})"


def write(token: JoinToken) -> str:
    """Return the token as one word."""
    fields = (token.endpoints, bytes.fromhex(token.ca), token.id, bytes.fromhex(token.secret))
    raw = msgspec.msgpack.encode(fields)
    return PREFIX + base64.urlsafe_b64encode(raw + _sum(raw)).decode().rstrip("=")


def read(text: str) -> JoinToken:
    """Read a token; raises `InvalidConfig`, whose message does not repeat it."""
    word = text.strip()
    if not word.startswith(PREFIX):
        raise InvalidConfig(f"cannot read the join token: it does not begin with {PREFIX}", hint=_HINT)
    body = word.removeprefix(PREFIX)
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    content, told = raw[:-_SUM], raw[-_SUM:]
    if not content or not hmac.compare_digest(_sum(content), told):
        raise InvalidConfig("cannot read the join token: a letter of it is wrong or missing", hint=_HINT) from None
    try:
        endpoints, ca, token_id, secret = msgspec.msgpack.decode(
            content, type=tuple[tuple[str, ...], bytes, str, bytes]
        )
        whole = len(ca) == CA_BYTES and len(secret) == SECRET_BYTES and _ID.fullmatch(token_id)
        hosts = [urlsplit(endpoint) for endpoint in endpoints]
        leads = all(host.scheme == "https" and host.hostname and (host.port or 443) for host in hosts)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):  # ValueError: an address that is none
        whole = leads = False
    if not (whole and leads):
        raise InvalidConfig("cannot read the join token: it is of another version", hint=_HINT)
    return JoinToken(endpoints=endpoints, ca=ca.hex(), id=token_id, secret=secret.hex())


def hashed(secret: str) -> str:
    """Return what the store keeps of a secret: it is random and long, a plain SHA-256 tells nothing of it."""
    return hashlib.sha256(bytes.fromhex(secret)).hexdigest()


def _sum(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:_SUM]
