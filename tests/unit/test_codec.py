"""Records are read and written the quick way where nothing is unknown, and all the same as field by field."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from unitfleet import codec, model
from unitfleet.errors import BadRecord
from unitfleet.model import Bandwidth, Placement, Record, UnitState, Wanted

PLACED = Placement(
    unit="a.service",
    machine="m1",
    spec="s",
    incarnation="i",
    epoch=7,
    wanted=Wanted.LAUNCHED,
    restart=0,
    reason="\u00fc",
    bandwidth=Bandwidth(egress=5),
    tried=("m2",),
)


def test_a_record_begins_with_its_version_and_comes_back_as_it_was() -> None:
    raw = codec.encode(PLACED)
    assert raw.startswith(b'{"v":1,"unit":"a.service",') and b"extra" not in raw
    fields = json.loads(msgspec.json.encode(PLACED))
    del fields["extra"]
    assert json.loads(raw) == {"v": 1, **fields}
    assert codec.decode(raw, Placement) == PLACED
    assert type(codec.decode(raw, Placement)) is Placement


def test_fields_of_a_newer_version_are_kept_with_what_is_known() -> None:
    raw = codec.encode(PLACED)[:-1] + b',"mood":{"is":["good"]},"v2":1}'
    read = codec.decode(raw, Placement)
    assert read.extra == {"mood": {"is": ["good"]}, "v2": 1}
    assert msgspec.structs.replace(read, extra={}) == PLACED
    assert json.loads(codec.encode(read)) == json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"v":1}',
        codec.encode(PLACED).replace(b'"v":1,', b""),
        codec.encode(PLACED).replace(b'"v":1', b'"v":"1"'),
        codec.encode(PLACED).replace(b'"epoch":7', b'"epoch":"7"'),
        codec.encode(PLACED).replace("\u00fc".encode(), b"\xff"),
        codec.encode(PLACED)[:-1],
    ],
    ids=[
        "nothing",
        "an empty record",
        "a list",
        "null",
        "a version alone",
        "no version",
        "a version in words",
        "a field of another type",
        "broken UTF-8",
        "cut short",
    ],
)
def test_what_is_no_record_is_named(raw: bytes) -> None:
    with pytest.raises(BadRecord, match=r"cannot read placements/m1/a"):
        codec.decode(raw, Placement, "placements/m1/a")


def test_a_field_that_is_written_twice_counts_as_written_last() -> None:
    raw = codec.encode(PLACED).replace(b'"epoch":7', b'"epoch":"seven","epoch":9')
    assert codec.decode(raw, Placement).epoch == 9


KINDS: list[Any] = [
    kind
    for kind in vars(model).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_record_is_read_the_quick_way_as_field_by_field(kind: type[Record]) -> None:
    samples: dict[Any, Any] = {str: "x", int: 1, float: 0.5, bool: True, model.Capacity: model.Capacity(cpu=1.0)}
    fields = {
        field.encode_name: samples.get(field.type) or next(iter(field.type))
        for field in msgspec.structs.fields(kind)
        if field.required
    }
    raw = msgspec.json.encode({"v": 1, **fields})
    read = codec.decode(raw, kind)
    assert read == codec._decode(raw, kind, "")
    assert codec.decode(codec.encode(read), kind) == read


def test_a_state_is_written_as_it_was_before_it_was_written_quickly() -> None:
    state = UnitState(
        unit="a.service",
        machine="m1",
        incarnation="i",
        epoch=1,
        restart=0,
        spec="s",
        phase=model.CopyPhase.RUNNING,
        ports=(model.Port(host=1, container=2),),
    )
    fields = msgspec.to_builtins(state)
    fields.pop("extra")
    assert codec.encode(state) == msgspec.json.encode({"v": 1, **fields})
