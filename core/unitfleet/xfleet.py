"""fleet's meaning of `[X-Fleet]`: six keys with their old spellings, read exactly as fleet 1.0 reads them.

fleet ignores what it can't read, so that a unit with a slip runs anywhere; `unitfleet.accept` refuses such
slips before this meaning is used. Source: job/job.go and api/units.go of fleet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unitfleet.names import UnitName, glob_match, split
from unitfleet.unitfile import XFLEET, UnitFile

MACHINE_ID = ("MachineID", "X-ConditionMachineID", "X-ConditionMachineBootID")  # the first one present counts
MACHINE_OF = ("X-ConditionMachineOf", "MachineOf")
METADATA = ("X-ConditionMachineMetadata", "MachineMetadata")
CONFLICTS = ("X-Conflicts", "Conflicts")
REPLACES = ("Replaces",)
GLOBAL = ("Global",)
KEYS = frozenset(MACHINE_ID + MACHINE_OF + METADATA + CONFLICTS + REPLACES + GLOBAL)

TRUE = frozenset(("true", "yes", "1", "on", "t"))


@dataclass(frozen=True, slots=True)
class XFleet:
    """What fleet takes from a unit's [X-Fleet] section, specifiers replaced."""

    machine_id: str | None  # None: not pinned; "" pins to a machine that can't exist
    machine_of: tuple[str, ...]
    metadata: tuple[tuple[str, tuple[str, ...]], ...]  # any value of a key, every key
    conflicts: tuple[str, ...]
    replaces: tuple[str, ...]
    is_global: bool
    unknown: tuple[str, ...]  # keys that fleet warns about and ignores


def read(name: str, file: UnitFile) -> XFleet:
    """Read the section of a unit called `name` (a template stands for itself, with an empty instance)."""
    unit = split(name) if "." in name else None
    section = file.contents().get(XFLEET, {})
    return _read({key: [expand(value, unit) for value in values] for key, values in section.items()})


def options_error(file: UnitFile) -> str | None:
    """Return the first of `contradictions`, which is fleet's answer to the unit, or None.

    As in fleet the values are compared as they are written, specifiers and all.
    """
    found = contradictions(_read(file.contents().get(XFLEET, {})))
    return found[0] if found else None


def expand(value: str, unit: UnitName | None) -> str:
    """Replace %n %N %p %i, in this order, wherever they stand; every other % stays (fleet knows no %%)."""
    if unit is None:
        return value
    parts = (("%n", unit.full), ("%N", unit.name), ("%p", unit.prefix), ("%i", unit.instance))
    for specifier, replacement in parts:
        value = value.replace(specifier, replacement)
    return value


def contradictions(wants: XFleet) -> list[str]:
    """Return every pair of wishes that fleet refuses together, in fleet's order and words."""
    found = []
    for peer in wants.machine_of:
        for word, patterns in (("conflict", wants.conflicts), ("replace", wants.replaces)):
            found += [
                f'unresolvable requirements: peer "{peer}" matches {word} "{pattern}"'
                for pattern in patterns
                if glob_match(pattern, peer)
            ]
    pinned = wants.machine_id is not None
    pairs = (
        (pinned and wants.machine_of, "MachineID cannot be used with Peers"),
        (pinned and wants.conflicts, "MachineID cannot be used with Conflicts"),
        (pinned and wants.is_global, "MachineID cannot be used with Global"),
        (pinned and wants.replaces, "MachineID cannot be used with Replaces"),
        (wants.is_global and wants.machine_of, "Global cannot be used with Peers"),
        (wants.is_global and wants.replaces, "Global cannot be used with Replaces"),
        (wants.conflicts and wants.replaces, "Conflicts cannot be used with Replaces"),
    )
    return found + [message for both, message in pairs if both]


def _read(section: Mapping[str, Sequence[str]]) -> XFleet:
    ids = [value for key in MACHINE_ID for value in section.get(key, ())]
    metadata: dict[str, list[str]] = {}
    for pair in _all(section, METADATA):
        parts = pair.split("=")
        if len(parts) == 2 and all(parts):
            values = metadata.setdefault(parts[0], [])
            if parts[1] not in values:
                values.append(parts[1])
    globals_ = _all(section, GLOBAL)
    return XFleet(
        machine_id=ids[0] if ids else None,
        machine_of=tuple(_all(section, MACHINE_OF)),
        metadata=tuple((key, tuple(values)) for key, values in metadata.items()),
        conflicts=tuple(word for value in _all(section, CONFLICTS) for word in value.split()),
        replaces=tuple(_all(section, REPLACES)),
        is_global=bool(globals_) and globals_[-1].lower() in TRUE,
        unknown=tuple(key for key in section if key not in KEYS),
    )


def _all(section: Mapping[str, Sequence[str]], keys: Sequence[str]) -> list[str]:
    return [value for key in keys for value in section.get(key, ())]
