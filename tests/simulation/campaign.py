"""Many seeds, told one after the other and written down: `scripts/simulate --seeds N`.

A line of JSON a hundred seeds goes to the file, and one more for each that broke a promise. It goes on after the
last seed that stands there for this version of the simulation.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulation.story import VERSION, Told, tell

TOP = Path(__file__).parents[2]
OUT = TOP / "docs/proof/simulation.jsonl"
GROUP = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--from", dest="first", type=int, help="first seed (the one after the last in the file)")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--out", type=Path, default=OUT, help="the file it is appended to (docs/proof/…)")
    arguments = parser.parse_args(argv)
    first = arguments.first if arguments.first is not None else after(arguments.out)
    end = first + arguments.seeds
    pieces = [(seed, min(seed + GROUP, end)) for seed in range(first, end, GROUP)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    revision = _revision()
    broken = 0
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        for line, failures in pool.imap(_run, pieces):
            broken += len(failures)
            with arguments.out.open("a") as out:
                for record in (line, *failures):
                    out.write(json.dumps({"version": VERSION, "git": revision, **record}) + "\n")
            told = "every promise kept" if not failures else f"BROKEN by {[each['seed'] for each in failures]}"
            print(f"seeds {line['first']} to {line['last']}: {told}", file=sys.stderr, flush=True)
    print(f"{arguments.seeds} seeds, {broken} broke a promise", file=sys.stderr)
    return 1 if broken else 0


def after(out: Path) -> int:
    """Return the seed after the last that stands in the file, told by this version of the simulation."""
    if not out.exists():
        return 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    return max((each["last"] + 1 for each in records if each["version"] == VERSION and "last" in each), default=0)


def _run(piece: tuple[int, int]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    began = time.monotonic()
    stories = [tell(seed) for seed in range(*piece)]
    faults: Counter[str] = Counter()
    for told in stories:
        faults += told.faults
    failures = [_failure(told) for told in stories if told.violations]
    return {
        "first": piece[0],
        "last": piece[1] - 1,
        "verdict": "broken" if failures else "kept",
        "faults": dict(sorted(faults.items())),
        "commands": sum(told.commands for told in stories),
        "virtual_s": round(sum(told.virtual_s for told in stories)),
        "seconds": round(time.monotonic() - began, 1),
    }, failures


def _failure(told: Told) -> dict[str, Any]:
    return {"seed": told.seed, "verdict": "broken", "faults": dict(told.faults), "violations": told.violations[:5]}


def _revision() -> str:
    """Return the commit that is told about, with + for changes that are in none."""
    try:
        git = ("git", "-C", str(TOP))
        head = subprocess.check_output([*git, "rev-parse", "--short=12", "HEAD"], text=True).strip()
        changed = subprocess.check_output([*git, "status", "--porcelain", "core", "agent", "master", "tests"])
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed else "")


if __name__ == "__main__":
    sys.exit(main())
