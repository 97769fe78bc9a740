"""`unitctl net` and `unitctl top` as people run them, against a scripted API."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from functional.test_unitctl import Unitctl
from harness.api_stub import ApiServer, Fleet
from harness.api_views import machine, running, unit
from unitfleet.api import ErrorBody, MachineFigures, NetLimit, NetView, UnitFigures, UnitNet
from unitfleet.model import Bandwidth, Capacity, TargetState

M = 10**6
GIB = 1 << 30
WIRED = Capacity(cpu=4, memory=8 * GIB, disk=100 * GIB, egress=1000 * M, ingress=1000 * M)
M1 = machine("m1", capacity=WIRED, reserved=Capacity(cpu=0.5, memory=GIB // 2, egress=300 * M), units=2)
M2 = machine("m2", capacity=WIRED)


def of(name: str, egress: int, *, in_force: bool = True, trouble: str = "", machine: str = "m1") -> NetView:
    held = UnitNet(unit=name, machine=machine, egress=egress, in_force=in_force, trouble=trouble, how="veth+ifb")
    rates = Bandwidth(egress=egress)
    where = {"machine": f"{machine}-0123456789abcdef", "machine_name": machine}
    return NetView(unit=name, wanted=rates, set_live=True, ordered=rates, in_force=held, **where)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    up = running("m1")
    with Fleet(unit("a.service", target=TargetState.LAUNCHED, **up), machines=[M1, M2]) as fleet:
        fleet.units["a.service"] = unit("a.service", target=TargetState.LAUNCHED, **up)
        fleet.figures = [
            MachineFigures(
                machine=M1.id,
                name="m1",
                at=1.0,
                capacity=WIRED,
                used=Capacity(cpu=1.25, memory=2 * GIB, disk=40 * GIB, egress=48 * M, ingress=3 * M),
                load=1.5,
                pressure={"cpu": 12.0, "memory": 0.0},
                units=(
                    UnitFigures(
                        unit="a.service", at=1.0, driver="docker", cpu=0.25, memory=100 << 20, egress=8 * M
                    ),
                    UnitFigures(
                        unit="b.service",
                        at=1.0,
                        driver="docker",
                        cpu=1.0,
                        cpu_limit=2.0,
                        memory=64 << 20,
                        memory_limit=128 << 20,
                        egress=40 * M,
                        egress_limit=50 * M,
                        ingress=3 * M,
                        sent_dropped=7,
                        oom_kills=2,
                    ),
                ),
            ),
            MachineFigures(
                machine=M2.id, name="m2", at=1.0, capacity=WIRED, used=Capacity(), why="cannot reach its agent"
            ),
        ]
        yield fleet


@pytest.fixture
def server(fleet: Fleet) -> Iterator[ApiServer]:
    with ApiServer(fleet) as server:
        yield server


@pytest.fixture
def unitctl(tmp_path: Path, server: ApiServer) -> Unitctl:
    return Unitctl(tmp_path, server.url)


# ------------------------------------------------------------------ net limit


def test_a_live_change_waits_until_it_is_in_force(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.net = [of("a.service", 20 * M, in_force=False, trouble="at it")]
    fleet.net_soon = [of("a.service", 20 * M)]
    done = unitctl("net", "limit", "a", "--egress", "20M", "--ingress-limit", "none", "--burst", "32K")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a.service  egress 20M, in force on m1\n"
    assert fleet.limits == [("a.service", NetLimit(egress=20 * M, ingress_limit=0, burst=32 * 1024))]


def test_one_that_does_not_come_into_force_says_why(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.net = [of("a.service", 20 * M, in_force=False, trouble="the kernel has no HTB")]
    done = unitctl("net", "limit", "a", "--egress", "20M", "--timeout", "0.2s")
    assert done.returncode == 8
    assert "on m1: the kernel has no HTB" in done.stderr and "it is taken" in done.stderr
    assert unitctl("net", "limit", "a", "--egress", "20M", "--no-block").returncode == 0


def test_a_refusal_is_told_in_the_masters_words(fleet: Fleet, unitctl: Unitctl) -> None:
    why = "cannot limit a.service: egress: 300M of 1G left on m1, needs 400M"
    fleet.refusals["a.service"] = ErrorBody(code="refused", message=why, hint="ask for less")
    done = unitctl("net", "limit", "a", "--egress", "400M")
    assert done.returncode == 1 and why in done.stderr and "ask for less" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a"], "no rate is given"),
        (["a", "--reset", "--egress", "1M"], "--reset goes with no rate"),
        (["a", "--egress", "10MB"], "write 80M"),
        (["a", "--egress", "0"], "lets nothing through"),
        (["a", "--ingress", "-5M"], "it is negative"),
        (["a", "--burst", "1"], "not from 2K to 64M"),
        ([], "missing argument 'UNIT...'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_rate_is_a_usage_error_with_the_right_form(
    arguments: list[str], words: str, fleet: Fleet, unitctl: Unitctl
) -> None:
    done = unitctl("net", "limit", *arguments)
    assert done.returncode == 2 and words in done.stderr
    assert fleet.limits == []


def test_reset_is_passed_on(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.net = [NetView(unit="a.service", wanted=Bandwidth())]
    done = unitctl("net", "limit", "a", "--reset")
    assert (done.returncode, done.stdout) == (0, "a.service  no limits\n")
    assert fleet.limits == [("a.service", NetLimit(reset=True))]


# ------------------------------------------------------------------ net limits


def test_what_is_wanted_and_what_is_in_force_stand_side_by_side(fleet: Fleet, unitctl: Unitctl) -> None:
    text = NetView(unit="b.service", wanted=Bandwidth(egress_limit=5 * M, ingress=10**9))
    fleet.net = [of("a.service", 20 * M), of("a.service", 20 * M, in_force=False, trouble="no HTB here"), text]
    lines = unitctl("net", "limits").stdout.splitlines()
    assert lines[0].split("  ")[0] == "UNIT" and "IN FORCE" in lines[0]
    assert lines[1].split() == "a.service m1 20M - - - net limit yes".split()
    assert lines[2].split() == "a.service m1 20M - - - net limit no: no HTB here".split()
    assert lines[3].split() == "b.service - - 5M 1G - text not placed".split()
    listed = json.loads(unitctl("net", "limits", "-o", "json", "a").stdout)
    assert [item["unit"] for item in listed["items"]] == ["a.service", "a.service"]


# ------------------------------------------------------------------ top


def test_top_shows_used_reserved_and_capacity_and_who_tells_nothing(unitctl: Unitctl) -> None:
    lines = unitctl("top", "--once").stdout.splitlines()
    assert (
        lines[1].split() == "m1 ready 2 1.2/0.5/4 2G/512M/8G 40G/0/100G 48M/300M/1G 3M/0/1G 1.50 cpu 12% -".split()
    )
    assert lines[2].startswith("m2") and lines[2].endswith("cannot reach its agent")
    assert lines[5].split() == "b.service m1 1 of 2 64M of 128M 40M 3M 0 0 2".split()
    assert lines[6].split()[:4] == "a.service m1 0.2 100M".split()


def test_top_is_sorted_as_asked_and_as_json_it_is_one_frame(unitctl: Unitctl) -> None:
    lines = unitctl("top", "--sort", "memory").stdout.splitlines()
    assert [line.split()[0] for line in lines[5:]] == ["a.service", "b.service"]
    items = json.loads(unitctl("top", "-o", "json").stdout)["items"]
    assert [item["name"] for item in items] == ["m1", "m2"]
    assert items[0]["reserved"]["egress"] == 300 * M and items[0]["used"]["egress"] == 48 * M
    assert items[1]["why"] == "cannot reach its agent"


def test_net_top_shows_rates_beside_their_limits(unitctl: Unitctl) -> None:
    lines = unitctl("net", "top").stdout.splitlines()
    assert lines[1].split() == "b.service m1 40M of 50M 3M 7".split()
    assert lines[2].split() == "a.service m1 8M - -".split()


def test_wide_machines_have_each_resource_as_used_reserved_and_capacity(fleet: Fleet, unitctl: Unitctl) -> None:
    used = Capacity(cpu=1.25, memory=2 * GIB, disk=40 * GIB, egress=48 * M)
    fleet.machines = [machine("m1", capacity=WIRED, reserved=M1.reserved, used=used)]
    columns = "machine,cpu,memory,disk,egress,ingress"
    row = unitctl("list-machines", "--fields", columns, "--no-legend").stdout.split()
    assert row == "m1 1.2/0.5/4 2G/512M/8G 40G/0/100G 48M/300M/1G 0/0/1G".split()


def test_on_a_terminal_it_redraws_until_ctrl_c(unitctl: Unitctl, fleet: Fleet) -> None:
    ours, theirs = pty.openpty()
    env = {**unitctl.env, "TERM": "xterm", "COLUMNS": "150", "LINES": "40"}
    command = [sys.executable, "-m", "unitctl", "top"]
    with (unitctl.folder / "errors").open("w+") as errors:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=unitctl.folder,
            stdin=theirs,
            stdout=theirs,
            stderr=errors,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            assert "1 of 2 machines, 2 units" in _screen(ours, "1 of 2 machines, 2 units")
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            errors.seek(0)
            assert "Traceback" not in errors.read()
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def _screen(terminal: int, awaited: str) -> str:
    """Return what came to the terminal until these words did, or for 15 s."""
    seen, until = "", time.monotonic() + 15
    while awaited not in seen and time.monotonic() < until:
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")
    return seen
