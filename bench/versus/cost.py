"""CPU time of everybody who takes part, and of those who do not.

The Engines' is exact: cpuacct counts dockerd, containerd, shims, runc and the containers of each host, also those
that ended. That of agents, masters and etcd is from /proc, in ticks of 10 ms.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.sites import Lab

_CPUACCT = Path("/sys/fs/cgroup/cpuacct")
_PIDS = Path("/sys/fs/cgroup/pids")


def available() -> str | None:
    """Return why no CPU time can be told here, or None."""
    return None if _CPUACCT.is_dir() else f"needs cgroup v1: {_CPUACCT} is not there"


def account(lab: Lab) -> None:
    """Have the CPU time of the Engines counted from now on; to be repeated after a boot."""
    for host in range(lab.engines.hosts):
        space = lab.engines.namespace(host)
        counted = _CPUACCT / space / "daemon"
        counted.mkdir(parents=True, exist_ok=True)
        for pid in daemons(lab, host):
            (counted / "cgroup.procs").write_text(str(pid))


def daemons(lab: Lab, host: int) -> list[int]:
    """Return the processes of a host's Engine: dockerd, containerd, shims."""
    procs = _PIDS / lab.engines.namespace(host) / "daemon/cgroup.procs"
    return [int(pid) for pid in procs.read_text().split()]


def engines_cpu_s(lab: Lab) -> float:
    """Return the CPU time that the Engines and containers of all hosts took since `account`."""
    spaces = [lab.engines.namespace(host) for host in range(lab.engines.hosts)]
    return sum(int((_CPUACCT / space / "cpuacct.usage").read_text()) / 1e9 for space in spaces)


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds of each who took part, and cores that others kept busy on average."""

    seconds: float
    cpu_s: dict[str, float]
    foreign_cores: float

    def ms_each(self, count: int) -> dict[str, float]:
        """Return the milliseconds for each of `count` containers."""
        return {who: round(used * 1e3 / count, 2) for who, used in self.cpu_s.items()}


class Meter:
    """Counts from when it is made."""

    def __init__(self, lab: Lab, pids: Mapping[str, Sequence[int]]) -> None:
        self._lab = lab
        self._pids = pids
        self._began = time.monotonic()
        self._engines, self._busy = engines_cpu_s(lab), _busy_s() - _own_s()
        self._before = {pid: _process_s(pid) for held in pids.values() for pid in held}

    def read(self) -> Spent:
        """Return what was spent so far."""
        took = time.monotonic() - self._began
        cpu_s = {"engine": engines_cpu_s(self._lab) - self._engines}
        for who, pids in self._pids.items():
            cpu_s[who] = sum(max(0.0, _process_s(pid) - self._before[pid]) for pid in pids)
        busy = _busy_s() - _own_s() - self._busy
        return Spent(took, cpu_s, round(max(0.0, busy - sum(cpu_s.values())) / took, 2))


def _process_s(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:  # it lost its power meanwhile
        return 0.0
    return float(times.user + times.system)


def _busy_s() -> float:
    ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    return sum(os.times()[:4])
