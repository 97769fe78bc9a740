"""Where a unit's packets can be caught: its interfaces on the host, or its control group. Reads proc and sysfs.

A process whose network namespace is the agent's own is on the host's network. Any other is looked at through
`/proc/PID/root/sys/class/net`: sysfs shows the interfaces of the namespace it was mounted in.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from unit_agent.cgroups.places import UNIFIED, hierarchies, paths
from unit_agent.shaping.seen import Link
from unit_agent.shaping.shape import Group, Nowhere, Place, Veths

ENGINE_S = 0.5
_CREDENTIALS = struct.Struct("=iII")

NO_INTERFACE = "it has no interface of its own on this host (network none or macvlan), so nothing can be shaped"
NO_GROUP = (
    "its egress can't be shaped: its processes share a control group with others (neither net_cls nor the unified "
    "hierarchy has one of its own)"
)


def place(pid: int, links: Mapping[str, Link], proc: Path = Path("/proc")) -> Place | None:
    """Return where packets of the process and its like can be caught; None when it is gone."""
    try:
        if os.stat(proc / str(pid) / "ns/net").st_ino == os.stat(proc / "self/ns/net").st_ino:
            return _group(pid, proc)
        return _veths(pid, links, proc)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        return Nowhere(f"its network can't be looked at: {error}")


def engine(path: str, proc: Path = Path("/proc")) -> Group | Nowhere:
    """Return the control group of the Engine that answers at a socket, if it has one of its own.

    With socket activation it is systemd that listens: then the Engine's pid file tells.
    """
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(ENGINE_S)
            probe.connect(path)
            said = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid = _CREDENTIALS.unpack(said)[0]
        if pid <= 1:
            pid = int((proc.parent / "run/docker.pid").read_text())
        found = _group(pid, proc)
    except (OSError, ValueError):
        return Nowhere(f"no Engine answers at {path}")
    return found if isinstance(found, Group) else Nowhere("the Engine shares its control group with others")


def _veths(pid: int, links: Mapping[str, Link], proc: Path) -> Veths | Nowhere:
    by_index = {link.index: link for link in links.values()}
    found: list[tuple[str, str]] = []
    for entry in sorted((proc / str(pid) / "root/sys/class/net").iterdir()):
        link = by_index.get(_number(entry / "iflink"))
        # the same number may be another interface's in another namespace: both ends must name each other
        if link is not None and link.kind == "veth" and link.peer == _number(entry / "ifindex"):
            found.append((link.name, (entry / "address").read_text().strip()))
    if not found:
        return Nowhere(NO_INTERFACE)
    return Veths(tuple(name for name, _ in found), tuple(address for _, address in found))


def _group(pid: int, proc: Path) -> Group | Nowhere:
    """Return the first group that is the unit's own: net_cls where it is mounted, else the unified hierarchy.

    A socket is judged by net_cls as its process is now, by the unified hierarchy as it was when it was made.
    """
    its, mine, mounted = paths(proc, pid), paths(proc, "self"), hierarchies(proc)
    for controller, version in (("net_cls", 1), (UNIFIED, 2)):
        path = its.get(controller, "/")
        if controller not in mounted or path == "/" or (mine.get(controller, "/") + "/").startswith(path + "/"):
            continue
        directory = Path(mounted[controller].directory(path))
        if directory.is_dir():
            where = str(directory) if version == 1 else path.lstrip("/")
            return Group(version, where, directory.stat().st_ino)
    return Nowhere(NO_GROUP)


def class_id(path: str) -> int:
    """Return the class id of a net_cls group. Raises `OSError`."""
    return int((Path(path) / "net_cls.classid").read_text())


def put_class_id(path: str, number: int) -> None:
    """Set the class id of a net_cls group, and with it that of its processes' sockets. Raises `OSError`."""
    (Path(path) / "net_cls.classid").write_text(str(number))


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return -1
