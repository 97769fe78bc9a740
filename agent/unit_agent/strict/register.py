"""The register: deadlines and marks as the warden reads them, and the warden itself, kept alive.

It lies on a tmpfs, one file a machine, replaced whole. A deadline counts only once it stands there: the warden
must know a copy before it starts. What an agent finds there of this boot holds on after its own restart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from unit_agent.driver import Marks
from unit_agent.spawned import LEAN, reap
from unit_agent.strict.deadlines import Deadline, Deadlines
from unit_agent.strict.warden import ALIVE, REGISTER, STALE_S, WARDEN, is_held

logger = logging.getLogger(__name__)

APPEARS_S = 5.0
NEVER_KILLED = "-1000"
"""proc(5), oom_score_adj: the kernel ends others before the warden."""


class Register(Protocol):
    """Where deadlines are kept for the warden."""

    async def load(self) -> Mapping[str, Deadline]:
        """Return what stands there since before this agent process, in this boot."""
        ...

    async def write(self, units: Mapping[str, Deadline]) -> None:
        """Have the warden know these and no others; raises `OSError` when they can't be kept."""
        ...

    async def watched(self) -> str:
        """Make sure that a warden watches; return why none does, or ""."""
        ...


class NoRegister:
    """Where this agent has no place for deadlines: strict units don't start."""

    async def load(self) -> Mapping[str, Deadline]:
        return {}

    async def write(self, units: Mapping[str, Deadline]) -> None:
        return None

    async def watched(self) -> str:
        return "this agent has no warden"


@dataclass(frozen=True, slots=True)
class _Entry:
    until: float
    kill_at: float
    marks: Marks


@dataclass(frozen=True, slots=True)
class _Kept:
    """The file. The warden reads `units`, each entry's `kill_at` and `marks`."""

    boot_id: str
    units: dict[str, _Entry]


class DirectoryRegister:
    """The register of one machine under `directory`, with a process of its own as warden."""

    def __init__(self, directory: Path, boot_id: str, deadlines: Deadlines) -> None:
        self._directory = directory
        self._boot_id = boot_id
        self._deadlines = deadlines
        self._children: set[int] = set()

    async def load(self) -> Mapping[str, Deadline]:
        try:
            said = msgspec.json.decode((self._directory / REGISTER).read_bytes(), type=_Kept)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            logger.error("could not read the deadlines of strict units: %s", error)
            return {}
        if said.boot_id != self._boot_id:
            return {}
        return {unit: Deadline(0, entry.until, entry.marks) for unit, entry in said.units.items()}

    async def write(self, units: Mapping[str, Deadline]) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        entries = {
            unit: _Entry(deadline.until, self._deadlines.kill_at(deadline), deadline.marks)
            for unit, deadline in units.items()
            if deadline.marks is not None
        }
        new = self._directory / f"{REGISTER}.new"
        new.write_bytes(msgspec.json.encode(_Kept(self._boot_id, entries)))
        os.replace(new, self._directory / REGISTER)

    async def watched(self) -> str:
        reap(self._children)
        if self._is_alive():
            return ""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._spawn()
        except OSError as error:
            return f"its warden can't be started: {error}"
        until = self._deadlines.clock() + APPEARS_S
        while not self._is_alive():
            if self._deadlines.clock() > until:
                return f"its warden does not answer, see {self._directory / 'warden.log'}"
            await asyncio.sleep(0.02)
        return ""

    def _is_alive(self) -> bool:
        try:
            at = float((self._directory / ALIVE).read_text())
            held = is_held(str(self._directory))
        except (OSError, ValueError):
            return False
        return held and self._deadlines.clock() - at < STALE_S

    def _spawn(self) -> None:
        """Start a warden in a session of its own; a second one ends by itself."""
        log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        log = str(self._directory / "warden.log")
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *LEAN, str(Path(__file__).with_name("warden.py")), str(self._directory)],
            {WARDEN: str(self._directory)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, log_flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        self._children.add(pid)
        try:
            Path(f"/proc/{pid}/oom_score_adj").write_text(NEVER_KILLED)
        except OSError as error:
            logger.debug("could not shield the warden from the kernel's choice of victims: %s", error)
        logger.info("started the warden of strict units, process %d", pid)
