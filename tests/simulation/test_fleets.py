"""Whole fleets in every trouble that the models know: each seed is a story, and no promise is broken in any."""

from __future__ import annotations

import pytest

from harness.effort import examples
from simulation.mixes import ANY, MIXES
from simulation.story import tell

GROUP = examples(25, 10)


def _keeps_every_promise(kind: str, first: int, group: int) -> None:
    for seed in range(first, first + group):
        told = tell(seed, kind)
        assert told.violations == [], f"\n{told}"


@pytest.mark.parametrize("first", range(0, examples(1000, 10), GROUP))
def test_fleets_in_trouble_keep_every_promise(first: int) -> None:
    _keeps_every_promise(ANY, first, GROUP)


@pytest.mark.parametrize("kind", [kind for kind in MIXES if kind != ANY])
def test_fleets_in_aimed_trouble_keep_every_promise(kind: str) -> None:
    _keeps_every_promise(kind, 0, examples(60, 3))


@pytest.mark.parametrize("kind", MIXES)
def test_a_seed_tells_the_same_story_again(kind: str) -> None:
    first, again = tell(7, kind), tell(7, kind)
    assert first == again and first.trace


@pytest.mark.parametrize("seed", [1531, 2499, 3069, 3934, 5165, 5899])
def test_what_once_broke_a_promise_breaks_none(seed: int) -> None:
    """Seeds of the campaign that found something, in the product or in the operator's hand (CHANGELOG)."""
    _keeps_every_promise(ANY, seed, 1)
