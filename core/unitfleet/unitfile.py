"""Unit files as fleet reads them: the options in order, fleet's serialised form, and fleet's hash.

This is go-systemd's lexer (unit/deserialize.go as vendored by fleet 1.0), quirks included, because the
serialised form and the hash depend on them: text before the first section is ignored, continuation lines stay
in the value with their backslashes, a comment that ends in a backslash swallows the next line. What systemd
would do with the same text is `unitfleet.systemd`; what we take is `unitfleet.accept`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from unitfleet.errors import InvalidUnit

MAX_LINE = 2048
XFLEET = "X-Fleet"
SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
SPACE += "\u2028\u2029\u202f\u205f\u3000"  # what Go's unicode.IsSpace holds for white

_BUFFER = 4096


class UnreadableUnit(InvalidUnit):
    """A text that fleet's parser refuses: fleet's own words, and the line they are about."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(f"cannot read unit file: {reason}", (f"line {line}: {reason}",))
        self.reason = reason
        self.line = line


@dataclass(frozen=True, slots=True)
class Option:
    """One assignment. `line` is where it begins, from 1."""

    section: str
    name: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class UnitFile:
    """The options of a unit text, in order."""

    options: tuple[Option, ...]

    def serialize(self) -> str:
        """Write fleet's form: sections in first-seen order, a blank line between them, no comments."""
        sections: dict[str, list[str]] = {}
        for option in self.options:
            sections.setdefault(option.section, []).append(f"{option.name}={option.value}\n")
        return "\n".join(f"[{name}]\n{''.join(lines)}" for name, lines in sections.items())

    def fleet_hash(self) -> str:
        """Return fleet's unit hash: SHA-1 of the serialised form, in hex."""
        return hashlib.sha1(self.serialize().encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()

    def contents(self) -> dict[str, dict[str, list[str]]]:
        """Return section → key → values as fleet uses them: in [X-Fleet] a quoted line is several values."""
        found: dict[str, dict[str, list[str]]] = {}
        for option in self.options:
            values = quoted_values(option.value) if option.section == XFLEET else [option.value]
            found.setdefault(option.section, {}).setdefault(option.name, []).extend(values)
        return found

    def description(self) -> str:
        """Return the first Description= of [Unit], or ""."""
        for option in self.options:
            if (option.section, option.name) == ("Unit", "Description"):
                return option.value
        return ""


def spec_digest(text: str) -> str:
    """Return the key of a unit text in the store: SHA-256 of its bytes, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def quoted_values(value: str) -> list[str]:
    """Split `"a=b" "c=d"` as fleet does: only a line that begins and ends with `"`, at single blanks."""
    if not (value.startswith('"') and value.endswith('"')):
        return [value]
    values, current, inside = [], "", False
    for character in value:
        if character == '"':
            inside = not inside
        elif character == " " and not inside:
            values.append(current)
            current = ""
        else:
            current += character
    return [*values, current]


def parse(text: str, *, max_line: int | None = MAX_LINE) -> UnitFile:
    """Read a unit text as fleet does; raises `UnreadableUnit` where fleet refuses it.

    `max_line` None lifts fleet's limit of 2048 bytes a line, which systemd has not had since version 240.
    """
    lexer = _Lexer(text.encode("utf-8", "surrogatepass"), max_line)
    lexer.run()
    return UnitFile(tuple(lexer.options))


class _Input:
    """Go's bufio.Reader over a string, 4096 bytes: whether a line is too long depends on what is buffered."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0  # the next byte
        self.filled = 0  # everything before it is in the buffer, or was
        self.line = 1

    @property
    def buffered(self) -> int:
        return self.filled - self.at

    @property
    def end(self) -> bool:
        return self.at >= len(self.data)

    def rune(self) -> str:
        """Take one character; "" at the end."""
        if self.end:
            return ""
        lead = self.data[self.at]
        size = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        if self.buffered < size:
            self._fill()
        raw = self.data[self.at : self.at + size]
        self.at += size
        self.line += raw == b"\n"
        return raw.decode("utf-8", "surrogatepass")

    def back(self, rune: str) -> None:
        self.at -= len(rune.encode("utf-8", "surrogatepass"))
        self.line -= rune == "\n"

    def until(self, delimiter: bytes) -> bytes | None:
        """Take everything through `delimiter`; None, with the rest taken, when it does not come."""
        found = self.data.find(delimiter, self.at)
        stop = len(self.data) if found < 0 else found + 1
        taken = self.data[self.at : stop]
        while self.filled < stop:
            if self.buffered >= _BUFFER:
                self.at = self.filled  # a full buffer without the delimiter is set aside whole
            self._fill()
        self.at = stop
        self.line += taken.count(b"\n")
        return None if found < 0 else taken

    def rest_of_line(self) -> tuple[str, bool]:
        """Take the rest of the line, without its newline, and tell whether the text ended with it."""
        start = self.at
        line = self.until(b"\n")
        raw = self.data[start:] if line is None else line[:-1]
        if line is None and raw.endswith(b"\r"):
            raw = raw[:-1]
        return raw.decode("utf-8", "surrogatepass"), line is None

    def _fill(self) -> None:
        self.filled = min(len(self.data), self.at + _BUFFER)


_Step = Callable[[], "_Step | None"]


class _Lexer:
    """The state machine of go-systemd's lexer; every step looks first whether a line is too long."""

    def __init__(self, data: bytes, max_line: int | None) -> None:
        self.input = _Input(data)
        self.max_line = max_line
        self.options: list[Option] = []
        self.section = ""
        self.name = ""
        self.value = ""
        self.begins = 1
        self.after_comment: _Step = self._next_section

    def run(self) -> None:
        step: _Step | None = self._next_section
        while step is not None:
            self._refuse_long_line()
            step = step()

    def _refuse_long_line(self) -> None:
        if self.max_line is None or self.input.buffered < self.max_line:
            return
        ahead = self.input.data[self.input.at : self.input.at + self.max_line]
        if b"\n" not in ahead and b"\r" not in ahead:
            raise UnreadableUnit(f"line too long (max {self.max_line} bytes)", self.input.line)

    def _next_section(self) -> _Step | None:
        rune = self.input.rune()
        if rune == "":
            return None
        if rune == "[":
            return self._section_name
        if rune in "#;":
            self.after_comment = self._next_section
            return self._comment
        return self._next_section

    def _comment(self) -> _Step:
        while True:
            line, ended = self.input.rest_of_line()
            if ended or not line.removesuffix(" ").endswith("\\"):
                return self.after_comment

    def _section_name(self) -> _Step:
        line = self.input.line
        name = self.input.until(b"]")
        if name is None:
            raise UnreadableUnit("unable to find end of section", line)
        self.section = name[:-1].decode("utf-8", "surrogatepass")
        return self._section_end

    def _section_end(self) -> _Step:
        line = self.input.line
        garbage = self.input.rest_of_line()[0].strip(SPACE).encode("utf-8", "surrogatepass")
        if garbage:
            shown = " ".join(str(byte) for byte in garbage)
            raise UnreadableUnit(f"found garbage after section name : [{shown}]", line)
        return self._section_or_option

    def _section_or_option(self) -> _Step | None:
        self.begins = self.input.line
        rune = self.input.rune()
        if rune == "":
            return None
        if rune in SPACE:
            return self._section_or_option
        if rune == "[":
            return self._section_name
        if rune in "#;":
            self.after_comment = self._section_or_option
            return self._comment
        self.input.back(rune)
        return self._option_name

    def _option_name(self) -> _Step:
        name: list[str] = []
        while (rune := self.input.rune()) != "=":
            if rune == "":
                raise UnreadableUnit("EOF", self.begins)
            if rune in "\r\n":
                raise UnreadableUnit("unexpected newline encountered while parsing option name", self.begins)
            name.append(rune)
        self.name = "".join(name).strip(SPACE)
        self.value = ""
        return self._option_value

    def _option_value(self) -> _Step:
        line, ended = self.input.rest_of_line()
        if line.strip(SPACE):
            self.value += line
            if line.endswith("\\"):
                self.value += "" if ended else "\n"
                return self._option_value
        return self._option_done()

    def _option_done(self) -> _Step:
        kept = "\n" if self.value.endswith("\n") else ""
        self.options.append(Option(self.section, self.name, self.value.strip(SPACE) + kept, self.begins))
        return self._section_or_option
