r"""Unit names: fleet's rules, templates and instances, what a user may type for them, and fleet's globs.

A name is at most 256 characters of `[0-9A-Za-z:_.@\-]` with a suffix that systemd knows; `prefix@.suffix` is a
template, `prefix@instance.suffix` an instance of it. Machine ids and names are checked here too: all of them
stand in keys of the store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

from unitfleet.errors import InvalidName

MAX_LENGTH = 256
MAX_EXPANSION = 10_000
SUFFIXES = frozenset(
    "automount busname device mount path scope service slice snapshot socket swap target timer".split()
)
TEMPLATE_SUFFIXES = frozenset("path service socket target timer".split())

_FOREIGN = re.compile(r"[^0-9A-Za-z:_.@\\-]")
_MACHINE = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,63}")
_CHOICE = re.compile(r"\{([^{}<>]*)\}|<([^{}<>]*)>|(?<=@)([0-9]+\.\.[0-9]+)(?=\.[a-z]+$|$)")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")


@dataclass(frozen=True, slots=True)
class UnitName:
    """A name taken apart as fleet and systemd do: instance is between the first `@` and the last `.`."""

    full: str
    name: str  # without the suffix
    prefix: str
    instance: str
    suffix: str
    template: str  # the template it is, or is an instance of; "" for a plain name

    @property
    def is_template(self) -> bool:
        """Whether it is `prefix@.suffix`."""
        return self.template != "" and self.instance == ""

    @property
    def is_instance(self) -> bool:
        """Whether it is `prefix@instance.suffix`."""
        return self.instance != ""


def validate(name: str) -> None:
    """Raise `InvalidName` with the first rule that `name` breaks."""
    reason = fault(name)
    if reason is not None:
        raise InvalidName(f"cannot use unit name {_shown(name)}: {reason}", hint=_hint(name))


def fault(name: str) -> str | None:
    """Return the first rule that `name` breaks, in fleet's order and words, or None."""
    if not name:
        return "unit name cannot be empty"
    if len(name.encode("utf-8", "surrogatepass")) > MAX_LENGTH:
        return f"unit name exceeds maximum length ({MAX_LENGTH})"
    body, dot, suffix = name.rpartition(".")
    if not dot:
        return 'unit name must contain "."'
    if not suffix:
        return 'unit name cannot end in "."'
    if suffix not in SUFFIXES:
        return f'invalid unit type: "{_escaped(suffix)}"'
    if "@" in name and suffix not in TEMPLATE_SUFFIXES:
        return f'invalid unit type for template: "{suffix}"'
    if foreign := _FOREIGN.search(body):
        return f"invalid character '{_escaped(foreign[0])}' in unit name"
    if name.startswith("@"):
        return 'unit name cannot start in "@"'
    if not body:
        return "unit name has nothing before its type"
    if ".." in name:
        return 'unit name cannot contain ".."'
    return None


def parse(name: str) -> UnitName:
    """Take a valid name apart; raises `InvalidName`."""
    validate(name)
    return split(name)


def split(name: str) -> UnitName:
    """Take a name apart without holding it to the rules; only a name without any `.` raises `InvalidName`."""
    body, dot, suffix = name.rpartition(".")
    if not dot:
        raise InvalidName(f'cannot use unit name {_shown(name)}: unit name must contain "."', hint=_hint(name))
    prefix, at, instance = body.partition("@")
    template = f"{prefix}@.{suffix}" if at else ""
    return UnitName(name, body, prefix, instance, suffix, template)


def complete(argument: str) -> str:
    """Make a unit name of what a user typed: the last part of a path, `.service` where no type is given.

    A file `x.container` holds the unit `x.service`. The result is not validated.

    >>> complete("units/webserver@1.container"), complete("adserver@1")
    ('webserver@1.service', 'adserver@1.service')
    """
    name = argument.rsplit("/", 1)[-1]
    body, dot, suffix = name.rpartition(".")
    if dot and suffix == "container":
        return f"{body}.service"
    return name if dot and suffix in SUFFIXES else f"{name}.service"


