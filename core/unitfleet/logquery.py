"""Which lines of a unit's output are asked for: the query of `/v1/logs/NAME`, of a master and of an agent.

lines=N        the last N; without it 100, or all when a time, an epoch or a number bounds them
follow=true    go on with what is written from now on
since= until=  seconds since 1970, when the line was written
grep=RE        lines in which Python's regular expression is found
join=true      a stack trace is one line, with newlines in it
previous=true  of the last run that has ended
epoch=N        by this placement alone
after_seq=N    behind this number (of one machine)
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from unitfleet.problems import BadValue

# the standard library's own reading of a pattern, which no stubs describe
_words: Any = importlib.import_module("re._constants")
_parser: Any = importlib.import_module("re._parser")

LINES = 100
MOST_LINES = 100_000
LONGEST_PATTERN = 500
SEARCHED = 16 * 1024
"""Characters of a line that a pattern is looked for in."""

_FLAGS = ("follow", "join", "previous")
_TIMES = ("since", "until")


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; `lines` -1: all that the rest lets through."""

    lines: int = LINES
    follow: bool = False
    since: float = 0.0
    until: float = math.inf
    grep: str = ""
    join: bool = False
    previous: bool = False
    epoch: int = 0
    after_seq: int = -1

    @property
    def bounded(self) -> bool:
        """Whether a time or a number says where to begin or end."""
        return self.since > 0 or self.until < math.inf or self.epoch > 0 or self.after_seq >= 0

    def text(self) -> dict[str, str]:
        """Return the query as it stands in a URL, whole: nothing is left to defaults."""
        found = {"lines": str(self.lines) if self.lines >= 0 else "all"}
        for name in _FLAGS:
            if getattr(self, name):
                found[name] = "true"
        if self.since > 0:
            found["since"] = f"{self.since:.6f}"
        if self.until < math.inf:
            found["until"] = f"{self.until:.6f}"
        if self.grep:
            found["grep"] = self.grep
        if self.epoch:
            found["epoch"] = str(self.epoch)
        if self.after_seq >= 0:
            found["after_seq"] = str(self.after_seq)
        return found


def read(query: Mapping[str, str]) -> LogQuery:
    """Read a query; raises `BadValue`, of which the text completes `cannot use `."""
    flags = {name: _flag(name, query.get(name, "")) for name in _FLAGS}
    since = _time("since", query.get("since", ""), 0.0)
    until = _time("until", query.get("until", ""), math.inf)
    epoch = _number("epoch", query.get("epoch", ""), 0)
    after_seq = _number("after_seq", query.get("after_seq", ""), -1)
    if until < since:
        raise BadValue(f"until={query.get('until', '')[:40]}: it is before since")
    grep = query.get("grep", "")
    if grep:
        pattern(grep)
    bounded = since > 0 or until < math.inf or epoch > 0 or after_seq >= 0 or flags["previous"]
    given = query.get("lines", "")
    lines = -1 if given == "all" else _number("lines", given, -1 if bounded else LINES, MOST_LINES)
    return LogQuery(lines=lines, since=since, until=until, grep=grep, epoch=epoch, after_seq=after_seq, **flags)


def pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern; raises `BadValue` for one that is none, or whose search could take for ever."""
    if len(text) > LONGEST_PATTERN:
        raise BadValue(f"grep: a pattern has at most {LONGEST_PATTERN} characters")
    try:
        compiled = re.compile(text)
        parsed = _parser.parse(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadValue(f"grep={text[:40]!a}: {error}") from error
    if _explodes(parsed, False):
        raise BadValue(f"grep={text[:40]!a}: a repeated group with a repeat or a choice in it could take for ever")
    return compiled


def _explodes(items: Iterable[Any], repeated: bool) -> bool:
    """Tell whether a repeat holds another one, or a choice: the classics of patterns that backtrack without end.

    A repeat of one fixed count is none: there is one way to match it.
    """
    for word, argument in items:
        if word in (_words.MAX_REPEAT, _words.MIN_REPEAT, _words.POSSESSIVE_REPEAT):
            least, most, inner = argument
            many = most is _words.MAXREPEAT or (most > 1 and most != least)
            if (many and repeated) or _explodes(inner, repeated or many):
                return True
        elif word is _words.ATOMIC_GROUP:
            if _explodes(argument, repeated):
                return True
        elif word is _words.SUBPATTERN:
            if _explodes(argument[-1], repeated):
                return True
        elif word is _words.BRANCH:
            if repeated or any(_explodes(branch, repeated) for branch in argument[1]):
                return True
        elif word in (_words.ASSERT, _words.ASSERT_NOT):
            if _explodes(argument[1], repeated):
                return True
    return False


def _flag(name: str, text: str) -> bool:
    if text not in ("", "0", "1", "false", "true"):
        raise BadValue(f"{name}={text[:40]!a}: true or false is wanted")
    return text in ("1", "true")


def _number(name: str, text: str, default: int, most: int = 2**63 - 1) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise BadValue(f"{name}={text[:40]!a}: a number from 0 to {most} is wanted")
    return int(text)


def _time(name: str, text: str, default: float) -> float:
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,11}(?:\.[0-9]{1,9})?", text, re.ASCII):
        raise BadValue(f"{name}={text[:40]!a}: seconds since 1970 are wanted")
    return float(text)
