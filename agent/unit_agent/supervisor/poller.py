"""Waiting for files: a poll loop of one turn at a time."""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Poller:
    """Calls the handler of each file that has something to read, or whose other end is gone."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], object]] = {}

    def add(self, file: int, handler: Callable[[], object], events: int = select.POLLIN) -> None:
        self._handlers[file] = handler
        self._poll.register(file, events)

    def remove(self, file: int) -> None:
        if self._handlers.pop(file, None) is not None:
            self._poll.unregister(file)

    def turn(self, deadline: float | None) -> None:
        """Wait until something can be read or the monotonic time `deadline`, and handle what came."""
        wait_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        for file, _ in self._poll.poll(None if wait_ms is None else min(int(wait_ms) + 1, 3_600_000)):
            handler = self._handlers.get(file)
            if handler is not None:
                handler()
