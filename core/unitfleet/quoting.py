"""systemd's words: splitting and unquoting a value, and `$VAR` in the words of a command.

Source: extract_first_word() and replace_env_argv() of systemd 252; systemd.service(5) "Command lines".
Nothing is imported: every supervisor of the process driver loads this, and is to stay small.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
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
_HEXADECIMAL = "0123456789abcdefABCDEF"
_NUMERIC = {"x": 2, "u": 4, "U": 8}  # so many hexadecimal digits follow


class UnbalancedQuote(ValueError):
    """A quote that is opened and never closed."""


def split_words(text: str, *, lenient: bool = False) -> list[str]:
    r"""Split at blanks outside quotes, remove quotes, and read C escapes.

    Both kinds of quotes are alike and may begin inside a word. An escape that systemd does not know stays as it
    is, backslash included. Raises `UnbalancedQuote`. With `lenient` it splits as systemd splits the value of a
    variable: every backslash just protects the next character, an open quote ends with the text.

    >>> split_words(r'''sh -c "a \"b\"" it's\x21''' + "'")
    ['sh', '-c', 'a "b"', 'its!']
    """
    words = []
    at = 0
    while (found := next_word(text, at, lenient=lenient)) is not None:
        word, at = found
        words.append(word)
    return words


def next_word(text: str, at: int, *, lenient: bool = False) -> tuple[str, int] | None:
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
            piece, at = (text[at + 1 : at + 2], at + 2) if lenient else _escape(text, at)
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
    if quote and not lenient:
        raise UnbalancedQuote(f"a {quote} is opened and not closed")
    return "".join(word), at


def _escape(text: str, at: int) -> tuple[str, int]:
    following = text[at + 1 : at + 2]
    if following in _SIMPLE:
        return _SIMPLE[following], at + 2
    base, count = (16, _NUMERIC[following]) if following in _NUMERIC else (8, 3)
    begin = at + 2 if base == 16 else at + 1
    digits = text[begin : begin + count]
    if len(digits) == count and all(digit in (_HEXADECIMAL if base == 16 else "01234567") for digit in digits):
        code = int(digits, base)
        if 0 < code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
            return chr(code), begin + count
    return "\\" + following, at + 1 + len(following)


def expand_words(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Expand `$VAR` and `${VAR}` in the words of a command, but for the first: the program is never expanded.

    A word that is `$VAR` becomes as many words as its value has (none when unset); `${VAR}` is put in place
    wherever it stands, empty when unset; `$$` is a dollar. Anything else with a `$` stays: `a$VAR`, `${VAR:-x}`.
    """
    expanded = list(words[:1])
    for word in words[1:]:
        if word.startswith("$") and word[1:2] not in ("{", "$", ""):
            expanded += split_words(environment.get(word[1:], ""), lenient=True)
        else:
            expanded.append(_filled(word, environment))
    return expanded


def _filled(word: str, environment: Mapping[str, str]) -> str:
    pieces = []
    at = 0
    while (dollar := word.find("$", at)) >= 0:
        pieces.append(word[at:dollar])
        at = dollar + 1
        if word.startswith("$", at):
            pieces.append("$")
            at += 1
            continue
        end = word.find("}", at) if word.startswith("{", at) else -1
        if end < 0 or ":" in word[at:end]:
            pieces.append("$")
        else:
            pieces.append(environment.get(word[at + 1 : end], ""))
            at = end + 1
    return "".join(pieces) + word[at:]
