"""`Prefer=`, `Avoid=` and `Priority=` in `[X-Fleet]`: where a unit would rather be, and before whom it comes.

`Prefer=` and `Avoid=` are wishes: no machine is refused for them. They are repeated, a line each, and an empty
line takes back those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from unitfleet import xfleet
from unitfleet.names import UnitName
from unitfleet.problems import BadValue, Problems
from unitfleet.unitfile import Option, quoted_values

KEYS = ("Prefer", "Avoid", "Priority")

MAX_PRIORITY = 1000

Check = Callable[[str, str, int, Problems], None]
"""Judges one value of a key, given with its line."""


def prefer(
    options: Sequence[Option], unit: UnitName, check: Check, problems: Problems
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the metadata that the unit would rather have: any of the values of a key."""
    wanted: dict[str, list[str]] = {}
    for line, pair in _values(options, unit, "Prefer"):
        key, _, value = pair.partition("=")
        if key.endswith("!"):
            problems.error(line, f"Prefer={pair[:60]}: only MachineMetadata= takes !=", "name what it prefers")
            continue
        check("Prefer", pair, line, problems)
        values = wanted.setdefault(key, [])
        if value not in values:
            values.append(value)
    return tuple((key, tuple(values)) for key, values in wanted.items())


def avoid(options: Sequence[Option], unit: UnitName, check: Check, problems: Problems) -> tuple[str, ...]:
    """Return the globs of units that it would rather not share a machine with."""
    patterns = []
    for line, value in _values(options, unit, "Avoid"):
        for pattern in value.split():
            check("Avoid", pattern, line, problems)
            patterns.append(pattern)
    return tuple(dict.fromkeys(patterns))


def priority(text: str) -> int:
    """Read a priority; raises `BadValue`."""
    if text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= MAX_PRIORITY:
        return int(text)
    raise BadValue(f"{text[:40]!r} is no whole number from 0 to {MAX_PRIORITY}: write Priority=100")


def _values(options: Sequence[Option], unit: UnitName, key: str) -> Iterator[tuple[int, str]]:
    """Return each value of a repeated key with its line."""
    found: list[tuple[int, str]] = []
    for option in options:
        if option.name == key:
            value = xfleet.expand(option.value, unit)
            found = [*found, *((option.line, each) for each in quoted_values(value))] if value else []
    return iter(found)
