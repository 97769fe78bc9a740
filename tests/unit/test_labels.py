"""Metadata that an operator sets: what the record becomes, and which units would move for it."""

from __future__ import annotations

import pytest

from harness.builders import a_machine, a_pending, a_placement, a_state, a_unit, a_view
from unit_master.labels import foresee, labelled
from unit_master.view import ClusterView
from unitfleet.errors import Refused


def moves(view: ClusterView, machine: str, **labels: str) -> list[tuple[str, str, str]]:
    foreseen = foresee(view, machine, labelled(view, machine, labels), 0.0)
    return [(move.unit, move.source, move.target) for move in foreseen.moves]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"": "a"}, "is no key"),
        ({"a b": "c"}, "is no key"),
        ({"zone": "a,b"}, "is no value"),
        ({"zone": "x" * 300}, "is no value"),
        ({f"k{number}": "v" for number in range(101)}, "more than 100 keys"),
    ],
)
def test_what_no_unit_could_ask_for_is_refused(labels: dict[str, str], said: str) -> None:
    with pytest.raises(Refused, match=said):
        labelled(a_view(a_machine("m1")), "m1", labels)


def test_units_that_do_not_suit_the_machine_any_more_would_move_and_those_beside_would_not() -> None:
    bound, free = a_unit("bound.service", "MachineMetadata=zone=a"), a_unit("free.service")
    view = a_view(
        *(a_machine(name, metadata={"zone": "a"}) for name in ("m1", "m2")),
        *(item for unit in (bound, free) for item in (unit, a_placement(unit, "m1"), a_state(unit, "m1"))),
    )
    assert moves(view, "m1", zone="b") == [("bound.service", "m1", "m2")]
    assert moves(view, "m1", disk="ssd") == []
    assert view.metadata("m1") == {"zone": "a"}, "the view itself is as it was"


def test_a_unit_with_nowhere_to_go_is_told_to_stay() -> None:
    bound = a_unit("bound.service", "MachineMetadata=zone=a")
    view = a_view(a_machine("m1", metadata={"zone": "a"}), bound, a_placement(bound, "m1"), a_state(bound, "m1"))
    foreseen = foresee(view, "m1", labelled(view, "m1", {"zone": ""}), 0.0)
    assert foreseen.metadata == {}
    [move] = foreseen.moves
    assert (move.source, move.target) == ("m1", "m1") and move.why.startswith("no machine fits")


def test_a_unit_that_waits_for_a_label_would_be_placed_and_a_global_one_come_and_go() -> None:
    waits = a_unit("waits.service", "MachineMetadata=zone=b")
    every = a_unit("every.service", "Global=true\nMachineMetadata=disk=ssd")
    view = a_view(
        a_machine("m1", metadata={"disk": "ssd"}),
        *(waits, a_pending(waits, "no machine fits")),
        *(every, a_placement(every, "m1"), a_state(every, "m1")),
    )
    assert moves(view, "m1", zone="b", disk="") == [("every.service", "m1", ""), ("waits.service", "", "m1")]


def test_what_follows_a_unit_that_moves_is_foreseen_too() -> None:
    peer, beside = a_unit("peer.service", "MachineMetadata=zone=a"), a_unit("z.service", "MachineOf=peer.service")
    view = a_view(
        *(a_machine(name, metadata={"zone": "a"}) for name in ("m1", "m2")),
        *(item for unit in (peer, beside) for item in (unit, a_placement(unit, "m1"), a_state(unit, "m1"))),
    )
    assert moves(view, "m1", zone="b") == [("peer.service", "m1", "m2"), ("z.service", "m1", "m2")]
