"""The disk guard: closes before a disk is full, opens with a gap below, says why, and does not flap."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit_agent.resources import disks
from unit_agent.resources.guard import OPEN, DiskUse, Marks, Verdict, judge

DOCKER = "/var/lib/docker"
STATE = "/var/lib/unitfleet/agent"


def after(*shares: float | None, before: Verdict = OPEN) -> Verdict:
    """Return the verdict after Docker's storage had each share of its space used, one look after the other."""
    for share in shares:
        before = judge([DiskUse(DOCKER, share, 1.0)], Marks(), before)
    return before


def test_a_disk_at_its_mark_closes_the_machine_with_the_reason() -> None:
    assert after(89.9) == OPEN
    assert after(93.4).reason == "disk: 93 % of /var/lib/docker used, closed from 90 %"


@pytest.mark.parametrize(
    ("shares", "closed"),
    [
        ((90.0, 89.9, 88.0), True),
        ((90.0, 87.1), True),
        ((90.0, 87.0), False),
        ((90.0, 87.0, 89.9), False),
        ((90.0, 87.0, 90.0), True),
    ],
    ids=["a little less", "nearly free", "free again", "free, then below the mark", "free, then full"],
)
def test_it_opens_with_a_gap_below_the_mark(shares: tuple[float, ...], closed: bool) -> None:
    assert bool(after(*shares).reason) is closed


def test_a_use_that_swings_about_the_mark_is_told_once() -> None:
    first = after(90.5)
    assert all(after(*swing, before=first) is first for swing in [(89.5, 90.5), (91.9,), (88.6, 91.0, 89.0)])


def test_a_disk_that_fills_on_is_told_anew() -> None:
    assert "97 %" in after(90.0, 97.0).reason


def test_inodes_close_it_too() -> None:
    verdict = judge([DiskUse(DOCKER, 20.0, 97.2)], Marks(), OPEN)
    assert verdict.reason == "disk: 97 % of the inodes of /var/lib/docker used, closed from 95 %"


def test_each_full_disk_is_named_and_both_must_be_free() -> None:
    both = judge([DiskUse(DOCKER, 91.0), DiskUse(STATE, 99.0)], Marks(), OPEN)
    assert "/var/lib/docker" in both.reason and STATE in both.reason
    one = judge([DiskUse(DOCKER, 10.0), DiskUse(STATE, 99.0)], Marks(), both)
    assert one.reason == f"disk: 99 % of {STATE} used, closed from 90 %"
    assert judge([DiskUse(DOCKER, 10.0), DiskUse(STATE, 10.0)], Marks(), one) == OPEN


def test_what_cannot_be_measured_now_stays_as_it_was() -> None:
    assert after(None) == OPEN
    assert after(95.0, None).reason == "disk: 95 % of /var/lib/docker used, closed from 90 %"


def test_a_disk_that_is_no_longer_watched_holds_nothing_closed() -> None:
    assert judge([DiskUse(STATE, 10.0)], Marks(), after(95.0)) == OPEN


def test_the_marks_are_the_operators() -> None:
    assert judge([DiskUse(DOCKER, 60.0, 1.0)], Marks(space=50), OPEN).reason.endswith("closed from 50 %")


def test_two_paths_of_one_file_system_are_one_disk(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    [use] = disks.uses([str(tmp_path / "docker"), str(tmp_path)])
    assert use.path == str(tmp_path / "docker")
    assert use.space is not None and 0 <= use.space <= 100


def test_a_path_that_is_not_there_is_unknown_not_empty(tmp_path: Path) -> None:
    assert disks.uses([str(tmp_path / "none")]) == [DiskUse(str(tmp_path / "none"), None)]
