"""What every text that a regular expression matches surely contains: the prefilter of a search. Pure."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from typing import Any

# the standard library's own reading of a pattern, which no stubs describe
op: Any = importlib.import_module("re._constants")
_parser: Any = importlib.import_module("re._parser")

SHORTEST = 3
"""The index knows of runs of three characters."""

MOST_GRAMS = 40

_FOLDED = frozenset("iksIKS")
"""With IGNORECASE these match letters beyond ASCII too, which the index does not know as theirs."""


def required(pattern: str) -> list[str]:
    """Return literals of three characters or more that a match must contain; [] when nothing is sure.

    Raises `re.error` for what is no regular expression.
    """
    tree = _parser.parse(pattern)
    found: list[str] = []
    run: list[str] = []
    _walk(tree, tree.state.flags, run, found)
    _end(run, found)
    return found


def grams(literals: Iterable[str]) -> list[str]:
    """Return the runs of three characters of the literals, each once, in lower case."""
    seen: dict[str, None] = {}
    for literal in literals:
        for at in range(len(literal) - 2):
            seen[literal[at : at + 3].lower()] = None
    return list(seen)[:MOST_GRAMS]


def _walk(tree: Iterable[Any], flags: int, run: list[str], found: list[str]) -> None:
    """Add to `run` what follows literally; whatever is not sure to be there ends it."""
    for kind, value in tree:
        if kind is op.LITERAL:
            character = chr(value)
            if not character.isprintable() or not character.isascii():
                _end(run, found)
            elif flags & re.IGNORECASE and character in _FOLDED:
                _end(run, found)
            else:
                run.append(character)
        elif kind is op.SUBPATTERN:
            _, added, removed, inner = value
            _walk(inner, (flags | added) & ~removed, run, found)
        elif kind is op.AT:
            continue  # a border takes no room
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT) and value[0] >= 1:
            _end(run, found)
            _walk(value[2], flags, run, found)
            _end(run, found)
        elif kind is op.ATOMIC_GROUP:
            _walk(value, flags, run, found)
        else:
            _end(run, found)


def _end(run: list[str], found: list[str]) -> None:
    if len(run) >= SHORTEST:
        found.append("".join(run))
    run.clear()
