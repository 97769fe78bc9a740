"""unitctl as people run it, against a scripted API: what it says, how long it waits, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.api_stub import ApiServer, Fleet
from harness.api_views import failed, machine, pending, placed, pulling, running, starting, unit
from unitctl.context import save
from unitctl.transport import READ_S
from unitfleet.api import ErrorBody, Move
from unitfleet.model import Happening, TargetState

LAUNCHED = TargetState.LAUNCHED
NOWHERE = pending("a.service", ("metadata", 2, "region=eu not found"), considered=2, hint="set region=eu on m2")


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(unit("a.service"), unit("web@.service"), machines=[machine("m1"), machine("m2")]) as fleet:
        yield fleet


@pytest.fixture
def server(fleet: Fleet) -> Iterator[ApiServer]:
    with ApiServer(fleet) as server:
        yield server


class Unitctl:
    """Runs unitctl in a folder of its own, with no configuration but the endpoint."""

    def __init__(self, folder: Path, endpoint: str = "") -> None:
        self.folder = folder
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONWARNINGS": "error",
        }
        if endpoint:
            self.env["UNITCTL_ENDPOINT"] = endpoint

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "unitctl", *arguments],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.popen(*arguments)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def unitctl(tmp_path: Path, server: ApiServer) -> Unitctl:
    return Unitctl(tmp_path, server.url)


def dead_endpoint() -> str:
    """An endpoint where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# ---------------------------------------------------------------- start


def test_start_tells_each_phase_and_ends_with_where_it_runs(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.script["a.service"] = [placed("m2"), pulling("m2", 41), starting("m2"), running("m2")]
    done = unitctl("start", "a")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a.service  running on m2 10.0.0.2:8081\n"
    assert done.stderr.splitlines() == [
        "a.service: placed on m2",
        "a.service: pulling 41 %",
        "a.service: starting",
        "a.service: running",
    ]


def test_a_start_of_what_runs_has_nothing_to_tell(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.units["a.service"] = unit("a.service", target=LAUNCHED, **running("m1"))
    done = unitctl("start", "a")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a.service  running on m1 10.0.0.2:8081\n", "")


def test_a_range_is_one_call_with_the_template_s_text(fleet: Fleet, unitctl: Unitctl) -> None:
    done = unitctl("start", "web@<1..3>", "a")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "web@1.service",
        "web@2.service",
        "web@3.service",
        "a.service",
    ]
    assert [(wish.name, wish.text == fleet.texts["web@.service"]) for wish in fleet.changes] == [
        ("web@1.service", True),
        ("web@2.service", True),
        ("web@3.service", True),
        ("a.service", False),
    ]
    assert sum("POST" in line for line in fleet.requests) == 1


def test_a_unit_that_fits_nowhere_is_told_within_a_second_and_stays_launched(
    fleet: Fleet, unitctl: Unitctl
) -> None:
    fleet.script["a.service"] = [NOWHERE]
    began = time.monotonic()
    done = unitctl("start", "a")
    assert time.monotonic() - began < 5  # a second on an idle machine
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: cannot place a.service: 2 machines considered, none can take it",
        "  metadata refused 2: region=eu not found",
        "  the target stays launched: it starts as soon as one can",
        "hint: set region=eu on m2",
        "see:  unitctl explain a.service",
    ]
    assert fleet.units["a.service"].target is LAUNCHED


