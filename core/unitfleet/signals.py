"""How a daemon is told to end; and that SIGHUP, by which fleet's read its settings anew, does not end it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Sequence

logger = logging.getLogger(__name__)


async def until_told(work: Awaitable[None], signals: Sequence[signal.Signals]) -> str:
    """Run `work` until it ends or one of `signals` comes, which cancels it; return that signal's name, or ""."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    told: list[str] = []

    def stop(name: str) -> None:
        told.append(name)
        task.cancel()

    def stay() -> None:
        logger.info("went on after SIGHUP: settings are read at the start, restart this daemon for new ones")

    for each in signals:
        loop.add_signal_handler(each, stop, each.name)
    loop.add_signal_handler(signal.SIGHUP, stay)
    try:
        await work
    except asyncio.CancelledError:
        if not told:
            raise
        task.uncancel()
    finally:
        for each in (*signals, signal.SIGHUP):
            loop.remove_signal_handler(each)
    return told[0] if told else ""
