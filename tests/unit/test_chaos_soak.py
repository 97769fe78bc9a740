"""What a soak makes of its samples."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.soak import Series, Soak


def sample(at_s: float, rss_mib: float, files: int, *, pid: int = 1, etcd_mib: float = 3.0) -> dict[str, Any]:
    daemons = {"m1": {"pid": pid, "rss_mib": rss_mib, "files": files}}
    return {"soak": "sample", "at_s": at_s, "daemons": daemons, "etcd_mib": etcd_mib, "writes_per_s": 1.0}


def steep(samples: list[dict[str, Any]]) -> list[str]:
    soak = Soak(minutes=30.0, per_minute=2.0, seed=1)
    soak.samples += samples
    return [what.split(" by ")[0] for what in soak.slopes()["steep"]]


def test_a_slope_is_that_of_the_straight_line_through_the_points() -> None:
    assert Series([(0.0, 1.0), (1800.0, 2.0), (3600.0, 3.0)]).slope_per_hour() == pytest.approx(2.0)
    assert Series([(0.0, 1.0)]).slope_per_hour() == 0.0


def test_what_stays_as_it_is_after_it_warmed_up_is_flat() -> None:
    warming = [sample(at, 60.0 + at / 10, 30) for at in range(0, 400, 10)]
    assert steep([*warming, *(sample(at, 100.0 + at % 7, 30 + at % 3) for at in range(450, 1800, 10))]) == []


def test_what_wanders_in_a_short_time_is_not_taken_for_a_slope() -> None:
    soak = Soak(minutes=1.5, per_minute=2.0, seed=1)
    soak.samples += [sample(at, 60.0 + at / 40, 26 + at // 30) for at in range(0, 90, 5)]
    assert soak.slopes()["steep"] == []


def test_memory_and_files_that_grow_are_seen() -> None:
    grown = steep([sample(at, 80.0 + at / 100, 30 + at // 60) for at in range(0, 1800, 10)])
    assert grown == ["I10: m1 grows", "I10: m1 opens 60 files/h"]


def test_a_process_that_was_started_anew_is_another_series() -> None:
    restarted = [sample(at, 80.0 + 20 * (at > 1100), 30, pid=1 + (at > 1100)) for at in range(0, 1800, 10)]
    assert steep(restarted) == []


def test_a_database_that_grows_is_seen() -> None:
    assert len(steep([sample(at, 80.0, 30, etcd_mib=at / 60) for at in range(0, 1800, 10)])) == 1
