"""The life of a unit, step by step, as systemd.service(5) has it.

A generator: it yields when it waits, until when at the latest (monotonic, None: until something happens), and
is resumed after every turn of the poller. So the order of things reads from top to bottom.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import time

from unit_agent.causes import cause_of, explain, outlived_words
from unit_agent.restart import (
    BROKE,
    EXITED,
    TIMED_OUT,
    WATCHDOG,
    Ended,
    Exit,
    History,
    decide,
    is_clean,
)
from unit_agent.supervisor.children import Child, Children
from unit_agent.supervisor.environment import base_environment, ending, read_files
from unit_agent.supervisor.notify import NotifySocket
from unit_agent.supervisor.plainjson import Fields
from unit_agent.supervisor.state import (
    EXECUTING,
    FAILED,
    FINISHED,
    LOADED,
    RESTARTING,
    RUNNING,
    STARTING,
    STOPPING,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, TypeVar

    from unit_agent.supervisor.poller import Poller

    T = TypeVar("T")
    Steps = Generator[float | None, None, T]

LOOK_S = 1.0  # how often a main process is looked at that is not our child
KILL_S = 10.0  # how long a process may take to end after SIGKILL


class Stopped(Exception):
    """Somebody asked for a stop."""


class Broken(Exception):
    """The start or the run ended with `exit`."""

    def __init__(self, exit: Exit) -> None:
        super().__init__(str(exit))
        self.exit = exit


class Stuck(Exception):
    """Something of the unit can't be ended."""


class Dice:
    """Random numbers for the back-off (the random module costs 1 MB)."""

    def random(self) -> float:
        return int.from_bytes(os.urandom(6), "big") / float(1 << 48)


