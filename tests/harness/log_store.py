"""A `LogStore` in memory, for tests of what reads it: lines that a test writes, and room that it takes away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from unit_agent.logs.record import LogRecord, Span

AT = 1_700_000_000.0


class MemoryLogStore:
    """Keeps every line until `drop`. Each unit's lines are numbered from 1."""

    def __init__(self) -> None:
        self._lines: dict[str, list[LogRecord]] = {}
        self._next: dict[str, int] = {}
        self._changed = asyncio.Event()
        self.acknowledged: dict[tuple[str, str], int] = {}
        self.reads = 0

    @property
    def changed(self) -> asyncio.Event:
        """Set whenever lines came."""
        return self._changed

    def write(self, unit: str, *texts: str, stream: str = "stdout", at: float = 0.0) -> None:
        """Take lines, a millisecond apart."""
        held = self._lines.setdefault(unit, [])
        for text in texts:
            seq = self._next.get(unit, 1)
            self._next[unit] = seq + 1
            held.append(LogRecord(unit, 1, seq, at or AT + seq / 1000, stream, text))
        self._changed.set()

    def number(self, unit: str, count: int) -> None:
        """Take so many lines, each with its number as text."""
        first = self._next.get(unit, 1)
        self.write(unit, *(f"line {seq}" for seq in range(first, first + count)))

    def drop(self, unit: str, up_to: int) -> None:
        """Let go of lines, as a store without room does."""
        self._lines[unit] = [record for record in self._lines[unit] if record.seq > up_to]

    def units(self) -> Sequence[str]:
        """Return the units that have a line."""
        return [unit for unit, lines in self._lines.items() if lines]

    def span(self, unit: str) -> Span:
        """Return what is held."""
        lines = self._lines.get(unit)
        following = self._next.get(unit, 1)
        return Span(lines[0].seq, lines[-1].seq) if lines else Span(following, following - 1)

    async def read(self, unit: str, after: int, limit: int) -> list[LogRecord]:
        """Return lines above a number."""
        await asyncio.sleep(0)
        self.reads += 1
        lines = self._lines.get(unit, [])
        if not lines:
            return []
        begin = max(0, after + 1 - lines[0].seq)
        return lines[begin : begin + limit]

    def acknowledge(self, sink: str, unit: str, seq: int) -> None:
        """Remember it."""
        self.acknowledged[sink, unit] = seq
