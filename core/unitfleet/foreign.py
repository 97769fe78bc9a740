"""JSON that others wrote: whatever is wrong with it is one error."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")


def decode(raw: bytes | str, kind: type[T]) -> T:
    """Read JSON as `kind`; raises `msgspec.DecodeError`, of broken UTF-8 and of any depth of brackets, too."""
    try:
        read: T = _decoder(cast(Hashable, kind)).decode(raw)
        return read
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"JSON is malformed: {error.reason} (byte {error.start})") from error
    except RecursionError as error:
        raise msgspec.DecodeError("JSON is nested too deeply") from error


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Return what reads `kind`: to make one costs five times what reading a record does."""
    return msgspec.json.Decoder(kind)
