"""How a copy is by its check: `starting`, `healthy`, `unhealthy`. Pure; times are seconds of any monotonic clock.

    starting ──well──► healthy ──`retries` failures in a row──► unhealthy ──RECOVERS times well in a row──► healthy
        └── `retries` failures that count ──────────────────────────▲

While it starts it is asked often, so that it serves soon, and a failure counts at most once an interval, and never
within the start period: how long a copy has to come up does not depend on how often it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from unitfleet.spec import CheckSpec, Restart

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"

RECOVERS = 2
"""How often in a row an unhealthy copy must be well to be healthy: one lucky answer brings no traffic back."""

WHILE_STARTING_S = 1.0
"""A starting copy is asked this often, or at its interval when that is shorter."""

MOST_BARREN = 3
"""A copy that was restarted so often without ever having been healthy is given up here."""

_ENDS_IT = frozenset((Restart.ALWAYS, Restart.ON_FAILURE, Restart.ON_ABNORMAL, Restart.ON_WATCHDOG))


@dataclass(frozen=True, slots=True)
class State:
    """One run of a copy. `failures` in a row that count, `wells` in a row; `counted`: when a failure last did."""

    begun: float
    health: str = STARTING
    failures: int = 0
    wells: int = 0
    counted: float = float("-inf")
    was_healthy: bool = False


class Follows(Enum):
    """What a check's result leads to."""

    NOTHING = "nothing"
    RESTART = "restart"  # it is ended, and its Restart= says what follows
    GIVE_UP = "give up"  # it is ended, and FAILED


def step(check: CheckSpec, state: State, *, well: bool, now: float) -> State:
    """Return the state after one answer."""
    if well:
        wells = state.wells + 1
        if state.health == UNHEALTHY and wells < RECOVERS:
            return replace(state, wells=wells)
        return replace(state, health=HEALTHY, failures=0, wells=wells, was_healthy=True)
    state = replace(state, wells=0)
    if state.health == STARTING and not _counts(check, state, now):
        return state
    failures = min(state.failures + 1, check.retries)
    health = UNHEALTHY if failures >= check.retries else state.health
    return replace(state, health=health, failures=failures, counted=now)


def _counts(check: CheckSpec, state: State, now: float) -> bool:
    due = max(state.begun + check.start_period_s, state.counted) + check.interval_s
    return now >= due


def next_in(check: CheckSpec, state: State) -> float:
    """Return how long after an answer the next one is asked for, in seconds."""
    return min(check.interval_s, WHILE_STARTING_S) if state.health == STARTING else check.interval_s


def follows(state: State, restart: Restart, barren: int) -> Follows:
    """Return what is done about a copy; `barren` runs before this one in a row were never healthy.

    With a `Restart=` that a hanging process would not set off (no, on-success, on-abort) it is only shown.
    """
    if state.health != UNHEALTHY or restart not in _ENDS_IT:
        return Follows.NOTHING
    if not state.was_healthy and barren + 1 >= MOST_BARREN:
        return Follows.GIVE_UP
    return Follows.RESTART
