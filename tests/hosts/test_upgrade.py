"""An upgrade, and the way back, of a host full of units: nobody who uses them notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import packaged
from harness.hosts import Host, Hosts
from harness.image import IMAGE
from harness.packages import NEWER, OLDER, Packages

pytestmark = pytest.mark.host

UNITS, CONTAINERS = 50, 3
RESTARTED = ("sleeper@1.service", "box@1.service")
SLEEPER = "[Service]\nExecStart=/bin/sleep 100000\nRestart=always\n"
BOX = f"""[Container]
Image={IMAGE}
Exec=sleep 100000
Network=host
Pull=never
StopSignal=SIGKILL

[Service]
Restart=always
"""
SETTINGS = "# of the operator\nmetadata = { role = 'adserver' }\n"


@pytest.fixture(scope="module")
def host(hosts: Hosts, built: Packages) -> Iterator[Host]:
    made = hosts.create("upgraded", docker=True)
    made.wait_booted()
    made.load_image()
    packaged.install(made, built.deb)
    made.copy_in(SETTINGS, "/etc/unitfleet/agent.toml")
    packaged.serve(made)
    packaged.wait_ready(made)
    packaged.start(made, "sleeper@.service", SLEEPER, f"sleeper@<1..{UNITS}>")
    packaged.start(made, "box@.container", BOX, f"box@<1..{CONTAINERS}>")
    yield made
    hosts.remove(made)


def running(host: Host) -> tuple[dict[str, Any], dict[str, Any]]:
    return packaged.processes(host), packaged.containers(host)


def daemons(host: Host) -> set[str]:
    return {host.property(unit, "MainPID") for unit in packaged.DAEMONS}


@pytest.mark.parametrize("version", [NEWER, OLDER], ids=["up", "and down again"])
def test_a_host_full_of_units_changes_version_and_no_unit_is_touched(
    host: Host, built: Packages, version: str
) -> None:
    before, served = running(host), daemons(host)
    # a container of a unit is a process with its name, too
    assert (len(before[0]), len(before[1])) == (UNITS + CONTAINERS, CONTAINERS)
    package: Path = built.newer_deb if version == NEWER else built.deb
    packaged.install(host, package)
    assert not served & daemons(host), "both daemons were started anew"
    packaged.wait_joined(host)
    host.wait_until(
        lambda: packaged.machines(host)[0]["versions"]["agent"] == version, f"the agent says that it is {version}"
    )
    assert version in host.run("unitctl", "version", "--server").split()
    assert host.run("unitctl", "version").split()[1] == version
    assert not [unit for unit in packaged.units(host) if not unit["ok"]]
    assert running(host) == before
    assert host.run("cat", "/etc/unitfleet/agent.toml") == SETTINGS
    assert packaged.machines(host)[0]["metadata"] == {"role": "adserver"}


def test_units_that_were_started_by_another_version_are_stopped_and_started(host: Host, built: Packages) -> None:
    packaged.install(host, built.newer_deb)
    packaged.wait_joined(host)
    before = packaged.processes(host)
    for unit in RESTARTED:
        host.run("unitctl", "restart", unit)
    after = packaged.processes(host)
    assert [len(after.get(unit, [])) for unit in RESTARTED] == [1, 1]
    assert {unit for unit in before if after.get(unit) != before[unit]} == set(RESTARTED)
