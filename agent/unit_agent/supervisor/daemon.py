"""The supervisor's process: wires one unit's life to its files, and carries it on turn by turn."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys
import time

from unit_agent.supervisor import native, plainjson
from unit_agent.supervisor.control import Connection, Control, answer
from unit_agent.supervisor.life import Life
from unit_agent.supervisor.poller import Poller
from unit_agent.supervisor.state import EXECUTING, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GRACE_S = 10.0  # how long a supervisor waits for its first command
RETRY_S = 1.0  # how often a state that the disk did not take is written again
TRIM_AFTER_S = 1.0  # after a change: the pages that it touched are let go


class Daemon:
    """Takes commands, and lives as long as its unit has a process, waits to restart, or is being asked."""

    def __init__(self, directory: str, boot_id: str, listener: int) -> None:
        os.chdir(directory)
        native.become_subreaper()
        with open("order.json") as file:
            self.order: dict[str, Any] = plainjson.read(file.read())
        self.poller = Poller()
        self.trim_at: float | None = None
        self.state = State(boot_id)
        self.waiting: list[tuple[Connection, str, str]] = []
        self.control = Control(self.poller, listener, lambda: self.state.text, self.commanded)
        self.life = Life(self.order, self.poller, self.change)
        self._watch_signals()

    def _watch_signals(self) -> None:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda number, frame: None)
        _signal.signal(_signal.SIGTERM, lambda number, frame: self.life.ask_stop("its supervisor got SIGTERM"))
        for ignored in (_signal.SIGINT, _signal.SIGHUP, _signal.SIGPIPE):
            _signal.signal(ignored, _signal.SIG_IGN)

        def woken() -> None:
            os.read(reader, 4096)
            self.life.reap()

        self.poller.add(reader, woken)

    def change(self, **fields: Any) -> None:
        """Make a transition known: on disk first, then to the agents."""
        if self.state.change(**fields):
            self.trim_at = time.monotonic() + TRIM_AFTER_S
            self.control.broadcast(self.state.text)

    def commanded(self, connection: Connection, number: str, verb: str) -> None:
        match verb:
            case "start":
                self.life.ask_start()
            case _ if verb.startswith("start-by "):
                if time.clock_gettime(time.CLOCK_BOOTTIME) > float(verb.partition(" ")[2]):
                    answer(connection, number, "it is strict, and its confirmation ran out")
                    return
                verb = "start"
                self.life.ask_start()
            case "stop":
                self.life.ask_stop("")
            case "reload":
                self.life.ask_reload()
            case "quit":
                pass
            case _ if verb.startswith(("fail ", "give-up ")):
                verb, _, why = verb.partition(" ")
                self.life.ask_fail(why, for_good=verb == "give-up")
            case _:
                answer(connection, number, f"cannot {verb}: no such command")
                return
        self.waiting.append((connection, number, verb))

    def answer_done(self) -> None:
        """Answer the commands that are carried out by now."""
        left = []
        for connection, number, verb in self.waiting:
            error = self.life.outcome(verb)
            if error is None:
                left.append((connection, number, verb))
            else:
                answer(connection, number, error)
        self.waiting = left

    def run(self) -> None:
        """Carry on until the unit has ended and everybody knows."""
        steps = self.life.run()
        wake = next(steps)
        first_until = time.monotonic() + GRACE_S
        while True:
            deadlines = [at for at in (wake, self.trim_at, self.life.look_at) if at is not None]
            if not self.state.saved:
                deadlines.append(time.monotonic() + RETRY_S)
            if not self.life.begun:
                deadlines.append(first_until)
            self.poller.turn(min(deadlines, default=None))
            wake = steps.send(None)
            self.answer_done()
            now = time.monotonic()
            if not self.state.saved:
                self.state.save()
            if self.life.look_at is not None and now >= self.life.look_at:
                self.life.look()
            if self.trim_at is not None and now >= self.trim_at:
                native.trim()
                self.trim_at = None
            if self.may_end(now >= first_until):
                break
        self.control.close()

    def may_end(self, waited: bool) -> bool:
        """Whether nothing is left to do: no process, no command, and the last state is on disk."""
        if not self.state.saved or self.state.fields["phase"] in EXECUTING or self.waiting or self.life.asked:
            return False
        if self.life.quitting:
            return True
        return not self.life.has_processes() if self.life.begun else waited


def main(directory: str, boot_id: str, lock: int, listener: int, start: bool) -> None:
    """Run until the unit has ended. The open file `lock` says that we live: no child of ours may hold it."""
    os.set_inheritable(lock, False)
    os.set_inheritable(listener, False)
    sys.path_importer_cache.clear()  # what the source directories hold: 30 kB, and all is imported by now
    daemon = Daemon(directory, boot_id, listener)
    if start:
        daemon.life.ask_start()
    daemon.run()
