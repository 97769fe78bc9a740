"""Records to bytes and back: versioned JSON, with the fields of a newer version kept (docs/architecture.md)."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from unitfleet import foreign
from unitfleet.errors import BadRecord
from unitfleet.model import Record

R = TypeVar("R", bound=Record)

VERSION = 1


def encode(record: Record) -> bytes:
    """Write a record as JSON: `v`, its own fields, then those it was read with and does not know."""
    fields: dict[str, Any] = msgspec.to_builtins(record)
    extra = fields.pop("extra")
    return msgspec.json.encode({"v": VERSION, **fields, **extra})


def decode(raw: bytes, kind: type[R], key: str = "") -> R:
    """Read a record; raises `BadRecord` naming `key` when the value is not one."""
    try:
        fields = foreign.decode(raw, dict)
        if not isinstance(fields.pop("v", None), int):
            raise BadRecord(f"cannot read {key or kind.__name__}: not a versioned record")
        known = set(kind.__struct_fields__)
        extra = {name: fields.pop(name) for name in list(fields) if name not in known}
        if extra:
            fields["extra"] = extra
        return msgspec.convert(fields, kind)
    except msgspec.MsgspecError as error:
        raise BadRecord(f"cannot read {key or kind.__name__}: {error}") from error