def expand(argument: str) -> list[str]:
    """Expand every `<1..4>`, `{1..4}`, `{a,b}` and bare `@1..4` of an argument, in order, leftmost slowest.

    `01..10` keeps its leading zeros. Folder and suffix stay as typed: `complete` each result. Raises
    `InvalidName` for a reversed range, a broken bracket or more than 10,000 names.

    >>> expand("adserver@<1..3>"), expand("web@{a,b}.service")
    (['adserver@1', 'adserver@2', 'adserver@3'], ['web@a.service', 'web@b.service'])
    """
    parts: list[list[str]] = []
    total, end = 1, 0
    for match in _CHOICE.finditer(argument):
        literal = argument[end : match.start()]
        _refuse_brackets(literal, argument)
        choices = _choices(next(group for group in match.groups() if group is not None), argument)
        total *= len(choices)
        if total > MAX_EXPANSION:
            raise _cannot_expand(argument, f"it stands for more than {MAX_EXPANSION} names", "use smaller ranges")
        parts += [[literal], choices]
        end = match.end()
    _refuse_brackets(argument[end:], argument)
    parts.append([argument[end:]])
    return ["".join(combination) for combination in product(*parts)]


def _choices(text: str, argument: str) -> list[str]:
    found: list[str] = []
    for item in text.split(","):
        match = _RANGE.fullmatch(item)
        if match is None:
            if not item or ".." in item:
                raise _cannot_expand(argument, f"{item!r} is not a range", "write <1..4>, {1..4} or {a,b}")
            found.append(item)
            continue
        first, last = match.groups()
        if max(len(first), len(last)) > 18:
            raise _cannot_expand(argument, "the range is too large", "use smaller ranges")
        low, high = int(first), int(last)
        if low > high:
            raise _cannot_expand(argument, f"the range {item} is reversed", f"write {last}..{first}")
        if high - low >= MAX_EXPANSION:
            raise _cannot_expand(argument, f"it stands for more than {MAX_EXPANSION} names", "use smaller ranges")
        width = max(len(first), len(last)) if first.startswith("0") and len(first) > 1 else 0
        found += [str(number).zfill(width) for number in range(low, high + 1)]
    return found


def _refuse_brackets(literal: str, argument: str) -> None:
    for bracket in "{}<>":
        if bracket in literal:
            raise _cannot_expand(argument, f"{bracket!r} stands alone", "write <1..4>, {1..4} or {a,b}")


def _cannot_expand(argument: str, reason: str, hint: str) -> InvalidName:
    return InvalidName(f"cannot expand {_shown(argument)}: {reason}", hint=hint)


def is_glob(text: str) -> bool:
    """Tell whether `text` asks for matching names rather than one name."""
    return any(character in text for character in "*?[")


def glob_match(pattern: str, name: str) -> bool:
    """Match as Go's path.Match does, which fleet uses: `*` and `?` stop at `/`, `[^a]` negates, no `{a,b}`.

    A malformed pattern matches nothing. The cost is at most len(pattern) times len(name).
    """
    while pattern:
        star, chunk, pattern = _next_chunk(pattern)
        if star and not chunk:
            return "/" not in name
        rest = _match_chunk(chunk, name)
        if rest is not None and (rest == "" or pattern):
            name = rest
            continue
        if not star:
            return False
        for start in range(len(name)):
            if name[start] == "/":
                return False
            rest = _match_chunk(chunk, name[start + 1 :])
            if rest is not None and (pattern or rest == ""):
                name = rest
                break
        else:
            return False
    return name == ""


def glob_fault(pattern: str) -> str | None:
    """Return why `pattern` is malformed and so matches nothing, or None."""
    while pattern:
        _, chunk, pattern = _next_chunk(pattern)
        while chunk:
            if chunk[0] == "[":
                ends = _match_class(chunk, "\0")
                if ends is None:
                    return "a [ that is not closed, is empty or holds a broken range"
                chunk = chunk[ends[0] :]
            elif chunk == "\\":
                return "a backslash at the end"
            else:
                chunk = chunk[2 if chunk[0] == "\\" else 1 :]
    return None


