"""systemd's `Restart=` table, its start limit, and our back-off."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from unit_agent.restart import (
    BROKE,
    CALM_S,
    MAX_DELAY_S,
    TIMED_OUT,
    WATCHDOG,
    Ended,
    Exit,
    History,
    RestartAfter,
    decide,
    is_clean,
)
from unitfleet.spec import ExitStatus, Restart, RestartPolicy

CAUSES = {
    "clean code": Exit(0),
    "clean signal": Exit(signal="SIGTERM"),
    "unclean code": Exit(1),
    "unclean signal": Exit(signal="SIGSEGV"),
    "timeout": Exit(cause=TIMED_OUT),
    "watchdog": Exit(signal="SIGABRT", cause=WATCHDOG),
    "broke its Type=": Exit(0, cause=BROKE),
}
# systemd.service(5), table 1; the last column is service_shall_restart() for SERVICE_FAILURE_PROTOCOL.
TABLE = {
    Restart.NO: (),
    Restart.ALWAYS: tuple(CAUSES),
    Restart.ON_SUCCESS: ("clean code", "clean signal"),
    Restart.ON_FAILURE: ("unclean code", "unclean signal", "timeout", "watchdog", "broke its Type="),
    Restart.ON_ABNORMAL: ("unclean signal", "timeout", "watchdog", "broke its Type="),
    Restart.ON_ABORT: ("unclean signal",),
    Restart.ON_WATCHDOG: ("watchdog",),
}
UNLIMITED = RestartPolicy(when=Restart.ALWAYS, delay_s=1.0, limit_burst=0)


def after(policy: RestartPolicy, exit: Exit) -> RestartAfter | Ended:
    history = History().started(0.0, policy)
    return decide(policy, exit, history, 1.0, random.Random(1))


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("when", TABLE)
def test_the_table_of_systemd_holds(when: Restart, cause: str) -> None:
    outcome = after(RestartPolicy(when=when), CAUSES[cause])
    assert isinstance(outcome, RestartAfter) == (cause in TABLE[when])


@pytest.mark.parametrize(
    ("exit", "clean"),
    [
        *((Exit(signal=name), True) for name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE")),
        (Exit(signal="SIGKILL"), False),
        (Exit(3), False),
        (Exit(42), True),
        (Exit(signal="SIGUSR1"), True),
        (Exit(signal="SIGTERM", command=True), False),
        (Exit(signal="SIGUSR1", command=True), True),
        (Exit(0, cause=TIMED_OUT), False),
    ],
)
def test_what_is_clean(exit: Exit, clean: bool) -> None:
    policy = RestartPolicy(success=ExitStatus(codes=(42,), signals=("SIGUSR1",)))
    assert is_clean(policy, exit) is clean
    outcome = after(policy, exit)
    assert isinstance(outcome, Ended)
    assert outcome.phase == ("finished" if clean else "failed")


def test_prevent_wins_over_force_and_both_over_the_table() -> None:
    policy = RestartPolicy(
        when=Restart.ON_FAILURE,
        prevent=ExitStatus(codes=(5, 6)),
        force=ExitStatus(codes=(0, 6), signals=("SIGTERM",)),
    )
    assert isinstance(after(policy, Exit(5)), Ended)
    assert isinstance(after(policy, Exit(6)), Ended)
    assert isinstance(after(policy, Exit(0)), RestartAfter)
    assert isinstance(after(policy, Exit(signal="SIGTERM")), RestartAfter)
    assert isinstance(after(policy, Exit(7)), RestartAfter)


def test_the_start_limit_counts_starts_within_its_interval() -> None:
    policy = RestartPolicy(when=Restart.ALWAYS, delay_s=0.0, limit_interval_s=10.0, limit_burst=3)
    history = History()
    for at in (0.0, 1.0, 2.0):
        history = history.started(at, policy)
    refused = decide(policy, Exit(0), history, 3.0, random.Random(1))
    assert isinstance(refused, Ended)
    assert refused.phase == "failed"
    assert "limit" in refused.why
    assert isinstance(decide(policy, Exit(0), history, 10.5, random.Random(1)), RestartAfter)
    unlimited = structs.replace(policy, limit_burst=0)
    assert isinstance(decide(unlimited, Exit(0), history, 3.0, random.Random(1)), RestartAfter)


def failures(policy: RestartPolicy, count: int, seed: int) -> list[float]:
    history, at, delays = History(), 0.0, []
    dice = random.Random(seed)
    for _ in range(count):
        history = history.started(at, policy)
        outcome = decide(policy, Exit(1), history, at, dice)
        assert isinstance(outcome, RestartAfter)
        history = outcome.history
        delays.append(outcome.delay_s)
        at += outcome.delay_s
    return delays


@given(st.floats(0.0, 400.0), st.integers(0, 2**32))
def test_the_back_off_doubles_up_to_its_bound_and_is_never_sooner_than_asked(delay_s: float, seed: int) -> None:
    policy = structs.replace(UNLIMITED, delay_s=delay_s)
    delays = failures(policy, 20, seed)
    assert delays[0] == delay_s
    for number, delay in enumerate(delays):
        bound = max(delay_s, min(MAX_DELAY_S, max(delay_s, 0.1) * 2**number))
        assert delay_s <= delay <= bound


def test_units_that_fell_together_do_not_rise_together() -> None:
    assert len({failures(UNLIMITED, 6, seed)[-1] for seed in range(20)}) == 20


def test_running_calmly_forgets_the_failures() -> None:
    history = History(quick=9).started(0.0, UNLIMITED)
    outcome = decide(UNLIMITED, Exit(1), history, CALM_S, random.Random(1))
    assert isinstance(outcome, RestartAfter)
    assert (outcome.delay_s, outcome.history.quick) == (1.0, 1)
    outcome = decide(UNLIMITED, Exit(1), history, CALM_S - 1, random.Random(1))
    assert isinstance(outcome, RestartAfter)
    assert outcome.history.quick == 10


def test_a_unit_that_ends_well_again_and_again_keeps_its_pace() -> None:
    outcome = decide(UNLIMITED, Exit(0), History(quick=4).started(0.0, UNLIMITED), 1.0, random.Random(1))
    assert isinstance(outcome, RestartAfter)
    assert (outcome.delay_s, outcome.history.quick) == (1.0, 0)
