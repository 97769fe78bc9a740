"""A line of a unit's output, and what the local store of them promises to those who read and ship it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class LogRecord(NamedTuple):
    """One line. `seq` rises by one a unit and machine, for ever: (machine, unit, seq) is its idempotent key.

    `at` is when the unit wrote it, seconds since 1970; `stream` stdout, stderr, `file`, then `file` is the path in
    the container, or `gap`: lines are missing here, the text says why. A line longer than the store takes is cut,
    its text says by how much.
    """

    unit: str
    epoch: int
    seq: int
    at: float
    stream: str
    text: str
    file: str = ""


class Span(NamedTuple):
    """What is held of a unit: sequence numbers from `first` to `last`, inclusive; last < first: nothing."""

    first: int
    last: int


class LogStore(Protocol):
    """Lines of all units of this machine, on disk; read by `logs`, by the search and by every shipper."""

    @property
    def changed(self) -> asyncio.Event:
        """Set whenever lines came; whoever waits on it clears it first, then looks."""
        ...

    def units(self) -> Sequence[str]:
        """Return the units that any line is held of, those that left long ago too."""
        ...

    def span(self, unit: str) -> Span:
        """Return what is held of a unit now; what was before `first` is gone."""
        ...

    async def read(self, unit: str, after: int, limit: int) -> list[LogRecord]:
        """Return at most `limit` lines with a sequence number above `after`, in order; [] when there are none."""
        ...

    def acknowledge(self, sink: str, unit: str, seq: int) -> None:
        """Note that a sink has everything up to `seq`: what no sink waits for may go first when space is short."""
        ...
