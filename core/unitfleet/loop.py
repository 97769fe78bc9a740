"""What loops of masters and agents share: to go on at once on change, and at least every so often."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def reconcile_forever(
    reconcile: Callable[[], Awaitable[float | None]], changed: asyncio.Event, interval_s: float
) -> None:
    """Call `reconcile` now, whenever `changed` is set, and at least every `interval_s` seconds.

    `reconcile` may return in how many seconds it wants to be called again at the latest. Watches set `changed`
    and make it quick; the interval makes it right: a missed event heals by itself. An exception of `reconcile`
    ends the loop: the caller knows whether to begin anew.
    """
    while True:
        changed.clear()
        wanted = await reconcile()
        try:
            async with asyncio.timeout(interval_s if wanted is None else min(wanted, interval_s)):
                await changed.wait()
        except TimeoutError:
            pass  # nothing changed: look anyway


def run_out(scope: asyncio.Timeout) -> None:
    """Let a timeout run out now. One that does already is left: asyncio raises `RuntimeError` for it."""
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time())
