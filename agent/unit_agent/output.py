"""What units write, on its way from a driver to the store of logs: plain tuples, for there are many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

OutputLine = tuple[float, str, bytes]
"""When it was written (seconds since 1970), its stream (stdout, stderr, or `gap`: lines were lost), its text."""

OutputBatch = tuple[Sequence[OutputLine], str]
"""Lines, and the mark behind them: where to read on."""

LONGEST_LINE = 256 * 1024
"""Bytes that are kept of a line."""


class Limit(Protocol):
    """How much a unit may write. Who reads asks before lines are made: most of a flood is dropped anyway."""

    def drops(self, at: float) -> bool:
        """Tell whether lines that were written at this time are dropped."""
        ...

    def dropped(self, lines: int, size: int) -> None:
        """Count what was left out."""
        ...


def cut(text: bytes, length: int | None = None) -> bytes:
    """Return a line as it is kept; one that is too long (`length` bytes in all) ends in how long it was."""
    length = len(text) if length is None else length
    if length <= LONGEST_LINE:
        return text
    return text[:LONGEST_LINE] + f" … {length} bytes, cut".encode()
