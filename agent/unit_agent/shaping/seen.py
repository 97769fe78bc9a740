"""What is read of a host's interfaces, as values."""

from __future__ import annotations

from dataclasses import dataclass

from unit_agent.shaping.things import Thing


@dataclass(frozen=True, slots=True)
class Link:
    """An interface: `peer` is the index of the other end of a veth, in that end's own namespace."""

    index: int
    name: str
    kind: str
    peer: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands on one interface: our things, and the root qdisc if somebody else set one ("")."""

    things: tuple[Thing, ...]
    foreign: str = ""


@dataclass(frozen=True, slots=True)
class Counters:
    """What a class has sent and dropped since it was made, and holds back now: bytes, packets, bytes."""

    sent: int
    dropped: int
    backlog: int
