"""What the processes of a copy use, for what no control group counts: figures of a tree, open files.

A unit of the process driver is all that lives below its supervisor, which is the subreaper of its children:
what has ended is in the supervisor's own account of them, so that the CPU time of a unit never goes down.
psutil knows the same, at ten times the cost a process: hundreds are looked at in each sample.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unit_agent.cgroups.files import content, entry
from unit_agent.cgroups.reader import UNKNOWN

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

MOST_LOOKED_INTO = 64
"""Processes of one copy whose open files are counted: each costs a list of its descriptors."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A process: its CPU time, that of the children it has reaped, and its resident memory."""

    pid: int
    parent: int
    cpu_s: float
    reaped_s: float
    resident: int


def table(proc: Path = Path("/proc")) -> dict[int, list[Seen]]:
    """Return every live process by its parent's pid (proc(5), /proc/PID/stat)."""
    found: dict[int, list[Seen]] = {}
    for name in os.listdir(proc):
        if name.isdigit() and (seen := _read(content(f"{proc}/{name}/stat"), int(name))) is not None:
            found.setdefault(seen.parent, []).append(seen)
    return found


def look(pid: int, proc: Path = Path("/proc")) -> Seen | None:
    """Return one process, None when it is gone or a zombie."""
    return _read(content(f"{proc}/{pid}/stat"), pid)


def below(pid: int, processes: dict[int, list[Seen]]) -> list[Seen]:
    """Return all processes below `pid`, itself not among them."""
    found: list[Seen] = []
    parents = [pid]
    while parents:
        children = processes.get(parents.pop(), [])
        found.extend(children)
        parents.extend(child.pid for child in children)
    return found


def _read(stat: bytes, pid: int) -> Seen | None:
    fields = stat[stat.rfind(b")") + 2 :].split()
    if len(fields) < 22 or fields[0] in b"ZX":
        return None
    user, system, reaped_user, reaped_system = (int(ticks) for ticks in fields[11:15])
    return Seen(
        pid=pid,
        parent=int(fields[1]),
        cpu_s=(user + system) * TICK_S,
        reaped_s=(reaped_user + reaped_system) * TICK_S,
        resident=int(fields[21]) * PAGE,
    )


def io_bytes(pid: int, proc: Path = Path("/proc")) -> tuple[int, int]:
    """Return what a process has read from and written to disks (/proc/PID/io), -1 each when not to be known."""
    text = content(f"{proc}/{pid}/io")
    return entry(text, b"read_bytes:"), entry(text, b"write_bytes:")


def open_files(pids: Iterable[int], proc: Path = Path("/proc")) -> tuple[int, int]:
    """Return how many files the one of these processes with the most has open, and how many it may have.

    -1 and 0 when that can't be seen. A limit of 0 is none. Of many processes the first ones are looked into.
    """
    most, limit = UNKNOWN, 0
    for pid in list(pids)[:MOST_LOOKED_INTO]:
        try:
            count = len(os.listdir(f"{proc}/{pid}/fd"))
        except OSError:
            continue
        if count > most:
            most, limit = count, _files_limit(content(f"{proc}/{pid}/limits"))
    return most, limit


def _files_limit(limits: bytes) -> int:
    """Return the soft limit of `Max open files            1024                 4096                 files`."""
    for line in limits.splitlines():
        if line.startswith(b"Max open files"):
            soft = line.split()[3]
            return int(soft) if soft.isdigit() else 0
    return 0


def members(directories: Sequence[str]) -> list[int]:
    """Return the processes of a control group, from the first of its directories that tells."""
    for directory in directories:
        words = content(directory + "/cgroup.procs").split()
        if words:
            return [int(word) for word in words]
    return []
