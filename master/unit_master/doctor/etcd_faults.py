"""What is known to be wrong with versions of etcd (docs/doctor.md has the table)."""

from __future__ import annotations

from dataclasses import dataclass

from unitfleet.findings import Severity

Version = tuple[int, ...]

_AUTH_FIXED: dict[Version, int] = {(3, 5): 33, (3, 6): 14, (3, 7): 1}
"""From which patch on etcd's own authentication may be called a boundary."""

BOUND = ", ".join(f"{major}.{minor}.{patch}" for (major, minor), patch in _AUTH_FIXED.items())

_SOUND_WHEN_FULL: Version = (3, 6)
"""Before it, etcd that is out of space checks neither deletions nor changes of users (its pull request 22386)."""


@dataclass(frozen=True, slots=True)
class EtcdFault:
    """One fault of a version: what it does, and which version is free of it."""

    severity: Severity
    what: str
    fix: str


def faults_of(version: str) -> tuple[EtcdFault, ...]:
    """Return what is known to be wrong with a version; () of one that can't be read."""
    numbers = _numbers(version)
    if len(numbers) < 2:
        return ()
    found = []
    if numbers[:2] < (3, 4):
        found.append(
            EtcdFault(Severity.WARNING, "older than 3.4, which is not tested", "upgrade etcd to 3.5 or 3.6")
        )
    if numbers[:2] == (3, 4):
        what = "3.4 can revoke leases that are renewed in time: machines look suspect that are well"
        found.append(EtcdFault(Severity.WARNING, what, "upgrade etcd to 3.5 or 3.6"))
    if (3, 5, 0) <= numbers[:3] <= (3, 5, 2):
        what = "3.5.0 to 3.5.2 can lose data when killed, and members then differ"
        found.append(EtcdFault(Severity.PROBLEM, what, "upgrade etcd to the latest 3.5"))
    if not _SOUND_WHEN_FULL <= numbers[:2]:
        what = "it forgets users and roles while it is out of space: who may write a key can fill it, and end them"
        fix = "upgrade etcd to 3.6 or 3.7, or let none but masters and agents reach it"
        found.append(EtcdFault(Severity.NOTE, what, fix))
    if not _auth_holds(numbers):
        what = "its authentication can be passed by: its users and roles are no boundary"
        fix = f"upgrade etcd to {BOUND} or later, or let none but masters and agents reach it"
        found.append(EtcdFault(Severity.NOTE, what, fix))
    return tuple(found)


def roles_hold(version: str) -> bool:
    """Tell whether users and roles are a boundary in this version, also for who means harm."""
    numbers = _numbers(version)
    return len(numbers) >= 2 and _auth_holds(numbers) and numbers[:2] >= _SOUND_WHEN_FULL


def _auth_holds(numbers: Version) -> bool:
    fixed = _AUTH_FIXED.get(numbers[:2])
    patch = numbers[2] if len(numbers) > 2 else 0
    return numbers[:2] > max(_AUTH_FIXED) if fixed is None else patch >= fixed


def _numbers(version: str) -> Version:
    parts = version.split("-")[0].split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
