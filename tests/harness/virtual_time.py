"""An event loop whose clock jumps: when nothing is ready, time goes straight to the next timer.

    result = run_virtual(story(), limit_s=3600)

An hour of timers takes as long as its work. The order of everything is that of asyncio itself, so a run with
the same seeds is the same run. No threads and no real waits on the outside: nobody would wait for them.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 4
"""So many times the limit may pass until what is cancelled then has ended."""

BUSY_LIMIT = 1_000_000
"""So many rounds without time passing are a task that never rests."""


class NeverRests(RuntimeError):
    """A task that works on and on while time stands still."""


class JumpingSelector(selectors.SelectSelector):
    """A selector that never waits: what would have been the wait is added to `now`."""

    def __init__(self, busy_limit: int = BUSY_LIMIT) -> None:
        super().__init__()
        self.now = 0.0
        self.end = math.inf
        self._busy_limit = busy_limit
        self._rounds = 0

    def look(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what came from outside."""
        return super().select(0)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if ready := self.look():
            return ready
        if self.now > self.end:
            raise RuntimeError(f"what was cancelled has not ended at {self.now:.0f} s")
        if timeout is None:
            raise RuntimeError(f"nothing will ever happen: every task waits without a timer at {self.now:.3f} s")
        if timeout > 0:
            self.now += timeout
            self._rounds = 0
        else:
            self._rounds += 1
            if self._rounds > self._busy_limit:
                raise NeverRests(f"time stands still at {self.now:.3f} s: a task never rests")
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop; `time()` begins at 0 and counts virtual seconds."""

    _ready: Any  # asyncio's own: handles to run next, and timers
    _scheduled: Any

    def __init__(self, selector: JumpingSelector | None = None) -> None:
        self._jumping = selector or JumpingSelector()
        super().__init__(self._jumping)

    def end_at(self, now: float) -> None:
        """Fail at this virtual second."""
        self._jumping.end = now

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._jumping.now


def run_virtual(
    coro: Coroutine[Any, Any, T], *, limit_s: float, loop: Callable[[], VirtualTimeLoop] = VirtualTimeLoop
) -> T:
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

    def bounded() -> VirtualTimeLoop:
        made = loop()
        made.end_at(PATIENCE * limit_s)
        return made

    with asyncio.Runner(loop_factory=bounded) as runner:
        return runner.run(limited())
