"""Where groups lie: the mounted hierarchies, and in which group of each a process is.

/proc/PID/mountinfo tells what is mounted (proc(5)), /proc/PID/cgroup the paths within (cgroups(7)):
`4:memory:/docker/ID` on v1, one line `0::/docker/ID` on v2.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from unit_agent.cgroups.files import content
from unit_agent.cgroups.reader import Group

UNIFIED = "unified"
CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio", "net_cls", "freezer")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy: where, and which part of it (`root`) is seen there."""

    mount: str
    root: str

    def directory(self, path: str) -> str:
        """Return the directory of a group by its path in the whole hierarchy."""
        if self.root != "/" and (path == self.root or path.startswith(self.root + "/")):
            path = path[len(self.root) :]
        return self.mount + path.rstrip("/")


def hierarchies(proc: Path) -> dict[str, Hierarchy]:
    """Return the hierarchy of each v1 controller that is mounted, and of v2 as `unified`."""
    found: dict[str, Hierarchy] = {}
    for line in content(str(proc / "self/mountinfo")).decode(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        words, kind = fields.split(), rest.split()
        if len(words) < 5 or len(kind) < 3 or not kind[0].startswith("cgroup"):
            continue
        here = Hierarchy(_unescaped(words[4]), _unescaped(words[3]))
        if kind[0] == "cgroup2":
            found.setdefault(UNIFIED, here)
        else:
            for controller in set(kind[2].split(",")).intersection(CONTROLLERS):
                found.setdefault(controller, here)
    return found


def controls(hierarchy: Hierarchy) -> bool:
    """Tell whether a v2 hierarchy counts CPU and memory: a hybrid host mounts one that does not."""
    held = content(os.path.join(hierarchy.mount, "cgroup.controllers")).split()
    return b"memory" in held and b"cpu" in held


def paths(proc: Path, pid: int | str) -> dict[str, str]:
    """Return the path of the process's group by controller, v2's as `unified`; {} when it is gone."""
    found: dict[str, str] = {}
    for line in content(str(proc / str(pid) / "cgroup")).decode(errors="replace").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            found[UNIFIED] = path
        for name in names.split(","):
            found[name] = path
    return found


def group_of(proc: Path, mounted: dict[str, Hierarchy], pid: int, mark: str) -> Group | None:
    """Return the group named by `mark` that holds the process, with each controller that has it.

    A group that this program is in itself is nobody's own.
    """
    directories: dict[str, str] = {}
    shown = ""
    ours = paths(proc, "self")
    for controller, path in paths(proc, pid).items():
        own = own_path(path, mark)
        if own and controller in mounted and own != ours.get(controller):
            directories[controller] = mounted[controller].directory(own)
            shown = own
    return Group(shown, directories) if directories else None


def own_path(path: str, mark: str) -> str:
    """Return the path down to the part that is `mark`, or systemd's scope of it; "" when there is none.

    >>> own_path("/docker/abc/init.scope", "abc"), own_path("/system.slice/docker-abc.scope", "abc")
    ('/docker/abc', '/system.slice/docker-abc.scope')
    """
    parts = path.split("/")
    for index, part in enumerate(parts):
        scope = part.removesuffix(".scope").rpartition("-")[2] if part.endswith(".scope") else ""
        if mark and mark in (part, scope):
            return "/".join(parts[: index + 1])
    return ""


def _unescaped(word: str) -> str:
    """Undo the octal escapes of spaces and the like in mountinfo."""
    return word.encode("latin-1", "replace").decode("unicode_escape") if "\\" in word else word
