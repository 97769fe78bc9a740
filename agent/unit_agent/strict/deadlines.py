"""Until when the strict copies of this host may run, by a clock that no one sets and that counts a suspend.

A renewal that committed was *sent* before it committed. So what it proves holds for one lease's time from then,
whatever the store does with the lease; the leader waits longer than that before it starts a copy elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from unit_agent.driver import Marks

STOP_MARGIN = 0.2
"""Of a lease's time: so long before the deadline the agent begins to stop a copy, as its text says."""

KILL_MARGIN = 0.1
"""Of a lease's time: so long before the deadline whatever is left of it is killed."""

START_MARGIN = 0.5
"""Of a lease's time: what a start needs to have ahead of it."""


def boottime() -> float:
    """Seconds since boot (CLOCK_BOOTTIME, clock_gettime(2)): neither set by anybody nor stopped by a suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Deadline:
    """What is proved of one unit: `revision` of the placement that was renewed; 0: not by this agent process.

    `until` is when the proof ends. `marks` tell the copy's processes; None while none was made.
    """

    revision: int
    until: float
    marks: Marks | None = None


class Deadlines:
    """The deadlines of one host, by unit; drivers ask it before they start a copy again by themselves."""

    def __init__(self, ttl_s: float, clock: Callable[[], float] = boottime) -> None:
        self.ttl_s = ttl_s
        self.clock = clock
        self.units: dict[str, Deadline] = {}

    def renewed(self, unit: str, revision: int, sent: float) -> Deadline:
        """Return the deadline that a renewal sent at `sent` proves."""
        known = self.units.get(unit)
        return Deadline(revision, sent + self.ttl_s, known.marks if known else None)

    def mark(self, unit: str, marks: Marks) -> Deadline:
        """Return the unit's deadline with the marks of the copy that is about to start."""
        return replace(self.units[unit], marks=marks)

    def kill_at(self, deadline: Deadline) -> float:
        """Return when what is left of a copy is killed."""
        return deadline.until - KILL_MARGIN * self.ttl_s

    def stop_at(self, deadline: Deadline) -> float:
        """Return when a copy is begun to be stopped."""
        return deadline.until - STOP_MARGIN * self.ttl_s

    def may_start(self, unit: str, revision: int) -> bool:
        """Tell whether a copy for the placement at `revision` may start now."""
        known = self.units.get(unit)
        if known is None or known.revision != revision:
            return False
        return self.clock() < known.until - START_MARGIN * self.ttl_s

    def start_by(self, unit: str) -> float | None:
        """Return until when a start may take effect; None for an ordinary unit."""
        known = self.units.get(unit)
        return None if known is None else self.stop_at(known)

    def may_run(self, unit: str) -> bool:
        """Tell whether a copy may be started again where it is; a unit without a deadline is an ordinary one."""
        by = self.start_by(unit)
        return by is None or self.clock() < by
