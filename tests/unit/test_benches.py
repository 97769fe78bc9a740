"""The benches tell how they are used, and print their figures in one shape."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
MEASURING = ("start", "failover", "footprint", "agent", "bandwidth", "sinks", "place")


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module that the benches share; it lies beside them, and in no package."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("measure")
    sys.modules.pop("measure", None)


TELLING = """
import contextlib, io, json, runpy, sys
told = []
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            assert not end.code, (script, end.code)
    told.append(out.getvalue())
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    """What each bench says of itself; in one process, for what they all import takes the longest."""
    scripts = [str(BENCH / f"{name}.py") for name in (*MEASURING, "compare", "report")]
    done = subprocess.run(
        [sys.executable, "-c", TELLING, *scripts],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(BENCH)},  # as for a script, whose own folder comes first
    )
    assert done.returncode == 0, done.stderr
    return dict(zip((*MEASURING, "compare", "report"), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", MEASURING)
def test_a_bench_says_how_it_is_used(name: str, told: dict[str, str]) -> None:
    assert "--runs" in told[name] and "--quick" in told[name]


def test_a_comparison_says_what_it_measures_and_how_runs_add_up(told: dict[str, str]) -> None:
    kinds = ("starts", "failover", "leader", "idle", "big", "all")
    assert all(kind in told["compare"] for kind in kinds)
    assert "--runs" in told["compare"] and "--out" in told["compare"]
    assert "performance.md" in told["report"]


def test_a_bench_is_a_command_that_runs_its_script(told: dict[str, str]) -> None:
    for name, said in told.items():
        script = (BENCH / name).read_text()
        assert script.startswith("#!/usr/bin/env bash\n") and f"bench/{name}.py" in script
        assert (BENCH / name).stat().st_mode & 0o111
        assert f"bench/{name}" in said


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
