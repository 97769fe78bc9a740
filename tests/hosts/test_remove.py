"""A package that is removed leaves the units and what is needed to take them up again; a purge leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import packaged
from harness.hosts import Host, Hosts
from harness.packages import Packages

pytestmark = pytest.mark.host

SLEEPER = "[Service]\nExecStart=/bin/sleep 100000\nRestart=always\n"
OURS = (
    "/opt/unitfleet",
    "/etc/unitfleet",
    "/run/unitfleet",
    "/usr/bin/unitctl",
    "/usr/bin/unit-agent",
    "/usr/bin/unit-master",
    "/usr/share/doc/unitfleet",
    "/lib/systemd/system/unit-agent.service",
    "/lib/systemd/system/unit-master.service",
    "/etc/systemd/system/multi-user.target.wants/unit-agent.service",
    "/etc/systemd/system/multi-user.target.wants/unit-master.service",
    "/usr/lib/sysusers.d/unitfleet.conf",
    "/usr/lib/tmpfiles.d/unitfleet.conf",
    "/var/lib/unitfleet",
)


@pytest.fixture(scope="module")
def host(hosts: Hosts, built: Packages) -> Iterator[Host]:
    made = hosts.create("removed")
    made.wait_booted()
    packaged.install(made, built.deb)
    made.copy_in("# of the operator\n", "/etc/unitfleet/agent.toml")
    packaged.serve(made)
    packaged.start(made, "sleeper@.service", SLEEPER, "sleeper@<1..3>")
    yield made
    hosts.remove(made)


def test_a_removal_ends_the_daemons_and_leaves_units_state_and_settings(host: Host) -> None:
    before = packaged.processes(host)
    host.run("dpkg", "-r", "unitfleet")
    assert packaged.processes(host) == before
    for unit in packaged.DAEMONS:
        assert not host.active(unit)
    assert not host.exists("/opt/unitfleet")
    assert not host.exists("/usr/bin/unitctl")
    assert host.exists("/var/lib/unitfleet/agent/machine.json")
    assert host.run("cat", "/etc/unitfleet/agent.toml") == "# of the operator\n"


def test_a_purge_leaves_what_units_need_that_still_run(host: Host) -> None:
    before = packaged.processes(host)
    host.run("dpkg", "-P", "unitfleet")
    assert packaged.processes(host) == before
    assert host.exists("/var/lib/unitfleet/agent/units")


def test_a_new_installation_adopts_what_a_purge_has_left(host: Host, built: Packages) -> None:
    before = packaged.processes(host)
    packaged.install(host, built.deb)
    packaged.serve(host)
    host.wait_until(
        lambda: len([unit for unit in packaged.units(host) if unit["phase"] == "running"]) == 3, "they are adopted"
    )
    assert packaged.processes(host) == before


def test_a_purge_leaves_nothing_of_ours_once_units_are_gone(host: Host) -> None:
    host.run("unitctl", "destroy", "sleeper@*")
    host.wait_until(lambda: not packaged.processes(host), "the units have ended")
    host.run("dpkg", "-P", "unitfleet")
    assert [path for path in OURS if host.exists(path)] == []
    assert host.attempt("systemctl", "list-unit-files", "--no-legend", "unit-*").stdout == ""
    assert host.attempt("id", "unitfleet").code != 0
    assert host.attempt("pgrep", "-f", "/opt/unitflee[t]|unit_agen[t]").stdout == ""
