"""What lines come to: medians and tails beside their aims. Pure: lines in, figures out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from aims import Aim, at_least, at_most
from versus.lines import Line

NAMES = {"engine": "Engine alone", "swarm": "Swarm", "unitfleet": "Unitfleet"}
FULL_RUNS = 5
"""Fewer runs are a first look, and said to be."""
DISTURBED = 0.5
"""A run that is bound by CPU counts for nobody if others had more of all cores while anybody was measured."""
SCALE_AIMS = {"placements": at_least(1000), "etcd-writes-idle": at_most(5), "replaced": at_most(30)}
SCALE_DRAWN = "placements"
"""The kind of bench/scale whose cost is drawn over sizes: units a second."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured, in so many runs, and what it should come to."""

    kind: str
    what: str
    values: tuple[float, ...]
    unit: str
    aim: Aim | None = None

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        """The least value that 95 of 100 runs do not exceed."""
        return sorted(self.values)[math.ceil(0.95 * len(self.values)) - 1]

    @property
    def verdict(self) -> str:
        """Whether the aim is met; nothing without one."""
        if self.aim is None:
            return ""
        return "met" if self.aim.met_by(self.median) else "missed"


def figures(lines: Sequence[Line]) -> list[Figure]:
    """Return all figures of the kinds that are known, kind by kind."""
    return [
        figure
        for kind, of in KINDS.items()
        for figure in of(quiet([each for each in lines if each.get("kind") == kind]))
    ]


def quiet(lines: Sequence[Line]) -> list[Line]:
    """Return the lines of runs in which others disturbed nobody; only what is bound by CPU can be disturbed."""
    bound = [line for line in lines if line.get("kind") in ("starts", "big")]
    disturbed = {_same_run(line) for line in bound if _share_of_others(line) > DISTURBED}
    return [line for line in lines if _same_run(line) not in disturbed]


def _same_run(line: Line) -> tuple[object, ...]:
    return tuple(line.get(key) for key in ("kind", "setting", "n", "run"))


def _share_of_others(line: Line) -> float:
    return float(line["foreign_cores"]) / int(line["versions"]["cores"])


def unknown(lines: Iterable[Line]) -> dict[str, int]:
    """Return the kinds that are not known, and how many lines each has."""
    found: dict[str, int] = {}
    for line in lines:
        kind = str(line.get("kind", "none"))
        if line.get("bench") != "scale" and kind not in KINDS:
            found[kind] = found.get(kind, 0) + 1
    return found


def values(lines: Sequence[Line], field: str = "seconds", **which: object) -> tuple[float, ...]:
    """Return a field of the lines that are such."""
    return tuple(
        float(line[field])
        for line in lines
        if field in line and all(line[key] == is_ for key, is_ in which.items())
    )


def cases(lines: Sequence[Line], *keys: str) -> list[tuple[str | int, ...]]:
    """Return what occurs of these keys, in order."""
    return sorted({tuple(line[key] for key in keys) for line in lines}, key=str_and_number)


def str_and_number(case: tuple[str | int, ...]) -> tuple[tuple[int, str], ...]:
    """Return what to sort by, where words and numbers stand together."""
    return tuple((each, "") if isinstance(each, int) else (0, each) for each in case)


def _starts(lines: Sequence[Line]) -> list[Figure]:
    found = []
    # host network first: "bridge" sorts before "host"
    for network, n in sorted(cases(lines, "setting", "n"), key=lambda case: (case[0] != "host", case[1])):
        these = [line for line in lines if (line["setting"], line["n"]) == (network, n)]
        what = f"{n} containers, {network} network"
        for who in NAMES:
            found += _some(f"{what}: {NAMES[who]}", values(these, who=who), "s", "starts")
        rates = _paired(these, "engine")
        aim = at_least(0.9 if network == "host" else 0.95)
        found += _some(f"{what}: our rate beside the Engine's", rates, "times", "starts", aim)
        found += _some(f"{what}: our rate beside Swarm's", _paired(these, "swarm"), "times", "starts", at_least(1))
        for who in NAMES:
            cpu = tuple(line["cpu_ms"]["engine"] for line in these if line["who"] == who)
            found += _some(f"{what}: CPU of the Engines each, {NAMES[who]}", cpu, "ms", "starts")
        ours = [line["cpu_ms"] for line in these if line["who"] == "unitfleet"]
        added = tuple(cpu["agents"] + cpu["masters"] for cpu in ours)
        found += _some(f"{what}: CPU of agents and masters each", added, "ms", "starts", at_most(10))
        found += _some(f"{what}: CPU of etcd each", tuple(cpu["etcd"] for cpu in ours), "ms", "starts")
    return found


