"""The outside witness of process units: what /proc says, and never what an agent says of itself.

Each process of a unit, and its supervisor, bears the token of its copy in its environment. A witness remembers
every token that it ever read in a machine's state directory, so that it also sees what was left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from harness.group_leftovers import machine_of

ENDING_S = 10.0


@dataclass(frozen=True, slots=True, order=True)
class Running:
    """One running copy as an outsider sees it; the same `pid` and `started_at` mean the same process."""

    machine: str
    pid: int
    started_at: str


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    start: str
    environment: frozenset[bytes]


class ProcessWitness:
    """Sees the process units under one machine's state directory."""

    def __init__(self, machine: str, state_dir: Path) -> None:
        self._machine = machine
        self._state_dir = state_dir
        self._tokens: set[bytes] = set()

    def running(self, unit: str) -> list[Running]:
        """Return the processes of the unit that run now."""
        mark = f"UNITFLEET_UNIT={unit}".encode()
        return [
            Running(self._machine, process.pid, process.start)
            for process in self._ours()
            if mark in process.environment
        ]

    def held(self) -> list[str]:
        """Return the units of which there is a copy, running or not."""
        found = []
        for order in self._state_dir.glob("units/[!.]*/order.json"):
            with contextlib.suppress(OSError, ValueError):
                found.append(str(json.loads(order.read_bytes())["unit"]))
        return sorted(found)

    def kill_all(self) -> None:
        """End every unit and supervisor of this machine at once, as a power cut would."""
        deadline = time.monotonic() + ENDING_S
        while found := [*self._ours(), *self._wardens()]:
            for process in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise TimeoutError(f"cannot end the units of {self._machine}: {found}")
            time.sleep(0.01)

    def _wardens(self) -> list[_Process]:
        if not (machine := machine_of(self._state_dir)):
            return []
        end = f"/{machine}".encode()
        return [
            process
            for process in _everyone()
            if any(v.startswith(b"UNITFLEET_WARDEN=") and v.endswith(end) for v in process.environment)
        ]

    def _ours(self) -> list[_Process]:
        for order in self._state_dir.glob("units/*/order.json"):
            with contextlib.suppress(OSError, ValueError):  # it may be removed this moment
                self._tokens.add(f"UNITFLEET_UNIT_TOKEN={json.loads(order.read_bytes())['token']}".encode())
        return [process for process in _everyone() if process.environment & self._tokens]


def _everyone() -> list[_Process]:
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes()
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it ended, or is somebody else's
            continue
        if fields[0] not in "ZX":
            found.append(_Process(int(name), fields[19], frozenset(environment.split(b"\0"))))
    return found
