"""A daemon of the cluster under test: one process with its own log, to kill, freeze and start again."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Protocol

from harness.freezing import freeze

Spawn = Callable[[Sequence[str], IO[bytes]], "subprocess.Popen[bytes]"]


class Process(Protocol):
    """Anything that a test kills, freezes and wakes: a daemon, or a member of etcd."""

    @property
    def pid(self) -> int:
        """The process, while it runs."""

    def kill(self) -> None:
        """End it as a power cut would."""

    def pause(self) -> None:
        """Freeze it."""

    def resume(self) -> None:
        """Let it go on."""


class Daemon:
    """`argv` under the name `name`; `spawn` starts it where it belongs, its output goes to `log`.

    `under` is what it is started by from its next start on: `("nice",)`.
    """

    def __init__(self, name: str, argv: Sequence[str], log: Path, spawn: Spawn) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log = log
        self.under: tuple[str, ...] = ()
        self._spawn = spawn
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def code(self) -> int | None:
        """What it ended with by itself, None while it runs."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start the process, without waiting for its service."""
        assert self._process is None, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._process = self._spawn((*self.under, *self.argv), log)

    def kill(self) -> None:
        """End it as a power cut would, frozen or not."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        assert self._process is not None, f"{self.name} does not run"
        freeze(self._process)

    def resume(self) -> None:
        """Let it go on after a pause."""
        self._signal(signal.SIGCONT)

    def tail(self, characters: int = 3000) -> str:
        """Return the end of what it said."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} does not run"
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)
