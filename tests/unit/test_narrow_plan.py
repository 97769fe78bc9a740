"""A plan about a few units, on a scene that was made before, says of them what the whole plan says."""

from __future__ import annotations

import msgspec

from harness.builders import Built, a_machine, a_placement, a_record, a_state, a_unit, a_view
from unit_master.actions import Gone, PinImage
from unit_master.reconcile import plan_units
from unit_master.scene import scene_of
from unitfleet import codec
from unitfleet.model import CopyPhase, UnitState


def moved(name: str) -> tuple[Built, ...]:
    """A unit that runs on m2 since epoch 2, and that m1 still has."""
    unit = a_unit(name)
    return (
        unit,
        a_placement(unit, "m1", epoch=1),
        a_placement(unit, "m2", epoch=2),
        a_state(unit, "m2", CopyPhase.RUNNING, epoch=2),
    )


def test_a_plan_about_one_unit_is_the_whole_plans_part_about_it() -> None:
    view = a_view(a_machine("m1"), a_machine("m2"), *moved("a.service"), *moved("b.service"))
    whole = plan_units(view, 1000.0)
    assert [(type(action), action.unit) for action in whole if isinstance(action, Gone)] == [
        (Gone, "a.service"),
        (Gone, "b.service"),
    ]
    narrow = plan_units(view, 1000.0, {"b.service"}, scene_of(view))
    assert narrow == [action for action in whole if isinstance(action, Gone) and action.unit == "b.service"]


def test_a_plan_about_no_unit_is_empty() -> None:
    view = a_view(a_machine("m1"), a_machine("m2"), *moved("a.service"))
    assert plan_units(view, 1000.0, ()) == []


def test_the_image_that_a_unit_was_first_run_from_is_pinned_by_a_plan_about_it_alone() -> None:
    unit = a_unit()
    [(key, value)] = a_state(unit, "m1").pieces
    state = msgspec.structs.replace(codec.decode(value, UnitState, key), image="sha256:1")
    view = a_view(a_machine("m1"), unit, a_placement(unit, "m1"), a_record(key, state))
    assert plan_units(view, 1000.0, {unit.unit.name}) == [PinImage(unit.unit.spec, "sha256:1")]
