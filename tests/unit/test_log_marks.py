"""Marks of output are read by the agents of an earlier version, and nothing is lost by what those can't read."""

from __future__ import annotations

import pytest

from unit_agent.drivers.docker_output import Frames
from unit_agent.logs.marks import OUTPUT, WHOLE, kept, latest

TIMES = "1800000000000000001+1,1800000000000000002+3"
WITH_PLACE = f"c0ffee@{TIMES}@12.345:678"


@pytest.mark.parametrize("more", ["", ",12.345:600"], ids=["a place", "and the beginning of a line"])
def test_the_place_in_a_file_is_kept_beside_what_earlier_versions_read(more: str) -> None:
    found = kept(WITH_PLACE + more)
    assert found == {OUTPUT: f"c0ffee@{TIMES}", WHOLE: WITH_PLACE + more}
    assert latest(found) == WITH_PLACE + more
    assert Frames(found[OUTPUT].partition("@")[2]).mark == TIMES, "earlier versions read by this"


@pytest.mark.parametrize(
    "mark",
    ["", "m9", f"c0ffee@{TIMES}", "copy@120@1800000000.1 o a@b@c", "copy@1+1,2@x"],
    ids=["none", "of a fake", "of times", "of a process", "nearly one"],
)
def test_any_other_mark_is_kept_as_it_is_and_leaves_no_old_place_standing(mark: str) -> None:
    assert kept(mark) == {OUTPUT: mark, WHOLE: ""}
    assert latest({**kept(WITH_PLACE), **kept(mark)}) == mark


def test_where_an_earlier_version_went_on_its_mark_counts() -> None:
    later = f"c0ffee@{TIMES[:-1]}4"
    assert latest({**kept(WITH_PLACE), OUTPUT: later}) == later
    assert latest({OUTPUT: WITH_PLACE}) == WITH_PLACE, "as it was kept before"
    assert latest({}) == ""
