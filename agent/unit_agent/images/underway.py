"""Whether this agent pulls images now: for who makes room for pulls, or keeps them in bounds, only meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


class Underway:
    """The pulls that run. `changed` hears when the first begins and when the last has ended; it never raises."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._count = 0
        self._ended: float | None = None
        self.changed: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count a pull meanwhile."""
        self._count += 1
        if self._count == 1:
            self.changed()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._ended = self._now()
                self.changed()

    def within(self, seconds: float) -> bool:
        """Tell whether a pull runs, or ended so lately that the next may follow."""
        return self._count > 0 or (self._ended is not None and self._now() - self._ended < seconds)
