"""The page of figures is made from lines, and nothing that was written by hand is lost on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
PAGE = """# Speed

By hand.

<!-- from: compare starts -->
old
<!-- end -->
<!-- from: compare failover -->
<!-- end -->

By hand, too.
"""


def line(kind: str, who: str, setting: str, seconds: float, **more: Any) -> dict[str, Any]:
    """What bench/compare writes for one run."""
    versions = {"engine": "20.10.24", "etcd": "3.4.23", "python": "3.11.7", "kernel": "6.1.0", "cores": "2"}
    line = {
        "bench": "compare",
        "kind": kind,
        "who": who,
        "setting": setting,
        "n": 20,
        "run": 1,
        "seconds": seconds,
    }
    return {**line, "foreign_cores": 0.1, "at": "2026-01-02T03:04:05+00:00", "versions": versions, **more}


def start(who: str, seconds: float, run: int, agents: float = 0.0) -> dict[str, Any]:
    """One run of 20 containers."""
    ours = {"agents": agents, "masters": 2.0, "etcd": 3.0} if who == "unitfleet" else {}
    return line("starts", who, "host", seconds, run=run, cpu_ms={"engine": 100.0, **ours})


STARTS = [
    *(start("engine", 1.0, 1), start("swarm", 1.5, 1), start("unitfleet", 1.0, 1, agents=7.0)),
    # the machine grew slower: all that is taken together says nothing
    *(start("engine", 2.0, 2), start("swarm", 3.0, 2), start("unitfleet", 4.0, 2, agents=7.0)),
    *(start("engine", 4.0, 3), start("swarm", 6.0, 3), start("unitfleet", 4.0, 3, agents=9.0)),
]
FAILOVERS = [
    *(line("failover", "swarm", "default", 20.0, run=run) for run in range(1, 6)),
    *(
        line("failover", "unitfleet", "default", seconds, run=run)
        for run, seconds in enumerate([10.0] * 19 + [14.0])
    ),
]


def report(
    tmp_path: Path, lines: list[dict[str, Any]], *args: str, more: str = ""
) -> subprocess.CompletedProcess[str]:
    """Write lines and a page, and run bench/report. `more` stands after the lines."""
    (tmp_path / "lines.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines) + more)
    page = tmp_path / "performance.md"
    if not page.exists():
        page.write_text(PAGE)
    command = [sys.executable, str(BENCH / "report.py"), str(tmp_path / "lines.jsonl"), "--out", str(page), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def row(text: str, what: str) -> list[str]:
    """The cells of a row of a table."""
    [found] = [each for each in text.splitlines() if each.startswith(f"| {what} ")]
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def test_a_rate_is_compared_within_its_run_and_held_against_its_aim(tmp_path: Path) -> None:
    done = report(tmp_path, STARTS, "--table")
    assert done.returncode == 0, done.stderr
    # 1, 0.5 and 1 of the Engine's in the same run; the medians of the seconds, 2 and 4, would say 0.5
    beside = row(done.stdout, "20 containers, host network: our rate beside the Engine's")
    assert beside == ["1 times", "0.5", "1", "1", "3", "≥ 0.9 times", "met"]
    assert row(done.stdout, "20 containers, host network: our rate beside Swarm's")[0] == "1.5 times"
    # etcd has a row of its own
    assert row(done.stdout, "20 containers, host network: CPU of agents and masters each")[0] == "9 ms"
    assert row(done.stdout, "20 containers, host network: CPU of etcd each")[0] == "3 ms"
    assert not (tmp_path / "performance").exists()


def test_a_start_that_others_disturbed_counts_for_nobody(tmp_path: Path) -> None:
    disturbed = [{**start("engine", 9.0, 4), "foreign_cores": 1.1}, start("unitfleet", 9.0, 4)]
    assert report(tmp_path, [*STARTS, *disturbed], "--table").stdout == report(tmp_path, STARTS, "--table").stdout
    assert report(tmp_path, [*STARTS, *disturbed]).returncode == 0
    assert "Left out: 2 lines" in (tmp_path / "performance.md").read_text()


def test_a_tail_is_that_of_nineteen_in_twenty_and_swarm_sets_the_aim(tmp_path: Path) -> None:
    done = report(tmp_path, FAILOVERS, "--table")
    assert row(done.stdout, "Unitfleet, default ") == ["10 s", "10", "10", "14", "20", "≤ 13 s", "met"]
    assert row(done.stdout, "Unitfleet, default: p95 beside the median")[0] == "1 times"


def test_only_what_stands_between_the_markers_is_made_anew(tmp_path: Path) -> None:
    assert report(tmp_path, [*STARTS, *FAILOVERS]).returncode == 0
    page = (tmp_path / "performance.md").read_text()
    assert page.startswith("# Speed\n\nBy hand.\n\n<!-- from: compare starts -->\n")
    assert page.endswith("<!-- end -->\n\nBy hand, too.\n") and "old" not in page
    assert "Engine 20.10.24, etcd 3.4.23" in page and "a first look" in page
    for name in ("starts", "failover"):
        assert f"performance/{name}.svg" in page
        assert (tmp_path / "performance" / f"{name}.svg").read_text().startswith("<svg ")
    # once more, with one kind alone: the other stays as it is, and the same lines make the same page
    assert report(tmp_path, STARTS).returncode == 0
    assert (tmp_path / "performance.md").read_text() == page


def test_sizes_stand_side_by_side_and_the_worst_of_them_is_held_against_the_aim(tmp_path: Path) -> None:
    page = "# Speed\n<!-- from: scale -->\n<!-- end -->\n"
    (tmp_path / "performance.md").write_text(page)
    sizes = [
        {"bench": "scale", "kind": "placements", "n": n, "units": 10 * n, "value": value, "unit": "/s", "run": run}
        for n, value, run in ((100, 2000.0, 1), (1000, 900.0, 1), (1000, 980.0, 2), (1000, 1500.0, 3))
    ]
    done = report(tmp_path, sizes)
    assert done.returncode == 0 and "left out" not in done.stderr
    assert row((tmp_path / "performance.md").read_text(), "placements") == [
        "2,000",
        "980",
        "/s",
        "≥ 1000",
        "missed",
    ]
    assert (tmp_path / "performance" / "scale.svg").exists()


def test_a_kind_that_is_not_known_is_named_and_left_out(tmp_path: Path) -> None:
    done = report(tmp_path, [*STARTS, {"bench": "other", "kind": "tides"}, {"bench": "other", "kind": "tides"}])
    assert done.returncode == 0 and "left out 2 lines of kind tides" in done.stderr


@pytest.mark.parametrize("broken", ["{", "[1]"], ids=["no JSON", "no object"])
def test_what_is_no_line_is_refused_with_its_place(tmp_path: Path, broken: str) -> None:
    report(tmp_path, STARTS)
    page = (tmp_path / "performance.md").read_text()
    done = report(tmp_path, STARTS[:2], more=broken)
    assert done.returncode == 1 and "lines.jsonl:3: it is no JSON object" in done.stderr
    assert (tmp_path / "performance.md").read_text() == page


def test_a_page_without_a_place_for_what_was_measured_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "performance.md").write_text("# Speed\n")
    done = report(tmp_path, STARTS)
    assert done.returncode == 1 and "<!-- from: compare starts -->\n<!-- end -->" in done.stderr
    assert (tmp_path / "performance.md").read_text() == "# Speed\n"
