"""Records as bytes: one form, whether or not a newer version's fields go along."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

import unit_agent.daemon  # noqa: F401 (with them, all records are known)
import unit_master.daemon  # noqa: F401
from unitfleet import codec
from unitfleet.model import Brake, BrakeOrder, Record


def kinds(of: type[Record] = Record) -> Iterator[type[Record]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


@pytest.mark.parametrize("kind", tuple(kinds()), ids=lambda kind: kind.__name__)
def test_every_record_begins_with_what_is_left_out_of_its_bytes(kind: type[Record]) -> None:
    assert kind.__struct_fields__[0] == "extra"
    assert len(kind.__struct_fields__) > 1


def test_a_record_is_written_with_its_version_and_without_a_word_of_fields_that_it_has_not() -> None:
    assert codec.encode(Brake(order=BrakeOrder.HOLD, at=3)) == b'{"v":1,"order":"hold","at":3}'


def test_what_a_newer_version_wrote_comes_back_as_it_was() -> None:
    raw = b'{"v":1,"order":"hold","at":3.0,"why":"a flood"}'
    brake = codec.decode(raw, Brake)
    assert brake.order is BrakeOrder.HOLD
    assert msgspec.json.decode(codec.encode(brake))["why"] == "a flood"
