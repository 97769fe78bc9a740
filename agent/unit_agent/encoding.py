"""Write unit names in `[A-Za-z0-9_.-]`, and back: for directories and for containers.

Engines refuse `@` and `:`, file systems are shared with other things, and a name must lead back to its unit.
Letters, digits, `.` and `-` stand for themselves; every other byte is `_` and two hex digits, `_` among them.
A name that would not begin with a letter or digit (Engines ask for one) gets `x__` before it: `__` comes out
of no other name. A name too long for a file system keeps its beginning and ends in `__` and a digest; that
one can't be decoded, so whoever needs the unit's name reads it from the copy itself.
"""

from __future__ import annotations

import hashlib
import re

MAX_LENGTH = 200  # of an encoded name: leaves room in 255 for a prefix or a suffix

_PLAIN = re.compile(r"[A-Za-z0-9.-]+\Z")
_ENCODED = re.compile(r"(?:[A-Za-z0-9.-]|_[0-9a-f]{2})+\Z")
_LEAD = "x__"
_DIGEST_DIGITS = 16


def encode_name(unit: str) -> str:
    """Return the name that stands for `unit` on disk and in an Engine; the same for the same unit, always."""
    if not unit:
        raise ValueError("cannot encode an empty unit name")
    encoded = "".join(chr(byte) if _PLAIN.match(chr(byte)) else f"_{byte:02x}" for byte in unit.encode("utf-8"))
    if not encoded[0].isalnum():
        encoded = _LEAD + encoded
    if len(encoded) > MAX_LENGTH:
        digest = hashlib.sha256(unit.encode()).hexdigest()[:_DIGEST_DIGITS]
        encoded = f"{encoded[: MAX_LENGTH - _DIGEST_DIGITS - 2]}__{digest}"
    return encoded


def decode_name(encoded: str) -> str:
    """Return the unit that `encode_name` made this of; raises ValueError for a shortened or foreign name."""
    body = encoded.removeprefix(_LEAD)
    if not _ENCODED.match(body):
        raise ValueError(f"cannot decode {encoded!r}: not an encoded unit name, or a shortened one")
    raw = re.sub(r"_([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), body).encode("latin-1")
    unit = raw.decode("utf-8")
    if encode_name(unit) != encoded:
        raise ValueError(f"cannot decode {encoded!r}: {unit} would be written {encode_name(unit)}")
    return unit
