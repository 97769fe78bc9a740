"""Waits between attempts: exponential, with full jitter, so that many agents don't come back in step."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Delays between 0 and a bound that doubles from `first_s` to `most_s`."""

    def __init__(self, rng: random.Random, first_s: float, most_s: float) -> None:
        self._rng = rng
        self._first_s = first_s
        self._most_s = most_s
        self._attempts = 0

    def next(self) -> float:
        """Return how long to wait before the next attempt."""
        bound = min(self._most_s, self._first_s * 2.0 ** min(self._attempts, 30))
        self._attempts += 1
        return self._rng.uniform(0.0, bound)

    def reset(self) -> None:
        """Begin anew after a success."""
        self._attempts = 0


async def pause(event: asyncio.Event, seconds: float) -> bool:
    """Wait until `event` is set, at most `seconds`; tell whether it was."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
