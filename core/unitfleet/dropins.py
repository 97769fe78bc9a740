"""A file of Quadlet's with its drop-ins (`x.container.d/*.conf`): one text, which remembers whose each line is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unitfleet.errors import InvalidUnit


@dataclass(frozen=True, slots=True)
class Merged:
    """A text of several files. `parts` are their paths with the lines they begin at, from 1."""

    text: str
    parts: tuple[tuple[str, int], ...]

    def origin(self, line: int) -> tuple[str, int]:
        """Return the file that a line of the text is of, and its number there."""
        path, begins = self.parts[0]
        for other, start in self.parts:
            if start <= line:
                path, begins = other, start
        return path, line - begins + 1


def merge(path: str, text: str, more: Iterable[tuple[str, str]]) -> Merged:
    """Put the drop-ins behind the file, in the order given: lists go on, and of single values the last counts.

    Raises `InvalidUnit` for one that does not begin with a section, whose lines would join the section before.
    """
    parts = [(path, 1)]
    for other, added in more:
        first = next((line.strip() for line in added.split("\n") if line.strip()[:1] not in ("", "#", ";")), "[")
        if not first.startswith("["):
            raise InvalidUnit(
                f"cannot read {other}: {first[:40]!r} stands before any section",
                (f"{other}:1: {first[:40]!r} stands before any section",),
                hint="begin it with the section that it adds to, as [Container]",
            )
        text += "" if text.endswith("\n") else "\n"
        text += "\n"  # ends a value that is continued on the last line
        parts.append((other, text.count("\n") + 1))
        text += added
    return Merged(text, tuple(parts))


def chosen(folders: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """Return the drop-ins of some folders, the nearest first, in the order they apply.

    They apply in the order of their names; of those of one name the nearest folder's alone.
    """
    found: dict[str, str] = {}
    for folder, names in folders:
        for name in names:
            if name.endswith(".conf"):
                found.setdefault(name, f"{folder}/{name}")
    return [found[name] for name in sorted(found)]
