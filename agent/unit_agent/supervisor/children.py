"""The processes of a unit, as the supervisor sees them: started, read, reaped, signalled."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import time

from unit_agent.causes import LAST_WORDS_S
from unit_agent.restart import Exit
from unit_agent.supervisor import launch, processes
from unit_agent.supervisor.group import Group
from unit_agent.supervisor.output import Output
from unitfleet.quoting import expand_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unit_agent.causes import Evidence
    from unit_agent.supervisor.poller import Poller

SIGNAL_NAMES = {
    number: name
    for name, number in vars(_signal).items()
    if name.startswith("SIG") and not name.startswith("SIG_")
}


class Child:
    """A command under way. `executed` once its program runs, else `failure`; `status` is waitpid's at its end.

    `adopted`: named by MAINPID=, so perhaps another process's child.
    """

    __slots__ = ("adopted", "executed", "failure", "pid", "program", "start", "status")

    def __init__(self, pid: int, start: int, program: str) -> None:
        self.pid = pid
        self.start = start
        self.program = program
        self.executed = False
        self.adopted = False
        self.failure = ""
        self.status: int | None = None

    @property
    def reported(self) -> bool:
        """Whether it is known if its program could be run."""
        return self.executed or bool(self.failure)

    @property
    def ended(self) -> bool:
        return self.status is not None and self.reported

    def exit(self, *, command: bool = False) -> Exit:
        """Return how it ended; its text names the program."""
        status = self.status or 0
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            name = SIGNAL_NAMES.get(number, f"SIG{number}")
            return Exit(signal=name, command=command, text=f"{self.program} was killed by {name}")
        code = os.WEXITSTATUS(status)
        text = self.failure or f"{self.program} exited with status {code}"
        return Exit(code, command=command, text=text)


class Children:
    """Every process of the unit is a descendant of ours, for we are their subreaper: no child, no process."""

    def __init__(self, order: dict[str, Any], poller: Poller) -> None:
        self._service: dict[str, Any] = order["service"]
        self._poller = poller
        self._output = Output(order["output_bytes"])
        self.group = Group()
        self.group.listen(poller)
        self._known: dict[int, Child] = {}
        self.sessions: dict[str, int] = {}
        self.any = False
        self._pipes = {stream: self._pipe(stream) for stream in ("stdout", "stderr")}

    def _pipe(self, stream: str) -> tuple[int, int]:
        # We keep the writing end too: the pipe never ends, whoever else holds it.
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self._poller.add(reader, lambda: self._read(stream))
        return reader, writer

    def _read(self, stream: str) -> bool:
        try:
            data = os.read(self._pipes[stream][0], 65536)
        except BlockingIOError:
            return False
        self._output.feed(stream, data)
        return True

    def drain(self) -> None:
        """Write down what ended processes have printed, also half a line."""
        for stream in self._pipes:
            for _ in range(64):  # a living flood must not hold us up
                if not self._read(stream):
                    self._output.feed(stream, b"")
                    break

    def evidence(self) -> Evidence:
        """Return what the host counted in this run, and what it said at its end."""
        return self.group.evidence(said_files=time.monotonic() - self._output.complained < LAST_WORDS_S)

    def spawn(self, command: dict[str, Any], environment: dict[str, str]) -> Child:
        """Start a command, in a session of its own."""
        words = command["words"] if command["literal"] else expand_words(command["words"], environment)
        output = (self._pipes["stdout"][1], self._pipes["stderr"][1])
        pid, report = launch.spawn(self._service, command, words, environment, output, self.group.enter)
        process = processes.look(pid)
        child = Child(pid, process.start if process else 0, words[0])
        self._known[pid] = child
        self.any = True
        self.sessions = {
            leader: start for leader, start in self.sessions.items() if processes.is_alive(int(leader), start)
        } | {str(pid): child.start}
        self._poller.add(report, lambda: self._reported(child, report))
        return child

    def _reported(self, child: Child, report: int) -> None:
        try:
            message = os.read(report, 8192)
        except BlockingIOError:
            return
        if message:
            child.failure = message.decode(errors="replace")
        else:
            child.executed = not child.failure
            self._poller.remove(report)
            os.close(report)

    def adopt(self, pid: int, program: str) -> Child | None:
        """Return the child of MAINPID=, when that process is one of the unit's."""
        for process in processes.descendants(os.getpid()):
            if process.pid == pid:
                child = self._known.setdefault(pid, Child(pid, process.start, program))
                child.executed = child.adopted = True
                return child
        return None

    def check(self, child: Child) -> None:
        """See whether an adopted child ended; only its own parent is told."""
        self.reap()
        if child.status is None and not processes.is_alive(child.pid, child.start):
            child.status = 0

    def owns(self, pid: int) -> bool:
        """Tell whether a process is of this unit, or was gone before we could look."""
        return processes.look(pid) is None or any(
            process.pid == pid for process in processes.descendants(os.getpid())
        )

    def reap(self) -> None:
        """Take note of every child that ended, ours or an orphan that came to us."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                child = self._known.pop(pid, None)
                if child is not None:
                    child.status = status
        except ChildProcessError:
            self.any = False

    def signal(self, child: Child, number: int) -> None:
        """Send a signal to one of ours, if it still runs."""
        process = processes.look(child.pid)
        if process is not None and process.start == child.start:
            processes.send(process, number)

    def signal_all(self, number: int, besides: int = 0) -> list[str]:
        """Send a signal to every process but one; returns those that we are not allowed to signal."""
        refused = []
        for process in processes.descendants(os.getpid()):
            if process.pid != besides and not processes.send(process, number):
                refused.append(str(process.pid))
        return refused
