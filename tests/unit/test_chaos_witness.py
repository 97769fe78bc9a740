"""The witness of faults: each rule fires on a history that breaks it, and on no other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec
import pytest

from chaos.faults.drawing import draw, every_kind
from chaos.faults.fault import KINDS
from chaos.witness.history import StoreHistory
from unitfleet import codec, keys
from unitfleet.model import Happening, Leader, MachineStatus, Placement, Record, RosterEntry, Wanted
from unitfleet.store import Batch, Event, EventKind, KeyValue


class History:
    """A history of the store that is told revision by revision, and who looks at it."""

    def __init__(self) -> None:
        self.witness = StoreHistory(())
        self._revisions: Iterator[int] = itertools.count(1)

    def write(self, **records: Record | None) -> None:
        """Write keys in one revision; None deletes one. `_` in names of keys is `/`."""
        self.put({name.replace("_", "/"): record for name, record in records.items()})

    def put(self, records: dict[str, Record | None]) -> None:
        """Write keys below the prefix in one revision; None deletes one."""
        revision = next(self._revisions)
        events = tuple(
            Event(
                EventKind.DELETE if record is None else EventKind.PUT,
                KeyValue(keys.PREFIX + key, b"" if record is None else codec.encode(record), 1, revision, 1),
            )
            for key, record in records.items()
        )
        self.witness.take(Batch(revision, events))

    @property
    def said(self) -> list[str]:
        """What was violated, by its number."""
        return [what.split(":")[0] for _, what in self.witness.violations]


@pytest.fixture
def history() -> History:
    history = History()
    history.put({"leader": Leader(nonce="aaaaaaaa11", name="one")})
    return history


def order(epoch: int, wanted: Wanted = Wanted.LAUNCHED) -> Placement:
    return Placement(
        unit="a.service",
        machine="m1",
        spec="s",
        incarnation="i",
        epoch=epoch,
        wanted=wanted,
        restart=0,
        reason="r",
    )


def told_by(writer: str) -> Happening:
    return Happening(at=0.0, kind="placed", writer=writer, unit="a.service", message="")


def machine(name: str, status: MachineStatus) -> RosterEntry:
    return RosterEntry(id=name, name=name, status=status, join=1)


def test_a_history_as_it_should_be_is_no_violation(history: History) -> None:
    history.put({"placements/m1/a.service": order(1), "events/0/x": told_by("master-aaaaaaaa")})
    history.put({"placements/m1/a.service": order(2, Wanted.GONE)})
    history.put({"placements/m1/a.service": None})
    history.put({"leader": None})
    history.put({"leader": Leader(nonce="bbbbbbbb22", name="two"), "events/0/y": told_by("master-bbbbbbbb")})
    history.put({"placements/m1/a.service": order(3)})
    assert history.said == []


def test_who_writes_after_its_term_is_seen(history: History) -> None:
    history.put({"leader": Leader(nonce="bbbbbbbb22", name="two")})
    history.put({"events/0/x": told_by("master-aaaaaaaa")})
    assert history.said == ["I6"]


def test_an_epoch_that_does_not_rise_is_seen(history: History) -> None:
    history.put({"placements/m1/a.service": order(5)})
    history.put({"placements/m2/b.service": msgspec.structs.replace(order(5), unit="b.service", machine="m2")})
    assert history.said == ["I6"]


def test_another_order_at_the_same_epoch_is_seen(history: History) -> None:
    history.put({"placements/m1/a.service": order(5)})
    history.put({"placements/m1/a.service": msgspec.structs.replace(order(5), restart=1)})
    assert history.said == ["I6"]


def test_a_gone_order_that_is_taken_back_is_seen(history: History) -> None:
    history.put({"placements/m1/a.service": order(5, Wanted.GONE)})
    history.put({"placements/m1/a.service": order(6)})
    assert history.said == ["I6"]


def test_two_of_five_machines_that_are_lost_within_a_minute_are_seen(history: History) -> None:
    history.put({f"roster/m{n}": machine(f"m{n}", MachineStatus.READY) for n in range(5)})
    for name in ("m1", "m2"):
        history.put({f"roster/{name}": machine(name, MachineStatus.LOST)})
    assert history.said == ["I7"]


def test_machines_that_are_lost_and_back_before_the_next_one_is_lost_are_no_mass(history: History) -> None:
    history.put({f"roster/m{n}": machine(f"m{n}", MachineStatus.READY) for n in range(5)})
    for name in ("m1", "m1", "m2", "m3"):
        history.put({f"roster/{name}": machine(name, MachineStatus.LOST)})
        history.put({f"roster/{name}": machine(name, MachineStatus.READY)})
    assert history.said == []


def test_a_flood_of_writes_is_seen(history: History) -> None:
    for _ in range(1300):
        history.put({"states/m1/a.service": None})
    assert history.said == ["I8"]


def test_a_number_of_a_seed_is_always_the_same_fault() -> None:
    assert [repr(draw(7, number)) for number in range(50)] == [repr(draw(7, number)) for number in range(50)]
    assert len({repr(draw(7, number)) for number in range(50)}) > 40


def test_thirty_rounds_have_every_kind_and_no_pair_meets_at_one_part() -> None:
    rounds = every_kind(1, 30, at_most_s=5.0)
    assert len(rounds) == 30 and {fault.kind for faults in rounds for fault in faults} == set(KINDS)
    for faults in rounds:
        parts = [part for fault in faults for part in fault.touches]
        assert len(parts) == len(set(parts)) and all(fault.lasts_s <= 5.0 for fault in faults)