def _next_chunk(pattern: str) -> tuple[bool, str, str]:
    """Split off a run of `*` and the text up to the next `*` outside brackets."""
    stripped = pattern.lstrip("*")
    inside, index = False, 0
    while index < len(stripped):
        character = stripped[index]
        if character == "\\":
            index += 1
        elif character == "[":
            inside = True
        elif character == "]":
            inside = False
        elif character == "*" and not inside:
            break
        index += 1
    return len(stripped) < len(pattern), stripped[:index], stripped[index:]


def _match_chunk(chunk: str, name: str) -> str | None:
    """Match a chunk without `*` at the start of `name`; return what is left of the name, or None."""
    while chunk:
        if not name:
            return None
        character = name[0]
        if chunk[0] == "[":
            found = _match_class(chunk, character)
            if found is None or not found[1]:
                return None
            chunk = chunk[found[0] :]
        elif chunk[0] == "?":
            if character == "/":
                return None
            chunk = chunk[1:]
        else:
            if chunk[0] == "\\":
                chunk = chunk[1:]
            if not chunk or chunk[0] != character:
                return None
            chunk = chunk[1:]
        name = name[1:]
    return name


def _match_class(chunk: str, character: str) -> tuple[int, bool] | None:
    """Match `[…]` at the start of `chunk`: its length and whether it matches; None when it is malformed."""
    index = 1
    negated = chunk[index : index + 1] == "^"
    index += negated
    matched, count = False, 0
    while not (chunk[index : index + 1] == "]" and count > 0):
        bounds = _class_bound(chunk, index)
        if bounds is None:
            return None
        low, index = bounds
        high = low
        if chunk[index : index + 1] == "-":
            bounds = _class_bound(chunk, index + 1)
            if bounds is None:
                return None
            high, index = bounds
        matched = matched or low <= character <= high
        count += 1
    return index + 1, matched != negated


def _class_bound(chunk: str, index: int) -> tuple[str, int] | None:
    character = chunk[index : index + 1]
    if character in ("", "-", "]"):
        return None
    if character == "\\":
        index += 1
        character = chunk[index : index + 1]
    # Go asks for more text after every bound: a class that ends with the pattern is malformed.
    return (character, index + 1) if character and index + 1 < len(chunk) else None


def validate_machine_id(text: str) -> None:
    """Raise `InvalidName` unless `text` can be a machine's id: it stands in keys and on command lines."""
    _validate_machine("id", text)


def validate_machine_name(text: str) -> None:
    """Raise `InvalidName` unless `text` can be a machine's name (a host name fits)."""
    _validate_machine("name", text)


def _validate_machine(kind: str, text: str) -> None:
    if not _MACHINE.fullmatch(text) or ".." in text:
        raise InvalidName(
            f"cannot use machine {kind} {_shown(text)}: "
            "it must be 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit",
            hint="a host name without its domain will do" if kind == "name" else None,
        )


def _hint(name: str) -> str | None:
    if "/" in name:
        return "give the name without its folder"
    if name and "." not in name:
        return f"did you mean {complete(name)}?"
    body, _, suffix = name.rpartition(".")
    if suffix and suffix not in SUFFIXES:
        return "the types are " + ", ".join(sorted(SUFFIXES))
    if _FOREIGN.search(body[:MAX_LENGTH]):
        return r"letters, digits and : _ . @ \ - make a name"
    if len(name) > MAX_LENGTH:
        return "give it a shorter name"
    return None


def _shown(text: str) -> str:
    """Quote a name for a message: control characters escaped, long ones cut."""
    escaped = _escaped(text)
    return repr(text)[:200] if not text else (escaped if len(escaped) <= 80 else escaped[:77] + "…")


def _escaped(text: str) -> str:
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text[:MAX_LENGTH]
    )