def _paired(lines: Sequence[Line], other: str) -> tuple[float, ...]:
    """Return how much faster than `other` we were, run by run: machines differ from hour to hour."""
    theirs = {line["run"]: float(line["seconds"]) for line in lines if line["who"] == other}
    return tuple(
        theirs[line["run"]] / float(line["seconds"])
        for line in lines
        if line["who"] == "unitfleet" and line["run"] in theirs
    )


def _failover(lines: Sequence[Line]) -> list[Figure]:
    found = []
    swarm = values(lines, who="swarm", setting="default")
    for who, setting in sorted(cases(lines, "who", "setting"), key=lambda case: (case[0] == "swarm", case[1])):
        took = values(lines, who=who, setting=setting)
        aim = at_most(5) if (who, setting) == ("unitfleet", "fastest") else None
        if (who, setting) == ("unitfleet", "default") and swarm:
            aim = at_most(round(0.65 * statistics.median(swarm), 2))
        found += _some(f"{NAMES[str(who)]}, {setting}", took, "s", "failover", aim)
    ours = values(lines, who="unitfleet", setting="default")
    if len(ours) >= FULL_RUNS:  # there is no tail of less
        tail = Figure("failover", "", ours, "s").p95 / statistics.median(ours)
        found.append(
            Figure("failover", "Unitfleet, default: p95 beside the median", (tail,), "times", at_most(1.25))
        )
    return found


def _leader(lines: Sequence[Line]) -> list[Figure]:
    found = []
    fields = (
        ("accepted_s", "a scale is accepted", None),
        ("seconds", "what was scaled runs", at_most(6)),
        ("whole_s", "the dead host's own run again", at_most(20)),
    )
    for field, what, aim in fields:
        for who in ("unitfleet", "swarm"):
            took = values(lines, field, who=who)
            found += _some(f"until {what}: {NAMES[who]}", took, "s", "leader", aim if who == "unitfleet" else None)
    return found


def _idle(lines: Sequence[Line]) -> list[Figure]:
    found = []
    for field, what, unit in (("cpu_percent", "CPU", "% of a core"), ("rss_mb", "memory", "MB")):
        for who in NAMES:
            these = [line[field] for line in lines if line["who"] == who]
            for program in dict.fromkeys(name for each in these for name in each):
                seen = tuple(float(each[program]) for each in these)
                found += _some(f"{what} of {program}, {NAMES[who]}", seen, unit, "idle")
    return found


def _big(lines: Sequence[Line]) -> list[Figure]:
    found = []
    for (n,) in cases(lines, "n"):
        these = [line for line in lines if line["n"] == n]
        what = f"{n:,} containers, host network"
        for who in NAMES:
            found += _some(f"{what}: {NAMES[who]}", values(these, who=who), "s", "big")
        found += _some(f"{what}: our rate beside Swarm's", _paired(these, "swarm"), "times", "big", at_least(2))
        for who in NAMES:
            found += _some(f"{what}: highest load, {NAMES[who]}", values(these, "peak_load", who=who), "", "big")
    return found


def _some(what: str, seen: tuple[float, ...], unit: str, kind: str, aim: Aim | None = None) -> list[Figure]:
    return [Figure(kind, what, seen, unit, aim)] if seen else []


KINDS: dict[str, Callable[[Sequence[Line]], list[Figure]]] = {
    "starts": _starts,
    "failover": _failover,
    "leader": _leader,
    "idle": _idle,
    "big": _big,
}


def number(value: float) -> str:
    """Write a figure with three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def bounded(aim: Aim | None) -> str:
    """Write an aim."""
    return str(aim or "").replace("<=", "≤").replace(">=", "≥")


def table(found: Sequence[Figure]) -> str:
    """Return figures as Markdown, which a terminal shows as well."""
    rows: list[tuple[str, ...]] = [("", "median", "least", "p95", "most", "runs", "aim", "")]
    for each in found:
        spread = [number(value) for value in (min(each.values), each.p95, max(each.values))]
        value = f"{number(each.median)} {each.unit}".strip()
        aim = f"{bounded(each.aim)} {each.unit}" if each.aim else ""
        rows.append(
            (
                each.what,
                value,
                *(spread if len(each.values) > 1 else [""] * 3),
                str(len(each.values)),
                aim,
                each.verdict,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
