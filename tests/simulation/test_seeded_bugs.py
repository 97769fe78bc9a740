"""The checker checked: each fault that is put into the real code is found by the witness, or at rest.

`FIRST` names the kind of story and the first seed of it, counted from 0, that finds it; 1,000 may be needed. Only
that one is told here: it moves when the simulation changes (then `python -m simulation.find_bugs` says it anew);
that there is one may not. `test_fleets` tells the same kinds without a fault, and finds nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from unittest import mock

import pytest

from harness.seeded_bugs import BUGS, seeded
from simulation.mixes import ANY
from simulation.story import tell
from unit_master.cache import Subscription
from unit_master.leader import Leader

# a fault may make a program that never rests: what the broken-off story leaves is told as a warning, much later
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FIRST: dict[str, tuple[str, int]] = {
    "no_lock_delay": (ANY, 43),
    "no_grace": (ANY, 4),
    "brake_off": (ANY, 32),
    "brake_by_wall_clock": (ANY, 689),
    "epoch_reuse": (ANY, 0),
    "break_before_make": (ANY, 3),
    "clears_unacknowledged": (ANY, 47),
    "delete_on_missing": (ANY, 1),
    "restart_from_memory": (ANY, 21),
    "replaced_by_new_epoch": (ANY, 4),
    "unconfirmed_start": (ANY, 641),
    "later_epochs_forgotten": (ANY, 349),
    "loses_the_present": (ANY, 186),
    "no_fence_compare": ("strict", 8),
    "unguarded_leader": ("leaders", 1),
    "foreign_incarnation": ("removed", 1),
    "gone_before_stop": ("strict", 1),
    "strict_does_not_wait": ("strict", 1),
    "deadline_from_answer": ("strict", 11),
}


def test_every_fault_has_a_seed_that_finds_it() -> None:
    assert FIRST.keys() == BUGS.keys()
    assert max(seed for _, seed in FIRST.values()) < 1000


@pytest.fixture(autouse=True)
def _nothing_of_it_stays() -> Iterator[None]:
    """Collect what a story that was broken off has left, while its warnings are ours."""
    yield
    gc.collect()


@pytest.mark.parametrize("name", FIRST)
def test_a_fault_in_the_code_is_found(name: str) -> None:
    with seeded(name):
        kind, seed = FIRST[name]
        told = tell(seed, kind)
    assert told.violations != [], f"{name} is not found by seed {seed} of {kind}\n{told}"


def test_a_program_that_never_rests_is_told_of() -> None:
    async def decide(self: Leader, subscription: Subscription) -> float:
        return 0.0  # and look again at once

    with mock.patch.object(Leader, "_decide", decide):
        told = tell(0)
    assert told.violations[-1].startswith("I9")
