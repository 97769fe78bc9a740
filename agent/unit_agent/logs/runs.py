"""The runs of a unit on this machine, by what was seen of its copies: which one was the last that ended.

A run begins when the copy is started, by order or by `Restart=`, and ends with its main process. Pure; whoever
keeps a list of runs hands it in and keeps what comes back.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from unit_agent.driver import Copy
from unitfleet.model import CopyPhase

KEPT = 20

TRAILING_S = 0.05
"""What a process wrote last is stamped a little after its end was: less than any restart waits."""

LEADING_S = 2.0
"""What a process writes first is stamped before it is seen to run."""

_RUNS = (CopyPhase.STARTING, CopyPhase.RUNNING, CopyPhase.STOPPING)
_ENDED = (CopyPhase.RESTARTING, CopyPhase.FAILED, CopyPhase.FINISHED)


class Run(msgspec.Struct, frozen=True):
    """One run, in seconds since 1970; `ended` 0: it runs. `why`: how it ended."""

    epoch: int
    began: float
    ended: float = 0.0
    why: str = ""


def noted(runs: Sequence[Run], before: Copy | None, after: Copy | None, now: float) -> tuple[Run, ...]:
    """Return the runs after a copy came, went or changed; `before` None and `after` not: it was found as it is."""
    found = list(runs)
    if after is None or after.phase is CopyPhase.LOADED:
        _end(found, now if after is None else _moment(after, now), "it was stopped")
    elif after.phase in _RUNS:
        if before is not None and before.restarts != after.restarts:
            _end(found, _moment(after, now) - TRAILING_S, before.message)
        if not found or found[-1].ended:
            found.append(Run(after.epoch, _moment(after, now)))
    elif after.phase in _ENDED and (before is None or _end_of(before) != _end_of(after)):
        at = _moment(after, now)
        if (not found or found[-1].ended) and before is not None:
            found.append(Run(after.epoch, found[-1].ended if found else at - LEADING_S))
        _end(found, at, after.message or str(after.phase))
    return tuple(found[-KEPT:])


def previous(runs: Sequence[Run]) -> tuple[Run, float, float] | None:
    """Return the last run that has ended, and the times that its lines lie between; None when none has."""
    ended = [index for index, run in enumerate(runs) if run.ended]
    if not ended:
        return None
    index = ended[-1]
    run = runs[index]
    since = run.began - LEADING_S
    if index:
        since = max(since, runs[index - 1].ended + TRAILING_S)
    return run, since, run.ended + TRAILING_S


def _end(found: list[Run], at: float, why: str) -> None:
    if found and not found[-1].ended:
        run = found[-1]
        found[-1] = Run(run.epoch, run.began, max(at, run.began), why)


def _end_of(copy: Copy) -> tuple[CopyPhase, int, float]:
    return copy.phase, copy.restarts, copy.since


def _moment(copy: Copy, now: float) -> float:
    return min(copy.since, now) if copy.since > 0 else now