class Life:
    """Carries one unit from start to end, over its restarts; `change` makes each transition known."""

    def __init__(self, order: dict[str, Any], poller: Poller, change: Callable[..., None]) -> None:
        self._order = order
        self._service: dict[str, Any] = order["service"]
        self._policy = Fields(self._service["restart"])
        self._change_state = change
        self._children = Children(order, poller)
        self._phase = LOADED
        self._main: Child | None = None
        self._environment: dict[str, str] = {}
        self._ready = self._start_asked = self._stop_asked = self._reload_asked = False
        self._why_stopped = self._reload_failure = self._broken = ""
        self._for_good = False  # what broke it is no matter of Restart=
        self._stuck = ""  # why something of the unit can't be ended; nothing is started until it is
        self.begun = False
        self.quitting = False  # told to go, and to leave alone what KillMode= has spared
        self._notify: NotifySocket | None = None
        if self._service["type"] == "notify" or self._service["notify_access_all"]:
            self._notify = NotifySocket(poller, self._heard)

    # What others ask.

    def ask_start(self) -> None:
        self.begun = True
        if self._phase not in (STARTING, RUNNING, RESTARTING):
            self._start_asked = True

    def ask_stop(self, why: str) -> None:
        self.begun = True
        self._start_asked = False
        if self._phase in EXECUTING or self._stuck:
            self._stop_asked = True
            self._why_stopped = why

    def ask_fail(self, why: str, *, for_good: bool) -> None:
        """End the run as one that broke; with `for_good` whatever Restart= says."""
        if self._phase == RUNNING:
            self._broken = why
            self._for_good = for_good

    def ask_reload(self) -> None:
        self._reload_asked = True
        self._reload_failure = ""

    @property
    def asked(self) -> bool:
        """Whether something that was asked for is still to be done."""
        return self._start_asked or self._stop_asked

    def outcome(self, verb: str) -> str | None:
        """Return None while a command is under way, then "" or why it failed."""
        match verb:
            case "start":
                return None if self._start_asked or self._phase in (STARTING, STOPPING) else ""
            case "stop":
                return None if self._stop_asked or self._phase in EXECUTING else self._stuck
            case "fail" | "give-up":
                return None if self._broken else ""
            case "reload":
                if self._reload_asked and self._phase != RUNNING:
                    self._reload_asked = False
                    self._reload_failure = f"cannot reload: it is {self._phase}"
                return None if self._reload_asked else self._reload_failure
            case _:
                self.quitting = self._phase not in EXECUTING and not self._stuck
                return "" if self.quitting else self._stuck or f"cannot quit: it is {self._phase}"

    def reap(self) -> None:
        self._children.reap()

    def has_processes(self) -> bool:
        return self._children.any

    @property
    def look_at(self) -> float | None:
        """When `look` has something to see (monotonic), None: never."""
        return self._children.group.look_at

    def look(self) -> None:
        """Say that the unit lost processes to its memory limit, if its main one lives on; else its end says so."""
        self._children.group.looked()
        seen = self._children.evidence()
        if self._phase == RUNNING and not self._main_ended() and seen.oom_kills:
            message = outlived_words(seen.oom_kills, seen.memory_peak, seen.memory_limit)
            self._change_state(oom_kills=seen.oom_kills, message=message)

    # What happens.

    def run(self) -> Steps[None]:
        """Live whenever a start is asked for."""
        while True:
            while not self.asked:
                yield None
            started = self._start_asked
            try:
                if self._stuck:
                    yield from self._end_processes(self._service["timeout_stop_s"])
                self._stuck = ""
                if started:
                    self._start_asked = self._stop_asked = False
                    self._why_stopped = ""
                    yield from self._live()
                else:
                    self._become(LOADED, "dead", message="", restarts=0, stuck=False)
            except Stuck as stuck:
                self._broken, self._for_good = "", False
                self._stuck = str(stuck)
                self._become(FAILED, "failed", message=self._stuck, stuck=True)
                self._start_asked = False
            self._stop_asked = False

    def _live(self) -> Steps[None]:
        history = History()
        restarts = 0
        while True:
            history = history.started(time.monotonic(), self._policy)
            afresh = {} if restarts else {"cause": "", "exit_code": None}
            self._become(STARTING, "start", message="", restarts=restarts, oom_kills=0, stuck=False, **afresh)
            self._children.group.begin()
            exit = yield from self._once()
            for_good, self._broken, self._for_good = self._for_good, "", False
            if exit is None:
                self._become(LOADED, "dead", message=self._why_stopped, restarts=0)
                return
            outcome = decide(self._policy, exit, history, time.monotonic(), Dice())
            if for_good:
                outcome = Ended(FAILED, str(exit))
            code = exit.code if exit.cause == EXITED else None
            seen = self._children.evidence()
            cause = cause_of(exit, seen, clean=is_clean(self._policy, exit))
            ended = {"message": explain(cause, exit, seen, outcome.why), "cause": cause, "exit_code": code}
            if isinstance(outcome, Ended):
                failed = outcome.phase == FAILED
                self._become(FAILED if failed else FINISHED, "failed" if failed else "dead", **ended)
                return
            self._become(RESTARTING, "auto-restart", **ended)
            try:
                yield from self._wait(lambda: False, outcome.delay_s)
            except Stopped:
                self._become(LOADED, "dead", message=self._why_stopped, restarts=0)
                return
            history = outcome.history
            restarts += 1

    def _once(self) -> Steps[Exit | None]:
        """Start, run and bring down; returns how it ended, None if it was stopped."""
        exit: Exit | None = None
        up = False
        try:
            yield from self._start()
            up = True
            yield from self._stay_up()
        except Stopped:
            pass
        except Broken as broken:
            exit = broken.exit
        yield from self._bring_down(exit, up)
        return None if self._stop_asked else exit

    def _start(self) -> Steps[None]:
        self._main = None
        self._ready = False
        try:
            files = read_files(self._service["environment_files"])
        except OSError as error:
            text = f"cannot read EnvironmentFile={error.filename}: {error.strerror}"
            raise Broken(Exit(1, cause=BROKE, text=text)) from error
        self._environment = base_environment(self._order, files)
        if self._notify is not None:
            self._environment["NOTIFY_SOCKET"] = self._notify.address
        for command in self._service["start_pre"]:
            yield from self._command("ExecStartPre", "start-pre", command)
        limit_s = self._service["timeout_start_s"]
        if self._service["type"] == "oneshot":
            for command in self._service["start"]:
                yield from self._oneshot(command, limit_s)
        else:
            yield from self._daemon(self._service["start"][0], limit_s)
        for command in self._service["start_post"]:
            yield from self._command("ExecStartPost", "start-post", command)

    def _oneshot(self, command: dict[str, Any], limit_s: float | None) -> Steps[None]:
        main = self._main = self._children.spawn(command, self._environment)
        self._become(STARTING, "start")
        if not (yield from self._wait(lambda: main.ended, limit_s)):
            raise Broken(Exit(cause=TIMED_OUT, text=f"{main.program} did not end within {limit_s:g} s"))
        exit = main.exit(command=True)
        if not is_clean(self._policy, exit) and not command["ignore_failure"]:
            raise Broken(exit)

    def _daemon(self, command: dict[str, Any], limit_s: float | None) -> Steps[None]:
        main = self._main = self._children.spawn(command, self._environment)
        self._become(STARTING, "start")
        notify = self._service["type"] == "notify"
        done = (lambda: self._ready or self._main_ended()) if notify else (lambda: main.reported)
        if not (yield from self._wait(done, limit_s)):
            what = "say READY=1" if notify else "start"
            raise Broken(Exit(cause=TIMED_OUT, text=f"{main.program} did not {what} within {limit_s:g} s"))
        if main.failure:
            yield from self._wait(lambda: main.ended, None)
            raise Broken(main.exit())
        if notify and not self._ready:
            exit = self._main_exit()
            text = f"{exit} before it said READY=1"
            raise Broken(Exit(exit.code, exit.signal, cause=BROKE, text=text))

    def _stay_up(self) -> Steps[None]:
        """Be up until the main process ends, then raise Broken with how; or until a stop is asked for."""
        oneshot = self._service["type"] == "oneshot"
        if not oneshot:
            self._become(RUNNING, "running")
            while not self._main_ended():
                main = self._main
                again_s = LOOK_S if main is not None and main.adopted else None
                yield from self._wait(lambda: self._main_ended() or self._told(), again_s)
                self._break()
                if main is not None and main.adopted:
                    self._children.check(main)
                if self._reload_asked:
                    yield from self._reload()
        exit = Exit(command=True) if oneshot else self._main_exit()
        if is_clean(self._policy, exit) and self._service["remain_after_exit"]:
            self._become(RUNNING, "exited", pid=0)
            while True:
                yield from self._wait(self._told)
                self._break()
                yield from self._reload()
        raise Broken(exit)

    def _told(self) -> bool:
        return self._reload_asked or bool(self._broken)

    def _break(self) -> None:
        """Raise Broken when somebody said that it is."""
        if self._broken:
            raise Broken(Exit(1, cause=WATCHDOG, text=self._broken))

    def _reload(self) -> Steps[None]:
        sub = "running" if not self._main_ended() else "exited"
        try:
            for command in self._service["reload"]:
                self._become(RUNNING, "reload", active="reloading")
                yield from self._command("ExecReload", "", command)
        except Broken as broken:
            self._reload_failure = f"cannot reload: {broken.exit}"
        finally:
            self._reload_asked = False
        self._become(RUNNING, sub)

    def _bring_down(self, exit: Exit | None, up: bool) -> Steps[None]:
        """Leave no process, but for what KillMode= spares."""
        limit_s = self._service["timeout_stop_s"]
        well = exit is None or is_clean(self._policy, exit)
        self._environment |= ending(exit, well)
        if up and well and self._service["stop"]:
            self._become(STOPPING, "stop")
            yield from self._stop_commands("ExecStop", self._service["stop"], limit_s)
        yield from self._end_processes(limit_s)
        if self._service["stop_post"]:
            self._become(STOPPING, "stop-post")
            yield from self._stop_commands("ExecStopPost", self._service["stop_post"], limit_s)
            yield from self._end_processes(limit_s)
        self._children.drain()

    def _stop_commands(self, key: str, commands: list[dict[str, Any]], limit_s: float | None) -> Steps[None]:
        try:
            for command in commands:
                yield from self._command(key, "", command, limit_s=limit_s, stoppable=False)
        except Broken as broken:
            # A failing stop command ends the list of them, and never the stop.
            self._why_stopped = self._why_stopped or str(broken.exit)

    def _end_processes(self, limit_s: float | None) -> Steps[None]:
        mode = self._service["kill_mode"]
        main = self._main if self._main is not None and not self._main_ended() else None
        if mode == "none" or not self._children.any:
            return
        if mode == "process" and main is None:
            return
        self._become(STOPPING, "stop-sigterm")
        ended = (lambda: self._main_ended()) if mode == "process" else (lambda: not self._children.any)
        if mode == "control-group":
            self._children.signal_all(self._service["kill_signal"])
            self._children.signal_all(_signal.SIGCONT)
        elif main is not None:
            self._children.signal(main, self._service["kill_signal"])
            self._children.signal(main, _signal.SIGCONT)
        if mode == "mixed":
            yield from self._wait(self._main_ended, limit_s, stoppable=False)
        elif (yield from self._wait(ended, limit_s, stoppable=False)):
            return
        if not self._children.any:
            return
        if not self._service["send_sigkill"]:
            raise Stuck("cannot end every process: KillSignal= was not enough, and SendSIGKILL=no")
        yield from self._kill(mode, ended)

    def _kill(self, mode: str, ended: Callable[[], bool]) -> Steps[None]:
        self._become(STOPPING, "stop-sigkill")
        until = time.monotonic() + KILL_S
        refused: list[str] = []
        while time.monotonic() < until:
            if mode != "process":
                refused = self._children.signal_all(_signal.SIGKILL)
            elif self._main is not None:
                self._children.signal(self._main, _signal.SIGKILL)
            # Looked at again and again: what forks while it is killed leaves children that were not listed.
            if (yield from self._wait(ended, 0.05, stoppable=False)):
                return
        left = ", ".join(refused) or "one that the kernel holds"
        raise Stuck(f"cannot end every process: {left} outlived SIGKILL by {KILL_S:g} s")

    # One command, and waiting.

    def _command(
        self, key: str, sub: str, command: dict[str, Any], *, limit_s: float | None = -1.0, stoppable: bool = True
    ) -> Steps[None]:
        """Run one command to its end; raises Broken when it fails and may not."""
        if limit_s is not None and limit_s < 0:
            limit_s = self._service["timeout_start_s"]
        environment = dict(self._environment)
        if self._main is not None and not self._main_ended():
            environment["MAINPID"] = str(self._main.pid)
        child = self._children.spawn(command, environment)
        if sub:
            self._become(self._phase, sub)
        else:
            self._change_state(sessions=self._children.sessions)
        ended = yield from self._wait(lambda: child.ended, limit_s, stoppable)
        if not ended:
            self._children.signal(child, _signal.SIGKILL)
            text = f"{key}={child.program} did not end within {limit_s:g} s"
            raise Broken(Exit(cause=TIMED_OUT, text=text))
        exit = child.exit(command=True)
        if not is_clean(self._policy, exit) and not command["ignore_failure"]:
            raise Broken(Exit(exit.code, exit.signal, command=True, text=f"{key}=: {exit}"))

    def _wait(
        self, ready: Callable[[], bool], limit_s: float | None = None, stoppable: bool = True
    ) -> Steps[bool]:
        """Wait until `ready`; False when `limit_s` passed before. Raises Stopped when a stop is asked for."""
        until = None if limit_s is None else time.monotonic() + limit_s
        while not ready():
            if stoppable and self._stop_asked:
                raise Stopped
            if until is not None and time.monotonic() >= until:
                return False
            yield until
        return True

    def _main_ended(self) -> bool:
        return self._main is None or self._main.ended

    def _main_exit(self) -> Exit:
        return self._main.exit() if self._main is not None else Exit()

    def _heard(self, pid: int, said: dict[str, str]) -> None:
        main = self._main
        if main is None or self._phase not in (STARTING, RUNNING):
            return
        if pid != main.pid and not (self._service["notify_access_all"] and self._children.owns(pid)):
            return
        if "MAINPID" in said and said["MAINPID"].isdigit():
            self._main = self._children.adopt(int(said["MAINPID"]), main.program) or main
            self._change_state(**self._main_fields())
        self._ready = self._ready or said.get("READY") == "1"
        if "STATUS" in said:
            self._change_state(message=said["STATUS"])
        if said.get("STOPPING") == "1":
            self._change_state(sub="stop-notify")

    def _main_fields(self) -> dict[str, Any]:
        main = self._main if self._main is not None and not self._main.ended else None
        return {"pid": main.pid if main else 0, "pid_start": main.start if main else 0}

    def _become(self, phase: str, sub: str, **fields: Any) -> None:
        self._phase = phase
        self._change_state(
            **{"phase": phase, "sub": sub, "sessions": self._children.sessions, **self._main_fields(), **fields}
        )
