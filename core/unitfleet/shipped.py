"""A line of a unit's output as it leaves its machine: what sinks carry and what the masters' archive takes.

One JSON object a line, the same in every sink that carries whole records. `key` is the line's for ever: two
lines with one key are one line that was sent twice.
"""

from __future__ import annotations

import msgspec

GAP = "gap"
"""The stream of a line that stands for lines that were lost before they could be shipped: its text says which."""


class ShippedLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. `machine` is the id of where it was written, `name` what that machine was called then.

    `seq` rises by one a unit and machine; `at` is seconds since 1970; `stream` is stdout, stderr, file (then
    `file` is the path in the container) or `gap`.
    """

    unit: str
    machine: str
    name: str = ""
    epoch: int = 0
    seq: int
    at: float
    stream: str
    text: str
    file: str = ""

    @property
    def key(self) -> str:
        """The idempotent key: `machine/unit/seq`."""
        return f"{self.machine}/{self.unit}/{self.seq}"


LATEST = 253_402_214_400.0
"""The last day that calendars here know, of the year 9999."""

MOST = 2**63 - 1


def fault(line: ShippedLine) -> str | None:
    """Return what no agent would write in a line, and no archive could hold or show; None when it is well."""
    if not 0 <= line.seq <= MOST:
        return f"its seq is not from 0 to {MOST}"
    if not 0 <= line.epoch <= MOST:
        return f"its epoch is not from 0 to {MOST}"
    if not 0.0 <= line.at <= LATEST:
        return "its time is not within the years 1970 to 9999"
    return None


encode = msgspec.json.Encoder().encode
"""Write a line as JSON, without a newline."""
