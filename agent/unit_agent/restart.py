"""Whether and when a copy that ended is started again: systemd's `Restart=` (systemd.service(5)), with a back-off.

Pure, and built from nothing but plain classes: the supervisor runs it without our dependencies. A policy is
anything with the fields of `unitfleet.spec.RestartPolicy`; `when` may be the enum or its text. Times are
seconds of any monotonic clock.

The back-off is ours: systemd restarts at a fixed pace until StartLimitBurst=, and a fleet of crashing units
with the limit switched off would keep its hosts busy with nothing else. The first delay is RestartSec=; each
further quick failure doubles the bound, up to MAX_DELAY_S, and the delay is drawn evenly between RestartSec=
and that bound, so that units that fell together don't rise together. CALM_S of running forgets it all.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Statuses(Protocol):
        """Exit codes and signal names, as in `unitfleet.spec.ExitStatus`."""

        @property
        def codes(self) -> Sequence[int]: ...
        @property
        def signals(self) -> Sequence[str]: ...

    class Policy(Protocol):
        """What `decide` reads of `unitfleet.spec.RestartPolicy`."""

        @property
        def when(self) -> str: ...
        @property
        def delay_s(self) -> float: ...
        @property
        def limit_interval_s(self) -> float: ...
        @property
        def limit_burst(self) -> int: ...
        @property
        def success(self) -> Statuses: ...
        @property
        def prevent(self) -> Statuses: ...
        @property
        def force(self) -> Statuses: ...

    class Dice(Protocol):
        """What `decide` needs of `random.Random`."""

        def random(self) -> float: ...


MAX_DELAY_S = 300.0
CALM_S = 600.0
STEP_S = 0.1  # what is doubled when RestartSec= is 0

FINISHED = "finished"  # values of unitfleet.model.CopyPhase
FAILED = "failed"

EXITED, KILLED, TIMED_OUT, WATCHDOG, BROKE = "exited", "killed", "timed out", "watchdog", "broke"

_CLEAN_SIGNALS = ("SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE")


class Exit:
    """How the main process ended: an exit code, or a signal's name.

    `cause`: EXITED or KILLED by itself; TIMED_OUT when a start, run or stop took too long; WATCHDOG; BROKE when
    it did not keep to its Type= (a notify service that ended without READY=1), whatever its code.
    `command`: a oneshot's, for which no signal is clean. `text` says it better than code and cause can.
    """

    __slots__ = ("cause", "code", "command", "signal", "text")

    def __init__(
        self, code: int = 0, signal: str = "", *, cause: str = "", command: bool = False, text: str = ""
    ) -> None:
        self.code = code
        self.signal = signal
        self.cause = cause or (KILLED if signal else EXITED)
        self.command = command
        self.text = text

    def __str__(self) -> str:
        if self.text:
            return self.text
        ending = f"killed by {self.signal}" if self.signal else f"exited with status {self.code}"
        return ending if self.cause in (EXITED, KILLED) else f"{self.cause}, {ending}"


class History:
    """When a copy was started, and how many quick failures in a row it has behind it."""

    __slots__ = ("quick", "starts")

    def __init__(self, starts: tuple[float, ...] = (), quick: int = 0) -> None:
        self.starts = starts
        self.quick = quick

    def started(self, at: float, policy: Policy) -> History:
        """Return the history with a start added, and without those that no limit counts any more."""
        recent = tuple(start for start in self.starts if start > at - policy.limit_interval_s)
        return History((*recent, at), self.quick)


class RestartAfter:
    """Start it again after `delay_s`; the next decision takes `history`."""

    __slots__ = ("delay_s", "history", "why")

    def __init__(self, delay_s: float, why: str, history: History) -> None:
        self.delay_s = delay_s
        self.why = why
        self.history = history


class Ended:
    """It stays ended. `phase`: FINISHED or FAILED."""

    __slots__ = ("phase", "why")

    def __init__(self, phase: str, why: str) -> None:
        self.phase = phase
        self.why = why


def is_clean(policy: Policy, exit: Exit) -> bool:
    """Tell whether this exit is a success: 0, the usual signals of a daemon, or what SuccessExitStatus= adds."""
    if exit.cause not in (EXITED, KILLED):
        return False
    if exit.signal:
        return (not exit.command and exit.signal in _CLEAN_SIGNALS) or exit.signal in policy.success.signals
    return exit.code == 0 or exit.code in policy.success.codes


def cause_of(exit: Exit) -> str:
    """Return why it ended in a word of `unitfleet.model.Cause`; a check that failed is systemd's watchdog."""
    if exit.cause == WATCHDOG:
        return "health"
    if exit.cause == TIMED_OUT:
        return "timeout"
    return "signal" if exit.signal else "exit-code"


def decide(policy: Policy, exit: Exit, history: History, at: float, dice: Dice) -> RestartAfter | Ended:
    """Decide what follows an exit at time `at` that nobody asked for (a stop is no matter of `Restart=`)."""
    clean = is_clean(policy, exit)
    ended = Ended(FINISHED if clean else FAILED, str(exit))
    if not _asked_for(policy, exit, clean):
        return ended
    calm = bool(history.starts) and at - history.starts[-1] >= CALM_S
    quick = 0 if clean else 1 if calm else history.quick + 1
    delay = _delay(policy.delay_s, quick, dice)
    counted = [start for start in history.starts if start > at + delay - policy.limit_interval_s]
    if policy.limit_burst and policy.limit_interval_s > 0 and len(counted) >= policy.limit_burst:
        limit = f"started {len(counted)} times in {policy.limit_interval_s:g} s, which is its limit"
        return Ended(FAILED, f"{exit}; not restarted: {limit}")
    why = f"{exit}; restarts in {delay:.1f} s"
    return RestartAfter(delay, why, History(history.starts, quick))


def _asked_for(policy: Policy, exit: Exit, clean: bool) -> bool:
    if _contains(policy.prevent, exit):
        return False
    if _contains(policy.force, exit):
        return True
    match str(policy.when):
        case "always":
            return True
        case "on-success":
            return clean
        case "on-failure":
            return not clean
        case "on-abnormal":
            return not clean and exit.cause != EXITED
        case "on-abort":
            return not clean and exit.cause == KILLED
        case "on-watchdog":
            return exit.cause == WATCHDOG
        case _:
            return False


def _contains(statuses: Statuses, exit: Exit) -> bool:
    return exit.signal in statuses.signals if exit.signal else exit.code in statuses.codes


def _delay(first: float, quick: int, dice: Dice) -> float:
    if quick <= 1:
        return first
    bound = min(MAX_DELAY_S, max(first, STEP_S) * 2.0 ** min(quick - 1, 30))
    return first + dice.random() * max(0.0, bound - first)
