"""From the former version's package to today's and back, with 50 containers: none is touched, no line is lost."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import former, packaged
from harness.former import NoFormer
from harness.hosts import Host, Hosts
from harness.image import IMAGE
from harness.packages import NoPackages, Packages

pytestmark = pytest.mark.host

CONTAINERS = 50
FIRST, LAST = "box@1.service", f"box@{CONTAINERS}.service"
SETTINGS = 'cluster-key-file = "/var/lib/unitfleet/master/cluster.key"\n'
BOX = f"""[Container]
Image={IMAGE}
Exec=sh -c "i=0; while :; do i=$((i+1)); echo tick $i; sleep 1; done"
Network=none
Pull=never
StopSignal=SIGKILL

[Service]
Restart=always
"""


@pytest.fixture(scope="module")
def former_deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return former.build(tmp_path_factory.mktemp("former"))
    except (NoFormer, NoPackages) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def host(hosts: Hosts, former_deb: Path) -> Iterator[Host]:
    made = hosts.create("former", docker=True)
    made.wait_booted()
    made.load_image()
    packaged.install(made, former_deb)
    packaged.serve(made)
    made.copy_in(SETTINGS, "/etc/unitfleet/agent.toml")  # the master has made its key by now
    made.run("systemctl", "restart", "unit-agent")
    packaged.wait_ready(made)
    packaged.start(made, "box@.container", BOX, f"box@<1..{CONTAINERS}>")
    yield made
    hosts.remove(made)


def lines(host: Host, unit: str) -> list[int]:
    """Return the numbers that a unit wrote, as `unitctl logs` gives them."""
    said = host.run("unitctl", "logs", "--lines", "5000", unit)
    return [int(number) for number in re.findall(r"tick (\d+)", said)]


def reaches(host: Host, unit: str, number: int) -> bool:
    return max(lines(host, unit), default=0) >= number


def read_on(host: Host, *units: str) -> None:
    """Wait until lines of each unit come that were written from now on; all before them are there, each once."""
    for unit in units:
        now = int(host.run("docker", "logs", "--tail", "1", packaged.containers(host)[unit][0]).split()[-1])
        host.wait_until(functools.partial(reaches, host, unit, now + 1), f"{unit} is read on")
        found = lines(host, unit)
        assert found == list(range(1, found[-1] + 1)), f"{unit}: {found}"


def test_a_host_of_the_former_version_goes_up_and_down_again_without_a_restart_or_a_lost_line(
    host: Host, built: Packages, former_deb: Path
) -> None:
    before = packaged.containers(host)
    assert len(before) == CONTAINERS
    read_on(host, FIRST, LAST)
    assert not host.exists("/opt/unitfleet/lib/python3.11/site-packages/unitfleet/tls.py"), (
        "it is the former version"
    )

    packaged.install(host, built.deb)
    packaged.wait_joined(host)
    host.wait_until(lambda: not not_ok(host), "all units are as wanted")
    assert packaged.containers(host) == before
    read_on(host, FIRST, LAST)
    packaged.start(host, "late@.container", BOX, "late@1")  # of today's version: its output is read from files
    read_on(host, "late@1.service")
    with_late = packaged.containers(host)
    assert {unit: with_late[unit] for unit in before} == before

    packaged.install(host, former_deb)
    packaged.wait_joined(host)
    host.wait_until(lambda: not not_ok(host), "all units are as wanted")
    assert packaged.containers(host) == with_late
    read_on(host, FIRST, LAST, "late@1.service")
    assert "Traceback" not in host.journal("unit-agent"), "it reads what the newer one has left"
    host.run("unitctl", "restart", FIRST)
    assert [unit for unit, seen in packaged.containers(host).items() if with_late[unit] != seen] == [FIRST]


def test_what_the_former_version_read_last_today_goes_on_from(host: Host, built: Packages) -> None:
    before = packaged.containers(host)
    packaged.install(host, built.deb)
    packaged.wait_joined(host)
    host.wait_until(lambda: not not_ok(host), "all units are as wanted")
    assert packaged.containers(host) == before
    read_on(host, LAST, "late@1.service")
    host.run("unitctl", "stop", "late@1")
    assert "late@1.service" not in packaged.containers(host)


def not_ok(host: Host) -> list[str]:
    """Return the units that are not as wanted; "none" answered is not well, either."""
    listed = packaged.units(host)
    return [unit["name"] for unit in listed if not unit["ok"]] if listed else ["none is listed"]
