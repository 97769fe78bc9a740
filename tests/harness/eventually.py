"""Wait for a condition with a deadline: what tests do in place of sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    look: Callable[[], Awaitable[T]], *, within_s: float, what: Callable[[], str], every_s: float = 0.02
) -> T:
    """Await `look` again and again until it returns something true, and return that.

    After `within_s` seconds it raises `AssertionError` with `what`, asked only then.
    """
    try:
        async with asyncio.timeout(within_s):
            while not (found := await look()):  # noqa: ASYNC110 (what is waited for lies outside this process)
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise AssertionError(f"waited {within_s:g} s in vain: {what()}") from None
    return found
