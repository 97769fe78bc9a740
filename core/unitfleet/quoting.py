"""systemd's words: splitting and unquoting a value, and `$VAR` in the words of a command.

Source: extract_first_word() and replace_env_argv() of systemd 252; systemd.service(5) "Command lines".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

BLANK = " \t\n\r"

_SIMPLE = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "s": " ",
}
_NUMERIC = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})")
_BRACED = re.compile(r"\$\$|\$\{([^}:-]*)\}")


class UnbalancedQuote(ValueError):
    """A quote that is opened and never closed."""


def split_words(text: str, *, escapes: bool = True) -> list[str]:
    r"""Split at blanks outside quotes, remove quotes, and read C escapes.

    Both kinds of quotes are alike and may begin inside a word. An escape that systemd does not know stays as it
    is, backslash included; with `escapes` False every backslash just protects the next character. Raises
    `UnbalancedQuote`.

    >>> split_words(r'''sh -c "a \"b\"" it's\x21''' + "'")
    ['sh', '-c', 'a "b"', 'its!']
    """
    words = []
    at = 0
    while (found := next_word(text, at, escapes=escapes)) is not None:
        word, at = found
        words.append(word)
    return words


def next_word(text: str, at: int, *, escapes: bool = True) -> tuple[str, int] | None:
    """Take the word that begins at or after `at`: the word and where it ended; None when there is no more."""
    end = len(text)
    while at < end and text[at] in BLANK:
        at += 1
    if at >= end:
        return None
    word: list[str] = []
    quote = ""
    while at < end:
        character = text[at]
        if character == "\\":
            piece, at = _escape(text, at, escapes)
            word.append(piece)
            continue
        if quote:
            if character == quote:
                quote = ""
            else:
                word.append(character)
        elif character in "'\"":
            quote = character
        elif character in BLANK:
            break
        else:
            word.append(character)
        at += 1
    if quote:
        raise UnbalancedQuote(f"a {quote} is opened and not closed")
    return "".join(word), at


def _escape(text: str, at: int, escapes: bool) -> tuple[str, int]:
    following = text[at + 1 : at + 2]
    if not following:
        return "\\", at + 1
    if not escapes:
        return following, at + 2
    if following in _SIMPLE:
        return _SIMPLE[following], at + 2
    match = _NUMERIC.match(text, at + 1)
    if match is not None:
        digits, base = (match[4], 8) if match[4] else (match[1] or match[2] or match[3], 16)
        code = int(digits, base)
        if 0 < code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
            return chr(code), match.end()
    return "\\" + following, at + 2


def expand_words(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Expand `$VAR` and `${VAR}` in the words of a command, but for the first: the program is never expanded.

    A word that is `$VAR` becomes as many words as its value has (none when unset); `${VAR}` is put in place
    wherever it stands, empty when unset; `$$` is a dollar. Anything else with a `$` stays: `a$VAR`, `${VAR:-x}`.
    """
    expanded = list(words[:1])
    for word in words[1:]:
        if word.startswith("$") and word[1:2] not in ("{", "$"):
            expanded += _split_value(environment.get(word[1:], "")) if len(word) > 1 else [word]
        else:
            expanded.append(_BRACED.sub(lambda match: _braced(match, environment), word))
    return expanded


def _braced(match: re.Match[str], environment: Mapping[str, str]) -> str:
    return "$" if match[1] is None else environment.get(match[1], "")


def _split_value(value: str) -> list[str]:
    try:
        return split_words(value, escapes=False)
    except UnbalancedQuote:
        return value.split()
