"""What is searched for, and what a line is held as."""

from __future__ import annotations

import re

import msgspec

from unitfleet import names
from unitfleet.shipped import ShippedLine

MOST_LINES = 10_000
EVER = 1e12
"""Later than any line: JSON has no infinity."""

Row = tuple[int, float, int, str, str, str]
"""A line in a block: seq, at, epoch, stream, text, file."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of units that match a glob ("": all), on a machine of this id or name, that match `grep`.

    Times are seconds since 1970; the newest `limit` are found.
    """

    grep: str = ""
    since: float = 0.0
    until: float = EVER
    unit: str = ""
    machine: str = ""
    limit: int = 1000

    def takes_unit(self, unit: str) -> bool:
        """Tell whether the unit's name matches."""
        return not self.unit or self.unit == unit or names.glob_match(self.unit, unit)

    def takes_machine(self, machine: str, name: str) -> bool:
        """Tell whether it is the machine asked for, by id or by name."""
        return not self.machine or self.machine in (machine, name)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found, oldest first. `whole` is False when the time ran out before everything was looked at.

    `lines_read` and `blocks` tell what it cost: blocks are those that were unpacked, of so many in the time asked
    for.
    """

    lines: list[ShippedLine]
    whole: bool = True
    lines_read: int = 0
    blocks: int = 0
    blocks_held: int = 0


def compiled(pattern: str) -> re.Pattern[str] | None:
    """Return the pattern, None for the empty one, which matches everything; raises `re.error`."""
    return re.compile(pattern) if pattern else None
