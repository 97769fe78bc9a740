"""How things are shown: tables, JSON, ages, short ids; nothing that a terminal would obey."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TextIO, TypeVar

from unitctl.failures import USAGE, Failure

T = TypeVar("T")

FORMATS = ("table", "wide", "json", "jsonl", "name")

_COLOURS = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}
_OF_STATE = {
    **dict.fromkeys(("running", "active", "finished", "ready"), "green"),
    **dict.fromkeys(("failed", "lost", "stopped"), "red"),
    **dict.fromkeys(
        (
            *("pending", "suspect", "warming", "restarting", "waiting-for-machine"),
            *("holding", "leaving", "not placed", "missing"),
        ),
        "yellow",
    ),
    **dict.fromkeys(("inactive", "loaded", "dead", "-"), "dim"),
}


class Style:
    """Colours for one stream, or none: off a terminal, with `NO_COLOR`, or when told so."""

    def __init__(self, stream: TextIO, *, no_color: bool = False) -> None:
        self.terminal = stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self.on = self.terminal and not no_color and not os.environ.get("NO_COLOR")

    def paint(self, text: str, colour: str) -> str:
        """Colour a text: green yellow red dim bold."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.on and colour else text

    def state(self, word: str) -> str:
        """A state word in its colour; the word itself always stands."""
        return self.paint(word, _OF_STATE.get(word, ""))


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column of a table. `wide` ones are for `-o wide` alone; an `optional` one shows if it says something."""

    title: str
    cell: Callable[[T], str]
    wide: bool = False
    optional: bool = False
    is_state: bool = False

    @property
    def field(self) -> str:
        """Its name for `--fields`."""
        return self.title.lower().replace(" ", "-")


def escape(text: str, *, keep: str = "") -> str:
    """Write control characters, and what turns the direction of text, as escapes: terminals obey them."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else repr(char)[1:-1] for char in text)


def out(text: str) -> None:
    """Write one line of data."""
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """Write one line of talk, beside the data."""
    sys.stderr.write(escape(text) + "\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    """Write one warning."""
    say(f"warning: {text}")


def age(since: float, now: float | None = None) -> str:
    """How long ago something was, in one figure: 45s, 3m, 7h, 12d; "-" when it never was."""
    if since <= 0:
        return "-"
    return span((time.time() if now is None else now) - since)


def span(seconds: float) -> str:
    """A duration in one figure; a clock that runs behind makes no negative one."""
    seconds = max(0.0, seconds)
    for size, unit, upto in ((1, "s", 60), (60, "m", 3600), (3600, "h", 48 * 3600)):
        if seconds < upto:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds // 86400)}d"


def moment(at: float) -> str:
    """A point in time, local: 2026-01-31 14:05:09."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at > 0 else "-"


def size(count: int) -> str:
    """Bytes in binary units: 512 MiB."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"


def short(identifier: str) -> str:
    """The start of an id or digest, enough to name it by; a name is left whole."""
    bare = identifier.removeprefix("sha256:")
    return bare[:8] if all(char in "0123456789abcdef" for char in bare) else bare


def joined(names: Sequence[str], most: int = 5) -> str:
    """Some names of many: a, b, c and 7 more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def shown_columns(columns: Sequence[Column[T]], rows: Sequence[T], fields: str, *, wide: bool) -> list[Column[T]]:
    """Choose the columns: those of `--fields a,b` in that order, or the usual ones. Raises on an unknown field."""
    if fields:
        by_field = {column.field: column for column in columns}
        asked = [field.strip().lower() for field in fields.split(",") if field.strip()]
        unknown = [field for field in asked if field not in by_field]
        if unknown:
            raise BadField(f"cannot show field {unknown[0]!r}", hint=f"fields: {', '.join(by_field)}")
        return [by_field[field] for field in asked]
    chosen = [column for column in columns if wide or not column.wide]
    return [column for column in chosen if not column.optional or any(column.cell(row) for row in rows)]


class BadField(Failure):
    """A column nobody knows."""

    exit_code = USAGE


def table(columns: Sequence[Column[T]], rows: Iterable[T], style: Style, *, legend: bool = True) -> list[str]:
    """Lay out a table: two spaces between columns, "-" for nothing, no blanks at the end of a line."""
    plain = [[escape(column.cell(row)) or ("" if column.optional else "-") for column in columns] for row in rows]
    if legend:
        plain.insert(0, [column.title for column in columns])
    widths = [max((len(cells[index]) for cells in plain), default=0) for index in range(len(columns))]
    lines = []
    for number, cells in enumerate(plain):
        head = legend and number == 0
        parts = []
        for index, (column, text, width) in enumerate(zip(columns, cells, widths, strict=True)):
            blanks = " " * (width - len(text)) if index < len(columns) - 1 else ""
            painted = style.paint(text, "dim") if head else style.state(text) if column.is_state else text
            parts.append(painted + blanks)
        lines.append("  ".join(parts).rstrip())
    return lines


def items_json(rev: int, items: Sequence[Any]) -> str:
    """The versioned JSON of every list: {"api", "rev", "items"}."""
    import msgspec

    from unitfleet.api import Items

    return msgspec.json.format(msgspec.json.encode(Items(rev=rev, items=tuple(items))), indent=2).decode()


def json_line(item: Any) -> str:
    """One item as one line of JSON."""
    import msgspec

    return msgspec.json.encode(item).decode()


def show(
    output: str,
    *,
    rev: int,
    items: Sequence[Any],
    names: Iterable[str],
    columns: Sequence[Column[T]],
    rows: Sequence[T],
    style: Style,
    fields: str = "",
    legend: bool = True,
) -> None:
    """Show a list as asked by `-o`."""
    match output:
        case "json":
            out(items_json(rev, items))
        case "jsonl":
            for item in items:
                out(json_line(item))
        case "name":
            for name in dict.fromkeys(names):
                out(escape(name))
        case _:
            chosen = shown_columns(columns, rows, fields, wide=output == "wide")
            for line in table(chosen, rows, style, legend=legend):
                out(line)
