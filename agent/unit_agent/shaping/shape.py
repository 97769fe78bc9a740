"""What is wanted of a host: its uplink, and for each unit its bandwidth and where its packets can be caught."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from unit_agent.shaping.things import FIRST_MINOR, LAST_MINOR
from unitfleet.model import Bandwidth


@dataclass(frozen=True, slots=True)
class Veths:
    """A container with a network of its own: its interfaces on the host, and the addresses (MAC) it sends from."""

    interfaces: tuple[str, ...]
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Processes on the host's network, known by their control group: net_cls (version 1) or the unified one (2).

    `path` is a directory for version 1, and the way from the unified root for version 2.
    """

    version: int
    path: str
    inode: int


@dataclass(frozen=True, slots=True)
class Nowhere:
    """Packets of this unit can't be told from others'."""

    why: str


Place = Veths | Group | Nowhere


@dataclass(frozen=True, slots=True)
class UnitShape:
    """One unit. `minor` is that of its classes; nothing in `bandwidth` puts it into the default class."""

    unit: str
    minor: int
    bandwidth: Bandwidth
    place: Place


@dataclass(frozen=True, slots=True)
class HostShape:
    """A host: its uplink with its capacity in bit/s (0: not known), and its units, those placed first in front.

    `ports` are TCP ports of the reserved class; `may_shape_uplink` is the operator's word. What comes to the group
    `engine` is kept to `pull_limit` bit/s (0: it is not, no image is being pulled).
    """

    units: tuple[UnitShape, ...] = ()
    uplink: str = ""
    egress: int = 0
    ingress: int = 0
    ports: tuple[int, ...] = ()
    may_shape_uplink: bool = True
    pull_limit: int = 0
    engine: Group | Nowhere = Nowhere("no Engine was looked for")


def pull_cap(said: int | None, ingress: int) -> int:
    """Return what pulls are kept to, bit/s (0: nothing): as the operator says, else half of a known uplink."""
    return ingress // 2 if said is None else said


def minors(units: Iterable[str], held: Mapping[str, int]) -> dict[str, int]:
    """Give each unit a minor of its own: the one it holds, else one by its name, which a next agent finds."""
    wanted = sorted(set(units))
    given = {unit: held[unit] for unit in wanted if unit in held}
    taken = set(given.values())
    span = LAST_MINOR - FIRST_MINOR + 1
    for unit in wanted:
        if unit not in given:
            place = zlib.crc32(unit.encode()) % span
            while FIRST_MINOR + place in taken:
                place = (place + 1) % span
            given[unit] = FIRST_MINOR + place
            taken.add(given[unit])
    return given
