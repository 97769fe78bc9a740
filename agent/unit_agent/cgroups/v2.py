"""Control groups v2, read directly: the kernel's Documentation/admin-guide/cgroup-v2.rst."""

from __future__ import annotations

import os
from pathlib import Path

from unit_agent.cgroups import files
from unit_agent.cgroups.places import UNIFIED, Hierarchy, group_of
from unit_agent.cgroups.reader import UNKNOWN, Group, GroupFigures, GroupLimits


class V2Reader:
    """Reads a group's one directory."""

    def __init__(self, mounted: Hierarchy, proc: Path = Path("/proc")) -> None:
        self._mounted = {UNIFIED: mounted}
        self._proc = proc

    @property
    def name(self) -> str:
        return "v2"

    def find(self, pid: int, mark: str) -> Group | None:
        return group_of(self._proc, self._mounted, pid, mark)

    def figures(self, group: Group) -> GroupFigures:
        here = group.directories[UNIFIED]
        cpu = files.content(here + "/cpu.stat")
        usage = files.number(here + "/memory.current")
        idle = files.entry(files.content(here + "/memory.stat"), b"inactive_file")
        read, write = _io(here + "/io.stat")
        pressure = {
            what: files.some_avg60(files.content(f"{here}/{what}.pressure")) for what in ("cpu", "memory", "io")
        }
        return GroupFigures(
            cpu_s=_seconds(files.entry(cpu, b"usage_usec")),
            throttled_s=_seconds(files.entry(cpu, b"throttled_usec")),
            memory=max(0, usage - max(0, idle)) if usage >= 0 else UNKNOWN,
            memory_usage=usage,
            oom_kills=files.entry(files.content(here + "/memory.events"), b"oom_kill"),
            processes=files.number(here + "/pids.current"),
            read_bytes=read,
            write_bytes=write,
            pressure={what: share for what, share in pressure.items() if share >= 0},
        )

    def limits(self, group: Group) -> GroupLimits:
        here = group.directories[UNIFIED]
        memory = files.content(here + "/memory.max").strip()
        return GroupLimits(
            cpu=_cores(files.content(here + "/cpu.max").split()),
            memory=0 if memory == b"max" else int(memory) if memory.isdigit() else UNKNOWN,
        )


def _seconds(microseconds: int) -> float:
    return microseconds / 1e6 if microseconds >= 0 else UNKNOWN


def _cores(words: list[bytes]) -> float:
    """Read `cpu.max`: a quota or `max`, and the period."""
    if len(words) == 2 and words[0] == b"max":
        return 0.0
    if len(words) != 2 or not (words[0].isdigit() and words[1].isdigit() and int(words[1])):
        return UNKNOWN
    return round(int(words[0]) / int(words[1]), 3)


def _io(path: str) -> tuple[int, int]:
    """Return bytes read and written, over the devices: `8:0 rbytes=1 wbytes=2 rios=3 …`."""
    text = files.content(path)
    if not text and not os.path.exists(path):
        return UNKNOWN, UNKNOWN
    totals = {b"rbytes": 0, b"wbytes": 0}
    for word in text.split():
        key, _, value = word.partition(b"=")
        if key in totals and value.isdigit():
            totals[key] += int(value)
    return totals[b"rbytes"], totals[b"wbytes"]
