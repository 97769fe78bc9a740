"""What the members of etcd say of themselves, and what it means."""

from __future__ import annotations

from collections.abc import Iterator

from unit_master.doctor.etcd_faults import faults_of
from unit_master.doctor.facts import Facts
from unitfleet.findings import Finding, Severity
from unitfleet.store import MemberStatus

DEFAULT_QUOTA = 2 * 1024**3
"""etcd's own `--quota-backend-bytes`; a server before 3.6 does not tell which it has."""

FULL, NEARLY = 0.9, 0.75
_MIB = 1024**2


def store(facts: Facts) -> Iterator[Finding]:
    """Judge the store: silence, members, quorum, versions, room."""
    if facts.stale_s:
        yield Finding(
            severity=Severity.PROBLEM,
            about="etcd",
            what=f"the store has been silent for {facts.stale_s:.0f} s",
            why="nothing can be started, stopped or moved; what runs goes on",
            fix="etcdctl endpoint health --cluster",
        )
    answering = [member for member in facts.members if not member.trouble]
    for member in facts.members:
        yield from _member(member, len(answering), len(facts.members))
    for version in sorted({member.version for member in answering}):
        for fault in faults_of(version):
            yield Finding(
                severity=fault.severity, about="etcd", what=f"etcd {version}: {fault.what}", fix=fault.fix
            )
    if len({member.version for member in answering}) > 1:
        versions = ", ".join(f"{member.address} {member.version}" for member in answering)
        yield Finding(
            severity=Severity.WARNING,
            about="etcd",
            what=f"members of several versions: {versions}",
            why="a cluster works as its oldest member does",
            fix="upgrade the others, one at a time",
        )
    if len(facts.members) in (1, 2):
        yield Finding(
            severity=Severity.NOTE,
            about="etcd",
            what=f"masters know {len(facts.members)} member{'s' if len(facts.members) > 1 else ''} of etcd",
            why="the loss of one stops every change until it is back; what runs goes on",
            fix="run 3 or 5, and name all of them: --etcd A:2379,B:2379,C:2379",
        )


def _member(member: MemberStatus, answering: int, known: int) -> Iterator[Finding]:
    if member.trouble:
        quorum = answering > known // 2
        yield Finding(
            severity=Severity.WARNING if quorum else Severity.PROBLEM,
            about="etcd",
            what=f"member {member.address} does not answer: {member.trouble}",
            why=f"{answering} of {known} answer" + ("" if quorum else ": too few to take a change"),
            fix=f"look at etcd on {member.address.rpartition(':')[0]}",
        )
        return
    if not member.has_leader:
        yield Finding(
            severity=Severity.PROBLEM,
            about="etcd",
            what=f"member {member.address} has no leader",
            why="it is cut off from the others, or too few of them are up",
            fix="etcdctl endpoint status --cluster -w table",
        )
    space = [words for words in member.complaints if "NOSPACE" in words.upper()]
    for words in space[:1]:
        yield Finding(
            severity=Severity.PROBLEM,
            about="etcd",
            what=f"member {member.address} is out of space: {words}",
            why="etcd takes no change until there is room and the alarm is cleared",
            fix="etcdctl compact REVISION && etcdctl defrag --cluster && etcdctl alarm disarm",
        )
    for words in member.complaints:
        if words not in space and "no leader" not in words:
            yield Finding(severity=Severity.WARNING, about="etcd", what=f"member {member.address} says: {words}")
    quota = member.quota or DEFAULT_QUOTA
    share = member.db_size / quota
    if share >= NEARLY and not space:
        assumed = "" if member.quota else " (etcd's default: this version does not tell its own)"
        yield Finding(
            severity=Severity.PROBLEM if share >= FULL else Severity.WARNING,
            about="etcd",
            what=f"the database of {member.address} has {share:.0%} of its quota: "
            f"{member.db_size // _MIB} of {quota // _MIB} MiB{assumed}",
            why="when it is full etcd takes no change",
            fix="etcdctl defrag --cluster, and a larger --quota-backend-bytes",
        )
