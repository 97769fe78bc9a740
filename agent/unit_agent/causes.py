"""Why a copy ended, in one word and with the figures that show it: what stands in its state as `cause`.

Pure, and built from nothing but plain classes: the supervisor runs it without our dependencies. The words are
the values of `unitfleet.model.Cause`. What can be seen from outside is not always enough to be sure: what is
recognised, and by what, stands in docs/limits.md.
"""

from __future__ import annotations

from unit_agent.restart import EXITED, KILLED, Exit
from unit_agent.restart import cause_of as plain_cause

OOM, ULIMIT = "oom", "ulimit"

FILES_WORDS = "Too many open files"
"""What the C library says of EMFILE: the one trace that a limit of open files leaves outside the process."""

LAST_WORDS_S = 10.0
"""What was said longer than this before an end is not its cause."""

OUTLIVED_S = 1.0
"""After this, a process that the kernel killed for memory has not been the main one."""

AGAIN_S = 60.0
"""How often, after the first time in a run, it is said that a copy lost more."""

_LIMIT_SIGNALS = {"SIGXCPU": "its limit of CPU time", "SIGXFSZ": "its limit of file size"}
_MIB = 1 << 20


class Evidence:
    """What the host counted in the run that ended. Sizes in bytes, 0: none, or not known.

    `oom_kills`: processes of it that the kernel killed for memory. `forks_refused`: how often it was at its
    `tasks_max`. `said_files`: it complained of open files just before it ended.
    """

    __slots__ = ("forks_refused", "memory_limit", "memory_peak", "oom_kills", "said_files", "tasks_max")

    def __init__(
        self,
        *,
        oom_kills: int = 0,
        memory_peak: int = 0,
        memory_limit: int = 0,
        forks_refused: int = 0,
        tasks_max: int = 0,
        said_files: bool = False,
    ) -> None:
        self.oom_kills = oom_kills
        self.memory_peak = memory_peak
        self.memory_limit = memory_limit
        self.forks_refused = forks_refused
        self.tasks_max = tasks_max
        self.said_files = said_files


def cause_of(exit: Exit, evidence: Evidence, *, clean: bool) -> str:
    """Return the cause of an end that nobody ordered; `clean` as `unit_agent.restart.is_clean` tells it."""
    if not clean and exit.cause in (EXITED, KILLED):  # else the agent or the supervisor has ended it
        if evidence.oom_kills:
            return OOM
        if exit.signal in _LIMIT_SIGNALS or evidence.forks_refused or evidence.said_files:
            return ULIMIT
    return plain_cause(exit)


def explain(cause: str, exit: Exit, evidence: Evidence, why: str) -> str:
    """Return `why` (how it ended, and what follows) with the figures of its cause before it."""
    if cause == OOM:
        return f"{oom_words(evidence.memory_peak, evidence.memory_limit)}: {why}"
    if cause == ULIMIT:
        return f"{_limit_words(exit, evidence)}: {why}"
    return why


def oom_words(peak: int, limit: int) -> str:
    """Return `OOM-killed at 64 MiB (limit 64 MiB)`; a limit is reached exactly when the kernel kills for it."""
    at = f" at {size_words(peak or limit)}" if peak or limit else ""
    return f"OOM-killed{at} ({f'limit {size_words(limit)}' if limit else 'no limit of its own'})"


def outlived_words(kills: int, peak: int, limit: int) -> str:
    """Return what is said of a copy whose main process has outlived such kills."""
    return f"{oom_words(peak, limit)}: {kills} of its processes; it runs on"


def size_words(size: int) -> str:
    """Return a size in MiB, with one decimal where it has one."""
    return f"{round(size / _MIB, 1):g} MiB"


def _limit_words(exit: Exit, evidence: Evidence) -> str:
    if exit.signal in _LIMIT_SIGNALS:
        return f"ran into {_LIMIT_SIGNALS[exit.signal]}"
    if evidence.forks_refused:
        of = f" of {evidence.tasks_max}" if evidence.tasks_max else ""
        return f"ran into its limit{of} tasks"
    return f'ran out of open files (it said "{FILES_WORDS}")'
