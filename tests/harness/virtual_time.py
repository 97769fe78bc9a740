"""An event loop whose clock jumps: when nothing is ready, time goes straight to the next timer.

    result = run_virtual(story(), limit_s=3600)

An hour of timers takes as long as its work. The order of everything is that of asyncio itself, so a run with
the same seeds is the same run. No threads and no real waits on the outside: nobody would wait for them.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

BUSY_LIMIT = 1_000_000
"""So many rounds without time passing are a task that never rests."""


class _JumpingSelector(selectors.SelectSelector):
    """A selector that never waits: what would have been the wait is added to `now`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError(f"nothing will ever happen: every task waits without a timer at {self.now:.3f} s")
        if timeout > 0:
            self.now += timeout
            self._rounds = 0
        else:
            self._rounds += 1
            if self._rounds > BUSY_LIMIT:
                raise RuntimeError(f"time stands still at {self.now:.3f} s: a task never rests")
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop; `time()` begins at 0 and counts virtual seconds."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._jumping.now


def run_virtual(coro: Coroutine[Any, Any, T], *, limit_s: float) -> T:
    """Run to the end and return the result; raises AssertionError when `limit_s` virtual seconds don't suffice."""

    async def limited() -> T:
        scope = asyncio.timeout(limit_s)
        try:
            async with scope:
                return await coro
        except TimeoutError as error:
            if scope.expired():
                raise AssertionError(f"not done after {limit_s} virtual seconds") from error
            raise

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(limited())
