"""What the recorded runs add up to: how often something happened, how often a promise broke, and what that bounds.

No violation in N independent trials bounds its rate at 3/N with 95 % confidence (the rule of three: Hanley and
Lippman-Hand, JAMA 249, 1983).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PROOF = Path(__file__).parents[2] / "docs" / "proof"


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file; none where there is none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def bound(trials: int, violations: int) -> str:
    """Return in words what so many trials say of the rate."""
    if violations or not trials:
        return "-"
    return f"below {300 / trials:.2g} %"


def simulated(records: Iterable[dict[str, Any]]) -> tuple[int, int, int]:
    """Return seeds told, faults in them, seeds that broke a promise, by the newest version of the simulation.

    A line is of some hundred seeds, or of one of them, told once more because it broke something.
    """
    told = list(records)
    newest = max((record["version"] for record in told), default=0)
    current = [record for record in told if record["version"] == newest]
    groups = [record for record in current if "last" in record]
    seeds = sum(record["last"] - record["first"] + 1 for record in groups)
    return seeds, sum(sum(r["faults"].values()) for r in groups), len(current) - len(groups)


def real(records: Iterable[dict[str, Any]]) -> tuple[int, int, int]:
    """Return rounds on a real cluster, faults in them, rounds that broke a promise; void ones don't count."""
    counted = [record for record in records if record["verdict"] in ("held", "violated")]
    return len(counted), sum(len(r["faults"]) for r in counted), sum(r["verdict"] == "violated" for r in counted)


def table(proof: Path = PROOF) -> str:
    """Return the figures as a table in Markdown."""
    chaos = lines_of(proof / "chaos.jsonl")
    rows = [("simulated fleets", *simulated(lines_of(proof / "simulation.jsonl")))]
    rows += [
        (f"rounds on a real cluster, seed {seed}", *real(each for each in chaos if each["seed"] == seed))
        for seed in sorted({each["seed"] for each in chaos})
    ]
    told = [
        "| what | trials | faults in them | broke a promise | so the rate is (95 %) |",
        "|---|---|---|---|---|",
    ]
    told += [f"| {what} | {n:,} | {faults:,} | {bad} | {bound(n, bad)} |" for what, n, faults, bad in rows]
    return "\n".join(told)


if __name__ == "__main__":
    print(table())
