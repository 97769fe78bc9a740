"""What the doctor makes of facts: each fault with its severity, and what is well is said once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unit_master.doctor.etcd_faults import faults_of, roles_hold
from unit_master.doctor.examine import CHECKS, examine
from unit_master.doctor.facts import Facts, MachineFacts, MasterFacts, UnitFacts
from unitfleet.findings import Checkup, Finding, Severity, skew, worst_first
from unitfleet.store import MemberStatus

GIB = 1024**3
OK, NOTE, WARNING, PROBLEM = Severity
MEMBERS = tuple(MemberStatus(f"e{n}:2379", version="3.6.14", has_leader=True) for n in (1, 2, 3))
WELL = Facts(
    leader="master1",
    members=MEMBERS,
    machines=(MachineFacts("m1", drivers=("process",), version="1"), MachineFacts("m2", version="1")),
    masters=(MasterFacts("master1", version="1"),),
    units=(UnitFacts("a.service", "running", drivers=("process",)),),
    encrypted=True,
)


def machine(**more: object) -> Facts:
    return replace(WELL, machines=(WELL.machines[0], replace(MachineFacts("m2", version="1"), **more)))  # type: ignore[arg-type]


def master(**more: object) -> Facts:
    return replace(WELL, masters=(WELL.masters[0], replace(MasterFacts("master2", version="1"), **more)))  # type: ignore[arg-type]


def member(**more: object) -> Facts:
    return replace(WELL, members=(*MEMBERS[:2], replace(MEMBERS[2], **more)))  # type: ignore[arg-type]


def unit(**more: object) -> Facts:
    wanted = replace(UnitFacts("b.service", "running", drivers=("process",)), **more)  # type: ignore[arg-type]
    return replace(WELL, units=(*WELL.units, wanted))


def bad(facts: Facts) -> list[Finding]:
    return [finding for finding in examine(facts) if finding.severity is not OK]


def test_a_cluster_that_is_well_is_well_in_every_respect() -> None:
    findings = examine(WELL)
    assert {finding.severity for finding in findings} == {OK}
    assert [finding.about for finding in findings] == [about for about, *_ in CHECKS]


@pytest.mark.parametrize(
    ("facts", "severity", "about", "words"),
    [
        (replace(WELL, stale_s=12.0), PROBLEM, "etcd", "silent for 12 s"),
        (member(trouble="no connection"), WARNING, "etcd", "e3:2379 does not answer: no connection"),
        (
            member(has_leader=False, complaints=("etcdserver: no leader",)),
            PROBLEM,
            "etcd",
            "e3:2379 has no leader",
        ),
        (member(complaints=("memberID:1 alarm:NOSPACE ",)), PROBLEM, "etcd", "out of space"),
        (member(complaints=("alarm:CORRUPT",)), WARNING, "etcd", "says: alarm:CORRUPT"),
        (member(db_size=int(1.6 * GIB)), WARNING, "etcd", "80% of its quota: 1638 of 2048 MiB (etcd's default"),
        (member(db_size=int(7.6 * GIB), quota=8 * GIB), PROBLEM, "etcd", "95% of its quota"),
        (member(version="3.6.15"), WARNING, "etcd", "members of several versions"),
        (replace(WELL, members=MEMBERS[:1]), NOTE, "etcd", "masters know 1 member of etcd"),
        (replace(WELL, leader=""), PROBLEM, "leader", "no master leads"),
        (replace(WELL, unreadable=("cannot read units/x",)), WARNING, "store", "cannot read units/x"),
        (replace(WELL, brake="holding", brake_why="2 of 3 gone"), PROBLEM, "brake", "holding: 2 of 3 gone"),
        (replace(WELL, brake="released", brake_why="by order"), NOTE, "brake", "released"),
        (machine(status="lost", reason="its lease expired"), PROBLEM, "machines", "m2 is lost: its lease expired"),
        (machine(status="suspect"), WARNING, "machines", "m2 is suspect"),
        (machine(trouble="cannot reach its agent"), WARNING, "machines", "could not be asked: cannot reach"),
        (master(trouble="no answer"), WARNING, "masters", "master master2 could not be asked: no answer"),
        (machine(skew_s=-3.14), WARNING, "clocks", "the clock of m2 is 3.1 s behind"),
        (master(skew_s=2.0), WARNING, "clocks", "the clock of master master2 is 2.0 s ahead"),
        (machine(version="2"), WARNING, "versions", "agents of several versions: most have 1, but m2 2"),
        (master(version="2"), WARNING, "versions", "masters of several versions"),
        (machine(checkup=Checkup(at=0.0, awaited=("docker",))), PROBLEM, "drivers", "its settings name it"),
        (
            machine(checkup=Checkup(at=0.0, troubles={"docker": "no such socket"})),
            PROBLEM,
            "drivers",
            "the docker driver of m2 can't be used: no such socket",
        ),
        (
            unit(drivers=("systemd",)),
            PROBLEM,
            "drivers",
            "no machine can run b.service: it needs the systemd driver",
        ),
        (machine(closed="disk: 93 % used"), WARNING, "disk", "takes no new units: disk: 93 % used"),
        (
            machine(checkup=Checkup(at=0.0, state_dir="/var/lib/x", state_used_percent=97.0)),
            PROBLEM,
            "disk",
            "/var/lib/x on m2 is 97 % full",
        ),
        (
            machine(missing={"ads:1": "manifest unknown"}),
            WARNING,
            "images",
            "m2 can't have ads:1: manifest unknown",
        ),
        (unit(phase="failed", ok=False, why="exit code 3"), PROBLEM, "units", "b.service failed: exit code 3"),
        (unit(phase="pending", ok=False, for_s=600.0), WARNING, "units", "has been pending for 10 min"),
        (master(audit_trouble="the disk is full"), PROBLEM, "audit", "takes no line: the disk is full"),
        (replace(WELL, encrypted=False), NOTE, "links", "no certificates are in use"),
        (replace(WELL, etcd_asks=False), NOTE, "roles", "every certificate that etcd takes may write every key"),
        (replace(WELL, protected=True, etcd_asks=False), PROBLEM, "roles", "asks nobody who they are"),
        (machine(has_policy=False), NOTE, "policy", "1 of 2 machines have no policy of their own: m2"),
    ],
)
def test_a_fault_is_found_and_nothing_else_is(facts: Facts, severity: Severity, about: str, words: str) -> None:
    (finding,) = bad(facts)
    assert (finding.severity, finding.about) == (severity, about)
    assert words in finding.what


@pytest.mark.parametrize(
    "facts",
    [
        machine(skew_s=0.9),
        unit(phase="pending", ok=False, for_s=10.0),
        unit(drivers=("systemd",), wanted=False),
        member(db_size=int(1.6 * GIB), quota=8 * GIB),
        machine(checkup=Checkup(at=0.0, state_used_percent=60.0)),
    ],
)
def test_what_is_within_bounds_is_no_finding(facts: Facts) -> None:
    assert bad(facts) == []


def test_too_few_members_are_a_problem() -> None:
    away = tuple(replace(each, trouble="no connection") for each in MEMBERS[1:])
    findings = bad(replace(WELL, members=(MEMBERS[0], *away)))
    assert {finding.severity for finding in findings} == {PROBLEM} and len(findings) == 2


def test_an_image_that_many_lack_is_one_finding() -> None:
    lacking = tuple(MachineFacts(f"m{n}", missing={"ads:1": "denied"}) for n in range(8))
    (finding,) = [each for each in bad(replace(WELL, machines=lacking, units=())) if each.about == "images"]
    assert "m0, m1, m2, m3, m4 and 3 more can't have ads:1: denied" in finding.what


def test_of_many_failed_units_the_first_are_named_and_the_rest_counted() -> None:
    failed = tuple(UnitFacts(f"a@{n}.service", "failed", ok=False, drivers=("process",)) for n in range(12))
    findings = bad(replace(WELL, units=failed))
    assert len(findings) == 11 and findings[-1].what == "and 2 more"


def test_the_worst_stands_first() -> None:
    ranks = [finding.severity.rank for finding in examine(replace(machine(status="suspect"), leader=""))]
    assert ranks == sorted(ranks, reverse=True)
    assert worst_first([]) == ()


def test_roles_of_etcd_are_well_where_the_version_holds_and_not_spoken_of_without_certificates() -> None:
    [said] = [each for each in examine(replace(WELL, protected=True, etcd_asks=True)) if each.about == "roles"]
    assert (said.severity, said.what) == (OK, "each machine writes its own keys of etcd")
    old = tuple(replace(each, version="3.6.13") for each in MEMBERS)
    found = examine(replace(WELL, members=old, protected=True, etcd_asks=True))
    [said] = [each for each in found if each.about == "roles"]
    assert said.severity is WARNING and said.what.startswith("etcd 3.6.13 can be talked out of its roles")
    [said] = [each for each in examine(WELL) if each.about == "roles"]
    assert (said.severity, said.what) == (OK, "none: etcd is shown no certificates")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("3.4.30", ["revoke leases", "out of space", "authentication"]),
        ("3.5.0", ["lose data", "out of space", "authentication"]),
        ("3.5.2", ["lose data", "out of space", "authentication"]),
        ("3.5.3", ["out of space", "authentication"]),
        ("3.5.32", ["out of space", "authentication"]),
        ("3.5.33", ["out of space"]),
        ("3.6.13", ["authentication"]),
        ("3.6.14", []),
        ("3.6.14-rc.1", []),
        ("3.7.0", ["authentication"]),
        ("3.7.1", []),
        ("3.8.0", []),
        ("3.3.27", ["not tested", "out of space", "authentication"]),
        ("memory", []),
    ],
)
def test_known_faults_of_a_version_of_etcd(version: str, words: list[str]) -> None:
    found = faults_of(version)
    assert len(found) == len(words)
    assert all(word in fault.what for word, fault in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("version", "hold"),
    [("3.4.45", False), ("3.5.33", False), ("3.6.13", False), ("3.6.14", True), ("3.7.0", False), ("3.7.1", True)],
)
def test_roles_of_etcd_are_called_a_boundary_where_no_way_around_them_is_known(version: str, hold: bool) -> None:
    assert roles_hold(version) is hold


@pytest.mark.parametrize(
    ("there", "off"), [(100.0, 0.0), (100.5, 0.0), (101.0, 0.0), (103.0, 2.0), (97.5, -2.5)], ids=str
)
def test_a_clock_is_off_by_what_the_way_can_not_explain(there: float, off: float) -> None:
    assert skew(there, sent=100.0, took_s=1.0) == pytest.approx(off)
