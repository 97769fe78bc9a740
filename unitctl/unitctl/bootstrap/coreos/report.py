"""What became of each key of a cloud-config: it is used, changed, or has no form. None is lost in silence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from unitctl.bootstrap.yamltree import Mapping, Node, Scalar, Sequence


@dataclass(frozen=True, slots=True)
class Said:
    """One thing to say of a key: `why` it has no form, or what it has become."""

    path: str
    line: int
    why: str


@dataclass(slots=True)
class Report:
    """What a conversion says of its source, beside its result."""

    used: list[str] = field(default_factory=list)
    dropped: list[Said] = field(default_factory=list)
    changed: list[Said] = field(default_factory=list)

    def drop(self, path: str, line: int, why: str) -> None:
        """Say that a key has no form."""
        self.dropped.append(Said(path, line, why))

    def change(self, path: str, line: int, what: str) -> None:
        """Say that a key has become something else."""
        self.changed.append(Said(path, line, what))


class Keys:
    """The keys of one table, each taken once. Hyphen and underscore are the same: `drop-ins`, `drop_ins`."""

    def __init__(self, node: Mapping, path: str, report: Report) -> None:
        self.path = path
        self.report = report
        self._left: dict[str, tuple[str, int, Node]] = {}
        for key, line in node.twice:
            report.drop(self._full(key), line, "it stands twice, and the last one counts")
        for written, value in node.entries.items():
            name, line = written.replace("-", "_"), node.lines[written]
            if name in self._left:
                report.drop(
                    self._full(written), line, "it stands twice under two spellings, and the last one counts"
                )
            self._left[name] = (written, line, value)

    def _full(self, written: str) -> str:
        return f"{self.path}.{written}" if self.path else written

    def place(self, name: str) -> tuple[str, int]:
        """Path and line of a key that is there."""
        written, line, _ = self._left[name]
        return self._full(written), line

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str) -> Node | None:
        """Return the value of a key, which counts as used; None when it is not there."""
        found = self._left.pop(name, None)
        if found is None:
            return None
        self.report.used.append(self._full(found[0]))
        return found[2]

    def text(self, name: str) -> str | None:
        """The same of a key that holds a word; what holds anything else has no form."""
        if name not in self._left:
            return None
        node = self._left[name][2]
        if isinstance(node, Scalar) and not node.is_null:
            self.take(name)
            return node.text
        self.drop(name, "it is empty" if isinstance(node, Scalar) else "a word is expected here")
        return None

    def truth(self, name: str) -> bool:
        """The same of a key that holds yes or no, in any of YAML's words."""
        word = (self.text(name) or "").lower()
        return word in ("true", "yes", "on", "y", "1")

    def words(self, name: str) -> list[str]:
        """The same of a key that holds words with commas, or a list of them."""
        node = self._left[name][2] if name in self._left else None
        if isinstance(node, Sequence):
            self.take(name)
            return [item.text for item in node.items if isinstance(item, Scalar)]
        return (self.text(name) or "").split(",")

    def drop(self, name: str, why: str) -> None:
        """Say that a key has no form, if it is there."""
        if name in self._left:
            path, line = self.place(name)
            del self._left[name]
            self.report.drop(path, line, why)

    def rest(self) -> Iterator[str]:
        """The names that nobody has taken yet."""
        yield from list(self._left)
