"""Processes that are started, found again and ended: known by pid, start time and boot, never by pid alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

LOOK_S = 0.02


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A process as the record keeps it. `start` is in clock ticks since the boot of this id (proc(5))."""

    pid: int
    start: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was when looked at."""

    pid: int
    start: int
    parent: int
    state: str

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie does not, however long it takes to be reaped."""
        return self.state not in "ZX"


def look(pid: int) -> Process | None:
    """Return the process of this pid, or None."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return Process(pid=pid, start=int(fields[19]), parent=int(fields[1]), state=fields[0].decode())


def everyone() -> list[Process]:
    """Return every live process that can be seen."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None and process.alive]


def variables(process: Process) -> frozenset[bytes]:
    """Return the environment a process was started with, as `NAME=value`; empty when it may not be read."""
    try:
        return frozenset(Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return frozenset()


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def running(identity: Identity | None) -> Process | None:
    """Return the process that was recorded, if it still runs."""
    if identity is None or identity.boot_id != boot_id():
        return None
    process = look(identity.pid)
    return process if process is not None and process.alive and process.start == identity.start else None


def spawn(words: Sequence[str], directory: Path, log: Path, env: Mapping[str, str]) -> Identity:
    """Start a daemon in a session of its own, its output appended to `log`. Raises OSError."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env=dict(env),
            start_new_session=True,
        )
    process = look(started.pid)
    assert process is not None, "our own child stays, be it as a zombie, until we are gone"
    return Identity(pid=process.pid, start=process.start, boot_id=boot_id())


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal to this very process, never to one that has got its pid since. Raises PermissionError."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return  # it is gone
    try:
        again = look(process.pid)
        if again is not None and again.start == process.start:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def end(processes: Iterable[Process], grace_s: float) -> None:
    """Ask processes to end, and kill those that did not within `grace_s`."""
    left = list(processes)
    for process in left:
        send(process, signal.SIGTERM)
    left = await_end(left, grace_s)
    for process in left:
        send(process, signal.SIGKILL)
    await_end(left, grace_s)


def await_end(processes: Iterable[Process], within_s: float) -> list[Process]:
    """Wait until processes are gone; return those that are not by then."""
    deadline = time.monotonic() + within_s
    left = list(processes)
    while True:
        left = [process for process in left if _still(process)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(LOOK_S)


def _still(process: Process) -> bool:
    now = look(process.pid)
    return now is not None and now.alive and now.start == process.start
