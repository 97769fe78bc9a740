r"""How Quadlet splits a value into words, and writes words back as one line.

It is systemd's splitting (`unitfleet.quoting`) with quirks of its own that show in its results: an escape that
is not known refuses the whole line, and an empty word ends it. Source: pkg/systemd/parser/split.go.
"""

from __future__ import annotations

BLANK = " \t\n\r"

_SIMPLE = dict(zip("abfnrtv\\\"'s", "\a\b\f\n\r\t\v\\\"' ", strict=True))
_DIGITS = {"x": 2, "u": 4, "U": 8}
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
_WRITTEN = dict(
    zip('\a\b\n\r\t\v\f\\"', ("\\a", "\\b", "\\n", "\\r", "\\t", "\\v", "\\f", "\\\\", '\\"'), strict=True)
)


class BadWords(ValueError):
    """A value that can't be split, in Quadlet's own words."""


def arguments(text: str) -> list[str]:
    """Split as for a command line: quotes go, C escapes are read, an open quote ends with the text."""
    return _split(text, escapes=True)


def plain(text: str) -> list[str]:
    """Split at blanks, quotes go, a backslash is a character; a line with an open quote has no words."""
    return _split(text, escapes=False)


def _split(text: str, *, escapes: bool) -> list[str]:
    words: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at] in BLANK:
            at += 1
        word: list[str] = []
        quote = ""
        while at < len(text) and (quote or text[at] not in BLANK):
            character = text[at]
            if character == "\\" and escapes:
                piece, at = _escape(text, at + 1)
                word.append(piece)
                continue
            if character == quote:
                quote = ""
            elif character in "\"'" and not quote:
                quote = character
            else:
                word.append(character)
            at += 1
        if quote and not escapes:
            return []
        if not "".join(word):
            return words
        words.append("".join(word))


def _escape(text: str, at: int) -> tuple[str, int]:
    """Read what follows a backslash; return it and where it ended."""
    letter = text[at : at + 1]
    if not letter:
        return "", at
    if letter in _SIMPLE:
        return _SIMPLE[letter], at + 1
    base, start, count = (16, at + 1, _DIGITS[letter]) if letter in _DIGITS else (8, at, 3)
    digits = text[start : start + count]
    if len(digits) == count and set(digits) <= (_HEXADECIMAL if base == 16 else frozenset("01234567")):
        code = int(digits, base)
        if 0 < code <= (0xFF if base == 8 else 0x10FFFF):
            return chr(code), start + count
    raise BadWords("unsupported escape char")


def joined(words: list[str]) -> str:
    """Write words as one line that `arguments` splits into them again."""
    return " ".join(f'"{_escaped(word)}"' if _needs_quotes(word) else word for word in words)


def _needs_quotes(word: str) -> bool:
    return any(character in "\"'\\" or character.isspace() or _is_control(character) for character in word)


def _escaped(word: str) -> str:
    return "".join(
        _WRITTEN.get(character) or (f"\\x{ord(character):02x}" if _is_control(character) else character)
        for character in word
    )


def _is_control(character: str) -> bool:
    return character < " " or character == "\x7f"
