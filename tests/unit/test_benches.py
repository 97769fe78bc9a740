"""The benches tell how they are used, and print their figures in one shape."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module that the benches share; it lies beside them, and in no package."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("measure")
    sys.modules.pop("measure", None)


@pytest.mark.parametrize("name", ["start", "failover", "footprint", "agent", "bandwidth", "sinks"])
def test_a_bench_says_how_it_is_used(name: str) -> None:
    told = told_of(name)
    assert "--runs" in told and "--quick" in told


def test_a_comparison_says_what_it_measures_and_how_runs_add_up() -> None:
    told = told_of("compare")
    assert all(kind in told for kind in ("starts", "failover", "leader", "idle", "big", "all"))
    assert "--runs" in told and "--out" in told
    assert "performance.md" in told_of("report")


def told_of(name: str) -> str:
    """What a bench says of itself."""
    script = (BENCH / name).read_text()
    assert script.startswith("#!/usr/bin/env bash\n") and f"bench/{name}.py" in script
    assert (BENCH / name).stat().st_mode & 0o111
    done = subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py"), "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert f"bench/{name}" in done.stdout
    return done.stdout


def test_a_figure_is_one_line_of_json_with_the_median_as_its_value(measure: Any) -> None:
    figure = json.loads(measure.line("start", "one unit", [0.25, 0.125, 3.0], "s", measure.at_most(1)))
    assert figure == {
        "bench": "start",
        "case": "one unit",
        "value": 0.25,
        "unit": "s",
        "aim": "<= 1",
        "min": 0.125,
        "max": 3.0,
        "runs": 3,
    }
    assert json.loads(measure.line("start", "one unit", [1.0], "s", None))["aim"] is None


def test_an_aim_is_met_from_its_own_side(measure: Any) -> None:
    assert measure.at_most(1).met_by(1) and not measure.at_most(1).met_by(1.1)
    assert measure.at_least(0.9).met_by(0.9) and not measure.at_least(0.9).met_by(0.8)
