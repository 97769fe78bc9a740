"""What follows from what the Engine shows: ends, ports, progress, and the lines of a log."""

from __future__ import annotations

from typing import Any

import pytest

from unit_agent.drivers.docker_images import PullProgress, digest_of, repository
from unit_agent.drivers.docker_logs import parse_line, parse_time
from unit_agent.drivers.docker_request import UNIT
from unit_agent.drivers.docker_seen import HostTimes, copy_of, ended_with_host, exit_of, log_files, read
from unit_agent.restart import Ended, History, RestartAfter
from unitfleet.model import CopyPhase, Port


def inspected(**state: Any) -> dict[str, Any]:
    usual = {
        "Status": "exited",
        "Pid": 0,
        "ExitCode": 0,
        "OOMKilled": False,
        "Error": "",
        "StartedAt": "1970-01-01T00:16:40Z",
        "FinishedAt": "1970-01-01T00:33:20Z",
    }
    ports = state.pop("ports", {})
    return {
        "Id": "c" * 64,
        "Name": "/unitfleet-m1-a.service",
        "Created": "1970-01-01T00:10:00Z",
        "State": {**usual, **state},
        "Config": {"Labels": {UNIT: "a.service"}},
        "HostConfig": {"Memory": 0, "NetworkMode": state.get("network", "default")},
        "NetworkSettings": {"Ports": ports},
    }


ENDS = {  # it ran from 1000 to 2000
    "nothing is known of host or Engine": (HostTimes(), False),
    "the host booted before it ran": (HostTimes(boot=900), False),
    "the host booted while it ran": (HostTimes(boot=1500), True),
    "the Engine started before it ran": (HostTimes(engine=900), False),
    "it ended just before the Engine started": (HostTimes(engine=2010), True),
    "it ended while the Engine came up": (HostTimes(engine=2000), True),
    "it ended long before the Engine started": (HostTimes(engine=9000), False),
    "it ended after the Engine started": (HostTimes(engine=1500), False),
    "it ended when the Engine was last heard, which came back much later": (
        HostTimes(engine=9000, heard=2010),
        True,
    ),
    "it ended long before the Engine was last heard": (HostTimes(engine=9000, heard=8000), False),
}


@pytest.mark.parametrize(("host", "expected"), ENDS.values(), ids=ENDS)
def test_an_end_is_the_hosts_only_when_the_times_say_so(host: HostTimes, expected: bool) -> None:
    assert ended_with_host(read(inspected()), host) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (137, "killed by SIGKILL"),
        (255, "exited with status 255"),
    ],
)
def test_an_exit_code_above_128_is_a_signal(code: int, expected: str) -> None:
    assert str(exit_of(read(inspected(ExitCode=code)))) == expected


def test_a_start_that_was_refused_is_told_in_the_engines_words() -> None:
    seen = read(inspected(Status="created", ExitCode=127, Error="no such file", FinishedAt="0001-01-01T00:00:00Z"))
    assert seen.ended
    copy = copy_of(seen, address="", verdict=Ended("failed", "exited with status 127"))
    assert (copy.phase, copy.message) == (CopyPhase.FAILED, "no such file: exited with status 127")


def test_a_copy_that_waits_to_restart_says_so() -> None:
    copy = copy_of(
        read(inspected()),
        address="",
        verdict=RestartAfter(1.0, "exited; restarts in 1.0 s", History()),
        restarts=2,
    )
    assert (copy.phase, copy.sub, copy.restarts) == (CopyPhase.RESTARTING, "auto-restart", 2)
    assert copy.message == "exited; restarts in 1.0 s"


def test_both_families_of_a_port_are_one_port_and_lead_to_the_machine() -> None:
    bindings = [{"HostIp": "0.0.0.0", "HostPort": "49153"}, {"HostIp": "::", "HostPort": "49153"}]
    seen = read(inspected(Status="running", Pid=7, ports={"80/tcp": bindings, "81/tcp": None}))
    copy = copy_of(seen, address="10.0.0.5", verdict=None)
    assert (copy.address, copy.ports) == ("10.0.0.5", (Port(host=49153, container=80),))


def test_a_port_bound_to_one_address_is_told_with_that_address() -> None:
    seen = read(inspected(Status="running", ports={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}))
    assert copy_of(seen, address="10.0.0.5", verdict=None).address == "127.0.0.1"


def test_pull_progress_never_goes_down_and_ends_at_100() -> None:
    lines: list[dict[str, Any]] = [
        {"status": "Pulling from app", "id": "1"},
        {"status": "Pulling fs layer", "id": "a"},
        {"status": "Downloading", "id": "a", "progressDetail": {"current": 50, "total": 100}},
        {"status": "Pulling fs layer", "id": "b"},
        {"status": "Downloading", "id": "b", "progressDetail": {"current": 300, "total": 300}},
        {"status": "Download complete", "id": "a"},
        {"status": "Extracting", "id": "a", "progressDetail": {"current": 100, "total": 100}},
        {"status": "Pull complete", "id": "a"},
        {"status": "Extracting", "id": "b", "progressDetail": {"current": 150, "total": 300}},
        {"status": "Pull complete", "id": "b"},
        {"status": "Digest: sha256:1"},
    ]
    progress = PullProgress()
    assert [progress.add(line) for line in lines] == [0, 0, 35, 35, 61, 70, 77, 77, 88, 100, 100]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("app", "app"),
        ("app:1", "app"),
        ("docker.io/library/app:1", "app"),
        ("host:5000/app", "host:5000/app"),
        ("host:5000/team/app:1@sha256:ab", "host:5000/team/app"),
    ],
)
def test_a_repository_is_what_stands_before_tag_and_digest(image: str, expected: str) -> None:
    assert repository(image) == expected


def test_a_digest_is_that_of_the_images_own_repository_and_else_its_id() -> None:
    both = {"Id": "sha256:id", "RepoDigests": ["a.example/app@sha256:1", "b.example/app@sha256:1"]}
    assert digest_of("b.example/app:1", both) == "b.example/app@sha256:1"
    assert digest_of("local:1", {"Id": "sha256:id", "RepoDigests": None}) == "sha256:id"


def test_a_line_of_a_log_carries_its_time_to_the_nanosecond() -> None:
    at_ns, line = parse_line("stderr", b"2026-11-23T04:36:11.829387017Z two words\r")
    assert at_ns == 1795408571_829387017
    assert (line.stream, line.text) == ("stderr", "two words")
    assert line.at == pytest.approx(1795408571.829387)


def test_the_engines_zero_time_is_never() -> None:
    assert parse_time("0001-01-01T00:00:00Z") == 0.0


def test_files_are_read_of_no_other_driver_and_not_before_the_first_start() -> None:
    def files(kind: str, path: str, **options: str) -> tuple[str, int] | None:
        kept = {"LogPath": path, "HostConfig": {"LogConfig": {"Type": kind, "Config": options}}}
        return log_files(read(inspected() | kept))

    assert files("json-file", "/x-json.log", **{"max-file": "5"}) == ("/x-json.log", 5)
    assert files("json-file", "/x-json.log") == ("/x-json.log", 1)
    assert files("json-file", "") is None and files("local", "") is None
