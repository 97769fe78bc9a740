"""Remove the control groups that an agent made for its process units: a machine that is gone leaves none."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_TOP = Path("/sys/fs/cgroup")
_DEPTH = 4  # how far below the top an agent under test may be
_WITHIN_S = 10.0


def machine_of(state_dir: Path) -> str:
    """Return the id of the machine with this state directory, "" when its agent never ran."""
    try:
        return str(json.loads((state_dir / "machine.json").read_bytes())["id"])
    except (OSError, ValueError, KeyError):
        return ""


def groups_of(machine: str) -> list[Path]:
    """Return the top group of a machine in each hierarchy."""
    name = f"unitfleet-{machine[:12]}"
    found = []
    for folder, below, _ in os.walk(_TOP):  # unlike glob it passes over what goes away meanwhile
        if name in below:
            found.append(Path(folder) / name)
        if folder.count("/") >= _DEPTH + str(_TOP).count("/"):
            below.clear()
    return found


def remove_groups(machines: Iterable[str]) -> None:
    """End what is in the groups of these machines, and remove them; raises TimeoutError when they stay."""
    deadline = time.monotonic() + _WITHIN_S
    for machine in filter(None, machines):
        while tops := groups_of(machine):
            for top in tops:
                _empty(top)
            if time.monotonic() > deadline:
                raise TimeoutError(f"cannot remove {tops}")
            time.sleep(0.01)


def _empty(top: Path) -> None:
    for directory in (*(path for path in top.glob("*") if path.is_dir()), top):
        with contextlib.suppress(OSError):
            for pid in (directory / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(OSError):
            directory.rmdir()
