"""The checker checked: each fault that is put into the real code is found by the witness, or at rest.

`FIRST` names the first seed, counted from 0, whose story finds it; 1,000 may be needed. Only that one is told
here: which one it is moves when the simulation changes (then `python -m simulation.find_bugs` says it
anew); that there is one may not. `test_fleets` tells the same seeds without a fault, and finds nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from harness.seeded_bugs import BUGS, seeded
from simulation.story import tell

# a fault may make a program that never rests: what the broken-off story leaves is told as a warning, much later
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FIRST: dict[str, int] = {
    "no_lock_delay": 43,
    "no_grace": 4,
    "brake_off": 32,
    "brake_by_wall_clock": 689,
    "epoch_reuse": 0,
    "break_before_make": 3,
    "clears_unacknowledged": 47,
    "delete_on_missing": 1,
    "restart_from_memory": 21,
    "replaced_by_new_epoch": 4,
}

UNFOUND = {  # not yet, in the 110 to 200 seeds that were tried: to be told far more, or other stories
    "no_fence_compare",
    "unconfirmed_start",
    "loses_the_present",
    "unguarded_leader",
    "later_epochs_forgotten",
    "foreign_incarnation",
    "gone_before_stop",  # seed 1 finds it by a program that never rests, which the witness has no word for
}


def test_every_fault_has_a_seed_that_finds_it_or_is_named() -> None:
    assert FIRST.keys() | UNFOUND == BUGS.keys() and not FIRST.keys() & UNFOUND
    assert len(FIRST) >= 10 and max(FIRST.values()) < 1000


@pytest.fixture(autouse=True)
def _nothing_of_it_stays() -> Iterator[None]:
    """Collect what a story that was broken off has left, while its warnings are ours."""
    yield
    gc.collect()


@pytest.mark.parametrize("name", FIRST)
def test_a_fault_in_the_code_is_found(name: str) -> None:
    with seeded(name):
        told = tell(FIRST[name])
    assert told.violations != [], f"{name} is not found by seed {FIRST[name]}\n{told}"
