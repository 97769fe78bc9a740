"""Pages of a list and fleet's tokens for them: limit and page, 16 bit each, little-endian, in URL-safe base64.

A token of fleet's is one here, and the other way round; what is wrong with one is told in the words of Go's
library, as fleet did. A list that fills its last page has no token for an empty one behind it (fleet's had).
"""

from __future__ import annotations

import base64
import string
import struct
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TypeVar

from unitfleet.errors import UnitfleetError

T = TypeVar("T")

LIMIT = 100

_FORM = struct.Struct("<HH")
_ALPHABET = (string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_").encode()


class BadToken(UnitfleetError):
    """A token that is none."""


def encode(limit: int, page: int) -> str:
    """Write a token."""
    return base64.urlsafe_b64encode(_FORM.pack(limit, page)).decode()


def decode(token: str) -> tuple[int, int]:
    """Return limit and page; raises `BadToken`."""
    raw = _decoded(token.encode("utf-8", "surrogateescape"))
    if len(raw) < _FORM.size:
        raise BadToken("unexpected EOF" if raw else "EOF")
    limit, page = _FORM.unpack_from(raw)
    return limit, page


def asked(tokens: Sequence[str]) -> int:
    """Return the page, from 1, that the tokens of a request ask for; raises `BadToken`."""
    if not tokens:
        return 1
    if len(tokens) > 1:
        raise BadToken("too many values for page token")
    limit, page = decode(tokens[0])
    if limit != LIMIT:
        raise BadToken(f"token limit must be {LIMIT}")
    if page < 1:
        raise BadToken("token page must be greater than zero")
    return page


def cut(found: Iterable[T], page: int) -> tuple[list[T], str]:
    """Return what stands on a page, and the token of the next one, "" for the last; no further is looked."""
    some = list(islice(found, (page - 1) * LIMIT, page * LIMIT + 1))
    return some[:LIMIT], encode(LIMIT, page + 1) if len(some) > LIMIT else ""


def _decoded(raw: bytes) -> bytes:
    """Decode base64; raises `BadToken` with the place of the first fault as Go counts it."""
    digits = [_ALPHABET.find(byte) for byte in raw.partition(b"=")[0]]
    if -1 in digits:
        raise _illegal(digits.index(-1))
    padding = len(raw) - len(digits)
    odd = len(digits) % 4
    if padding == 0 and odd:
        raise _illegal(len(digits) - odd)
    if padding and odd < 2:
        raise _illegal(len(digits))
    for at in range(len(digits), len(digits) + min(padding, 4 - odd if odd else 0)):
        if raw[at : at + 1] != b"=":
            raise _illegal(at)
    if padding and padding != 4 - odd:
        raise _illegal(min(len(raw), len(digits) + 4 - odd))
    return base64.urlsafe_b64decode(raw)


def _illegal(at: int) -> BadToken:
    return BadToken(f"illegal base64 data at input byte {at}")
