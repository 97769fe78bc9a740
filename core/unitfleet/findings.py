"""What `doctor` finds, and what agents and masters say of themselves for it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from unitfleet.api import API

MOST_SKEW_S = 1.0
"""By how much clocks may differ before it is worth a word."""


class Severity(StrEnum):
    """How bad a finding is, in rising order."""

    OK = "ok"
    NOTE = "note"  # worth knowing, nothing to do now
    WARNING = "warning"  # will hurt some day
    PROBLEM = "problem"  # hurts now

    @property
    def rank(self) -> int:
        """Its place in the order."""
        return list(Severity).index(self)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at: `what` was found, `why` it matters, and a `fix`, "" where there is none."""

    severity: Severity
    about: str  # etcd, clocks, versions, drivers, disk, images, links, brake, machines, units, audit, policy, …
    what: str
    why: str = ""
    fix: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/doctor`: the findings, worst first, by `master`, whose clock showed `at`."""

    api: str = API
    rev: int
    master: str
    at: float
    findings: tuple[Finding, ...]


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of itself: its clock, its drivers, the disk of its state."""

    at: float
    awaited: tuple[str, ...] = ()  # drivers that its settings name and that are not there
    troubles: dict[str, str] = {}  # driver → why it can't be asked, those that can left out
    state_dir: str = ""
    state_used_percent: float = 0.0


class MasterCheckup(msgspec.Struct, frozen=True, kw_only=True):
    """What a master says of itself: its clock, and why its audit log takes no line, "" when it does."""

    name: str
    at: float
    version: str
    audit_trouble: str = ""


class CheckupQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What a master asks another one for: nothing but that."""


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings in the order in which a person should read them."""
    return tuple(sorted(findings, key=lambda finding: -finding.severity.rank))


def skew(there: float, sent: float, took_s: float) -> float:
    """Return by how much another clock surely is off: it was read within `took_s` after `sent`."""
    if there > sent + took_s:
        return there - (sent + took_s)
    return min(0.0, there - sent)
