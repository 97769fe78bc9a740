"""The key layout of the store, in one place (docs/architecture.md, "The store").

Unit names and machine ids hold no `/` (names.validate), so a key is split without escapes.
"""

from __future__ import annotations

PREFIX = "/unitfleet/v1/"

EPOCH = PREFIX + "epoch"
CLUSTER = PREFIX + "cluster"
LEADER = PREFIX + "leader"
BRAKE = PREFIX + "brake"
PROTECTION = PREFIX + "protection"
MASTERS = PREFIX + "masters/"


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


def warm(digest: str) -> str:
    """An image that machines are to hold, by the SHA-256 of its reference."""
    return f"{PREFIX}warm/{digest}"


def warm_set(machine: str) -> str:
    """What a machine is to hold, made of its units and of `warm/`."""
    return f"{PREFIX}warm-set/{machine}"


def images(machine: str) -> str:
    """What a machine holds of its warm set."""
    return f"{PREFIX}images/{machine}"


def master(name: str) -> str:
    """The leased key that says a master serves."""
    return f"{MASTERS}{name}"


def token(id: str) -> str:
    """A token that opens the API, by its id."""
    return f"{PREFIX}tokens/{id}"


def token_name(name: str) -> str:
    """The name of a token, which no other has."""
    return f"{PREFIX}token-names/{name}"


def join_token(token: str) -> str:
    """A join token that is not used up, by its id; bound to a lease of its time."""
    return f"{PREFIX}join/{token}"


def identity(role: str, name: str) -> str:
    """Which certificate a machine or a master has, and whether it is shut out."""
    return f"{PREFIX}identities/{role}/{name}"


def secret(name: str) -> str:
    """A secret, sealed to the masters."""
    return f"{PREFIX}secrets/{name}"


def sealed(machine: str, name: str) -> str:
    """A secret, sealed for a machine."""
    return f"{PREFIX}sealed/{machine}/{name}"


def sealed_of(machine: str) -> str:
    """The prefix of what is sealed for a machine."""
    return f"{PREFIX}sealed/{machine}/"


def fence(machine: str) -> str:
    """A machine's fence renewals."""
    return f"{PREFIX}fence/{machine}"


def event(hour: int, writer: str, number: int) -> str:
    """Something that a master tells of; `hour` is hours since 1970."""
    return f"{PREFIX}events/{hour:08d}/{writer}-{number:06d}"


def machine_event(machine: str, writer: str, number: int) -> str:
    """Something that a machine's agent tells of."""
    return f"{machine_events_of(machine)}{writer}-{number:06d}"


def machine_events_of(machine: str) -> str:
    """The prefix of what one machine's agent tells: it may write nowhere else under `events/`."""
    return f"{PREFIX}events/{machine}/"


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
