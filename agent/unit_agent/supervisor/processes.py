"""What /proc tells of processes: who they are, whose children, and which bear a unit's token.

A process is its pid and start time (and the host's boot id): a pid alone is used again. While a supervisor
lives, its unit is all of its descendants, for it is their subreaper. When it died that tree is gone; then a
unit is found by the token in the environment that each of its processes inherited, and by its sessions.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself costs 0.9 MB for its enums
import os

TOKEN = "UNITFLEET_UNIT_TOKEN"


class Process:
    """A process as it was when looked at. `start` is in clock ticks since boot (proc(5), stat field 22)."""

    __slots__ = ("parent", "pid", "session", "start", "state")

    def __init__(self, pid: int, state: str, parent: int, session: int, start: int) -> None:
        self.pid = pid
        self.state = state
        self.parent = parent
        self.session = session
        self.start = start

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie does not, however long it takes to be reaped."""
        return self.state not in "ZX"


def look(pid: int) -> Process | None:
    """Return the process of this pid, or None."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return Process(pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def is_alive(pid: int, start: int) -> bool:
    """Tell whether the process of this identity runs."""
    process = look(pid)
    return process is not None and process.alive and process.start == start


def everyone() -> list[Process]:
    """Return every process that can be seen."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None]


def descendants(pid: int) -> list[Process]:
    """Return the live processes under `pid`, itself not among them."""
    children: dict[int, list[Process]] = {}
    for process in everyone():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    parents = [pid]
    while parents:
        below = children.get(parents.pop(), [])
        found.extend(below)
        parents.extend(process.pid for process in below)
    return [process for process in found if process.alive]


def remains(token: str, sessions: dict[int, int]) -> list[Process]:
    """Return the live processes of a unit whose supervisor is gone.

    They bear its token, or belong to one of its sessions (leader's pid to the leader's start time): a session's
    number is not used again while a member of it lives, so a leader with another start time, or a member older
    than the leader, says that the session is not ours.
    """
    mark = f"{TOKEN}={token}".encode()
    found = []
    for process in everyone():
        if process.alive and (_bears(process.pid, mark) or _belongs(process, sessions)):
            found.append(process)
    return found


def _bears(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return mark in (file.read() or b"").split(b"\0")
    except OSError:
        return False


def _belongs(process: Process, sessions: dict[int, int]) -> bool:
    started = sessions.get(process.session)
    if started is None or process.start < started:
        return False
    leader = look(process.session)
    return leader is None or leader.start == started


def send(process: Process, signal: int) -> bool:
    """Send a signal to this very process, never to one that has got its pid since; False when not allowed."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return True  # it is gone
    try:
        again = look(process.pid)
        if again is not None and again.start == process.start:
            _signal.pidfd_send_signal(handle, signal)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    finally:
        os.close(handle)
    return True


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
