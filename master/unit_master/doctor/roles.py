"""Who may write what in etcd, and whether that holds."""

from __future__ import annotations

from collections.abc import Iterator

from unit_master.doctor.etcd_faults import roles_hold
from unit_master.doctor.facts import Facts
from unitfleet.findings import Finding, Severity


def roles(facts: Facts) -> Iterator[Finding]:
    """Say where a stolen host could write more than its own keys."""
    if facts.protected and facts.etcd_asks is False:
        yield Finding(
            severity=Severity.PROBLEM,
            about="roles",
            what="etcd is to let each identity write its own keys alone, and asks nobody who they are",
            why="whoever has a certificate that it takes can run anything on any host",
            fix="unitctl cluster protect-etcd; where it is off on purpose: unitctl cluster protect-etcd --off",
        )
    elif facts.etcd_asks is not None and not facts.protected:
        yield Finding(
            severity=Severity.NOTE,
            about="roles",
            what="every certificate that etcd takes may write every key",
            why="one stolen host can run anything on any host",
            fix="unitctl cluster protect-etcd (docs/security.md)",
        )
    elif facts.protected:
        versions = {member.version for member in facts.members if member.version}
        for version in sorted(each for each in versions if not roles_hold(each)):
            yield Finding(
                severity=Severity.WARNING,
                about="roles",
                what=f"etcd {version} can be talked out of its roles: they hold mistakes back, not who means harm",
                why="one stolen host can run anything on any host",
                fix="upgrade etcd to 3.6.14, 3.7.1 or later",
            )
