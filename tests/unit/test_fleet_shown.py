"""Which state fleet's clients are told that a unit has reached: what is so, and not what was ordered."""

from __future__ import annotations

import pytest

from harness.builders import a_machine, a_placement, a_state, a_unit, a_view
from unit_master.api.fleet import shown
from unitfleet.model import CopyPhase, MachineStatus, TargetState, Wanted

INACTIVE, LOADED, LAUNCHED = "inactive", "loaded", "launched"
MACHINES = (a_machine("m1"), a_machine("m2"), a_machine("lost", status=MachineStatus.LOST))


def current(*built: object, name: str = "a.service") -> str:
    found = shown.unit(a_view(*MACHINES, *built), name)  # type: ignore[arg-type]
    assert found is not None
    return found.current_state


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (CopyPhase.WAITING, INACTIVE),
        (CopyPhase.PULLING, INACTIVE),
        (CopyPhase.LOADED, LOADED),
        (CopyPhase.STARTING, LOADED),
        (CopyPhase.RUNNING, LAUNCHED),
        (CopyPhase.RESTARTING, LAUNCHED),
        (CopyPhase.FINISHED, LAUNCHED),
        (CopyPhase.FAILED, LAUNCHED),
        (CopyPhase.GONE, INACTIVE),
    ],
)
def test_a_unit_is_launched_once_its_copy_runs_or_has_ended(phase: CopyPhase, expected: str) -> None:
    unit = a_unit()
    assert current(unit, a_placement(unit, "m1"), a_state(unit, "m1", phase)) == expected


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (CopyPhase.RUNNING, LAUNCHED),  # it is to stop, and has not yet
        (CopyPhase.STOPPING, LAUNCHED),
        (CopyPhase.LOADED, LOADED),
        (CopyPhase.FAILED, LOADED),  # nothing of it runs
        (CopyPhase.FINISHED, LOADED),
        (CopyPhase.WAITING, INACTIVE),
    ],
)
def test_a_unit_is_loaded_once_its_copy_has_stopped(phase: CopyPhase, expected: str) -> None:
    unit = a_unit(target=TargetState.LOADED)
    placed = a_placement(unit, "m1", wanted=Wanted.LOADED)
    assert current(unit, placed, a_state(unit, "m1", phase)) == expected


def test_a_unit_is_inactive_once_no_copy_is_left_but_on_lost_machines() -> None:
    unit = a_unit(target=TargetState.INACTIVE)
    leaving = a_placement(unit, "m1", wanted=Wanted.GONE)
    assert current(unit, leaving, a_state(unit, "m1")) == LAUNCHED
    assert current(unit, leaving, a_state(unit, "m1", CopyPhase.LOADED)) == LOADED
    assert current(unit, a_state(unit, "m1")) == LAUNCHED  # an orphan
    assert current(unit, a_state(unit, "m1", CopyPhase.FINISHED)) == INACTIVE
    assert current(unit, a_placement(unit, "lost", wanted=Wanted.GONE), a_state(unit, "lost")) == INACTIVE
    assert current(unit) == INACTIVE


def test_the_copy_of_a_former_text_or_incarnation_is_not_the_launched_one() -> None:
    unit = a_unit(restart=2)
    placed = a_placement(unit, "m1")
    assert current(unit, placed, a_state(unit, "m1", spec="former")) == LOADED
    assert current(unit, placed, a_state(unit, "m1", restart=1)) == LOADED
    assert current(unit, placed, a_state(unit, "m1", incarnation="former")) == INACTIVE


def test_a_global_unit_has_the_least_state_of_its_copies_where_machines_are_there() -> None:
    unit = a_unit(fleet="Global=true")
    everywhere = [a_placement(unit, machine) for machine in ("m1", "m2")]
    both = [a_state(unit, "m1"), a_state(unit, "m2")]
    assert current(unit, *everywhere, *both) == LAUNCHED
    assert current(unit, *everywhere, both[0], a_state(unit, "m2", CopyPhase.LOADED)) == LOADED
    assert current(unit, *everywhere, both[0]) == INACTIVE
    assert current(unit) == INACTIVE


def test_a_copy_on_a_lost_machine_is_reported_by_nobody() -> None:
    unit = a_unit()
    view = a_view(*MACHINES, unit, a_placement(unit, "lost"), a_state(unit, "lost"))
    assert list(shown.reports(view)) == []
    found = shown.unit(view, "a.service")
    assert found is not None and (found.current_state, found.machine_id) == (INACTIVE, "")
