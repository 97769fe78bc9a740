"""Which change of a copy is worth an event."""

from __future__ import annotations

from dataclasses import dataclass

from unit_agent.driver import Copy
from unitfleet.model import CopyPhase


@dataclass(frozen=True, slots=True)
class Told:
    """An event's kind and words."""

    kind: str
    message: str


def happening(before: Copy | None, after: Copy | None) -> Told | None:
    """Return what to tell of a copy that changed, or None when nobody would ask for it later."""
    if after is None:
        return None
    if before is not None and before.phase is after.phase and before.restarts == after.restarts:
        lost = after.phase is CopyPhase.RUNNING and after.oom_kills > before.oom_kills
        return Told("oom", after.message) if lost else None
    match after.phase:
        case CopyPhase.FAILED:
            return Told("failed", _because(after))
        case CopyPhase.FINISHED:
            return Told("finished", after.message)
        case CopyPhase.RESTARTING:
            return Told("restarted", _because(after))
        case CopyPhase.RUNNING if before is None or before.phase in (CopyPhase.LOADED, CopyPhase.STARTING):
            said = f"; {after.message}" if after.message else ""
            return None if after.restarts else Told("started", f"runs by the {after.driver} driver{said}")
    return None


def _because(copy: Copy) -> str:
    """Return the message of an end, with its cause."""
    return f"{copy.message} [{copy.cause}]" if copy.cause else copy.message
