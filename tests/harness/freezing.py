"""Freezing a process: a signal takes hold a moment later, and until then a thread may still answer."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

STANDING_S = 5.0


def freeze(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, and return once each of its threads stands still."""
    process.send_signal(signal.SIGSTOP)
    until = time.monotonic() + STANDING_S
    while not all(_stands(stat) for stat in Path(f"/proc/{process.pid}/task").glob("*/stat")):
        assert time.monotonic() < until, f"process {process.pid} does not stop"
        time.sleep(0.001)


def _stands(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(") ")[2].startswith("T")
    except OSError:
        return True  # the thread has ended
