"""Remove what a lab leaves: processes, mounts, sockets, cgroups, links, namespaces, folders, by its name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from harness.group_leftovers import machine_of, remove_groups

_CGROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def held(root: Path, number: int) -> Iterator[bool]:
    """Hold a lab's number if it is free, until the block ends; gives False when another process has it.

    The file tells of a lab whose process was killed. The name in the abstract namespace of sockets is the same for
    every root folder of this machine: a lab in a chroot has the same bridges and groups.
    """
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{number}.lock"
    with open(path, "w") as lock, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as named:
        try:
            named.bind(f"\0unitfleet-lab-{number}")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # its last holder may have removed it between the two calls
            mine = os.fstat(lock.fileno()).st_ino == path.stat().st_ino
        except OSError:
            mine = False
        try:
            yield mine
        finally:
            if mine:
                path.unlink()
                with contextlib.suppress(OSError):  # other labs are still there
                    root.rmdir()


def sweep_abandoned(root: Path) -> None:
    """Sweep every lab whose lock file is there and whose process is not: it was killed."""
    for path in root.glob("*.lock"):
        number = int(path.stem)
        with held(root, number) as mine:
            if mine:
                sweep(f"uflab{number}", root / path.stem)


def sweep(name: str, folder: Path) -> None:
    """Remove everything of the lab `name` with state folder `folder`; nothing there is fine."""
    mine = re.compile(re.escape(name) + r"-\d+\Z")
    for cgroup in _cgroups(mine):
        kill_cgroup(cgroup)
    for base in sorted(folder.glob("[0-9]*")):
        clear_runtime(base)
    for space in _names("/run/netns", mine):
        _try("ip", "netns", "del", space)
    for link in [*_names("/sys/class/net", mine), *_names("/sys/class/net", re.compile(re.escape(name) + r"\Z"))]:
        _try("ip", "link", "del", link)
    while _try("iptables", "-w", "-D", "FORWARD", "-i", name, "-o", name, "-j", "ACCEPT"):
        pass
    for cgroup in _cgroups(mine):
        _remove_cgroup(cgroup)
    remove_groups(machine_of(base / "state") for base in sorted(folder.glob("[0-9]*")))
    for mount in _mounts_below(folder):  # state directories that are file systems of their own
        _try("umount", "-l", mount)
    shutil.rmtree(folder, ignore_errors=True)


def traces(name: str, folder: Path) -> list[str]:
    """Return what of the lab `name` with state folder `folder` is to be seen on this machine."""
    mine = re.compile(re.escape(name) + r"(-\d+)?\Z")
    found = [f"link {link}" for link in _names("/sys/class/net", mine)]
    found += [f"namespace {space}" for space in _names("/run/netns", mine)]
    found += [str(cgroup) for cgroup in _cgroups(mine)]
    found += _mounts_below(folder)
    rules = subprocess.run(["iptables", "-w", "-S", "FORWARD"], capture_output=True, text=True, timeout=20)
    found += [line for line in rules.stdout.splitlines() if f" {name} " in line]
    return [*found, *([str(folder)] if folder.exists() else [])]


def clear_runtime(base: Path) -> None:
    """Clear what a reboot of the host with this folder clears: mounts, the Engine's run folder, shim sockets."""
    for address in base.glob("run/containerd/daemon/io.containerd.runtime.v2.task/moby/*/address"):
        # the shims of all Engines of this machine share one folder of sockets
        shim = Path(address.read_text().removeprefix("unix://"))
        if shim.is_relative_to("/run/containerd/s"):
            shim.unlink(missing_ok=True)
    for mount in sorted(_mounts_below(base), reverse=True):
        if mount != f"{base}/state":  # what is on a disk outlives a reboot
            _try("umount", "-l", mount)
    shutil.rmtree(base / "run", ignore_errors=True)
    for name in ("pid", "docker.sock"):
        (base / name).unlink(missing_ok=True)


def kill_cgroup(cgroup: Path, *, timeout_s: float = 10.0) -> None:
    """Kill all processes in the cgroup and below, again and again until there are none."""
    deadline = time.monotonic() + timeout_s
    while processes := _processes(cgroup):
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"cannot end the processes of {cgroup}: {processes} are still there")
        time.sleep(0.01)


def _processes(cgroup: Path) -> list[int]:
    found: list[int] = []
    # the daemon's own first: it would start more
    for procs in sorted(cgroup.rglob("cgroup.procs"), key=lambda path: path.parent.name != "daemon"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in procs.read_text().split()]
    return found


def _cgroups(mine: re.Pattern[str]) -> list[Path]:
    hierarchies = [_CGROUPS, *(path for path in _CGROUPS.iterdir() if path.is_dir())]
    return [path for top in hierarchies for path in top.iterdir() if mine.match(path.name) and path.is_dir()]


def _remove_cgroup(cgroup: Path) -> None:
    deadline = time.monotonic() + 5
    while cgroup.exists():
        for folder in sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
        try:
            cgroup.rmdir()
        except OSError:  # processes that were killed a moment ago still count
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _mounts_below(base: Path) -> list[str]:
    mounts = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    return [mount for mount in mounts if mount.startswith(f"{base}/")]


def _names(folder: str, wanted: re.Pattern[str]) -> list[str]:
    path = Path(folder)
    return [entry.name for entry in path.iterdir() if wanted.match(entry.name)] if path.is_dir() else []


def _try(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, timeout=120).returncode == 0
