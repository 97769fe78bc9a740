"""cgroupspy as the reader of v1, for what it reads right (docs/resources.md); the rest is read directly.

It has no pids controller, its blkio files are not those of a kernel with `throttle` counters alone, and of v2
it knows nothing. A `Node` is made for each directory that is read: a `Tree` would walk the whole hierarchy.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from cgroupspy.nodes import Node

from unit_agent.cgroups.places import Hierarchy
from unit_agent.cgroups.reader import UNKNOWN, Group, GroupFigures, GroupLimits
from unit_agent.cgroups.v1 import NO_LIMIT, V1Reader

_READS = ("cpu", "cpuacct", "memory")


class SpyReader:
    """Reads CPU, throttling, memory and OOM kills through cgroupspy."""

    def __init__(self, mounted: dict[str, Hierarchy], proc: Path = Path("/proc")) -> None:
        self._direct = V1Reader(mounted, proc)

    @property
    def name(self) -> str:
        return "cgroupspy"

    def find(self, pid: int, mark: str) -> Group | None:
        return self._direct.find(pid, mark)

    def figures(self, group: Group) -> GroupFigures:
        rest = {name: path for name, path in group.directories.items() if name not in _READS}
        direct = self._direct.figures(Group(group.path, rest))
        controllers = _controllers(group)
        cpu = _get(controllers.get("cpuacct"), "usage")
        throttled = (_get(controllers.get("cpu"), "stat") or {}).get("throttled_time")
        usage = _get(controllers.get("memory"), "usage_in_bytes")
        idle = (_get(controllers.get("memory"), "stat") or {}).get("total_inactive_file", 0)
        ooms = _get(controllers.get("memory"), "oom_control")
        return dataclasses.replace(
            direct,
            cpu_s=UNKNOWN if cpu is None else cpu / 1e9,
            throttled_s=UNKNOWN if throttled is None else throttled / 1e9,
            memory=UNKNOWN if usage is None else max(0, usage - idle),
            memory_usage=UNKNOWN if usage is None else usage,
            oom_kills=ooms.get("oom_kill", UNKNOWN) if isinstance(ooms, dict) else UNKNOWN,
        )

    def limits(self, group: Group) -> GroupLimits:
        controllers = _controllers(group)
        period = _get(controllers.get("cpu"), "cfs_period_us")
        quota = _get(controllers.get("cpu"), "cfs_quota_us") or 0  # None: no limit
        memory = _get(controllers.get("memory"), "limit_in_bytes")
        return GroupLimits(
            cpu=round(quota / period, 3) if period else UNKNOWN,
            memory=UNKNOWN if memory is None else 0 if memory >= NO_LIMIT else memory,
        )


def _controllers(group: Group) -> dict[str, Any]:
    """Return cgroupspy's controllers of the group. Each gets its node, whose path is all it looks at."""
    found = {}
    for name in _READS:
        if name in group.directories:
            controller = Node.CONTROLLERS[name.encode()]
            found[name] = controller(Node(group.directories[name]))
    return found


def _get(controller: Any, what: str) -> Any:
    """Return one value, None where the file or its content is not there."""
    try:
        return getattr(controller, what) if controller is not None else None
    except (OSError, ValueError):
        return None
