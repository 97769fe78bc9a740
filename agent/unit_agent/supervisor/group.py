"""The unit's control groups, as the driver has written them down: entered by each command, read at each end.

`cgroup.json` in the unit's directory: `groups` (controller to directory, made by the driver), `needed` (those
that carry a limit: a command that can't enter them does not run), `memory_max`, `tasks_max`. The supervisor
itself stays outside, as systemd does: it is neither counted nor killed in the place of its unit.
"""

from __future__ import annotations

import os
import select
import time

from unit_agent.causes import AGAIN_S, OUTLIVED_S, Evidence
from unit_agent.supervisor import plainjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from unit_agent.supervisor.poller import Poller

FILE = "cgroup.json"

# The count of each, by the file that holds it: v1's first, then v2's.
_OOM_KILLS = (("memory.oom_control", b"oom_kill"), ("memory.events", b"oom_kill"))
_FORKS_REFUSED = (("pids.events", b"max"),)
_PEAKS = ("memory.max_usage_in_bytes", "memory.peak")


class Group:
    """The groups of one unit; without the file, or where none could be made, none."""

    def __init__(self, directory: str = ".") -> None:
        try:
            with open(f"{directory}/{FILE}") as file:
                said: dict[str, Any] = plainjson.read(file.read())
        except (OSError, ValueError):
            said = {}
        self._groups: dict[str, str] = said.get("groups", {})
        self._needed = [self._groups[name] for name in said.get("needed", ())]
        self._memory_max: int = said.get("memory_max", 0)
        self._tasks_max: int = said.get("tasks_max", 0)
        self._oom_kills = self._forks_refused = 0
        self.look_at: float | None = None  # monotonic: when to see what an alarm was about
        self._bell = -1
        self._said = False  # in this run
        self._listen: Callable[[], None] = lambda: None

    def enter(self) -> None:
        """Move this process in; raises OSError when a limit would not hold for it."""
        for path in dict.fromkeys(self._groups.values()):
            try:
                with open(f"{path}/cgroup.procs", "wb", buffering=0) as file:
                    file.write(b"0")
            except OSError as error:
                if path in self._needed:
                    raise OSError(error.errno, error.strerror, path) from error

    def listen(self, poller: Poller) -> None:
        """Set `look_at` when the kernel runs out of memory for the unit, where it tells; `looked` listens again.

        Not at each time: a unit at its limit may run out of it a hundred times a second.
        """
        here = self._groups.get("memory", "")
        try:
            if os.path.exists(f"{here}/cgroup.event_control"):
                self._bell = _v1_bell(here)
                self._listen = lambda: poller.add(self._bell, lambda: self._alarmed(poller))
            elif here:
                self._bell = os.open(f"{here}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
                self._listen = lambda: poller.add(self._bell, lambda: self._alarmed(poller), select.POLLPRI)
        except OSError:
            pass  # then its end alone tells
        self.looked()

    def looked(self) -> None:
        """Wait for the next alarm."""
        self._said, self.look_at = self.look_at is not None, None
        if self._bell >= 0:
            try:
                os.read(self._bell, 4096)
                os.lseek(self._bell, 0, os.SEEK_SET)
            except OSError:
                pass  # nothing rang meanwhile, or it is an eventfd, which has no beginning
            self._listen()

    def _alarmed(self, poller: Poller) -> None:
        poller.remove(self._bell)
        self.look_at = time.monotonic() + (AGAIN_S if self._said else OUTLIVED_S)

    def begin(self) -> None:
        """Note the counts before a run."""
        self.looked()
        self._said = False
        self._oom_kills, self._forks_refused = self._counts()
        for name in _PEAKS:
            self._reset(name)

    def evidence(self, *, said_files: bool = False) -> Evidence:
        """Return what was counted since the run began."""
        oom_kills, forks_refused = self._counts()
        return Evidence(
            oom_kills=max(0, oom_kills - self._oom_kills),
            memory_peak=max((self._number("memory", name) for name in _PEAKS), default=0),
            memory_limit=self._memory_max,
            forks_refused=max(0, forks_refused - self._forks_refused),
            tasks_max=self._tasks_max,
            said_files=said_files,
        )

    def _counts(self) -> tuple[int, int]:
        oom_kills = max(self._entry("memory", file, key) for file, key in _OOM_KILLS)
        return oom_kills, max(self._entry("pids", file, key) for file, key in _FORKS_REFUSED)

    def _entry(self, controller: str, file: str, key: bytes) -> int:
        for line in self._content(controller, file).splitlines():
            words = line.split()
            if len(words) == 2 and words[0] == key:
                return int(words[1])
        return 0

    def _number(self, controller: str, file: str) -> int:
        text = self._content(controller, file).strip()
        return int(text) if text.isdigit() else 0

    def _content(self, controller: str, file: str) -> bytes:
        if controller not in self._groups:
            return b""
        try:
            with open(f"{self._groups[controller]}/{file}", "rb", buffering=0) as opened:
                return opened.read(4096) or b""
        except OSError:
            return b""

    def _reset(self, file: str) -> None:
        """Begin a highest value anew, where the kernel lets us (v1; v2 from Linux 6.12)."""
        try:
            with open(f"{self._groups['memory']}/{file}", "r+b", buffering=0) as opened:
                opened.write(b"0")
        except (OSError, KeyError):
            pass


def _v1_bell(directory: str) -> int:
    """Return an eventfd that counts how often the group ran out of memory."""
    bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    with (
        open(f"{directory}/memory.oom_control", "rb", buffering=0) as counted,
        open(f"{directory}/cgroup.event_control", "wb", buffering=0) as control,
    ):
        control.write(b"%d %d" % (bell, counted.fileno()))
    return bell
