"""`bench/scale` tells how it is used, prints its figures in one shape, and says which aims are met."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The bench as a module; it lies in no package."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("scale")
    for name in ("scale", "measure"):
        sys.modules.pop(name, None)


def test_it_says_how_it_is_used() -> None:
    script = (BENCH / "scale").read_text()
    assert script.startswith("#!/usr/bin/env bash\n") and "bench/scale.py" in script
    assert (BENCH / "scale").stat().st_mode & 0o111
    done = subprocess.run(
        [sys.executable, str(BENCH / "scale.py"), "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "bench/scale" in done.stdout and "--quick" in done.stdout and "{100,300,1000,masters}" in done.stdout


def test_a_figure_is_one_line_of_json(scale: Any) -> None:
    assert json.loads(scale.line("detection", 300, 3000, 11.23456, "s", 2)) == {
        "bench": "scale",
        "kind": "detection",
        "n": 300,
        "units": 3000,
        "value": 11.23,
        "unit": "s",
        "run": 2,
    }


def test_the_table_has_the_median_of_each_size_and_says_whether_all_of_them_meet_the_aim(scale: Any) -> None:
    done = [
        SimpleNamespace(machines=100, figures={"placements": [1500.0], "detection": [11.0, 12.0, 30.0]}),
        SimpleNamespace(machines=1000, figures={"placements": [400.0], "detection": [11.5]}),
    ]
    rows = {row.split()[0]: row.split()[1:] for row in scale.table(done)}
    assert rows["100"] == ["machines", "1000", "machines", "aim"]
    assert rows["placements"] == ["1500", "400", ">=", "1000", "MISSED"]
    assert rows["detection"] == ["12", "11.5", "<=", "13", "met"]
    assert rows["leader-rss"] == ["-", "-"]
    assert set(scale.AIMS) <= set(scale.MEANING) == rows.keys() - {"100"}
