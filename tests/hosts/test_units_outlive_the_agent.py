"""Whatever happens to the agent's service, the units of the host run on, and the next agent adopts them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import packaged
from harness.hosts import Host, Hosts
from harness.packages import Packages

pytestmark = pytest.mark.host

UNITS = 5
SLEEPER = "[Service]\nExecStart=/bin/sleep 100000\nRestart=always\n"
WATCHDOG = "[Service]\nWatchdogSec=2\nTimeoutStopSec=3\n"


@pytest.fixture(scope="module")
def host(hosts: Hosts, built: Packages) -> Iterator[Host]:
    made = hosts.create("running")
    made.wait_booted()
    packaged.install(made, built.deb)
    made.copy_in(WATCHDOG, "/etc/systemd/system/unit-agent.service.d/quick.conf")
    made.run("systemctl", "daemon-reload")
    packaged.serve(made)
    packaged.start(made, "sleeper@.service", SLEEPER, f"sleeper@<1..{UNITS}>")
    yield made
    hosts.remove(made)


@pytest.fixture
def before(host: Host) -> dict[str, list[tuple[int, str]]]:
    found = packaged.processes(host)
    assert len(found) == UNITS
    return found


def adopted(host: Host) -> bool:
    """Tell whether the agent that serves now has found every copy, and the cluster sees every unit run."""
    said = host.attempt("journalctl", "-o", "cat", f"_PID={agent(host)}").stdout
    found = f"found {UNITS} copies with the process driver" in said
    return found and [unit["phase"] for unit in packaged.units(host)] == ["running"] * UNITS


def agent(host: Host) -> str:
    return host.property("unit-agent", "MainPID")


def wait_for_another(host: Host, former: str) -> None:
    host.wait_until(
        lambda: host.active("unit-agent") and agent(host) not in (former, "0"),
        "another agent serves",
        timeout_s=60,
    )


def test_a_stopped_agent_leaves_every_unit_alone_and_the_next_adopts_them(
    host: Host, before: dict[str, list[tuple[int, str]]]
) -> None:
    host.run("systemctl", "stop", "unit-agent")
    assert host.property("unit-agent", "ActiveState") == "inactive"
    assert packaged.processes(host) == before
    host.run("systemctl", "start", "unit-agent")
    host.wait_until(lambda: adopted(host), "the units are adopted")
    assert packaged.processes(host) == before


def test_a_restarted_agent_leaves_every_unit_alone(host: Host, before: dict[str, list[tuple[int, str]]]) -> None:
    former = agent(host)
    host.run("systemctl", "restart", "unit-agent")
    assert agent(host) != former
    host.wait_until(lambda: adopted(host), "the units are adopted")
    assert packaged.processes(host) == before


def test_a_killed_agent_is_started_again_and_every_unit_is_left_alone(
    host: Host, before: dict[str, list[tuple[int, str]]]
) -> None:
    former = agent(host)
    host.run("kill", "-KILL", former)
    wait_for_another(host, former)
    host.wait_until(lambda: adopted(host), "the units are adopted")
    assert packaged.processes(host) == before


def test_a_frozen_agent_is_replaced_by_the_watchdog_and_every_unit_is_left_alone(
    host: Host, before: dict[str, list[tuple[int, str]]]
) -> None:
    former = agent(host)
    host.run("kill", "-STOP", former)
    wait_for_another(host, former)
    assert "Watchdog timeout" in host.journal("unit-agent")
    host.wait_until(lambda: adopted(host), "the units are adopted")
    assert packaged.processes(host) == before


def test_a_killed_master_is_started_again_and_every_unit_is_left_alone(
    host: Host, before: dict[str, list[tuple[int, str]]]
) -> None:
    former = host.property("unit-master", "MainPID")
    host.run("kill", "-KILL", former)
    host.wait_until(
        lambda: host.active("unit-master") and host.property("unit-master", "MainPID") != former, "another master"
    )
    host.wait_until(lambda: adopted(host), "the units are seen")
    assert packaged.processes(host) == before


def test_after_a_power_cut_every_unit_runs_again_by_itself(
    host: Host, before: dict[str, list[tuple[int, str]]]
) -> None:
    host.kill()
    host.start()
    host.wait_booted()
    host.wait_until(
        lambda: [len(seen) for seen in packaged.processes(host).values()] == [1] * UNITS,
        "every unit runs once",
        timeout_s=60,
    )
    host.wait_until(lambda: adopted(host), "the agent says so")
    assert packaged.processes(host).keys() == before.keys()


def test_a_reboot_in_good_order_ends_with_every_unit_running_again(host: Host) -> None:
    host.shut_down()
    host.start()
    host.wait_booted()
    host.wait_until(
        lambda: [len(seen) for seen in packaged.processes(host).values()] == [1] * UNITS,
        "every unit runs once",
        timeout_s=60,
    )
