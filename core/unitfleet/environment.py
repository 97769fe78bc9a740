"""Variables: `Environment=` of a unit text, and the files that `EnvironmentFile=` names (systemd.exec(5))."""

from __future__ import annotations

import re

from unitfleet.quoting import split_words

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def valid_name(name: str) -> bool:
    """Tell whether a variable may be called so."""
    return _NAME.fullmatch(name) is not None


def assignments(value: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Split `A=1 "B=two words"`: the pairs, and the words that are none. Raises `UnbalancedQuote`."""
    pairs, others = [], []
    for word in split_words(value):
        name, equals, content = word.partition("=")
        if equals and valid_name(name):
            pairs.append((name, content))
        else:
            others.append(word)
    return pairs, others


def parse_file(text: str) -> list[tuple[str, str]]:
    r"""Read an environment file: `KEY=value` lines, `#` and `;` comments, quotes, `\` at a line's end.

    Inside single quotes everything is literal; inside double quotes a backslash protects `"`, `\`, `` ` `` and
    `$`. A line that is no assignment is dropped, as systemd does. Nothing is expanded.
    """
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        at, pair = _entry(text, at)
        if pair is not None and valid_name(pair[0]):
            pairs.append(pair)
    return pairs


def _entry(text: str, at: int) -> tuple[int, tuple[str, str] | None]:
    """Read one entry that begins at `at`; return where the next begins."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    if text[at : at + 1] in ("", "#", ";"):
        return _line_end(text, at, comment=True), None
    newline = _line_end(text, at, comment=False)
    equals = text.find("=", at, newline)
    if equals < 0:
        return newline, None
    name = text[at:equals].strip()
    value, at = _value(text, equals + 1)
    return at, (name.removeprefix("export ").strip(), value)


def _line_end(text: str, at: int, *, comment: bool) -> int:
    """Return where the next line begins; a comment goes on over a backslash at its end."""
    while (newline := text.find("\n", at)) >= 0:
        if not (comment and text[newline - 1] == "\\"):
            return newline + 1
        at = newline + 1
    return len(text)


def _value(text: str, at: int) -> tuple[str, int]:
    """Read a value that begins at `at`: quotes count only where it begins or right after another quoted part."""
    value: list[str] = []
    kept = 0  # length of the value without the blanks that end it
    quote, begun = "", False
    while at < len(text):
        character = text[at]
        at += 1
        if quote == "'" and character != "'":
            value.append(character)
        elif character == "\\":
            following = text[at : at + 1]
            at += len(following)
            begun = True
            if following == "\n":
                continue
            if quote == '"' and following not in ('"', "\\", "`", "$"):
                value.append("\\")
            value.append(following)
        elif quote and character == quote:
            quote, begun = "", False
        elif quote:
            value.append(character)
        elif character in "\r\n":
            break
        elif not begun and character in "'\"":
            quote = character
        elif character in " \t":
            if begun:
                value.append(character)
            continue
        else:
            value.append(character)
            begun = True
        kept = len(value)
    return "".join(value[:kept]), at
