"""What a wish means for a unit as it stands."""

from __future__ import annotations

import pytest

from harness.builders import a_state, a_unit, a_view
from unit_master.wishes import Moment, Write, decide, standing
from unitfleet.api import Change
from unitfleet.model import CopyPhase, TargetState


@pytest.mark.parametrize(
    ("of_unit", "of_copy", "becomes"),
    [
        (0, 0, 1),
        (3, 2, 4),
        pytest.param(0, 1, 2, id="the store was set back to before the restart that the copy was born of"),
    ],
)
def test_a_restart_has_a_number_above_the_units_and_the_copys(of_unit: int, of_copy: int, becomes: int) -> None:
    unit = a_unit("a.service", target=TargetState.LAUNCHED, restart=of_unit)
    view = a_view(unit, a_state(unit, "m1", CopyPhase.RUNNING, restart=of_copy))
    change = Change(name="a.service", restart=True)
    decided = decide(view, standing(view, "a.service"), change, Moment(0.0, "i"))
    assert isinstance(decided, Write) and decided.unit.restart == becomes


def test_a_copy_of_a_destroyed_namesake_has_no_say_in_it() -> None:
    unit = a_unit("a.service", target=TargetState.LAUNCHED)
    former = a_unit("a.service", target=TargetState.LAUNCHED, incarnation="before")
    view = a_view(unit, a_state(former, "m1", CopyPhase.RUNNING, restart=7))
    decided = decide(view, standing(view, "a.service"), Change(name="a.service", restart=True), Moment(0.0, "i"))
    assert isinstance(decided, Write) and decided.unit.restart == 1
