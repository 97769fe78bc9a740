"""JSON lines of a comparison: one for each thing measured, appended to a file so that runs add up over many calls.

Every line has `bench`, `kind`, `who`, `setting`, `n`, `run`, `at` and `versions`; the rest is the kind's own.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Lines:
    """What was written by this call, and to a file besides if there is one."""

    def __init__(self, out: Path | None, versions: dict[str, str]) -> None:
        self._out = out
        self._versions = versions
        self._run = 0
        self._held = read([out] if out and out.exists() else [])
        self.written: list[Line] = []

    def next_run(self, kind: str) -> None:
        """Begin a run, in which each of those compared has a turn; its number is nobody else's in the file."""
        lines = [*self._held, *self.written]
        self._run = 1 + max((int(line["run"]) for line in lines if line.get("kind") == kind), default=0)

    def write(self, kind: str, who: str, setting: str, n: int, **figures: object) -> None:
        """Print a line, and append it to the file."""
        line: Line = {"bench": "compare", "kind": kind, "who": who, "setting": setting, "n": n, "run": self._run}
        line |= figures
        line |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "versions": self._versions}
        text = json.dumps(line, ensure_ascii=False)
        print(text, flush=True)
        if self._out:
            with self._out.open("a") as file:
                file.write(f"{text}\n")
        self.written.append(line)


def read(files: list[Path]) -> list[Line]:
    """Return the lines of files in order; raises `ValueError` for what is not a line."""
    found: list[Line] = []
    for file in files:
        for number, text in enumerate(file.read_text().splitlines(), 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if not isinstance(line, dict):
                raise ValueError(f"cannot read {file}:{number}: it is no JSON object")
            found.append(line)
    return found


def versions(engine: str) -> dict[str, str]:
    """Return what is compared, and what it runs on; `engine` is what the Engine says of itself."""
    etcd = subprocess.run(["etcd", "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    return {
        "engine": engine,
        "etcd": etcd.split("\n", 1)[0].rpartition(" ")[2],
        "python": platform.python_version(),
        "kernel": platform.release().partition("-")[0],
        "cores": str(os.cpu_count() or 1),
    }
