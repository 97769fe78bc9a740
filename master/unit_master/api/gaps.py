"""Lines that stand where lines are missing."""

from __future__ import annotations

from datetime import UTC, datetime

from unitfleet.api import LogLine
from unitfleet.shipped import GAP


def gap(at: float, unit: str, machine: str, text: str) -> LogLine:
    """Return a line of the stream `gap`."""
    return LogLine(at=at, stream=GAP, text=text, machine=machine, unit=unit)


def moment(at: float) -> str:
    """Write a time for a message, as UTC: whoever reads it may be anywhere."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
