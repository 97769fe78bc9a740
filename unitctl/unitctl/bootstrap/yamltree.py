"""YAML with the line of everything in it, and with the text of each scalar as it was written.

cloud-init and CoreOS read the same text in different ways: `off` is False to one and a word to the other, `0644`
is 420, 644 or a mode. Nothing is decided here: a scalar keeps its text, and whoever reads a key says what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from unitctl.bootstrap.libraries import load
from unitctl.failures import Failure

MOST_BYTES = 1024 * 1024
MOST_DEEP = 50
MOST_NODES = 50_000  # aliases of aliases grow without end


class BadYaml(Failure):
    """A text that is no YAML, or none that we read; `line` counts from 1."""

    def __init__(self, why: str, line: int, hint: str | None = None) -> None:
        super().__init__(f"cannot read YAML: line {line}: {why}", hint=hint)
        self.why = why
        self.line = line


@dataclass(frozen=True, slots=True)
class Scalar:
    """A word or a text. `plain`: it was written without quotes, so that a reader may take it for another kind."""

    line: int
    text: str
    plain: bool = False
    block: bool = False  # written as | or >: what it holds begins on the next line

    @property
    def is_null(self) -> bool:
        """Tell whether nothing was written, or null."""
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")

    @property
    def value(self) -> Any:
        """What YAML 1.2 takes it for: null, a truth, a whole number, or text. `off` is text, 0644 is text."""
        if not self.plain:
            return self.text
        if self.is_null:
            return None
        if self.text in ("true", "True", "TRUE", "false", "False", "FALSE"):
            return self.text.lower() == "true"
        digits = self.text.removeprefix("-")
        if digits.isascii() and digits.isdigit() and len(digits) < 19 and (digits == "0" or digits[0] != "0"):
            return int(self.text)
        return self.text


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    line: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys, in order; of a key that stands twice the last one counts, and `twice` names it with its line."""

    line: int
    entries: dict[str, Node]
    lines: dict[str, int]
    twice: tuple[tuple[str, int], ...] = ()


Node = Scalar | Sequence | Mapping


def plain(node: Node) -> Any:
    """Return a tree as Python's own values."""
    match node:
        case Scalar():
            return node.value
        case Sequence():
            return [plain(item) for item in node.items]
        case Mapping():
            return {key: plain(value) for key, value in node.entries.items()}


def walk(node: Node) -> Iterator[Node]:
    """Every node of a tree, itself first."""
    yield node
    match node:
        case Sequence():
            for item in node.items:
                yield from walk(item)
        case Mapping():
            for value in node.entries.values():
                yield from walk(value)


def read(text: str) -> Node:
    """Read one document; raises `BadYaml` with the line."""
    yaml = load("yaml", "bootstrap", "read YAML")
    if len(text) > MOST_BYTES:
        raise BadYaml(f"{len(text):,} characters are too many", 1)
    try:
        loader = _loader(yaml)(text)
        try:
            root = loader.get_single_node()
            return Scalar(1, "", plain=True) if root is None else _Tree(yaml, loader.flatten_mapping).node(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f"{error.context}: " if error.context else ""
        raise BadYaml(f"{context}{error.problem}", mark.line + 1 if mark else 1) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BadYaml(f"the character {chr(error.character)!a} is not allowed", line) from error
    except RecursionError:
        raise BadYaml("it is nested too deeply", 1) from None
    except ValueError as error:  # PyYAML's own conversions: an escape that is no character
        raise BadYaml(str(error), 1) from error


def _loader(yaml: Any) -> Any:
    """PyYAML's own, but for lists in lists in lists: its time grows with the square of their depth."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # known when it is loaded
        def fetch_flow_collection_start(self, token: Any) -> None:
            if self.flow_level >= MOST_DEEP:
                raise BadYaml("it is nested too deeply", self.line + 1)
            super().fetch_flow_collection_start(token)

    return Loader


class _Tree:
    """Turns PyYAML's nodes into ours, within bounds."""

    def __init__(self, yaml: Any, flatten: Callable[[Any], None]) -> None:
        self._yaml = yaml
        self._flatten = flatten
        self._left = MOST_NODES
        self._inside: set[int] = set()

    def node(self, found: Any) -> Node:
        self._left -= 1
        line = found.start_mark.line + 1
        if self._left < 0:
            raise BadYaml("it holds too much: aliases multiply it", line)
        if isinstance(found, self._yaml.ScalarNode):
            return Scalar(line, found.value, plain=found.style is None, block=found.style in ("|", ">"))
        if id(found) in self._inside:
            raise BadYaml("an alias stands inside what it names", line)
        self._inside.add(id(found))
        try:
            if isinstance(found, self._yaml.SequenceNode):
                return Sequence(line, tuple(self.node(item) for item in found.value))
            return self._mapping(found, line)
        finally:
            self._inside.discard(id(found))

    def _mapping(self, found: Any, line: int) -> Mapping:
        own = [key.value for key, _ in found.value if isinstance(key, self._yaml.ScalarNode)]
        twice = tuple(
            (key.value, key.start_mark.line + 1)
            for index, (key, _) in enumerate(found.value)
            if isinstance(key, self._yaml.ScalarNode) and key.value != "<<" and key.value in own[:index]
        )
        self._flatten(found)  # merges what `<<: *name` names
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for key, value in found.value:
            if not isinstance(key, self._yaml.ScalarNode):
                raise BadYaml("a key is a list or a table", key.start_mark.line + 1)
            entries[key.value] = self.node(value)
            lines[key.value] = key.start_mark.line + 1
        return Mapping(line, entries, lines, twice)
