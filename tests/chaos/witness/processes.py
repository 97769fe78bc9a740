"""What executes, by /proc and the hosts' control groups alone: seen while an Engine hangs, and after it died.

A container is known by the group that its Engine made for it, and by what that Engine keeps of it on disk; a
process unit by the token in its environment. Looked at ten times a second, in a thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 0.1

_ID = re.compile(r"[0-9a-f]{64}\Z")
_UNIT = b"UNITFLEET_UNIT="
_TOKEN = b"UNITFLEET_UNIT_TOKEN="


@dataclass(frozen=True, slots=True, order=True)
class Copy:
    """One executing copy of a unit. The same `pid` and `start` (ticks since boot) mean the same process."""

    unit: str
    machine: str
    id: str  # of the container, or the token of the process unit
    pid: int
    start: str

    def __str__(self) -> str:
        return f"{self.unit} on {self.machine}: {self.id[:12]} pid {self.pid} since tick {self.start}"


@dataclass(frozen=True, slots=True)
class Place:
    """A host as it is looked at: its name, its control group, its Engine's data, its agent's state."""

    machine: str
    group: Path
    engine_data: Path
    state: Path


@dataclass(slots=True)
class Seen:
    """When a copy executed, by `time.time()`."""

    first: float
    last: float


class ProcessSampler:
    """Knows every copy that executed since the start; `each` is called with every look."""

    def __init__(self, places: Sequence[Place], each: Callable[[float, frozenset[Copy]], None]) -> None:
        self._places = tuple(places)
        self._each = each
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="processes", daemon=True)
        self._units: dict[str, str] = {}  # container → unit
        self._tokens: dict[str, str] = {}  # token → machine
        self._others: dict[int, str] = {}  # pid → start, of what is no unit's
        self._ours: dict[int, Copy] = {}
        self.now: frozenset[Copy] = frozenset()
        self.seen: dict[Copy, Seen] = {}
        self.failed = ""

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        self._thread.join(10)

    def between(self, began: float, ended: float) -> set[Copy]:
        """Return every copy that executed at some time in between."""
        return {copy for copy, seen in list(self.seen.items()) if seen.last >= began and seen.first <= ended}

    def look(self) -> frozenset[Copy]:
        """Look once."""
        return frozenset((*self._containers(), *self._processes()))

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.time()
            try:
                self.now = self.look()
                for copy in self.now:
                    self.seen.setdefault(copy, Seen(began, began)).last = began
                self._each(began, self.now)
            except Exception as error:  # the run asks for it: a witness that fell asleep witnesses nothing
                self.failed = repr(error)
                return
            self._over.wait(max(0.01, began + LOOK_S - time.time()))

    def _containers(self) -> list[Copy]:
        found = []
        for place in self._places:
            for id in _names(place.group):
                if not _ID.match(id):
                    continue
                for pid in _pids(place.group / id):
                    state, start = _stat(pid)
                    if state and state not in "ZX" and (unit := self._unit(place, id)):
                        found.append(Copy(unit, place.machine, id, pid, start))
                        break  # the first is the container's own; the others came from it
        return found

    def _unit(self, place: Place, id: str) -> str:
        if id not in self._units:
            try:
                kept = json.loads((place.engine_data / "containers" / id / "config.v2.json").read_bytes())
            except (OSError, ValueError):  # it is being written, or removed
                return ""
            self._units[id] = str(kept["Config"]["Labels"].get("unitfleet.unit", ""))
        return self._units[id]

    def _processes(self) -> list[Copy]:
        found, ours, others = [], {}, {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            pid = int(name)
            state, start = _stat(pid)
            if not state or state in "ZX":
                continue
            if self._others.get(pid) == start:
                others[pid] = start
                continue
            copy = self._ours.get(pid)
            if copy is None or copy.start != start:
                copy = self._read(pid, start)
            if copy is not None:
                ours[pid] = copy
                found.append(copy)
            elif _age_s(start) > 3.0:  # what it will be it is by now: it has passed its last exec
                others[pid] = start
        self._ours, self._others = ours, others
        return found

    def _read(self, pid: int, start: str) -> Copy | None:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return None
        unit = next((each[len(_UNIT) :] for each in environment if each.startswith(_UNIT)), b"").decode()
        token = next((each[len(_TOKEN) :] for each in environment if each.startswith(_TOKEN)), b"").decode()
        machine = self._machine(token) if unit and token else ""
        return Copy(unit, machine, token, pid, start) if machine else None

    def _machine(self, token: str) -> str:
        if token not in self._tokens:
            for place in self._places:
                for order in place.state.glob("units/*/order.json"):
                    with contextlib.suppress(OSError, ValueError, KeyError):
                        self._tokens[json.loads(order.read_bytes())["token"]] = place.machine
        return self._tokens.get(token, "")


def command(copy: Copy) -> list[str]:
    """Return the words that a copy was started with; [] when it has ended."""
    try:
        return Path(f"/proc/{copy.pid}/cmdline").read_text().rstrip("\0").split("\0")
    except OSError:
        return []


def _stat(pid: int) -> tuple[str, str]:
    """Return state and start of a process, ("", "") when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def _age_s(start: str) -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(start) / os.sysconf("SC_CLK_TCK")


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _pids(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []
