"""Whole fleets in every trouble that the models know: each seed is a story, and no promise is broken in any."""

from __future__ import annotations

import pytest

from harness.effort import examples
from simulation.story import tell

GROUP = examples(25, 10)


@pytest.mark.parametrize("first", range(0, examples(1000, 10), GROUP))
def test_fleets_in_trouble_keep_every_promise(first: int) -> None:
    for seed in range(first, first + GROUP):
        told = tell(seed)
        assert told.violations == [], f"\n{told}"


def test_a_seed_tells_the_same_story_again() -> None:
    first, again = tell(7), tell(7)
    assert first == again and first.trace
