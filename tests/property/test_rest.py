"""Who is taken to be at rest has nothing to be planned, whatever the store says."""

from __future__ import annotations

from hypothesis import given

from harness.builders import a_machine, a_placement, a_state, a_unit, a_view
from property.test_agenda import listings
from unit_master.actions import Place
from unit_master.newcomers import first_place
from unit_master.reconcile import _Plan
from unit_master.rest import is_at_rest
from unit_master.scene import scene_of
from unit_master.view import ClusterView
from unitfleet.model import Wanted
from unitfleet.store import Listing


@given(listings())
def test_there_is_nothing_to_plan_for_a_unit_at_rest(listing: Listing) -> None:
    view = ClusterView()
    view.apply_listing(listing)
    scene = scene_of(view)
    for name in sorted(view.units):
        if is_at_rest(view, scene, name):
            assert not list(_Plan(view, scene, name, 0.0, frozenset(), set()).actions())


@given(listings())
def test_the_first_place_of_a_new_unit_is_what_a_whole_plan_comes_to(listing: Listing) -> None:
    view = ClusterView()
    view.apply_listing(listing)
    for name in sorted(view.units):
        first = first_place(view, scene_of(view), name)
        if first is not None:
            assert list(_Plan(view, scene_of(view), name, 0.0, frozenset(), set()).actions()) == [first]


def test_a_unit_that_nobody_knows_yet_gets_its_first_place_so() -> None:
    view = a_view(a_machine("m1"), a_unit("a.service"))
    assert first_place(view, scene_of(view), "a.service") == Place(
        "a.service", "m1", Wanted.LAUNCHED, "the only machine"
    )


def test_a_unit_that_runs_as_it_should_is_at_rest() -> None:
    unit = a_unit("a.service", "MachineMetadata=zone=a")
    view = a_view(a_machine("m1", metadata={"zone": "a"}), unit, a_placement(unit, "m1"), a_state(unit, "m1"))
    assert is_at_rest(view, scene_of(view), "a.service")
