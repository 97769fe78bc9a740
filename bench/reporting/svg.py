"""Three kinds of plots, as SVG text: bars for medians, a dot for every run, and a curve over sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = {"engine": "#7d8590", "swarm": "#d97706", "unitfleet": "#2563eb", "aim": "#b91c1c"}
_WIDTH, _LEFT, _RIGHT, _TOP = 720, 230, 60, 56


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a plot: what it says, whose it is, and its values; `aim` is drawn as a stroke."""

    label: str
    who: str
    values: Sequence[float]
    aim: float | None = None


def bars(title: str, unit: str, groups: Mapping[str, Sequence[Row]], names: Mapping[str, str]) -> str:
    """Draw one bar for each row, the rows of a group together; a row has one value."""
    top = max(value for rows in groups.values() for row in rows for value in row.values)
    scale, marks = _scale(top)
    drawn, y = [], _TOP
    for label, rows in groups.items():
        middle = y + 9 * len(rows)
        drawn.append(_text(_LEFT - 10, middle + 4, label, "end"))
        for row in rows:
            x = _LEFT + row.values[0] * scale
            drawn.append(
                f'<rect x="{_LEFT}" y="{y}" width="{x - _LEFT:.1f}" height="15" fill="{COLOURS[row.who]}"/>'
            )
            drawn.append(_text(x + 5, y + 12, f"{row.values[0]:.3g}", "start"))
            y += 18
        y += 12
    used = dict.fromkeys(row.who for rows in groups.values() for row in rows)
    return _whole(title, unit, y, [*_grid(scale, marks, y), *drawn], {who: names[who] for who in used})


def dots(title: str, unit: str, rows: Sequence[Row], names: Mapping[str, str]) -> str:
    """Draw a dot for each value of each row, and a stroke at its median and at its aim."""
    top = max([value for row in rows for value in row.values] + [row.aim for row in rows if row.aim])
    scale, marks = _scale(top)
    drawn, y = [], _TOP
    for row in rows:
        drawn.append(_text(_LEFT - 10, y + 14, row.label, "end"))
        for value in row.values:
            x = _LEFT + value * scale
            drawn.append(
                f'<circle cx="{x:.1f}" cy="{y + 10}" r="4.5" fill="{COLOURS[row.who]}" fill-opacity="0.55"/>'
            )
        drawn.append(_stroke(_LEFT + _middle(row.values) * scale, y, COLOURS[row.who]))
        if row.aim is not None:
            drawn.append(_stroke(_LEFT + row.aim * scale, y, COLOURS["aim"], ' stroke-dasharray="3 2"'))
        y += 30
    used = {who: names[who] for who in dict.fromkeys(row.who for row in rows)}
    if any(row.aim is not None for row in rows):
        used["aim"] = "aim"
    return _whole(title, unit, y, [*_grid(scale, marks, y), *drawn], used)


def curve(title: str, unit: str, points: Mapping[float, float], across: str) -> str:
    """Draw values over sizes from nought on, and the straight line through the first one: what would be linear."""
    top, far = max(points.values()), max(points)
    bottom, left = 260, 60
    wide, high = (_WIDTH - left - _RIGHT) / far, (bottom - _TOP) / top
    first = min(points)
    slope = points[first] / first
    end = min(far, top / slope)
    drawn = [
        f'<line x1="{left}" y1="{bottom}" x2="{_WIDTH - _RIGHT}" y2="{bottom}" stroke="#7d8590"/>',
        f'<line x1="{left}" y1="{bottom}" x2="{left + end * wide:.1f}" y2="{bottom - end * slope * high:.1f}" '
        f'stroke="{COLOURS["aim"]}" stroke-dasharray="4 3"/>',
    ]
    places = [(left + size * wide, bottom - points[size] * high) for size in sorted(points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    drawn.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS["unitfleet"]}" stroke-width="2"/>')
    for size, (x, y) in zip(sorted(points), places, strict=True):
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{COLOURS["unitfleet"]}"/>')
        drawn.append(_text(x - 8, y - 8, f"{points[size]:.3g}", "end"))
        drawn.append(_text(x, bottom + 16, f"{size:g}", "middle"))
    return _whole(title, f"{unit}, by {across}", bottom, drawn, {"unitfleet": "measured", "aim": "linear"})


def _middle(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _scale(top: float) -> tuple[float, list[float]]:
    """Return pixels for one unit, and where to write numbers: 1, 2 or 5 times a power of ten apart."""
    rough = top / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    marks = [step * number for number in range(math.floor(top / step) + 1)]
    return (_WIDTH - _LEFT - _RIGHT) / top, marks


def _grid(scale: float, marks: Sequence[float], bottom: float) -> list[str]:
    found = []
    for mark in marks:
        x = _LEFT + mark * scale
        found.append(f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{bottom}" stroke="#e2e5e9"/>')
        found.append(_text(x, bottom + 16, f"{mark:g}", "middle"))
    return found


def _stroke(x: float, y: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 20}" stroke="{colour}" stroke-width="2.5"{more}/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.0f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _whole(title: str, unit: str, bottom: float, drawn: Sequence[str], legend: Mapping[str, str]) -> str:
    height = bottom + 40
    parts = [_text(10, 22, title, "start", ' font-size="15" font-weight="bold"')]
    x = float(_LEFT)
    for who, name in legend.items():
        parts.append(f'<rect x="{x:.0f}" y="32" width="10" height="10" fill="{COLOURS[who]}"/>')
        parts.append(_text(x + 15, 41, name, "start"))
        x += 40 + 7 * len(name)
    parts.append(_text(_WIDTH - 10, bottom + 32, unit, "end"))
    body = "\n".join([*parts, *drawn])
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    font = 'font-family="sans-serif" font-size="12" fill="#30363d"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )
