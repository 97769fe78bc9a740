"""Why a unit is where it is, or nowhere, in words."""

from __future__ import annotations

import pytest

from harness.builders import (
    Built,
    BuiltUnit,
    a_listing,
    a_machine,
    a_pending,
    a_placement,
    a_unit,
    a_view,
)
from unit_master.explain import explain
from unitfleet.api import Explanation
from unitfleet.model import Capacity, MachineStatus, TargetState, Wanted

THREE = (a_machine("m1"), a_machine("m2"), a_machine("m3"))


def explained(unit: BuiltUnit, *others: Built) -> Explanation:
    found = explain(a_view(unit, *others), unit.unit.name)
    assert found is not None
    return found


def test_an_unknown_unit_has_no_explanation() -> None:
    assert explain(a_view(*THREE), "a.service") is None


def test_a_placed_unit_shows_its_machine_first_then_the_others_by_score_then_those_that_refuse() -> None:
    unit, other = a_unit("a.service"), a_unit("b.service")
    said = explained(
        unit,
        a_machine("m1", cordoned=True),
        a_machine("m2"),
        a_machine("m3"),
        a_machine("m4"),
        other,
        a_placement(other, "m2"),
        a_placement(unit, "m4", reason="least loaded of 3 that fit"),
    )
    assert said.summary == "placed on m4: least loaded of 3 that fit"
    assert said.hint == ""
    assert [verdict.machine for verdict in said.machines] == ["m4", "m3", "m2", "m1"]
    assert [verdict.chosen for verdict in said.machines] == [True, False, False, False]
    assert said.machines[0].score == ("2% requested with it", "0 other units")
    assert said.machines[2].score == ("5% requested with it", "1 other unit")
    assert (said.machines[3].refused_by, said.machines[3].why, said.machines[3].score) == (
        "ready",
        "is cordoned",
        (),
    )


def test_the_score_tells_of_the_spread_first() -> None:
    one, two = a_unit("ad@1.service", "Spread=zone"), a_unit("ad@2.service", "Spread=zone")
    said = explained(
        one,
        a_machine("m1", metadata={"zone": "a"}),
        a_machine("m2", metadata={"zone": "b"}),
        a_machine("m3"),
        two,
        a_placement(two, "m1"),
        a_placement(one, "m2"),
    )
    assert [(verdict.machine, verdict.score[0]) for verdict in said.machines] == [
        ("m2", "0 more of ad@.service over zone=b"),
        ("m3", "0 more of ad@.service over no zone"),
        ("m1", "1 more of ad@.service over zone=a"),
    ]


def test_a_pending_unit_shows_why_each_machine_refuses_and_the_nearest_fix() -> None:
    small = Capacity(cpu=1, memory=416 * 1024 * 1024)
    said = explained(
        a_unit("a.service", "MachineMetadata=region=eu\nMemory=512M"),
        a_machine("m1", metadata={"region": "us"}),
        a_machine("m2", metadata={"region": "eu"}, measured=small),
    )
    assert said.summary == "no machine fits: 2 considered: 1 lacks region=eu, 1 short of memory"
    assert said.hint == "m2 would fit with Memory=416M"
    assert [(verdict.machine, verdict.refused_by, verdict.why) for verdict in said.machines] == [
        ("m1", "metadata", "region=eu not found (has region=us)"),
        ("m2", "resources", "memory: 96M short (needs 512M, 416M of 416M left)"),
    ]


def test_a_unit_that_stays_because_it_has_nowhere_to_go_says_so() -> None:
    unit = a_unit("a.service", "MachineMetadata=region=eu")
    pending = a_pending(unit, "no machine fits: 3 considered: 3 lack region=eu", hint="add region=eu to a machine")
    said = explained(unit, *THREE, a_placement(unit, "m1", reason="the only one of 3 that fits"), pending)
    assert said.summary == (
        "placed on m1: the only one of 3 that fits; no machine fits: 3 considered: 3 lack region=eu"
    )
    assert said.hint == "add region=eu to a machine"
    assert said.machines[0].chosen
    assert said.machines[0].refused_by == "metadata"


def test_a_unit_that_waits_for_its_lost_machine_says_so() -> None:
    unit = a_unit("a.service")
    lost = a_machine("m1", status=MachineStatus.LOST)
    waits = a_pending(unit, "waits for m1, which is lost (OnMachineLoss=wait)")
    said = explained(unit, lost, a_machine("m2"), a_placement(unit, "m1", reason="the only machine"), waits)
    assert said.summary == "placed on m1: the only machine; waits for m1, which is lost (OnMachineLoss=wait)"
    assert (said.machines[0].machine, said.machines[0].why) == ("m1", "is lost")


def test_of_a_unit_that_moves_the_newest_placement_is_its_place() -> None:
    unit = a_unit("a.service")
    said = explained(
        unit,
        *THREE,
        a_placement(unit, "m1", epoch=4, reason="the only machine"),
        a_placement(unit, "m3", epoch=9, reason="m1 is drained; least loaded of 2 that fit"),
    )
    assert said.summary == "placed on m3: m1 is drained; least loaded of 2 that fit"
    assert [verdict.machine for verdict in said.machines if verdict.chosen] == ["m3"]


def test_a_global_unit_is_chosen_on_every_machine_that_holds_it() -> None:
    unit = a_unit("g.service", "Global=true\nMachineMetadata=region=eu")
    said = explained(
        unit,
        a_machine("m1", metadata={"region": "eu"}),
        a_machine("m2"),
        a_machine("m3", metadata={"region": "eu"}),
        a_placement(unit, "m1", epoch=1, reason="global: runs on every machine that matches"),
        a_placement(unit, "m3", epoch=2, reason="global: runs on every machine that matches"),
    )
    assert said.summary == "placed on m1, m3: global: runs on every machine that matches"
    assert {verdict.machine for verdict in said.machines if verdict.chosen} == {"m1", "m3"}


@pytest.mark.parametrize(
    ("unit", "summary"),
    [
        pytest.param(
            a_unit("a.service"),
            "about to be placed on m1: least loaded of 3 that fit",
            id="before the leader's turn",
        ),
        pytest.param(
            a_unit("a.service", target=TargetState.INACTIVE), "its target state is inactive", id="not wanted"
        ),
        pytest.param(
            a_unit("a@.service", target=TargetState.INACTIVE),
            "a template is not placed itself: start an instance of it",
            id="a template",
        ),
    ],
)
def test_a_unit_without_a_placement_says_what_is_ahead(unit: BuiltUnit, summary: str) -> None:
    assert explained(unit, *THREE).summary == summary


def test_a_destroyed_unit_says_where_it_still_is() -> None:
    unit = a_unit("a.service", target=TargetState.DESTROYED)
    said = explained(unit, *THREE, a_placement(unit, "m2", wanted=Wanted.GONE))
    assert said.summary == "its target state is destroyed, still leaving m2"
    assert not any(verdict.chosen for verdict in said.machines)


def test_a_unit_whose_text_is_missing_says_so() -> None:
    unit = a_unit("a.service")
    without = Built(tuple(piece for piece in unit.pieces if "/specs/" not in piece[0]))
    said = explain(a_view(without, *THREE), "a.service")
    assert said is not None
    assert said.summary == "cannot read its unit file: its text is not in the store"


def test_an_explanation_is_as_of_the_views_revision() -> None:
    unit = a_unit("a.service")
    assert explained(unit, *THREE).rev == a_listing(unit, *THREE).revision
