"""The page docs/performance.md: what stands between `<!-- from: … -->` and `<!-- end -->` is made from lines."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aims import Aim
from versus.lines import Line

from reporting import svg
from reporting.figures import (
    DISTURBED,
    FULL_RUNS,
    NAMES,
    SCALE_AIMS,
    SCALE_DRAWN,
    Figure,
    bounded,
    cases,
    figures,
    number,
    quiet,
    table,
    values,
)

_PLACE = re.compile(r"(<!-- from: (?P<what>[^>]*?) -->\n)(?P<old>.*?)(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Section:
    """The text of one kind of lines, and its plots by file name."""

    text: str
    plots: dict[str, str]


def fill(page: str, texts: dict[str, str]) -> str:
    """Return the page with these texts in their places; raises `ValueError` for one that has no place."""
    found = {match["what"] for match in _PLACE.finditer(page)}
    if missing := sorted(set(texts) - found):
        lines = "".join(f"\n<!-- from: {what} -->\n<!-- end -->" for what in missing)
        raise ValueError(f"cannot fill the page: it lacks{lines}")

    def one(match: re.Match[str]) -> str:
        text = texts.get(match["what"])
        return match[0] if text is None else f"{match[1]}\n{text.strip()}\n\n{match[4]}"

    return _PLACE.sub(one, page)


def sections(lines: Sequence[Line]) -> dict[str, Section]:
    """Return a section for each kind that is known and was measured, by the name of its place."""
    found = {}
    if sizes := [line for line in lines if line.get("bench") == "scale"]:
        found["scale"] = _scale(sizes)
    for kind, make in _MAKE.items():
        whole = [line for line in lines if line.get("kind") == kind]
        these = quiet(whole)
        if these:
            section = make(these)
            said = _conditions(these, len(whole) - len(these))
            found[f"compare {kind}"] = Section(f"{section.text}\n\n{said}", section.plots)
    return found


def _conditions(lines: Sequence[Line], left_out: int) -> str:
    """Say when and where these were taken, what others did meanwhile, and how many there are."""
    days = sorted({line["at"][:10] for line in lines})
    told = lines[-1]["versions"]
    foreign = [line["foreign_cores"] for line in lines]
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    text = (
        f"*Taken {when} on {told['cores']} cores, Linux {told['kernel'].partition('-')[0]}, "
        f"Engine {told['engine']}, etcd {told['etcd']}, Python {told['python']}. Others on the machine kept "
        f"{statistics.median(foreign):.2f} cores busy meanwhile, at most {max(foreign):.2f}.*"
    )
    if left_out:
        text += f"\n\n*Left out: {left_out} lines of runs in which others had over {DISTURBED:.0%} of all cores.*"
    runs = {len(values(lines, who=who, setting=name, n=n)) for who, name, n in cases(lines, "who", "setting", "n")}
    if min(runs) < FULL_RUNS:
        text += f"\n\n*Fewer than {FULL_RUNS} runs are a first look: see the column of runs.*"
    return text


def _starts(lines: Sequence[Line]) -> Section:
    found = figures(lines)
    rows: list[Sequence[str]] = [("", "Engine alone", "Swarm", "Unitfleet", "runs of each")]
    cost: list[Sequence[str]] = [
        (
            "CPU of a container, ms",
            "Engine alone",
            "Swarm: Engines",
            "Unitfleet: Engines",
            "agents, masters",
            "etcd",
        )
    ]
    times: dict[str, list[svg.Row]] = {}
    for network, n in sorted(cases(lines, "setting", "n"), key=lambda case: (case[0] != "host", case[1])):
        these = [line for line in lines if (line["setting"], line["n"]) == (network, n)]
        took = {who: values(these, who=who) for who in NAMES}
        label = f"{n} containers, {network} network"
        rows.append(
            (
                label,
                *(_seconds(each) for each in took.values()),
                ", ".join(str(len(each)) for each in took.values()),
            )
        )
        times[label] = [svg.Row("", who, [statistics.median(each)]) for who, each in took.items() if each]
        named = {figure.what.removeprefix(f"{label}: "): figure for figure in found}
        engines = [_median(named.get(f"CPU of the Engines each, {name}")) for name in NAMES.values()]
        ours = [_median(named.get(f"CPU of {who} each")) for who in ("agents and masters", "etcd")]
        cost.append((label, *engines, *ours))
    plot = svg.bars("Until so many containers run on five hosts", "seconds, median", times, NAMES)
    text = (
        "Seconds until so many containers run, from the one request that asks for them; least to most in brackets:"
        f"\n\n{_rows(rows)}\n\n![Seconds until so many containers run](performance/starts.svg)\n\n"
        f"{_rows(cost)}\n\n"
        f"Held against the aims; a rate is that of the same run:\n\n{table([each for each in found if each.aim])}"
    )
    return Section(text, {"starts.svg": plot})


def _failover(lines: Sequence[Line]) -> Section:
    found = figures(lines)
    measured = [each for each in found if each.unit == "s"]
    plot = svg.dots("From power-off until all 20 run", "seconds, a dot a run", _dots(measured), NAMES)
    text = f"{table(found)}\n\n![From power-off until all run](performance/failover.svg)"
    return Section(text, {"failover.svg": plot})


def _leader(lines: Sequence[Line]) -> Section:
    found = figures(lines)
    plot = svg.dots("The leader's host loses its power", "seconds, a dot a run", _dots(found), NAMES)
    return Section(f"{table(found)}\n\n![The leader's host is lost](performance/leader.svg)", {"leader.svg": plot})


def _idle(lines: Sequence[Line]) -> Section:
    rows = [("sum of five hosts", *(f"{name}: {what}" for name in NAMES.values() for what in ("CPU %", "MB")))]
    per_who = {who: [line for line in lines if line["who"] == who] for who in NAMES}
    programs = dict.fromkeys(name for line in lines for name in line["cpu_percent"])
    for program in programs:
        cells = []
        for these in per_who.values():
            for field in ("cpu_percent", "rss_mb"):
                seen = [float(line[field][program]) for line in these if program in line[field]]
                cells.append(number(statistics.median(seen)) if seen else "")
        rows.append((program, *cells))
    runs = ", ".join(f"{NAMES[who]} {len(these)}" for who, these in per_who.items())
    return Section(f"{_rows(rows)}\n\nRuns of {lines[0]['seconds']:g} s: {runs}.", {})


def _scale(lines: Sequence[Line]) -> Section:
    """Put sizes side by side, the median of each; what a size costs to place is drawn."""
    sizes = sorted({int(line["n"]) for line in lines})
    rows = [("", *(f"{size:,} machines" for size in sizes), "unit", "aim", "")]
    total: dict[float, float] = {}
    for kind in dict.fromkeys(str(line["kind"]) for line in lines):
        these = [line for line in lines if line["kind"] == kind]
        seen = [[float(line["value"]) for line in these if line["n"] == size] for size in sizes]
        middle = [statistics.median(each) if each else None for each in seen]
        aim = SCALE_AIMS.get(kind)
        met = aim is not None and all(aim.met_by(each) for each in middle if each is not None)
        verdict = "" if aim is None else "met" if met else "missed"
        cells = ("" if each is None else number(each) for each in middle)
        rows.append((kind, *cells, str(these[0]["unit"]), bounded(aim), verdict))
        if kind == SCALE_DRAWN:
            units = {int(line["n"]): float(line["units"]) for line in these}
            total = {size: units[size] / each for size, each in zip(sizes, middle, strict=True) if each}
    if not total:
        return Section(_rows(rows), {})
    plot = svg.curve(
        "Until all units are placed and told as running", "seconds", total, "machines with 10 units each"
    )
    return Section(f"{_rows(rows)}\n\n![Seconds by machines](performance/scale.svg)", {"scale.svg": plot})


def _big(lines: Sequence[Line]) -> Section:
    return Section(table(figures(lines)), {})


_MAKE: dict[str, Callable[[Sequence[Line]], Section]] = {
    "starts": _starts,
    "failover": _failover,
    "leader": _leader,
    "idle": _idle,
    "big": _big,
}


def _dots(found: Sequence[Figure]) -> list[svg.Row]:
    return [svg.Row(_label(each.what), _who(each.what), each.values, _bound(each.aim)) for each in found]


def _bound(aim: Aim | None) -> float | None:
    return None if aim is None else aim.bound


def _label(what: str) -> str:
    short = what.removeprefix("until ")
    for name in NAMES.values():
        short = short.replace(f": {name}", "").replace(f"{name}, ", "")
    return short


def _who(what: str) -> str:
    return next(who for who, name in NAMES.items() if name in what)


def _seconds(took: Sequence[float]) -> str:
    if not took:
        return ""
    return f"{number(statistics.median(took))} ({number(min(took))} to {number(max(took))})"


def _median(figure: Figure | None) -> str:
    return "" if figure is None else number(figure.median)


def _rows(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
