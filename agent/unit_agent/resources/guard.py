"""When a machine is too full for new units: a decision over file systems, with a gap between close and open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OPENS_BELOW = 3
"""Percent points under its mark at which what was full counts as free again: a use at the mark must not flap."""

TOLD_AGAIN = 2
"""Percent points that a full disk's figure moves before the reason is written anew."""


@dataclass(frozen=True, slots=True)
class DiskUse:
    """A file system by a path in it: percent of its space and of its inodes used, None: can't be known now."""

    path: str
    space: float | None
    inodes: float | None = None


@dataclass(frozen=True, slots=True)
class Marks:
    """Percent from which a machine closes."""

    space: int = 90
    inodes: int = 95


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is full, each with the percentage told; `reason` is "" while the machine takes units."""

    full: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (path, space | inodes) → percent
    reason: str = ""


OPEN = Verdict()


def judge(uses: Sequence[DiskUse], marks: Marks, before: Verdict) -> Verdict:
    """Return whether the machine is closed, and why. What can't be measured now stays as it was."""
    full: dict[tuple[str, str], int] = {}
    for use in uses:
        for kind, share, mark in (("space", use.space, marks.space), ("inodes", use.inodes, marks.inodes)):
            told = before.full.get((use.path, kind))
            if share is None:
                if told is not None:
                    full[use.path, kind] = told
            elif share >= mark or (told is not None and share > mark - OPENS_BELOW):
                near = told is not None and abs(share - told) < TOLD_AGAIN
                full[use.path, kind] = told if near and told is not None else int(share)
    if full == before.full:
        return before
    return Verdict(full, "; ".join(_reason(path, kind, share, marks) for (path, kind), share in full.items()))


def _reason(path: str, kind: str, share: int, marks: Marks) -> str:
    if kind == "inodes":
        return f"disk: {share} % of the inodes of {path} used, closed from {marks.inodes} %"
    return f"disk: {share} % of {path} used, closed from {marks.space} %"
