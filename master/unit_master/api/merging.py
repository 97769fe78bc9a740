"""Merges lines of several machines in order of time, without holding more than a piece of each."""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from unitfleet.api import LogLine


async def merged(parts: Sequence[AsyncIterator[list[LogLine]]], batch: int) -> AsyncGenerator[list[LogLine], None]:
    """Yield the lines of all parts by time, those of one part in its own order, about `batch` at a time.

    A part whose times step back (two streams of one unit) keeps its order: what comes late stands where it came.
    """
    heap: list[tuple[float, int, int, list[LogLine]]] = []
    for number, part in enumerate(parts):
        lines = await _following(part)
        if lines:
            heapq.heappush(heap, (lines[0].at, number, 0, lines))
    ready: list[LogLine] = []
    while heap:
        _, number, index, lines = heap[0]
        ready.append(lines[index])
        index += 1
        if index == len(lines):
            lines, index = await _following(parts[number]), 0
        if lines:
            heapq.heapreplace(heap, (lines[index].at, number, index, lines))
        else:
            heapq.heappop(heap)
        if len(ready) >= batch:
            yield ready
            ready = []
    if ready:
        yield ready


async def _following(part: AsyncIterator[list[LogLine]]) -> list[LogLine]:
    """Return the next lines of a part; [] at its end."""
    async for lines in part:
        if lines:
            return lines
    return []
