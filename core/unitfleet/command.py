"""Exec lines: prefixes, words, several commands in one line; and shells that swallow the stop signal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from unitfleet.problems import BadValue
from unitfleet.quoting import BLANK, UnbalancedQuote, next_word
from unitfleet.section import Section
from unitfleet.spec import Command
from unitfleet.unitfile import Option

_SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh", "mksh"))
_HANDS_OVER = re.compile(r"(?:^|[;&|({\n]|\bthen\b|\bdo\b|\belse\b)\s*exec\s|\btrap\s")


def commands(section: Section, name: str) -> tuple[Command, ...]:
    """Read every `ExecStart=`-like assignment of one name, in order."""
    found: list[Command] = []
    for option in section.listed(name):
        found += _line(section, option)
    return tuple(found)


def _line(section: Section, option: Option) -> list[Command]:
    """Read one line, which may hold several commands between words that are a bare `;`."""
    found: list[Command] = []
    text, at = option.value, 0
    # systemd goes on without a line that it can't read when the command may fail anyway.
    complain = section.problems.warn if text.lstrip("@:+!").startswith("-") else section.problems.error
    while at < len(text):
        try:
            words, at = _words(text, at)
            if words:
                found.append(_command(section, words))
        except (UnbalancedQuote, BadValue) as error:
            complain(option.line, f"{option.name}=: {error}")
            return []
    return found


def _words(text: str, at: int) -> tuple[list[str], int]:
    """Take the words up to a bare `;` or the end. `\\;` is the word `;`."""
    words: list[str] = []
    while True:
        while at < len(text) and text[at] in BLANK:
            at += 1
        ahead = text[at : at + 3]
        if ahead[:1] == ";" and (len(ahead) == 1 or ahead[1] in BLANK) and words:
            return words, at + 1
        if ahead[:2] == "\\;" and (len(ahead) == 2 or ahead[2] in BLANK) and words:
            words.append(";")
            at += 2
            continue
        taken = next_word(text, at)
        if taken is None:
            return words, len(text)
        words.append(taken[0])
        at = taken[1]


def _command(section: Section, words: list[str]) -> Command:
    first = words[0]
    program = first.lstrip("-@:+!")
    prefixes = first[: len(first) - len(program)]
    resolved = [section.specifiers.resolve(word) for word in [program, *words[1:]]]
    program = resolved[0]
    if not program:
        raise BadValue(f"{first[:40]!r} names no program: put the prefix right before its path")
    if not program.startswith("/") and "/" in program:
        raise BadValue(f"{program[:60]!r} is neither an absolute path nor a plain program name")
    argv0 = ""
    if "@" in prefixes:
        if len(resolved) < 2:
            raise BadValue("the prefix @ asks for a second word, the name the program is called by")
        argv0 = resolved.pop(1)
    return Command(
        words=tuple(resolved),
        ignore_failure="-" in prefixes,
        argv0=argv0,
        literal=":" in prefixes,
        privileged="+" in prefixes or "!" in prefixes,
    )


def swallowing_shell(words: Sequence[str]) -> str | None:
    """Return the shell, as it is written, that runs a script without handing the stop signal on; else None.

    As process 1 of a container a shell ignores SIGTERM and does not pass it to what it started, so that the
    stop ends only by SIGKILL at its timeout; `exec` before the last command, or a `trap`, cures it.
    """
    if len(words) > 1 and words[0].rpartition("/")[2] == "busybox":
        words = words[1:]
    if not words or words[0].rpartition("/")[2] not in _SHELLS:
        return None
    for index, word in enumerate(words[1:], start=1):
        if not word.startswith("-") or word == "--":
            return None
        if not word.startswith("--") and "c" in word:
            script = words[index + 1] if index + 1 < len(words) else ""
            return None if _HANDS_OVER.search(script) else f"{words[0]} {word}"
    return None
