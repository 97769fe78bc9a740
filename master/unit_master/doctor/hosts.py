"""What is to be said of the hosts: of agents and of masters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from unit_master.doctor.facts import Facts
from unitfleet.findings import MOST_SKEW_S, Finding, Severity

FULL_PERCENT, NEARLY_PERCENT = 95.0, 85.0
NAMED = 5


def machines(facts: Facts) -> Iterator[Finding]:
    """Judge who is there: lost, suspect, or there and not answering."""
    for machine in facts.machines:
        about, name = "machines", machine.name
        if machine.status == "lost":
            yield Finding(
                severity=Severity.PROBLEM,
                about=about,
                what=f"{name} is lost: {machine.reason or 'its agent is not heard from'}",
                why="its units run elsewhere, or wait for it",
                fix=f"bring it back, or: unitctl machines rm {name}",
            )
        elif machine.status == "suspect":
            yield Finding(
                severity=Severity.WARNING,
                about=about,
                what=f"{name} is suspect: its agent is not heard from",
                why="if it stays away its units are started elsewhere",
                fix=f"look at unit-agent and the network of {name}",
            )
        elif machine.trouble:
            yield Finding(
                severity=Severity.WARNING,
                about=about,
                what=f"{name} could not be asked: {machine.trouble}",
                why="its output, figures and failed copies can't be looked at through a master either",
                fix=f"is --address of {name} right, its port open, and --cluster-key-file the masters' own?",
            )
    for master in facts.masters:
        if master.trouble:
            yield Finding(
                severity=Severity.WARNING,
                about="masters",
                what=f"master {master.name} could not be asked: {master.trouble}",
                why="searches of output and audit logs miss what it has",
                fix="is its --listen address open to the other masters?",
            )


def clocks(facts: Facts) -> Iterator[Finding]:
    """Judge the clocks of agents and masters against the asked master's."""
    rows = [(machine.name, machine.skew_s) for machine in facts.machines]
    rows += [(f"master {master.name}", master.skew_s) for master in facts.masters]
    for name, skew_s in rows:
        if abs(skew_s) > MOST_SKEW_S:
            yield Finding(
                severity=Severity.WARNING,
                about="clocks",
                what=f"the clock of {name} is {abs(skew_s):.1f} s {'ahead' if skew_s > 0 else 'behind'}",
                why="times of events and output don't fit together; tokens end early or late",
                fix="chronyc makestep, or start chrony or systemd-timesyncd there",
            )


def versions(facts: Facts) -> Iterator[Finding]:
    """Name the agents and masters that are not of the version that most have."""
    for what, rows in (
        ("agents", [(machine.name, machine.version) for machine in facts.machines if machine.version]),
        ("masters", [(master.name, master.version) for master in facts.masters if master.version]),
    ):
        found = [version for _, version in rows]
        if len(set(found)) < 2:
            continue
        most = max(sorted(set(found)), key=found.count)
        others = [f"{name} {version}" for name, version in rows if version != most]
        yield Finding(
            severity=Severity.WARNING,
            about="versions",
            what=f"{what} of several versions: most have {most}, but {_some(others)}",
            why="a unit that one version accepts may be refused by another",
            fix="upgrade the rest; units run on meanwhile",
        )


def drivers(facts: Facts) -> Iterator[Finding]:
    """Name the drivers that are wanted and not to be had, and units that nothing there can run."""
    for machine in facts.machines:
        checkup = machine.checkup
        for driver in checkup.awaited if checkup else ():
            yield _driver(machine.name, driver, "its settings name it, and it is not there")
        for driver, why in (checkup.troubles if checkup else {}).items():
            yield _driver(machine.name, driver, why)
    there = {driver for machine in facts.machines if machine.status != "lost" for driver in machine.drivers}
    for unit in facts.units:
        if unit.wanted and not there & set(unit.drivers):
            yield Finding(
                severity=Severity.PROBLEM,
                about="drivers",
                what=f"no machine can run {unit.name}: it needs the {' or '.join(unit.drivers) or 'right'} driver",
                fix="add a machine that has it" if unit.drivers else f"unitctl explain {unit.name}",
            )


def _driver(machine: str, driver: str, why: str) -> Finding:
    engine = driver == "docker"
    return Finding(
        severity=Severity.PROBLEM,
        about="drivers",
        what=f"the {driver} driver of {machine} can't be used: {why}",
        why="its containers can't be started, stopped or looked at" if engine else "its units can't be started",
        fix="systemctl start docker there, or see --docker-socket" if engine else "",
    )


def disks(facts: Facts) -> Iterator[Finding]:
    """Judge the disks: of machines that closed themselves, and of agents' own state."""
    for machine in facts.machines:
        if machine.closed:
            yield Finding(
                severity=Severity.WARNING,
                about="disk",
                what=f"{machine.name} takes no new units: {machine.closed}",
                fix="free space there (docker system df tells of images), it opens by itself",
            )
        checkup = machine.checkup
        if checkup and checkup.state_used_percent >= NEARLY_PERCENT:
            full = checkup.state_used_percent >= FULL_PERCENT
            yield Finding(
                severity=Severity.PROBLEM if full else Severity.WARNING,
                about="disk",
                what=f"the disk of {checkup.state_dir} on {machine.name} is "
                f"{checkup.state_used_percent:.0f} % full",
                why="an agent that can't write keeps no output, and forgets its orders over a reboot",
                fix=f"free space there; du -xh --max-depth=2 {checkup.state_dir}",
            )


def images(facts: Facts) -> Iterator[Finding]:
    """Name the images that machines lack, in the registry's own words, once for each reason."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for machine in facts.machines:
        for image, why in machine.missing.items():
            by_reason.setdefault((image, why), []).append(machine.name)
    for (image, why), names in sorted(by_reason.items()):
        yield Finding(
            severity=Severity.WARNING,
            about="images",
            what=f"{_some(names)} can't have {image}: {why}",
            why="what needs it will not start there",
            fix=f"docker pull {image} there shows more; --registry-auth names the credentials",
        )


def policies(facts: Facts) -> Iterator[Finding]:
    """Name the hosts that allow units everything."""
    there = [machine for machine in facts.machines if machine.status != "lost"]
    names = [machine.name for machine in there if not machine.has_policy]
    if names:
        yield Finding(
            severity=Severity.NOTE,
            about="policy",
            what=f"{len(names)} of {len(there)} machines have no policy of their own: {_some(names)}",
            why="a unit file is root there",
            fix="/etc/unitfleet/policy.toml says what units may ask for (docs/policy.md)",
        )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
