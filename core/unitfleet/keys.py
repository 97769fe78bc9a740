"""The key layout of the store, in one place (docs/architecture.md, "The store").

Unit names and machine ids hold no `/` (names.validate), so a key is split without escapes.
"""

from __future__ import annotations

PREFIX = "/unitfleet/v1/"

EPOCH = PREFIX + "epoch"
CLUSTER = PREFIX + "cluster"
LEADER = PREFIX + "leader"
BRAKE = PREFIX + "brake"


def spec(digest: str) -> str:
    """The immutable text of a unit, by its SHA-256."""
    return f"{PREFIX}specs/{digest}"


def unit(name: str) -> str:
    """What the user wants of a unit."""
    return f"{PREFIX}units/{name}"


def pin(spec_digest: str) -> str:
    """The image digest pinned for a spec."""
    return f"{PREFIX}pins/{spec_digest}"


def pending(name: str) -> str:
    """Why a unit is not placed."""
    return f"{PREFIX}pending/{name}"


def placement(machine: str, unit_name: str) -> str:
    """The leader's order to a machine about a unit."""
    return f"{PREFIX}placements/{machine}/{unit_name}"


def placements_of(machine: str) -> str:
    """The prefix that an agent watches."""
    return f"{PREFIX}placements/{machine}/"


def state(machine: str, unit_name: str) -> str:
    """What a machine's agent sees of a unit."""
    return f"{PREFIX}states/{machine}/{unit_name}"


def states_of(machine: str) -> str:
    """The prefix of one machine's unit states."""
    return f"{PREFIX}states/{machine}/"


def presence(machine: str) -> str:
    """The leased key that says an agent is there."""
    return f"{PREFIX}machines/{machine}"


def machine_spec(machine: str) -> str:
    """What the operator set for a machine."""
    return f"{PREFIX}machine-spec/{machine}"


def roster(machine: str) -> str:
    """A machine that was ever seen."""
    return f"{PREFIX}roster/{machine}"


def resources(machine: str) -> str:
    """A machine's capacity and use."""
    return f"{PREFIX}resources/{machine}"


def fence(machine: str) -> str:
    """A machine's fence renewals."""
    return f"{PREFIX}fence/{machine}"


def event(hour: int, writer: str, number: int) -> str:
    """Something that happened; `hour` is hours since 1970."""
    return f"{PREFIX}events/{hour:08d}/{writer}-{number:06d}"


def events_of(hour: int) -> str:
    """The prefix of one hour's events."""
    return f"{PREFIX}events/{hour:08d}/"


def stay(unit_name: str, epoch: int) -> str:
    """One stay of a unit on a machine."""
    return f"{PREFIX}history/{unit_name}/{epoch:012d}"


def stays_of(unit_name: str) -> str:
    """The prefix of a unit's history."""
    return f"{PREFIX}history/{unit_name}/"


def split(key: str) -> tuple[str, ...]:
    """Take a key apart: its kind first (`units`, `placements`, `leader`, …), then its names.

    >>> split("/unitfleet/v1/placements/m1/a@1.service")
    ('placements', 'm1', 'a@1.service')
    """
    return tuple(key.removeprefix(PREFIX).split("/"))
