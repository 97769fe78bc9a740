"""Variables: `Environment=` of a unit text, and the files that `EnvironmentFile=` names (systemd.exec(5)).

Source of the files' form, where the page is silent: parse_env_file_internal() of systemd 252. Nothing but
`quoting` is imported: every supervisor of the process driver loads this, and is to stay small.
"""

from __future__ import annotations

from unitfleet.quoting import BLANK, split_words

_LINE_ENDS = "\n\r"


def valid_name(name: str) -> bool:
    """Tell whether a variable may be called so."""
    return name.isascii() and name.isidentifier()


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

    A quote counts only where a value begins, or right after another quoted part. Inside single quotes everything
    is literal; inside double quotes a backslash protects `"`, `\`, `` ` `` and `$`. A line that is no assignment
    is dropped, as systemd does. Nothing is expanded.
    """
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if text[at] in BLANK:
            at += 1
            continue
        if text[at] in "#;":
            at = _line_end(text, at, escapes=True)
            continue
        end = _line_end(text, at)
        equals = text.find("=", at + 1, end)
        if equals < 0:
            at = end
            continue
        name = text[at:equals].strip(BLANK)
        value, at = _value(text, equals + 1)
        if valid_name(name):
            pairs.append((name, value))
    return pairs


def _line_end(text: str, at: int, *, escapes: bool = False) -> int:
    """Return where the line ends; with `escapes` it goes on over what a backslash protects."""
    while at < len(text) and text[at] not in _LINE_ENDS:
        at += 2 if escapes and text[at] == "\\" else 1
    return at


def _value(text: str, at: int) -> tuple[str, int]:
    """Read a value from `at` up to the end of its line; return it and where that is."""
    value: list[str] = []
    kept = 0  # length of the value without the blanks that end it
    begun = False
    while at < len(text) and (character := text[at]) not in _LINE_ENDS:
        at += 1
        if character == "\\":
            following = text[at : at + 1]
            if following not in _LINE_ENDS:
                value.append(following)
            at += 1
            begun = True
        elif begun or character not in "'\" \t":
            value.append(character)
            if begun and character in BLANK:
                continue
            begun = True
        elif character in BLANK:
            continue
        else:
            at = _quoted(text, at, character, value)
        kept = len(value)
    return "".join(value[:kept]), at


def _quoted(text: str, at: int, quote: str, value: list[str]) -> int:
    """Add what stands up to the closing quote, over line ends; return where it goes on behind that."""
    while at < len(text) and text[at] != quote:
        if text[at] == "\\" and quote == '"':
            following = text[at + 1 : at + 2]
            if following in '"\\`$':
                value.append(following)
            elif following != "\n":
                value.append("\\" + following)
            at += 2
        else:
            value.append(text[at])
            at += 1
    return at + 1
