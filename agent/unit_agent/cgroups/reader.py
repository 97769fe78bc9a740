"""What a reader of control groups tells, whichever version the kernel has.

A figure that can't be had is -1, never an exception: a group may go away between two reads, a kernel may lack
a controller, and a process unit may have a group of its own for some controllers alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Group:
    """A copy's own group: `path` as the kernel names it, its directory for each controller (v2: `unified`)."""

    path: str
    directories: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Totals since the group was made, and what it holds now; -1: not known.

    `memory` is the working set: what is used without the file pages that were not touched for long, which the
    kernel drops first (cAdvisor's definition). `pressure`: cpu, memory, io, percent of the last minute (v2).
    """

    cpu_s: float = UNKNOWN
    throttled_s: float = UNKNOWN
    memory: int = UNKNOWN
    memory_usage: int = UNKNOWN
    oom_kills: int = UNKNOWN
    processes: int = UNKNOWN
    read_bytes: int = UNKNOWN
    write_bytes: int = UNKNOWN
    pressure: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """What the group may use at most: cores and bytes, 0 for no limit, -1 for not known."""

    cpu: float = UNKNOWN
    memory: int = UNKNOWN


class CgroupReader(Protocol):
    """Reads groups. None of its methods raises for a group or process that has gone."""

    @property
    def name(self) -> str:
        """Which one this is, in a word."""
        ...

    def find(self, pid: int, mark: str) -> Group | None:
        """Return the group that was made for a copy and holds process `pid`, or None.

        `mark` is the group's name, or in it: a container's id, or the name of a supervisor's directory. A group
        below it (systemd in a container makes some) is not the copy's, it is a part of it.
        """
        ...

    def figures(self, group: Group) -> GroupFigures:
        """Return what the group uses."""
        ...

    def limits(self, group: Group) -> GroupLimits:
        """Return what the group may use."""
        ...
