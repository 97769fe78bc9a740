"""Records to bytes and back: versioned JSON, with the fields of a newer version kept (docs/architecture.md)."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import msgspec

from unitfleet import foreign
from unitfleet.errors import BadRecord
from unitfleet.model import Record

R = TypeVar("R", bound=Record)

VERSION = 1

_NO_EXTRA = b'{"extra":{},'
_BEGIN = b'{"v":%d,' % VERSION


def encode(record: Record) -> bytes:
    """Write a record as JSON: `v`, its own fields, then those it was read with and does not know."""
    if not record.extra:
        raw = msgspec.json.encode(record)
        assert raw.startswith(_NO_EXTRA), "`extra` is a record's first field"
        return _BEGIN + raw[len(_NO_EXTRA) :]
    fields: dict[str, Any] = msgspec.to_builtins(record)
    extra = fields.pop("extra")
    return msgspec.json.encode({"v": VERSION, **fields, **extra})


def decode(raw: bytes, kind: type[R], key: str = "") -> R:
    """Read a record; raises `BadRecord` naming `key` when the value is not one."""
    try:
        fields = foreign.decode(raw, dict)
        if not isinstance(fields.pop("v", None), int):
            raise BadRecord(f"cannot read {key or kind.__name__}: not a versioned record")
        unknown = fields.keys() - _known(kind)
        if unknown:
            fields["extra"] = {name: fields.pop(name) for name in list(fields) if name in unknown}
        return msgspec.convert(fields, kind)
    except msgspec.MsgspecError as error:
        raise BadRecord(f"cannot read {key or kind.__name__}: {error}") from error


@cache
def _known(kind: type[Record]) -> frozenset[str]:
    return frozenset(kind.__struct_fields__)