def test_a_refusal_that_is_older_than_the_command_is_not_the_answer(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.script["a.service"] = [NOWHERE, NOWHERE, running("m1")]
    done = unitctl("start", "a")
    assert (done.returncode, done.stdout) == (0, "a.service  running on m1 10.0.0.2:8081\n")


def test_wait_goes_on_where_no_machine_fits(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.pace_s = 0.7
    fleet.script["a.service"] = [NOWHERE, NOWHERE, running("m1")]
    done = unitctl("start", "--wait", "a")
    assert done.returncode == 0, done.stderr
    assert "a.service: not placed: no machine fits" in done.stderr


def test_units_that_fit_nowhere_for_one_reason_are_told_together(fleet: Fleet, unitctl: Unitctl) -> None:
    for number in (1, 2, 3):
        fleet.script[f"web@{number}.service"] = [NOWHERE]
    done = unitctl("start", "web@1..3", "a")
    assert done.returncode == 3
    assert done.stdout == "a.service  running on m1 10.0.0.2:8081\n"
    assert done.stderr.count("error:") == 1
    assert "3 units (web@1.service, web@2.service, web@3.service)" in done.stderr


def test_a_failed_unit_is_told_with_its_last_lines(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.script["a.service"] = [placed("m1"), failed("m1", "exited with status 203")]
    fleet.output["a.service"] = ["cannot bind\x1b[2J"]
    done = unitctl("start", "a")
    assert done.returncode == 1
    assert "error: cannot start a.service: it failed on m1: exited with status 203" in done.stderr
    assert "  log: cannot bind\\x1b[2J" in done.stderr
    assert "hint: unitctl logs" in done.stderr


def test_start_of_a_failed_unit_waits_for_the_new_try(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.units["a.service"] = unit("a.service", target=LAUNCHED, **failed("m1", "old"))
    fleet.script["a.service"] = [starting("m1"), running("m1")]
    done = unitctl("start", "a")
    assert (done.returncode, done.stdout) == (0, "a.service  running on m1 10.0.0.2:8081\n")
    assert "failed" not in done.stderr


def test_a_timeout_says_where_each_unit_is_stuck(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.script["a.service"] = [placed("m1"), starting("m1", "waiting for READY=1")]
    done = unitctl("start", "--timeout", "500ms", "a")
    assert done.returncode == 8
    assert "it is still starting on m1: waiting for READY=1" in done.stderr
    assert "see:  unitctl status a.service" in done.stderr


def test_the_worst_code_wins(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.script["a.service"] = [NOWHERE]
    fleet.script["web@1.service"] = [failed("m1", "boom")]
    done = unitctl("start", "a", "web@1", "web@2")
    assert done.returncode == 1
    assert done.stdout == "web@2.service  running on m1 10.0.0.2:8081\n"
    assert done.stderr.count("error:") == 2


def test_no_block_gives_the_command_and_goes(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.script["a.service"] = [NOWHERE]
    done = unitctl("start", "--no-block", "a")
    assert (done.returncode, done.stdout) == (0, "a.service  to be started\n")


def test_a_template_is_refused_with_what_to_do(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.refusals["web@.service"] = ErrorBody(
        code="refused", message="cannot start a template: web@.service", hint="start an instance of it"
    )
    done = unitctl("start", "web@.service")
    assert done.returncode == 1
    assert done.stderr == "error: cannot start a template: web@.service\nhint: start an instance of it\n"


def test_an_invalid_file_is_told_line_by_line(fleet: Fleet, unitctl: Unitctl) -> None:
    (unitctl.folder / "bad.service").write_text("[X-Fleet]\nCPUs=2\n")
    fleet.refusals["bad.service"] = ErrorBody(
        code="invalid_unit", message="cannot accept bad.service", problems=("bad.service:2: CPUs= is unknown",)
    )
    done = unitctl("start", "bad.service")
    assert done.returncode == 1
    assert "  bad.service:2: CPUs= is unknown" in done.stderr


def test_one_unit_that_is_nowhere_changes_nothing(fleet: Fleet, unitctl: Unitctl) -> None:
    done = unitctl("start", "a", "nope")
    assert done.returncode == 4
    assert "cannot find unit nope.service: neither registered nor a file here" in done.stderr
    assert fleet.changes == []


def test_warnings_are_told_once(fleet: Fleet, unitctl: Unitctl) -> None:
    for name in ("web@1.service", "web@2.service"):
        fleet.warnings[name] = ("web@.service:3: the shell swallows SIGTERM",)
    done = unitctl("start", "web@1..2")
    assert done.stderr.count("warning: web@.service:3: the shell swallows SIGTERM") == 1


def test_a_unit_destroyed_meanwhile_ends_the_wait(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.script["a.service"] = [starting("m1")]
    process = unitctl.popen("start", "a")
    assert process.stderr is not None
    while "starting" not in process.stderr.readline():
        pass
    fleet.forget("a.service")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "destroyed meanwhile" in err


# ---------------------------------------------------------------- connections


def test_endpoints_are_tried_in_turn(server: ApiServer, tmp_path: Path) -> None:
    done = Unitctl(tmp_path, f"{dead_endpoint()},unix://{tmp_path}/none.sock,{server.url}")("start", "a")
    assert done.returncode == 0, done.stderr


def test_a_read_leaves_a_frozen_master_for_the_next(server: ApiServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as frozen:  # the kernel accepts, and nobody ever answers
        endpoints = f"127.0.0.1:{frozen.getsockname()[1]},{server.url}"
        began = time.monotonic()
        done = Unitctl(tmp_path, endpoints)("list-units")
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - began < 2 * READ_S


def test_a_dead_api_says_what_was_tried_and_why_it_failed(tmp_path: Path) -> None:
    dead = dead_endpoint()
    done = Unitctl(tmp_path, f"{dead},unix://{tmp_path}/none.sock")("list-units")
    assert done.returncode == 7
    assert done.stderr.splitlines()[:3] == [
        "error: cannot reach the API named by UNITCTL_ENDPOINT",
        f"  {dead}: connection refused",
        f"  unix://{tmp_path}/none.sock: no such socket",
    ]
    assert done.stderr.count("hint:") == 1


def test_what_is_no_api_is_named_as_such(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = Unitctl(tmp_path, f"127.0.0.1:{listener.getsockname()[1]}").popen("list-units")
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        _, err = process.communicate(timeout=30)
    assert process.returncode == 7
    assert "does not speak HTTP" in err


def test_a_broken_stream_is_resumed_where_it_broke(fleet: Fleet, tmp_path: Path) -> None:
    fleet.pace_s = 0.3
    fleet.script["a.service"] = [placed("m1"), pulling("m1", 10), starting("m1"), running("m1")]
    with ApiServer(fleet, break_streams=2) as one, ApiServer(fleet) as other:
        done = Unitctl(tmp_path, f"{one.url},{other.url}")("start", "a")
        assert done.returncode == 0, done.stderr
        assert one.streams + other.streams >= 2
    assert done.stderr.splitlines()[-1] == "a.service: running"
    assert any("/v1/stream" in line and "since=" in line for line in fleet.requests)


def test_the_wait_outlives_the_loss_of_every_endpoint(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    fleet.pace_s = 0.2
    fleet.script["a.service"] = [placed("m1")]
    with ApiServer(fleet, socket=path):
        process = Unitctl(tmp_path, f"unix://{path}").popen("start", "a")
        assert process.stderr is not None
        assert process.stderr.readline() == "a.service: placed on m1\n"
    path.unlink()
    assert "lost the connection" in process.stderr.readline()
    fleet.closed.clear()
    with ApiServer(fleet, socket=path):
        fleet.look("a.service", **running("m1"))
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out == "a.service  running on m1 10.0.0.2:8081\n"


def test_a_context_brings_socket_and_token(fleet: Fleet, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    token.chmod(0o600)
    with ApiServer(fleet, socket=tmp_path / "api.sock", token="s3cret") as server:
        unitctl = Unitctl(tmp_path)
        save("demo", (server.url,), str(token), unitctl.env)
        assert unitctl("list-machines", "-o", "name").stdout == "m1\nm2\n"
        token.write_text("wrong")
        done = unitctl("list-machines")
        assert done.returncode == 6
        assert "the token is not one of this cluster" in done.stderr
        token.chmod(0o644)
        assert unitctl("list-machines").returncode == 2


def test_a_write_that_may_have_arrived_is_not_repeated(server: ApiServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = f"127.0.0.1:{listener.getsockname()[1]}"
        process = Unitctl(tmp_path, f"{first},{server.url}").popen("machines", "cordon", "m1")
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 7
    assert "cannot tell whether the command was carried out" in err
    assert not server.fleet.requests


# ---------------------------------------------------------------- ctrl-C


def test_ctrl_c_leaves_the_work_going_and_says_how_to_follow_it(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.script["a.service"] = [placed("m1"), starting("m1")]
    process = unitctl.popen("start", "a")
    assert process.stderr is not None
    while "starting" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the command goes on by itself" in err
    assert "unitctl status a.service" in err
    assert "Traceback" not in err
    assert fleet.units["a.service"].target is LAUNCHED


# ---------------------------------------------------------------- stop, unload, destroy, restart


def test_stop_unload_and_destroy_wait_for_their_end(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.units["a.service"] = unit("a.service", target=LAUNCHED, **running("m1"))
    assert unitctl("stop", "a").stdout == "a.service  stopped, loaded on m1\n"
    assert unitctl("unload", "a").stdout == "a.service  inactive\n"
    assert unitctl("stop", "a").stderr == "a.service: is inactive already\n"
    assert unitctl("destroy", "a").stdout == "a.service  destroyed\n"
    assert "a.service" not in fleet.units
    done = unitctl("destroy", "a")
    assert done.returncode == 4
    assert "cannot find unit a.service" in done.stderr


def test_stop_warns_of_what_the_agent_had_to_do(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.units["a.service"] = unit("a.service", target=LAUNCHED, **running("m1"))
    killed = running("m1", wanted="loaded", message="did not end on SIGTERM: killed after 90 s")
    fleet.lowering["a.service"] = [{**killed, "phase": "loaded"}]
    done = unitctl("stop", "a")
    assert done.returncode == 0
    assert "warning: a.service on m1: did not end on SIGTERM" in done.stderr


def test_destroy_of_a_glob_leaves_the_template(fleet: Fleet, unitctl: Unitctl) -> None:
    unitctl("start", "web@1..2")
    done = unitctl("destroy", "web@*")
    assert done.returncode == 0, done.stderr
    assert sorted(fleet.units) == ["a.service", "web@.service"]
    assert unitctl("destroy", "web@*").returncode == 4


def test_restart_waits_for_the_new_copy(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.units["a.service"] = unit("a.service", target=LAUNCHED, **running("m1", port=1))
    fleet.script["a.service"] = [starting("m1"), running("m1", port=2)]
    done = unitctl("restart", "a")
    assert (done.returncode, done.stdout) == (0, "a.service  running on m1 10.0.0.2:2\n")
    assert fleet.units["a.service"].restart == 1


def test_scale_says_what_it_does_and_does_it(fleet: Fleet, unitctl: Unitctl) -> None:
    assert unitctl("scale", "web@", "3").returncode == 0
    dry = unitctl("scale", "web", "1", "--dry-run")
    assert dry.stderr == "would be destroyed: web@3.service web@2.service\n"
    assert "web@3.service" in fleet.units
    done = unitctl("scale", "web@", "1")
    assert done.returncode == 0, done.stderr
    assert sorted(fleet.units) == ["a.service", "web@.service", "web@1.service"]
    assert unitctl("scale", "web@", "1").stdout == "web@.service has 1 instances already\n"


# ---------------------------------------------------------------- looking


def test_submit_registers_once_and_refuses_another_text(fleet: Fleet, unitctl: Unitctl) -> None:
    file = unitctl.folder / "b.service"
    file.write_text("[Service]\nExecStart=/bin/true\n")
    assert unitctl("submit", "b.service").stdout == "b.service  submitted\n"
    assert unitctl("submit", "./b.service").stdout == "b.service  is registered already\n"
    file.write_text("[Service]\nExecStart=/bin/false\n")
    assert "--replace submits the file" in unitctl("submit", "b.service").stderr
    assert unitctl("submit", "--replace", "b.service").stdout == "b.service  submitted\n"
    assert unitctl("cat", "b").stdout == "[Service]\nExecStart=/bin/false\n"


def test_status_ends_as_systemctl_does(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.units["a.service"] = unit("a.service", target=LAUNCHED, description="An A", **running("m1"))
    fleet.output["a.service"] = ["hello"]
    fleet.happenings.append(Happening(at=1.0, kind="placed", writer="w", unit="a.service", message="least loaded"))
    done = unitctl("status", "a")
    assert done.returncode == 0, done.stderr
    for words in ("● a.service - An A", "10.0.0.2:8081->80/tcp", "placed  least loaded", "hello"):
        assert words in done.stdout
    assert unitctl("status", "web@.service").returncode == 3
    assert unitctl("status", "nope").returncode == 4


def test_json_lists_carry_api_and_revision(fleet: Fleet, unitctl: Unitctl) -> None:
    shown = json.loads(unitctl("list-units", "-o", "json").stdout)
    assert (shown["api"], shown["rev"]) == ("unitfleet/v1", 100)
    assert [item["name"] for item in shown["items"]] == ["a.service"]
    lines = unitctl("list-machines", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["m1", "m2"]
    started = json.loads(unitctl("start", "a", "-o", "json").stdout)
    assert started["items"][0]["phase"] == "running"


def test_logs_of_several_units_name_unit_and_machine(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.units["b.service"] = unit("b.service")
    fleet.output |= {"a.service": ["one", "two", "three"], "b.service": ["four"]}
    assert unitctl("logs", "-n", "2", "a").stdout == "two\nthree\n"
    assert "b.service@m1: four" in unitctl("logs", "a", "b").stdout


def test_logs_follow_until_ctrl_c(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.output["a.service"] = ["one"]
    process = unitctl.popen("logs", "-f", "a")
    assert process.stdout is not None
    assert process.stdout.readline() == "one\n"
    fleet.output["a.service"].append("two")
    assert process.stdout.readline() == "two\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")


def test_events_follow_as_they_happen(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.happenings.append(
        Happening(at=1.0, kind="placed", writer="w", unit="a.service", machine=machine("m1").id)
    )
    process = unitctl.popen("events", "-f")
    assert process.stdout is not None
    assert "a.service m1" in process.stdout.readline()
    fleet.happen(Happening(at=2.0, kind="lost", writer="w", machine=machine("m2").id, message="no sign of life"))
    assert "m2  no sign of life" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")


def test_explain_and_cluster_status_say_why(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.units["a.service"] = unit("a.service", target=LAUNCHED, **NOWHERE)
    explained = unitctl("explain", "a").stdout
    assert "metadata: region=eu not found" in explained
    assert "hint: set region=eu on m2" in explained
    cluster = unitctl("cluster", "status").stdout
    for words in ("master-1", "etcd 3.4.23", "2 ready, 1 lost", "1 unit is not as wanted", "no machine fits"):
        assert words in cluster


def test_machines_are_cordoned_each_for_itself(fleet: Fleet, unitctl: Unitctl) -> None:
    done = unitctl("machines", "cordon", "m1", "nope")
    assert done.returncode == 4
    assert "m1  cordoned" in done.stdout
    assert "cannot find machine nope" in done.stderr
    assert "ready,cordoned" in unitctl("list-machines").stdout


def test_labels_that_move_nothing_are_set_at_once(fleet: Fleet, unitctl: Unitctl) -> None:
    done = unitctl("machines", "label", "m1", "zone=b", "rack-")
    assert (done.returncode, done.stdout) == (0, "m1  zone=b\n")
    assert fleet.labels == [("m1", {"zone": "b", "rack": ""})]


def test_labels_that_move_units_are_shown_and_set_only_when_that_is_wanted(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.moves = (
        Move(unit="a.service", source="m1", target="m2", why="m1 does not suit it any more"),
        Move(unit="b.service", source="m1", target="m1", why="no machine fits"),
        Move(unit="every.service", source="m1", why="does not belong here any more"),
        Move(unit="c.service", target="m1", why="the only machine"),
    )
    looked = unitctl("machines", "label", "m1", "zone=b", "--dry-run")
    assert looked.returncode == 0
    assert looked.stdout.splitlines() == [
        "a.service  m1 → m2: m1 does not suit it any more",
        "b.service  stays on m1: no machine fits",
        "every.service  leaves m1: does not belong here any more",
        "c.service  not placed → m1: the only machine",
    ]
    refused = unitctl("machines", "label", "m1", "zone=b")
    assert refused.returncode == 1
    assert "cannot label m1: 4 units would be concerned" in refused.stderr and "-y" in refused.stderr
    assert fleet.labels == []
    assert unitctl("machines", "label", "m1", "zone=b", "-y").returncode == 0
    assert fleet.labels == [("m1", {"zone": "b"})]


def test_what_is_no_label_is_a_usage_error(unitctl: Unitctl) -> None:
    for word in ("zone", "=b", "zone=", "-", "zone=a,b=c"):
        done = unitctl("machines", "label", "m1", "--", word)
        assert done.returncode == 2 and "is no label" in done.stderr


def test_a_machine_is_shown_with_the_units_there(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.units["a.service"] = unit("a.service", target=LAUNCHED, **running("m1"))
    shown = unitctl("machines", "show", "m1").stdout
    assert shown.startswith("m1: ready")
    assert "a.service  running" in shown and "units:    1" in shown
    assert unitctl("machines", "show", "nope").returncode == 4


def test_drain_waits_until_the_machine_is_empty(fleet: Fleet, unitctl: Unitctl) -> None:
    fleet.units["a.service"] = unit("a.service", target=LAUNCHED, **running("m1"))
    stuck = unitctl("machines", "drain", "--wait", "--timeout", "100ms", "m1")
    assert stuck.returncode == 8
    assert "a.service: running" in stuck.stderr
    fleet.look("a.service", **running("m2"))
    done = unitctl("machines", "drain", "--wait", "m1")
    assert (done.returncode, done.stdout) == (0, "m1  drained\n")


def test_a_reader_that_goes_away_is_no_error(server: ApiServer, unitctl: Unitctl) -> None:
    for number in range(3000):
        server.fleet.units[f"u{number}.service"] = unit(f"u{number}.service")
    process = unitctl.popen("list-units")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 141
    assert err == ""
