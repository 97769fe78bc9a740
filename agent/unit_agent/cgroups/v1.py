"""Control groups v1, read directly: the kernel's Documentation/admin-guide/cgroup-v1/."""

from __future__ import annotations

import os
from pathlib import Path

from unit_agent.cgroups import files
from unit_agent.cgroups.places import Hierarchy, group_of
from unit_agent.cgroups.reader import UNKNOWN, Group, GroupFigures, GroupLimits

NO_LIMIT = 1 << 60
"""Above this memory.limit_in_bytes stands for no limit: it is the largest multiple of a page, near 2^63."""

_IO = ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes")


class V1Reader:
    """Reads a group's directory in each controller's hierarchy."""

    def __init__(self, mounted: dict[str, Hierarchy], proc: Path = Path("/proc")) -> None:
        self._mounted = mounted
        self._proc = proc

    @property
    def name(self) -> str:
        return "v1"

    def find(self, pid: int, mark: str) -> Group | None:
        return group_of(self._proc, self._mounted, pid, mark)

    def figures(self, group: Group) -> GroupFigures:
        cpu = memory = throttled = oom_kills = processes = UNKNOWN
        where = group.directories
        if "cpuacct" in where:
            cpu = files.number(where["cpuacct"] + "/cpuacct.usage")
        if "cpu" in where:
            throttled = files.entry(files.content(where["cpu"] + "/cpu.stat"), b"throttled_time")
        usage = idle = UNKNOWN
        if "memory" in where:
            usage = files.number(where["memory"] + "/memory.usage_in_bytes")
            idle = files.entry(files.content(where["memory"] + "/memory.stat"), b"total_inactive_file")
            oom_kills = files.entry(files.content(where["memory"] + "/memory.oom_control"), b"oom_kill")
        if usage >= 0:
            memory = max(0, usage - max(0, idle))
        if "pids" in where:
            processes = files.number(where["pids"] + "/pids.current")
        read, write = self._io(where["blkio"]) if "blkio" in where else (UNKNOWN, UNKNOWN)
        return GroupFigures(
            cpu_s=cpu / 1e9 if cpu >= 0 else UNKNOWN,
            throttled_s=throttled / 1e9 if throttled >= 0 else UNKNOWN,
            memory=memory,
            memory_usage=usage,
            oom_kills=oom_kills,
            processes=processes,
            read_bytes=read,
            write_bytes=write,
        )

    def limits(self, group: Group) -> GroupLimits:
        cpu: float = UNKNOWN
        memory = UNKNOWN
        where = group.directories
        if "cpu" in where:
            period = files.number(where["cpu"] + "/cpu.cfs_period_us")
            quota = files.number(where["cpu"] + "/cpu.cfs_quota_us")  # -1: none
            cpu = round(max(0, quota) / period, 3) if period > 0 else UNKNOWN
        if "memory" in where:
            memory = files.number(where["memory"] + "/memory.limit_in_bytes")
            memory = 0 if memory >= NO_LIMIT else memory
        return GroupLimits(cpu, memory)

    def _io(self, directory: str) -> tuple[int, int]:
        """Return bytes read and written. Block devices only show what has passed the page cache."""
        for name in _IO:
            path = f"{directory}/{name}"
            text = files.content(path)
            if text or os.path.exists(path):
                return _summed(text, b"Read"), _summed(text, b"Write")
        return UNKNOWN, UNKNOWN


def _summed(text: bytes, operation: bytes) -> int:
    """Sum the lines `8:0 Read 4096` of one operation over the devices."""
    words = (line.split() for line in text.splitlines())
    return sum(int(each[2]) for each in words if len(each) == 3 and each[1] == operation and each[2].isdigit())
