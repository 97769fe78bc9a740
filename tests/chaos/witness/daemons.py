"""How large the daemons are, by /proc: resident memory and open files (I10)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.daemon import Daemon

RSS_MIB = 200.0
OPEN_FILES = 400


@dataclass(frozen=True, slots=True)
class Size:
    """One daemon's resident memory in MiB, and its open files."""

    rss_mib: float
    files: int


def sizes(daemons: Iterable[Daemon]) -> dict[str, Size]:
    """Return the sizes of those that run."""
    found = {}
    for daemon in daemons:
        if not daemon.runs:
            continue
        with contextlib.suppress(OSError):
            pages = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1])
            mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            found[daemon.name] = Size(round(mib, 1), len(os.listdir(f"/proc/{daemon.pid}/fd")))
    return found


def too_large(found: dict[str, Size]) -> list[str]:
    """Return what is above its bound."""
    return [
        f"I10: {name} holds {size.rss_mib:g} MiB and {size.files} files"
        for name, size in found.items()
        if size.rss_mib > RSS_MIB or size.files > OPEN_FILES
    ]
