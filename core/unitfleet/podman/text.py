"""A file as Quadlet reads it: groups of keys, and its ways to look a value up.

Source: pkg/systemd/parser/unitfile.go. It differs from systemd's reading (`unitfleet.systemd`): a continued line
is joined without a blank, a line that is neither key, group nor comment refuses the file, and repeated groups
are one.
"""

from __future__ import annotations

from unitfleet.podman.words import BadWords, arguments, plain

_TRUE = frozenset(("1", "yes", "true", "on"))


class Refused(ValueError):
    """What Quadlet would not make a service of, and why, in its words."""


class Text:
    """Groups in the order of the file, each the (key, value) pairs of it."""

    def __init__(self, groups: dict[str, list[tuple[str, str]]] | None = None, filename: str = "") -> None:
        self.groups = {name: list(lines) for name, lines in (groups or {}).items()}
        self.filename = filename
        self.warnings: list[str] = []

    def copy(self) -> Text:
        """Return one of its own; what is added to it does not show here."""
        return Text(self.groups)

    def merge(self, other: Text) -> None:
        """Add the lines of another file behind ours, as a drop-in's are."""
        for name, lines in other.groups.items():
            self.groups.setdefault(name, []).extend(lines)

    def add(self, group: str, key: str, value: str) -> None:
        """Add a line at the end of a group."""
        self.groups.setdefault(group, []).append((key, value))

    def prepend(self, group: str, key: str, value: str) -> None:
        """Add a line at the beginning of a group."""
        self.groups.setdefault(group, []).insert(0, (key, value))

    def put(self, group: str, key: str, value: str) -> None:
        """Replace the last line of a key, or add one."""
        lines = self.groups.setdefault(group, [])
        for index in range(len(lines) - 1, -1, -1):
            if lines[index][0] == key:
                lines[index] = (key, value)
                return
        lines.append((key, value))

    def unset(self, group: str, key: str) -> None:
        """Drop every line of a key."""
        self.groups[group] = [line for line in self.groups.get(group, []) if line[0] != key]

    def rename(self, group: str, name: str) -> None:
        """Call a group otherwise; where there is one of that name it gets the lines."""
        if group in self.groups:
            moved = self.groups.pop(group)
            self.groups.setdefault(name, []).extend(moved)

    def keys(self, group: str) -> list[str]:
        """Return the keys of a group, each once."""
        return list(dict.fromkeys(key for key, _ in self.groups.get(group, ())))

    def last(self, group: str, key: str) -> str | None:
        """Return the last value of a key as it is written."""
        found = None
        for name, value in self.groups.get(group, ()):
            if name == key:
                found = value
        return found

    def value(self, group: str, key: str) -> str | None:
        """Return the last value of a key without blanks behind it and without quotes around the whole."""
        found = self.last(group, key)
        if found is None:
            return None
        found = found.rstrip()
        return found[1:-1] if len(found) >= 2 and found[0] == found[-1] == '"' else found

    def text(self, group: str, key: str) -> str:
        """Return `value`, or ""."""
        return self.value(group, key) or ""

    def boolean(self, group: str, key: str) -> bool | None:
        """Return whether a key says yes; every other word is no."""
        found = self.value(group, key)
        return None if found is None else found.lower() in _TRUE

    def number(self, group: str, key: str) -> int:
        """Return a key's number of 32 bits, 0 for whatever is none."""
        found = self.text(group, key).removeprefix("+")
        base = 16 if found[:2] in ("0x", "0X") else 8 if found.startswith("0") else 10
        try:
            number = int(found, base)
        except ValueError:
            return 0
        return number if 0 <= number < 2**32 else 0

    def all(self, group: str, key: str) -> list[str]:
        """Return every value of a key; an empty one drops those before it."""
        found: list[str] = []
        for name, value in self.groups.get(group, ()):
            if name == key:
                found = [*found, value] if value else []
        return found

    def all_plain(self, group: str, key: str) -> list[str]:
        """Return every value of a key as words without escapes."""
        return [word for value in self.all(group, key) for word in plain(value)]

    def all_arguments(self, group: str, key: str) -> list[str]:
        """Return every value of a key as words with escapes; a line that can't be split is left out."""
        found: list[str] = []
        for value in self.all(group, key):
            try:
                found += arguments(value)
            except BadWords as error:
                self.warnings.append(f"{key}={value}: {error}")
        return found

    def last_arguments(self, group: str, key: str) -> list[str]:
        """Return the last value of a key as words with escapes."""
        try:
            return arguments(self.last(group, key) or "")
        except BadWords as error:
            self.warnings.append(f"{key}={self.last(group, key)}: {error}")
            return []

    def pairs(self, group: str, key: str) -> dict[str, str | None]:
        """Return the `key=value` words of a key by name, None for a word without `=`."""
        found: dict[str, str | None] = {}
        for word in self.all_arguments(group, key):
            name, equals, value = word.partition("=")
            found[name] = value if equals else None
        return found


def parse(data: str) -> Text:
    """Read a file; raises `Refused`."""
    text = Text()
    group = ""
    lines = data.removesuffix("\n").split("\n")
    begun = ""
    for index, raw in enumerate(lines):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.endswith("\\"):
            line = line[:-1]
            if index < len(lines) - 1:
                begun += line
                continue
        line, begun = begun + line, ""
        if _is_group(line):
            group = line[1 : line.index("]")]
            if not group or "[" in group or not group.isprintable():
                raise Refused(f"invalid group name: {group}")
            text.groups.setdefault(group, [])
            continue
        key, equals, value = line.partition("=")
        if not equals or not key:
            raise Refused(
                f"file contains line {index + 1}: “{line}” which is not a key-value pair, group, or comment"
            )
        if not group:
            raise Refused("key file does not start with a group")
        if key.startswith(" "):
            raise Refused(f"invalid key name: {key.rstrip()}")
        text.add(group, key.rstrip(), value.lstrip())
    return text


def _is_group(line: str) -> bool:
    return line.startswith("[") and "]" in line and not line[line.index("]") + 1 :].strip(" \t")
