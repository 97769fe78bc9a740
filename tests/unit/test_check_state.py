"""A copy's health by its check: a pure state machine, under every order of answers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from unit_agent.checks.state import (
    HEALTHY,
    MOST_BARREN,
    RECOVERS,
    STARTING,
    UNHEALTHY,
    Follows,
    State,
    follows,
    next_in,
    step,
)
from unitfleet.spec import CheckKind, CheckSpec, Restart


def a_check(**wishes: float) -> CheckSpec:
    usual = {"interval_s": 10.0, "timeout_s": 5.0, "retries": 3, "start_period_s": 0.0}
    return CheckSpec(kind=CheckKind.TCP, target="localhost:1", **{**usual, **wishes})  # type: ignore[arg-type]


CHECKS = some.builds(
    lambda interval_s, retries, start_period_s: a_check(
        interval_s=interval_s, retries=retries, start_period_s=start_period_s
    ),
    some.floats(0.1, 60.0),
    some.integers(1, 5),
    some.floats(0.0, 120.0),
)
ANSWERS = some.lists(some.tuples(some.booleans(), some.floats(0.0, 100.0)), max_size=40)


def after(check: CheckSpec, answers: list[tuple[bool, float]], state: State | None = None) -> list[State]:
    """Return the states after each answer: well or not, so long after the one before."""
    now = 0.0
    state = state or State(begun=0.0)
    states = [state]
    for well, pause in answers:
        now += pause
        state = step(check, state, well=well, now=now)
        states.append(state)
    return states


@given(CHECKS, ANSWERS)
def test_one_good_answer_makes_a_starting_copy_healthy_and_nothing_makes_it_start_again(
    check: CheckSpec, answers: list[tuple[bool, float]]
) -> None:
    states = after(check, answers)
    for before, (well, _), now in zip(states, answers, states[1:], strict=False):
        if before.health == STARTING and well:
            assert now.health == HEALTHY and now.was_healthy
        if before.health != STARTING:
            assert now.health != STARTING


@given(CHECKS, ANSWERS)
def test_a_healthy_copy_is_unhealthy_exactly_after_so_many_failures_in_a_row(
    check: CheckSpec, answers: list[tuple[bool, float]]
) -> None:
    begin = State(begun=0.0, health=HEALTHY, was_healthy=True)
    failures = 0
    for (well, _), now in zip(answers, after(check, answers, begin)[1:], strict=True):
        failures = 0 if well else failures + 1
        if failures >= check.retries:
            assert now.health == UNHEALTHY
            return
        assert now.health == HEALTHY


@given(CHECKS, ANSWERS)
def test_an_unhealthy_copy_is_healthy_exactly_after_some_good_answers_in_a_row(
    check: CheckSpec, answers: list[tuple[bool, float]]
) -> None:
    begin = State(begun=0.0, health=UNHEALTHY, failures=check.retries)
    wells = 0
    for (well, _), now in zip(answers, after(check, answers, begin)[1:], strict=True):
        wells = wells + 1 if well else 0
        if wells >= RECOVERS:
            assert now.health == HEALTHY
            return
        assert now.health == UNHEALTHY


@given(CHECKS, some.floats(0.01, 30.0))
def test_a_copy_that_never_answers_is_unhealthy_no_sooner_and_not_much_later_than_it_may_start(
    check: CheckSpec, every_s: float
) -> None:
    """However often it is asked, it has its start period and then `retries` intervals."""
    due = check.start_period_s + check.retries * check.interval_s
    asked = math.ceil(2 * (due + (check.retries + 1) * every_s) / every_s)
    state, now = State(begun=0.0), 0.0
    for _ in range(min(asked, 50_000)):
        now += every_s
        state = step(check, state, well=False, now=now)
        if state.health == UNHEALTHY:
            break
    if asked <= 50_000:
        assert state.health == UNHEALTHY
        rounding = 1e-6  # of sums of many steps
        assert due - rounding <= now <= due + (check.retries + 1) * every_s + rounding


def test_a_starting_copy_is_asked_often_and_a_healthy_one_at_its_interval() -> None:
    check = a_check(interval_s=30.0)
    assert next_in(check, State(begun=0.0)) == 1.0
    assert next_in(check, State(begun=0.0, health=HEALTHY)) == 30.0
    assert next_in(a_check(interval_s=0.2), State(begun=0.0)) == 0.2


ILL = State(begun=0.0, health=UNHEALTHY, failures=3, was_healthy=True)
NEVER = State(begun=0.0, health=UNHEALTHY, failures=3)


@pytest.mark.parametrize(
    ("restart", "ends"),
    [
        (Restart.ALWAYS, True),
        (Restart.ON_FAILURE, True),
        (Restart.ON_ABNORMAL, True),
        (Restart.ON_WATCHDOG, True),
        (Restart.NO, False),
        (Restart.ON_SUCCESS, False),
        (Restart.ON_ABORT, False),
    ],
)
def test_an_unhealthy_copy_is_ended_where_its_policy_would_start_it_again_as_after_a_watchdog(
    restart: Restart, ends: bool
) -> None:
    assert follows(ILL, restart, 0) is (Follows.RESTART if ends else Follows.NOTHING)


def test_a_copy_is_given_up_after_some_runs_in_which_it_never_was_healthy() -> None:
    runs = [follows(NEVER, Restart.ALWAYS, barren) for barren in range(MOST_BARREN)]
    assert runs == [Follows.RESTART] * (MOST_BARREN - 1) + [Follows.GIVE_UP]
    assert follows(ILL, Restart.ALWAYS, MOST_BARREN) is Follows.RESTART  # this one was, once
    assert follows(State(begun=0.0), Restart.ALWAYS, MOST_BARREN) is Follows.NOTHING
