"""JSON that others wrote: whatever is wrong with it is one error."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


def decode(raw: bytes | str, kind: type[T]) -> T:
    """Read JSON as `kind`; raises `msgspec.DecodeError`, of broken UTF-8 and of any depth of brackets, too."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"JSON is malformed: {error.reason} (byte {error.start})") from error
    except RecursionError as error:
        raise msgspec.DecodeError("JSON is nested too deeply") from error
