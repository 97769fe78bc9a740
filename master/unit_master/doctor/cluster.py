"""What is to be said of the cluster as a whole: who leads, the brake, units, audit logs, links."""

from __future__ import annotations

from collections.abc import Iterator

from unit_master.doctor.facts import Facts, UnitFacts
from unitfleet.findings import Finding, Severity

LONG_S = 300.0
"""A unit that has been pending for so long waits for more than its turn."""

NAMED = 10


def leader(facts: Facts) -> Iterator[Finding]:
    """Say when nobody leads, and what of the store can't be read."""
    if not facts.leader:
        yield Finding(
            severity=Severity.PROBLEM,
            about="leader",
            what="no master leads",
            why="nothing is placed or moved; what runs goes on",
            fix="journalctl -u unit-master on the masters tells why none is elected",
        )
    for why in facts.unreadable[:NAMED]:
        yield Finding(
            severity=Severity.WARNING,
            about="store",
            what=why,
            why="it is left alone, and nothing is done about what it says",
            fix="etcdctl del KEY removes it",
        )


def brake(facts: Facts) -> Iterator[Finding]:
    """Say when losses are held back."""
    if facts.brake == "released":
        yield Finding(severity=Severity.NOTE, about="brake", what="the brake is released", why=facts.brake_why)
    elif facts.brake != "off":
        yield Finding(
            severity=Severity.PROBLEM,
            about="brake",
            what=f"the brake is {facts.brake}: {facts.brake_why or 'by order'}",
            why="units of lost machines are not started elsewhere",
            fix="unitctl cluster release, once you know that the machines are really gone",
        )


def units(facts: Facts) -> Iterator[Finding]:
    """Name the units that failed, and those that have been pending for long."""
    failed = [unit for unit in facts.units if unit.phase == "failed" and not unit.ok]
    waiting = [unit for unit in facts.units if unit.phase == "pending" and not unit.ok and unit.for_s >= LONG_S]
    yield from _each(failed, Severity.PROBLEM, "failed", "unitctl status {0}; unitctl logs {0}")
    yield from _each(waiting, Severity.WARNING, "has been pending for {1:.0f} min", "unitctl explain {0}")


def _each(found: list[UnitFacts], severity: Severity, what: str, fix: str) -> Iterator[Finding]:
    for unit in found[:NAMED]:
        yield Finding(
            severity=severity,
            about="units",
            what=f"{unit.name} {what.format(unit.name, unit.for_s / 60)}" + (f": {unit.why}" if unit.why else ""),
            fix=fix.format(unit.name),
        )
    if len(found) > NAMED:
        yield Finding(
            severity=severity, about="units", what=f"and {len(found) - NAMED} more", fix="unitctl cluster status"
        )


def audit(facts: Facts) -> Iterator[Finding]:
    """Name the masters whose audit log takes no line."""
    for master in facts.masters:
        if master.audit_trouble:
            yield Finding(
                severity=Severity.PROBLEM,
                about="audit",
                what=f"the audit log of master {master.name} takes no line: {master.audit_trouble}",
                why="what can't be written down is not done: it refuses every change",
                fix=f"free space in its --state-dir, or make it writable, on the host of {master.name}",
            )


def links(facts: Facts) -> Iterator[Finding]:
    """Say when the links carry no certificates."""
    if not facts.encrypted:
        yield Finding(
            severity=Severity.NOTE,
            about="links",
            what="no certificates are in use: what masters, agents and etcd tell each other is in the clear",
            why="who listens on their network reads tokens and output",
            fix="unitctl cluster init makes them (docs/certificates.md); else a network that nobody else reaches",
        )
