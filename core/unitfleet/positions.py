"""Where in a text a problem is: the line it speaks of, and the column of what it names there."""

from __future__ import annotations

import ast
import re

from unitfleet.problems import Problem

_QUOTED = re.compile(r"'(?:[^'\\]|\\.)+'|\"(?:[^\"\\]|\\.)+\"")
_KEY = re.compile(r"([A-Za-z][A-Za-z0-9-]*)=")


def place(lines: list[str], problem: Problem) -> tuple[int, int]:
    """Return line and column from 1, (1, 1) for what is wrong with the text as a whole.

    A problem quotes the word it is about: it is looked for from the line on where the assignment begins, over
    the lines that continue it. Else the value's beginning counts where a message begins with `Key=`, else the
    line's own.
    """
    if not 0 < problem.line <= len(lines):
        return 1, 1
    begin = problem.line - 1
    end = begin + 1
    while end < len(lines) and lines[end - 1].endswith("\\"):
        end += 1
    for word in _words(problem.message):
        for number in range(begin, end):
            found = lines[number].find(word)
            if found >= 0:
                return number + 1, found + 1
    line = lines[begin]
    key = _KEY.match(problem.message)
    value = line.partition("=")[2]
    if key is not None and value.strip() and line.strip().startswith(key[1]):
        return problem.line, len(line) - len(value.lstrip()) + 1
    return problem.line, len(line) - len(line.lstrip()) + 1


def _words(message: str) -> list[str]:
    """Return what a message quotes; of a text that was cut, what was kept."""
    found = []
    for match in _QUOTED.finditer(message):
        try:
            word = ast.literal_eval(match[0])
        except (SyntaxError, ValueError):
            continue
        if isinstance(word, str) and (word := word.removesuffix("…")):
            found.append(word)
    return found[:1]  # what else is quoted is the right form
