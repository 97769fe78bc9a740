"""What facts about a cluster mean: every check in its order, and what is well said as well. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from unit_master.doctor import cluster, hosts
from unit_master.doctor.facts import Facts
from unit_master.doctor.roles import roles
from unit_master.doctor.store import store
from unitfleet.findings import MOST_SKEW_S, Finding, Severity, worst_first

Check = Callable[[Facts], Iterator[Finding]]


def _who_writes(facts: Facts) -> str:
    return "each machine writes its own keys of etcd" if facts.protected else "none: etcd is shown no certificates"


CHECKS: tuple[tuple[str, Check, Callable[[Facts], str]], ...] = (
    ("etcd", store, lambda facts: f"{_count(len(facts.members), 'member')} in order: {_versions(facts)}"),
    ("leader", cluster.leader, lambda facts: f"{facts.leader} leads"),
    ("brake", cluster.brake, lambda facts: "off"),
    ("machines", hosts.machines, lambda facts: f"{_count(len(facts.machines), 'machine')} there, and all answer"),
    ("units", cluster.units, lambda facts: "none has failed, none waits for long"),
    ("drivers", hosts.drivers, lambda facts: "every driver answers, every unit has one"),
    ("disk", hosts.disks, lambda facts: "there is room"),
    ("images", hosts.images, lambda facts: "none is missing"),
    ("clocks", hosts.clocks, lambda facts: f"within {MOST_SKEW_S:g} s of each other"),
    ("versions", hosts.versions, lambda facts: "one version everywhere"),
    ("audit", cluster.audit, lambda facts: "every audit log can be written"),
    ("links", cluster.links, lambda facts: "masters and agents speak TLS"),
    ("roles", roles, _who_writes),
    ("policy", hosts.policies, lambda facts: "every host limits what units may ask of it"),
)
"""What is looked at, the check, and what is said when it finds nothing."""


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Return everything that was looked at, worst first."""
    found: list[Finding] = []
    for about, check, well in CHECKS:
        told = list(check(facts))
        found += told or [Finding(severity=Severity.OK, about=about, what=well(facts))]
    return worst_first(found)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _versions(facts: Facts) -> str:
    return ", ".join(sorted({f"etcd {member.version}" for member in facts.members if member.version})) or "none"
