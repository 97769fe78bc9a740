"""The warden: ends what runs past its deadline when the agent is dead, frozen or cut off. Standard library only.

    warden.py DIRECTORY

It reads the register in DIRECTORY, and from a copy's deadline on kills every process that bears its marks, again
and again: an Engine that hangs may start the container late. It asks the Engine to remove the container, so that
an agent which wakes up can't start it. What it can't read changes nothing: the deadlines it knows hold on.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WARDEN = "UNITFLEET_WARDEN"
"""The variable by which a warden is known, with its directory, whose last part is the machine's id."""

REGISTER = "register.json"
ALIVE = "alive"
LOCK = "lock"
ATTEMPTS = 20

TICK_S = 0.1
BEAT_S = 0.5  # how often it says that it lives
STALE_S = 3.0  # after which it is taken for dead
QUIET_S = 30.0  # without a copy to watch it ends; the agent starts it again when there is one
ENGINE_S = 2.0


class Warden:
    """The loop. `units` is what the register said last: unit → kill_at and marks."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, REGISTER)
        self._alive = os.path.join(directory, ALIVE)
        self._seen: tuple[int, int, int] | None = None
        self._units: dict[str, dict[str, Any]] = {}
        self._told: set[str] = set()
        self._said_at = float("-inf")
        self._needed_at = _now()

    def run(self) -> None:
        """Watch until nothing was to be watched for a while."""
        while True:
            now = _now()
            if now - self._said_at >= BEAT_S:
                self._say_alive(now)
            self._read()
            overdue = {unit: entry for unit, entry in self._units.items() if now >= entry["kill_at"]}
            self._told &= overdue.keys()
            ended = kill(list(overdue.values())) if overdue else 0
            for unit in overdue.keys() - self._told:
                print(f"{unit}: past its deadline, {ended} processes were killed", flush=True)
                _have_removed(overdue[unit]["marks"])
                self._told.add(unit)
            running = ended or self._units.keys() - overdue.keys()
            if running or (overdue and self._seen is not None):
                self._needed_at = now
            elif (self._units and self._seen is None) or now - self._needed_at > QUIET_S:
                return  # the register went, and all that it knew of has ended; or nothing is strict here
            time.sleep(TICK_S)

    def _say_alive(self, now: float) -> None:
        try:
            with open(f"{self._alive}.new", "w") as file:
                file.write(repr(now))
            os.replace(f"{self._alive}.new", self._alive)
        except OSError:
            return  # its directory is gone or full: the agent sees that it is silent
        self._said_at = now

    def _read(self) -> None:
        try:
            found = os.stat(self._path)
        except OSError:
            self._seen = None
            return
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen == self._seen:
            return
        try:
            with open(self._path) as file:
                self._units = json.load(file)["units"]
        except (OSError, ValueError, KeyError) as error:
            print(f"could not read the register: {error}", flush=True)
            return
        self._seen = seen


def kill(entries: list[dict[str, Any]]) -> int:
    """Kill every process that bears a mark of these copies, and return how many there were."""
    groups = [part for entry in entries for part in entry["marks"]["groups"]]
    variables = [variable.encode() for entry in entries for variable in entry["marks"]["variables"]]
    ended = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            handle = os.pidfd_open(int(name))  # first: what is looked at then is what gets the signal
        except OSError:
            continue
        try:
            if _bears(name, groups, variables):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                ended += 1
        except OSError:
            pass  # it went by itself
        finally:
            os.close(handle)
    return ended


def _bears(pid: str, groups: list[str], variables: list[bytes]) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
        if stat[stat.rindex(b")") + 2 : stat.rindex(b")") + 3] in b"ZX":
            return False
        if groups:
            with open(f"/proc/{pid}/cgroup") as text:
                paths = [line.rstrip("\n").split(":", 2)[2] + "/" for line in text]
            if any(part in path for part in groups for path in paths):
                return True
        if variables:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read().split(b"\0")
            return any(variable in environment for variable in variables)
    except (OSError, IndexError, ValueError):
        return False
    return False


def _have_removed(marks: dict[str, Any]) -> None:
    """Ask the Engine to remove the container, in a thread: it may hang."""
    if marks["engine"]:
        threading.Thread(target=_remove, args=(marks["engine"], marks["container"]), daemon=True).start()


def _remove(path: str, container: str) -> None:
    try:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.settimeout(ENGINE_S)
            engine.connect(path)
            request = f"DELETE /containers/{container}?force=1 HTTP/1.0\r\nHost: docker\r\n\r\n"
            engine.sendall(request.encode())
            status = engine.recv(64).split(b"\r\n")[0].decode(errors="replace")
    except OSError as error:
        status = str(error)
    print(f"asked the Engine to remove {container[:12]}: {status}", flush=True)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def is_held(directory: str) -> bool:
    """Tell whether a warden of this directory lives, which holds its lock."""
    lock = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def main(directory: str) -> None:
    """Watch, unless another warden does."""
    lock = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(ATTEMPTS):  # an agent that looks whether it is held holds it for a moment
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.05)
    else:
        return
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    Warden(directory).run()


if __name__ == "__main__":
    main(sys.argv[1])
