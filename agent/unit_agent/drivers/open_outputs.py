"""Whose output is being read: a copy is removed only after what it wrote was read, or would not be in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

READ_OUT_S = 2.0


class OpenOutputs:
    """The readers of a driver's `output`."""

    def __init__(self) -> None:
        self._readers: dict[str, dict[asyncio.Event, Callable[[], object]]] = {}

    @contextlib.contextmanager
    def reading(self, unit: str, wake: Callable[[], object]) -> Iterator[asyncio.Event]:
        """Count a reader, which `wake` makes look; it sets the event given when it has read all there is."""
        event = asyncio.Event()
        self._readers.setdefault(unit, {})[event] = wake
        try:
            yield event
        finally:
            event.set()
            readers = self._readers[unit]
            del readers[event]
            if not readers:
                del self._readers[unit]

    async def read_out(self, unit: str) -> None:
        """Wait until all readers of a unit, whose copy does not run any more, have read all; not for long."""
        readers = dict(self._readers.get(unit, {}))
        for event, wake in readers.items():
            event.clear()
            wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_OUT_S):
                for event in readers:
                    await event.wait()
