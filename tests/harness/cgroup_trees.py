"""Trees of files as the kernel shows them: /proc and control groups of v1 and v2, made for a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MIB = 1024 * 1024
ID = "0123456789abcdef" * 4

V1 = {
    "cpuacct/cpuacct.usage": "12500000000\n",
    "cpu/cpu.stat": "nr_periods 40\nnr_throttled 7\nthrottled_time 3500000000\n",
    "cpu/cpu.cfs_period_us": "100000\n",
    "cpu/cpu.cfs_quota_us": "50000\n",
    "memory/memory.usage_in_bytes": f"{96 * MIB}\n",
    "memory/memory.stat": f"cache 1\ninactive_file 5\ntotal_cache 1\ntotal_inactive_file {32 * MIB}\ntotal_x 9\n",
    "memory/memory.limit_in_bytes": f"{128 * MIB}\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "pids/pids.current": "5\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": (
        "8:0 Read 1000\n8:0 Write 2000\n8:0 Sync 3000\n8:0 Total 3000\n8:16 Read 1\n8:16 Write 2\nTotal 3003\n"
    ),
}
"""One container of v1: 12.5 s of CPU, 96 MiB of which 32 can be dropped, 5 processes."""

V2 = {
    "cgroup.controllers": "cpu io memory pids\n",
    "cpu.stat": "usage_usec 12500000\nuser_usec 1\nnr_periods 40\nnr_throttled 7\nthrottled_usec 3500000\n",
    "cpu.max": "50000 100000\n",
    "memory.current": f"{96 * MIB}\n",
    "memory.stat": f"anon 4096\nfile 1\ninactive_file {32 * MIB}\nactive_file 2\n",
    "memory.max": f"{128 * MIB}\n",
    "memory.events": "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
    "pids.current": "5\n",
    "io.stat": "8:0 rbytes=1000 wbytes=2000 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1\n",
    "cpu.pressure": "some avg10=9.00 avg60=1.25 avg300=0.40 total=123\nfull avg10=0.00 avg60=0.00 total=0\n",
    "memory.pressure": "some avg10=0.00 avg60=0.50 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 total=0\n",
    "io.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 total=0\n",
}
"""The same container of v2."""


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write files below `root`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def v1_host(root: Path, *, group: str = f"docker/{ID}", pid: int = 42, files: Mapping[str, str] = V1) -> Path:
    """Make a v1 host with one container in `group`, cpu and cpuacct mounted together; return its /proc."""
    mounts = {"memory": "memory", "cpu,cpuacct": "cpu,cpuacct", "pids": "pids", "blkio": "blkio"}
    lines = [
        f"{30 + n} 25 0:{26 + n} / {root}/cg/{folder.replace(',', ' ').split()[0]} rw - cgroup cgroup rw,{names}"
        for n, (folder, names) in enumerate(mounts.items())
    ]
    lines.append(f"50 25 0:50 / {root}/cg/unified rw - cgroup2 cgroup2 rw")
    lines.append(f"51 25 0:51 / {root}/cg/systemd rw - cgroup cgroup rw,name=systemd")
    paths = [f"4:memory:/{group}", f"3:cpu,cpuacct:/{group}", f"2:pids:/{group}", f"1:blkio:/{group}", "0::/"]
    for name, text in files.items():
        controller, _, file = name.partition("/")
        where = "cpu" if controller == "cpuacct" else controller
        write(root / "cg" / where / group, {file: text})
    write(root / "cg/unified", {"cgroup.controllers": "hugetlb\n"})
    write(root / "proc", {"self/mountinfo": "\n".join(lines) + "\n", f"{pid}/cgroup": "\n".join(paths) + "\n"})
    write(root / "proc", {"self/cgroup": "4:memory:/agent\n3:cpu,cpuacct:/agent\n2:pids:/\n1:blkio:/\n0::/\n"})
    return root / "proc"


def v2_host(root: Path, *, group: str = f"system.slice/docker-{ID}.scope", pid: int = 42) -> Path:
    """Make a v2 host with one container in `group`; return its /proc."""
    write(root / "cg", {"cgroup.controllers": "cpuset cpu io memory pids\n"})
    write(root / "cg" / group, V2)
    write(
        root / "proc",
        {
            "self/mountinfo": f"30 25 0:26 / {root}/cg rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
            "self/cgroup": "0::/system.slice/unit-agent.service\n",
            f"{pid}/cgroup": f"0::/{group}\n",
        },
    )
    return root / "proc"
