"""One section of a unit text: its assignments under systemd's rules, and where its problems are collected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from unitfleet.environment import assignments
from unitfleet.problems import BadValue, Problems
from unitfleet.quoting import UnbalancedQuote, split_words
from unitfleet.specifiers import Specifiers
from unitfleet.unitfile import Option

T = TypeVar("T")
D = TypeVar("D")


class Section:
    """The assignments of all sections of one name, in order.

    A value that can't be read becomes a problem at its line, and the default takes its place.
    """

    def __init__(self, name: str, options: Iterable[Option], specifiers: Specifiers, problems: Problems) -> None:
        self.name = name
        self.options = tuple(option for option in options if option.section == name)
        self.specifiers = specifiers
        self.problems = problems

    def last(self, *names: str) -> Option | None:
        """Return the last assignment to any of `names` (old and new spelling).

        None when there is none, or when it is empty: an empty assignment brings the default back.
        """
        found = None
        for option in self.options:
            if option.name in names:
                found = option
        return found if found is not None and found.value else None

    def listed(self, *names: str) -> tuple[Option, ...]:
        """Return the assignments to a list; an empty one drops all before it."""
        found: list[Option] = []
        for option in self.options:
            if option.name in names:
                found = [*found, option] if option.value else []
        return tuple(found)

    def get(self, name: str | tuple[str, ...], parse: Callable[[str], T], default: D) -> T | D:
        """Read the last assignment to `name`, specifiers resolved."""
        option = self.last(*(name if isinstance(name, tuple) else (name,)))
        return default if option is None else self.read(option, parse, default)

    def text(self, name: str) -> str:
        """Return the last assignment to `name`, specifiers resolved, or ""."""
        option = self.last(name)
        return "" if option is None else self.specifiers.resolve(option.value)

    def each(self, name: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """Read every assignment of a list whose values are taken whole; those that fail are left out."""
        read = (self.read(option, parse, None) for option in self.listed(name))
        return tuple(value for value in read if value is not None)

    def each_word(self, name: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """Read every word of a list whose values are words."""
        found: list[T] = []
        for option in self.listed(name):
            for word in self.words(option):
                value = self.checked(option, parse, word, None)
                if value is not None:
                    found.append(value)
        return tuple(found)

    def read(self, option: Option, parse: Callable[[str], T], default: D) -> T | D:
        """Read the value of one assignment, specifiers resolved."""
        return self.checked(option, parse, self.specifiers.resolve(option.value), default)

    def checked(self, option: Option, parse: Callable[[str], T], text: str, default: D) -> T | D:
        """Apply `parse`; a `BadValue` becomes an error at the option's line."""
        try:
            return parse(text)
        except BadValue as error:
            if not self.specifiers.awaits_host(text):  # else it is judged on the machine
                self.problems.error(option.line, f"{option.name}=: {error}")
            return default

    def words(self, option: Option) -> list[str]:
        """Split a value into words, quotes removed and specifiers resolved."""
        try:
            words = split_words(option.value)
        except UnbalancedQuote as error:
            self.problems.error(option.line, f"{option.name}=: {error}")
            return []
        return [self.specifiers.resolve(word) for word in words]

    def variables(self, name: str) -> tuple[tuple[str, str], ...]:
        """Read `NAME=value` pairs of a list (Environment=); what is no pair is left out with a warning."""
        found: dict[str, str] = {}
        for option in self.listed(name):
            try:
                pairs, others = assignments(option.value)
            except UnbalancedQuote as error:
                self.problems.error(option.line, f"{name}=: {error}")
                continue
            for other in others:
                self.problems.warn(
                    option.line,
                    f"{name}=: {other[:40]!r} is no assignment and is left out",
                    f'quote a value that has blanks: {name}="NAME=two words"',
                )
            for key, value in pairs:
                found.pop(key, None)
                found[key] = self.specifiers.resolve(value)
        return tuple(found.items())

    def environment_files(self) -> tuple[tuple[str, bool], ...]:
        """Read EnvironmentFile=: absolute paths, each with whether it may be missing (prefix `-`)."""
        return self.each("EnvironmentFile", environment_file)


def absolute(text: str) -> str:
    """Read a path that must be absolute; raises `BadValue`."""
    if not text.startswith("/") or "/../" in f"{text}/":
        raise BadValue(f"{text[:60]!r} is no absolute path without '..'")
    return text


def environment_file(text: str) -> tuple[str, bool]:
    """Read the path of an EnvironmentFile=, and whether it may be missing (prefix `-`); raises `BadValue`."""
    return absolute(text.removeprefix("-")), text.startswith("-")
