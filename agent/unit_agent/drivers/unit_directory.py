"""A unit's directory of the process driver: `<root>/units/<encoded unit>/`.

`order.json` (written once, here) is what the supervisor carries out and who the copy is; `state.json` is what
the supervisor tells; `lock` is held by a living supervisor and by nobody else; `control` is its socket;
`cgroup.json` names its control groups; `output.log` and `output.log.1` are the unit's output; `supervisor.log` is
the supervisor's own, on a fault.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from unit_agent.driver import Copy, Order
from unit_agent.drivers.unit_cgroup import UnitCgroup
from unit_agent.encoding import encode_name
from unit_agent.supervisor import processes
from unit_agent.supervisor.state import EXECUTING, FAILED, FILE, FINISHED, RESTARTING, RUNNING, initial
from unitfleet.errors import DriverError
from unitfleet.model import Cause, CopyPhase
from unitfleet.spec import ResourceLimits

ENDING_S = 5.0  # how long what a dead supervisor left may take to end after SIGKILL


class UnitDirectory:
    """One copy on disk. Its calls block; the driver makes them in threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.order: dict[str, Any] = json.loads((path / "order.json").read_bytes())
            self.unit: str = self.order["unit"]
        except (OSError, ValueError, KeyError) as error:
            hint = "end its processes, then remove the directory"
            raise DriverError(f"cannot tell which unit {path} holds: {error}", hint=hint) from error
        self.cgroup = UnitCgroup.read(path)

    @classmethod
    def create(cls, units: Path, order: Order, machine: str, output_bytes: int, boot_id: str) -> UnitDirectory:
        """Make the directory, whole or not at all, on disk before it counts."""
        placement = order.placement
        name = encode_name(placement.unit)
        fields = {
            "unit": placement.unit,
            "id": name,
            "spec": placement.spec,
            "incarnation": placement.incarnation,
            "epoch": placement.epoch,
            "restart": placement.restart,
            "machine": machine,
            "token": os.urandom(16).hex(),
            "output_bytes": output_bytes,
            "service": msgspec.to_builtins(order.spec.service),
            "limits": msgspec.to_builtins(order.spec.limits),
            "credentials": order.credentials,
        }
        new = units / f".new-{name}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700, parents=True)
        _write(new / "order.json", fields)
        _write(new / FILE, initial(boot_id))
        os.replace(new, units / name)
        with _opened(units) as directory:
            os.fsync(directory)
        return cls(units / name)

    @property
    def limits(self) -> ResourceLimits:
        """Return the limits that the unit's text sets."""
        return msgspec.convert(self.order.get("limits", {}), ResourceLimits)

    def enter(self, cgroup: UnitCgroup) -> None:
        """Take on these control groups; those that it had elsewhere go."""
        before, self.cgroup = self.cgroup, cgroup
        cgroup.write(self.path)
        before.without(cgroup).remove()

    def remove(self) -> None:
        """Take the copy away at once, then its files and control groups."""
        self.cgroup.remove()
        gone = self.path.with_name(f".gone-{self.path.name}")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(self.path, gone)
        shutil.rmtree(gone)

    def set_aside(self, to: Path) -> None:
        """Take the copy away; its output and last state go to `to`, its order not: it holds the environment."""
        self.cgroup.remove()
        gone = self.path.with_name(f".gone-{self.path.name}")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(self.path, gone)
        for entry in list(os.scandir(gone)):
            if entry.name.startswith(("output.log", "supervisor.log", FILE)):
                shutil.move(entry.path, to / entry.name)
        shutil.rmtree(gone)

    def size(self) -> int:
        """Return how many bytes its files have."""
        return sum(entry.stat().st_size for entry in os.scandir(self.path) if entry.is_file(follow_symlinks=False))

    def state(self, boot_id: str) -> dict[str, Any]:
        """Return what the supervisor wrote last; after a reboot, only that a oneshot is done outlives it."""
        try:
            state: dict[str, Any] = json.loads((self.path / FILE).read_bytes())
        except (OSError, ValueError):
            return initial(boot_id)  # lost with the host's power: the supervisor replaces the file whole
        if state["boot_id"] == boot_id or state["phase"] == FINISHED:
            return state
        return initial(boot_id) | {"since": state["since"]}

    def write_state(self, state: dict[str, Any]) -> None:
        """Write down a state in the place of a supervisor that can't."""
        _write(self.path / f"{FILE}.new", state)
        os.replace(self.path / f"{FILE}.new", self.path / FILE)

    def copy(self, driver: str, state: dict[str, Any]) -> Copy:
        """Return the copy that this directory is, in the given state."""
        return Copy(
            unit=self.unit,
            driver=driver,
            id=self.order["id"],
            spec=self.order["spec"],
            incarnation=self.order["incarnation"],
            epoch=self.order["epoch"],
            restart=self.order["restart"],
            phase=CopyPhase(state["phase"]),
            active=state["active"],
            sub=state["sub"],
            pid=state["pid"],
            own_address="127.0.0.1",
            since=state["since"],
            restarts=state["restarts"],
            cause=Cause(state.get("cause", "")),  # an older supervisor says none
            oom_kills=state.get("oom_kills", 0),
            message=state["message"] or ("; ".join(self.cgroup.notes) if state["phase"] == RUNNING else ""),
        )

    def take_lock(self) -> int | None:
        """Return the lock as an open file, or None while a supervisor holds it."""
        file = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        return file

    def is_supervised(self) -> bool:
        """Tell whether a supervisor lives."""
        lock = self.take_lock()
        if lock is not None:
            os.close(lock)
        return lock is None

    def end_remains(self, state: dict[str, Any], then: dict[str, Any] | None = None) -> None:
        """Kill what a dead supervisor left of its unit; write down that nothing runs, or what comes `then`.

        Raises `DriverError`, and writes FAILED, when that can't be done: a second copy must not start.
        """
        sessions = {int(leader): start for leader, start in state["sessions"].items()}
        until = time.monotonic() + ENDING_S
        while remains := self._remains(state, sessions):
            for process in remains:
                processes.send(process, 9)
            if time.monotonic() > until:
                left = ", ".join(str(process.pid) for process in remains)
                message = f"its supervisor died, and what it left can't be ended: process {left}"
                self.write_state(failed(state, message) | {"stuck": True})
                raise DriverError(f"cannot end {self.unit}: {message}", hint=f"end process {left} by hand")
            time.sleep(0.02)
        self.write_state(initial(state["boot_id"]) | (then or {}))

    def _remains(self, state: dict[str, Any], sessions: dict[int, int]) -> list[processes.Process]:
        found = processes.remains(self.order["token"], sessions)
        known = {process.pid for process in found}
        members = (processes.look(pid) for pid in self.cgroup.processes() - known)
        found += [process for process in members if process is not None and process.alive]
        main = processes.look(state["pid"]) if state["pid"] else None
        if main is not None and main.alive and main.start == state["pid_start"]:
            if all(process.pid != main.pid for process in found):
                found.append(main)
        return found


def restarting(message: str) -> dict[str, Any]:
    """Return what is told of a unit that a new supervisor is about to start."""
    return {"phase": RESTARTING, "active": "activating", "sub": "auto-restart", "message": message}


def failed(state: dict[str, Any], message: str) -> dict[str, Any]:
    """Return the state of a unit that nobody supervises any more."""
    return state | {"phase": FAILED, "active": "failed", "sub": "failed", "message": message}


def may_have_processes(state: dict[str, Any]) -> bool:
    """Tell whether something of the unit may run without a supervisor, besides what KillMode= spared."""
    return state["phase"] in EXECUTING or bool(state["stuck"])


def _write(path: Path, fields: dict[str, Any]) -> None:
    with open(path, "w") as file:
        json.dump(fields, file)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield file
    finally:
        os.close(file)
