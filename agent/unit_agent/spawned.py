"""Processes that this agent started and that outlive it: what has ended is reaped, nothing is waited for."""

from __future__ import annotations

import os

LEAN = ("-I", "-S", "-OO", "-X", "no_debug_ranges")
"""How their Python is run: no site, docstrings or columns in memory."""


def reap(pids: set[int]) -> None:
    """Take those that have ended out of `pids`, and their zombies with them."""
    for pid in list(pids):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid
        if ended:
            pids.discard(pid)
