"""When a command is done with a unit."""

from __future__ import annotations

from typing import Any

import pytest

from harness import api_views as looks
from unitctl.client import Units
from unitctl.commands.scale import scaling, template_name
from unitctl.failures import Conflict, NotPlaced, Several, TimedOut, Unreachable, exit_code
from unitctl.goal import Goal, Verdict, judge
from unitctl.lower import left_alone
from unitfleet.errors import InvalidName, InvalidUnit, NotFound, OutcomeUnknown, Refused, UnitfleetError
from unitfleet.model import TargetState

LAUNCHED, LOADED, INACTIVE = TargetState.LAUNCHED, TargetState.LOADED, TargetState.INACTIVE
PENDING = looks.pending("a.service", ("memory", 1, "x"), considered=1)
UNDECIDED = {**PENDING, "pending": None}
LOST = {"phase": "waiting-for-machine", "settled": False, "ok": False}
STOPPING = looks.copy("m1", "stopping", wanted="loaded")
STOPPED = looks.copy("m1", "loaded", wanted="loaded")


@pytest.mark.parametrize(
    ("goal", "target", "look", "verdict"),
    [
        (Goal.START, LAUNCHED, looks.running("m1"), Verdict.DONE),
        (Goal.START, LAUNCHED, looks.starting("m1"), Verdict.WAITING),
        (Goal.START, LAUNCHED, looks.failed("m1", "x"), Verdict.FAILED),
        (Goal.START, LAUNCHED, PENDING, Verdict.NOT_PLACED),
        (Goal.START, LAUNCHED, UNDECIDED, Verdict.WAITING),
        (
            Goal.START,
            LAUNCHED,
            {**LOST, "copies": (looks.copy("m1", "", machine_status="lost"),)},
            Verdict.NOT_PLACED,
        ),
        (
            Goal.START,
            LAUNCHED,
            {**LOST, "copies": (looks.copy("m1", "", machine_status="suspect"),)},
            Verdict.WAITING,
        ),
        (Goal.START, LOADED, looks.running("m1"), Verdict.FAILED),
        (Goal.RESTART, LAUNCHED, {**looks.running("m1"), "settled": False, "ok": False}, Verdict.WAITING),
        (Goal.STOP, LOADED, {**looks.starting("m1"), "copies": (STOPPING,)}, Verdict.WAITING),
        (Goal.STOP, LOADED, {**looks.starting("m1"), "copies": (STOPPED,)}, Verdict.DONE),
        (Goal.STOP, LOADED, PENDING, Verdict.DONE),
        (
            Goal.STOP,
            LOADED,
            looks.running("m1", wanted="launched", active="active") | {"ok": False},
            Verdict.WAITING,
        ),
        (Goal.STOP, LAUNCHED, looks.running("m1"), Verdict.FAILED),
        (Goal.UNLOAD, INACTIVE, {**looks.starting("m1"), "copies": (STOPPED,)}, Verdict.WAITING),
        (Goal.UNLOAD, INACTIVE, {}, Verdict.DONE),
        (Goal.DESTROY, TargetState.DESTROYED, {"ok": False, "settled": False}, Verdict.WAITING),
        (Goal.DESTROY, LAUNCHED, looks.running("m1"), Verdict.DONE),
    ],
    ids=[
        "a running unit is started",
        "one that starts is waited for",
        "one that failed for good has failed",
        "one that no machine takes is not placed",
        "one that was not looked at yet is waited for",
        "one whose machine is lost is not placed",
        "one whose machine is suspect is waited for",
        "one that another command stopped is not started",
        "the former copy does not end a restart",
        "a copy that stops is waited for",
        "a copy that stopped ends a stop",
        "what never was placed is stopped",
        "a copy that was not told to stop is waited for",
        "one that another command started is not stopped",
        "unload waits until the copy is gone",
        "an inactive unit is unloaded",
        "destroy waits until it is gone",
        "one made anew was destroyed before",
    ],
)
def test_a_unit_is_judged(goal: Goal, target: TargetState, look: dict[str, Any], verdict: Verdict) -> None:
    assert judge(goal, looks.unit("a.service", target=target, **look)) is verdict


@pytest.mark.parametrize("goal", list(Goal))
def test_a_unit_that_is_no_more_ends_every_wait(goal: Goal) -> None:
    ends = goal in (Goal.STOP, Goal.UNLOAD, Goal.DESTROY)
    assert judge(goal, None) is (Verdict.DONE if ends else Verdict.FAILED)


def test_a_stop_does_not_place_an_inactive_unit() -> None:
    assert left_alone(Goal.STOP, looks.unit("a.service"), by_glob=False)
    assert not left_alone(Goal.STOP, looks.unit("a.service", target=LAUNCHED), by_glob=True)


def test_a_glob_restarts_what_is_to_run() -> None:
    loaded = looks.unit("a.service", target=LOADED)
    assert left_alone(Goal.RESTART, loaded, by_glob=True)
    assert not left_alone(Goal.RESTART, loaded, by_glob=False)


def test_scale_starts_what_is_missing_and_destroys_from_the_top() -> None:
    views = (
        looks.unit("web@.service"),
        looks.unit("web@1.service", target=LAUNCHED, **looks.running("m1")),
        looks.unit("web@2.service", target=LOADED),
        looks.unit("web@3.service", target=LAUNCHED, **looks.failed("m1", "x")),
        looks.unit("web@5.service", target=LAUNCHED),
        looks.unit("web@10.service", target=INACTIVE),
        looks.unit("web@blue.service", target=LAUNCHED),
        looks.unit("web@07.service", target=LAUNCHED),
    )
    plan = scaling("web@.service", 4, Units(rev=1, items=views))
    assert plan.start == ("web@2.service", "web@3.service", "web@4.service")
    assert plan.destroy == ("web@10.service", "web@5.service")
    assert plan.others == ("web@07.service", "web@blue.service")


def test_a_template_is_named_in_any_of_three_ways() -> None:
    assert {template_name(text) for text in ("web", "web@", "web@.service")} == {"web@.service"}
    with pytest.raises(InvalidName, match="instance"):
        template_name("web@1")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnitfleetError("x"), 1),
        (InvalidUnit("x"), 1),
        (Refused("x"), 1),
        (InvalidName("x"), 2),
        (NotPlaced("x"), 3),
        (NotFound("x"), 4),
        (Conflict("x"), 5),
        (Unreachable("x"), 7),
        (OutcomeUnknown("x"), 7),
        (TimedOut("x"), 8),
        (Several([NotPlaced("x"), NotPlaced("y")]), 3),
        (Several([NotPlaced("x"), UnitfleetError("y")]), 1),
        (Several([NotPlaced("x"), TimedOut("y")]), 8),
    ],
)
def test_every_error_has_its_exit_code(error: UnitfleetError, code: int) -> None:
    assert exit_code(error) == code
