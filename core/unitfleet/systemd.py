"""Unit files as systemd reads them: the effective lines and assignments of a text.

The rules are those of systemd.syntax(7) and src/shared/conf-parser.c (version 252): a comment inside a
continued line is dropped, an odd number of backslashes at the end continues, the backslash becomes a blank,
and a blank line ends the value. What the assignments of a section come to is `section`; quoting, specifiers and
the kinds of values are `quoting`, `specifiers`, `timespan` and `quantities`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from unitfleet.problems import Problems
from unitfleet.unitfile import Option

BLANK = " \t\n\r"

_NEWLINE = re.compile(r"\r\n|\n\r|\n|\r")


def read(text: str, problems: Problems) -> tuple[Option, ...]:
    """Return the assignments of a text, in order.

    A line without `=` and a broken section header are errors: systemd drops the line, fleet refuses the unit,
    and a unit that loses a line is not what its author wrote. What stands before the first section is ignored
    with a warning, as both do.
    """
    options: list[Option] = []
    section: str | None = None
    for number, line in _logical_lines(text):
        if line.startswith("["):
            if not line.endswith("]"):
                problems.error(
                    number, f"invalid section header {_short(line)}", "write [Section] alone on its line"
                )
                section = None
                continue
            section = line[1:-1]
            continue
        name, equals, value = line.partition("=")
        name = name.strip(BLANK)
        if section is None:
            problems.warn(number, f"ignored {_short(line)}: it stands before any section")
        elif not equals:
            problems.error(
                number,
                f"{_short(line)} is no assignment: there is no '='",
                "end the line before it with a backslash to continue it",
            )
        elif not name:
            problems.error(number, f"{_short(line)} has no key before its '='")
        else:
            options.append(Option(section, name, value.strip(BLANK), number))
    return tuple(options)


def sections(text: str) -> tuple[tuple[str, int], ...]:
    """Return the section headers of a text with their lines, in order, repeats included."""
    lines = _logical_lines(text)
    return tuple((line[1:-1], number) for number, line in lines if line.startswith("[") and line.endswith("]"))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Join continued lines, drop comments and blank lines; yield each with the number it begins on."""
    pieces: list[str] = []
    begins = 0
    for number, physical in enumerate(_NEWLINE.split(text.removeprefix("\ufeff")), start=1):
        if physical.lstrip(BLANK)[:1] in ("#", ";"):
            continue
        if not pieces:
            begins = number
        if (len(physical) - len(physical.rstrip("\\"))) % 2:
            pieces.append(physical[:-1] + " ")
            continue
        pieces.append(physical)
        joined = "".join(pieces).strip(BLANK)
        pieces = []
        if joined:
            yield begins, joined
    joined = "".join(pieces).strip(BLANK)
    if joined:
        yield begins, joined


def _short(text: str) -> str:
    shown = text if len(text) <= 40 else text[:37] + "…"
    return repr(shown)
