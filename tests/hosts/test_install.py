"""The .deb on a fresh host, as its operator does it: install without a network, enable, start a unit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import packaged
from harness.hosts import Host, Hosts
from harness.packages import OLDER, Packages

pytestmark = pytest.mark.host

SAMPLE = "/usr/share/doc/unitfleet/units/adserver@.service"


@pytest.fixture(scope="module")
def host(hosts: Hosts, built: Packages) -> Iterator[Host]:
    made = hosts.create("fresh")
    made.wait_booted()
    packaged.install(made, built.deb)
    yield made
    hosts.remove(made)


def test_an_installation_starts_nothing_by_itself(host: Host) -> None:
    assert host.run("unitctl", "version").strip() == f"unitctl {OLDER}"
    for unit in packaged.DAEMONS:
        assert host.property(unit, "ActiveState") == "inactive"
        assert host.property(unit, "UnitFileState") == "disabled"


def test_systemd_finds_no_fault_with_the_unit_files(host: Host) -> None:
    files = [f"/lib/systemd/system/{unit}.service" for unit in packaged.DAEMONS]
    said = host.attempt("systemd-analyze", "verify", *files)
    assert (said.code, said.stdout + said.stderr) == (0, "")


def test_the_master_can_do_little_by_the_figure_of_systemd(host: Host) -> None:
    said = host.run("systemd-analyze", "security", "--no-pager", "--threshold=20", "unit-master.service")
    assert "unit-master.service" in said.splitlines()[-1]


def test_a_start_returns_when_the_daemon_serves_and_its_status_says_so(host: Host) -> None:
    host.run("systemctl", "enable", "--now", "etcd")
    host.run("systemctl", "enable", "--now", "unit-master")
    assert host.run("unitctl", "cluster", "status")
    assert "api.sock" in host.property("unit-master", "StatusText")
    host.run("systemctl", "enable", "--now", "unit-agent")
    assert host.exists("/run/unitfleet/agent.sock")
    packaged.wait_joined(host)
    (machine,) = packaged.machines(host)
    assert packaged.agent_status(host) == f"machine fresh ({machine['id']})"
    assert machine["versions"]["agent"] == OLDER
    assert host.property("unit-master", "User") == "unitfleet"
    for unit in packaged.DAEMONS:
        assert host.property(unit, "NRestarts") == "0"


def test_the_sample_of_the_documentation_runs(host: Host) -> None:
    host.run("unitctl", "submit", SAMPLE)
    host.run("unitctl", "start", "adserver@1")
    host.wait_until(lambda: packaged.answers(host, 8081) == "adserver@1.service on fresh", "the ad server answers")


def test_a_wrong_setting_is_told_by_name_in_the_journal_and_mended_without_a_reset(host: Host) -> None:
    before = host.run("cat", "/etc/unitfleet/agent.toml")
    running = packaged.processes(host)
    host.copy_in(before + "\nmetdata = { role = 'adserver' }\n", "/etc/unitfleet/agent.toml")
    assert host.attempt("systemctl", "restart", "unit-agent").code != 0
    assert "metdata" in host.journal("unit-agent")
    host.copy_in(before, "/etc/unitfleet/agent.toml")
    host.wait_until(lambda: host.active("unit-agent"), "systemd has started the agent again")
    assert packaged.processes(host) == running
