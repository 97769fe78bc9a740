"""A run of faults, and its lines: one JSON object a fault, with its verdict; a run goes on after its last line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.faults.drawing import draw
from chaos.faults.fault import Fault
from chaos.rig import Rig
from chaos.round import UP_S, Result, go, until_right
from chaos.witness.witness import Witness
from harness.cluster import StartedAs

CAMPAIGN = 1
"""Raised when a fault of a seed and number is no longer what it was."""

TOP = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: faults `first` to before `end` of a seed."""

    seed: int
    first: int
    end: int
    only: tuple[str, ...] = ()


@contextlib.asynccontextmanager
async def standing(
    logs: Path, *, started_as: StartedAs = lambda name, argv: argv
) -> AsyncIterator[tuple[Rig, Witness]]:
    """Give a rig that is right, and its witness."""
    async with Rig.up(logs, started_as=started_as) as rig, Witness(rig) as witness:
        wrong, _ = await until_right(rig, witness, UP_S)
        assert not wrong, f"the cluster does not come up: {wrong}\n{await rig.cluster.report()}"
        yield rig, witness


def done(path: Path, seed: int) -> int:
    """Return the number of the first fault of a seed that has no line yet."""
    if not path.exists():
        return 0
    lines = (json.loads(line) for line in path.read_text().splitlines() if line.strip())
    return max((line["number"] + 1 for line in lines if line["seed"] == seed and "number" in line), default=0)


def line_of(
    commit: str, seed: int, number: int, faults: Sequence[Fault], began_at: float, result: Result
) -> dict[str, Any]:
    """Return what is recorded of a fault that happened."""
    return {
        "campaign": CAMPAIGN,
        "revision": commit,
        "seed": seed,
        "number": number,
        "faults": [
            {
                "kind": each.kind,
                "target": each.target,
                "lasts_s": each.lasts_s,
                **({"note": each.note} if each.note else {}),
            }
            for each in faults
        ],
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began_at)),
        "ended_s": result.ended_s,
        "settled_s": result.settled_s,
        "moved": result.moved,
        "commands": result.commands,
        "writes_per_s": result.writes_per_s,
        **({"restarted": result.restarted} if result.restarted else {}),
        "verdict": "held" if result.held else "violated",
        "violations": result.violations,
    }


def revision() -> str:
    """Return the commit that is tested, with a + when files differ from it."""
    commit = _git("rev-parse", "--short=10", "HEAD")
    changed = _git("status", "--porcelain", "--", ".", ":!docs/proof")
    return f"{commit}{'+' if changed else ''}" if commit else "unknown"


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], capture_output=True, text=True, cwd=TOP, timeout=20).stdout.strip()


class Run:
    """Carries a plan out, with a new cluster after a violation; `out` gets the lines as they come."""

    def __init__(self, plan: Plan, out: Path, *, until: float) -> None:
        self._plan = plan
        self._out = out
        self._until = until
        self._revision = revision()  # the daemons are started from these files until the end
        self.violated = 0
        self.number = plan.first

    async def run(self) -> int:
        """Return how many faults were carried out."""
        while self.number < self._plan.end and time.monotonic() < self._until:
            logs = Path(tempfile.mkdtemp(prefix="uf-chaos-logs-"))
            try:
                async with standing(logs) as (rig, witness):
                    well = await self._rounds(rig, witness)
                    well = self._closed(await witness.closing()) and well
            except Exception as error:
                self._say(f"the run itself failed at fault {self.number}, which does not count: {error!r}")
                self._write({"crashed": f"{type(error).__name__}: {error}"[:500], "fault": self.number})
                raise
            if well:
                await asyncio.to_thread(shutil.rmtree, logs, True)
            else:
                self._say(f"the logs of the daemons are in {logs}")
        return self.number - self._plan.first

    async def _rounds(self, rig: Rig, witness: Witness) -> bool:
        while self.number < self._plan.end and time.monotonic() < self._until:
            number = self.number
            faults = draw(self._plan.seed, number, self._plan.only)
            began_at = time.time()
            result = await go(rig, witness, faults, random.Random(f"{self._plan.seed}/{number}/commands"))
            line = line_of(self._revision, self._plan.seed, number, faults, began_at, result)
            self._write(line)
            self.number += 1
            names = " + ".join(f"{each.kind} {each.target} {each.lasts_s:g} s" for each in faults)
            self._say(f"{number:4d} {line['verdict']:8s} {result.settled_s - result.ended_s:5.1f} s after {names}")
            if not result.held:
                self.violated += 1
                for what in result.violations:
                    self._say(f"     {what}")
                for told in rig.workload.told:
                    self._say(f"     command: {told}")
                return False
        return True

    def _closed(self, violations: list[str]) -> bool:
        if violations:
            self.violated += 1
            self._write({"closing": "violated", "violations": violations})
        return not violations

    def _write(self, line: dict[str, Any]) -> None:
        whole = {"campaign": CAMPAIGN, "seed": self._plan.seed, **line}
        with self._out.open("a") as out:
            out.write(json.dumps(whole) + "\n")

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
