"""What is wrong with a unit text, as values: every problem is collected, none is raised on its own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Whether a problem refuses the unit."""

    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to say about a unit text. `line` counts from 1; 0 speaks of the whole text.

    `column` is 0 until `positions.place` has looked it up.
    A `final` error holds where what fleet did not mind is excused, too.
    """

    line: int
    severity: Severity
    message: str
    hint: str = ""
    column: int = 0
    final: bool = False

    def text(self, filename: str) -> str:
        """Write it for a person: `file:line: message (hint)`."""
        place = f"{filename}:{self.line}" if self.line else filename
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class Problems:
    """A list of problems that grows while a text is read."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def error(self, line: int, message: str, hint: str = "", *, final: bool = False) -> None:
        """Add one that refuses the unit."""
        self.found.append(Problem(line, Severity.ERROR, message, hint, final=final))

    def warn(self, line: int, message: str, hint: str = "") -> None:
        """Add one that is only said."""
        self.found.append(Problem(line, Severity.WARNING, message, hint))


class BadValue(ValueError):
    """A value that can't be read; the message says what is allowed. Never leaves the readings."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the hint `did you mean X?` with the nearest of `known`, or ""."""
    by_lower = {candidate.lower(): candidate for candidate in sorted(known)}
    found = difflib.get_close_matches(word.lower()[:64], by_lower, n=1, cutoff=0.6)
    return f"did you mean {by_lower[found[0]]}?" if found else ""
