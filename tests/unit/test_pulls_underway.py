"""Who is told that pulls are under way, and for how long it is said of them."""

from __future__ import annotations

import pytest

from unit_agent.images.underway import Underway


def test_the_first_pull_and_the_end_of_the_last_are_told_and_not_those_between() -> None:
    underway, told = Underway(), [0]

    def changed() -> None:
        told[0] += 1

    underway.changed = changed
    with underway.one():
        assert told == [1]
        with underway.one():
            pass
        assert told == [1] and underway.within(0)
    assert told == [2]


def test_a_pull_that_failed_has_ended_and_is_remembered_for_a_while() -> None:
    clock = [100.0]
    underway = Underway(lambda: clock[0])
    assert not underway.within(1000)  # there was none
    with pytest.raises(OSError), underway.one():
        clock[0] = 200.0
        raise OSError
    assert underway.within(3)
    clock[0] = 203.0
    assert not underway.within(3)
