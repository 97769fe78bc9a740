"""Why a copy ended: one word, and the figures that show it."""

from __future__ import annotations

import random

import msgspec
import pytest

from unit_agent.causes import Evidence, cause_of, explain
from unit_agent.driver import Copy
from unit_agent.drivers.docker_request import KEPT, UNIT, Kept
from unit_agent.drivers.docker_seen import read
from unit_agent.drivers.docker_track import Track
from unit_agent.happenings import happening
from unit_agent.restart import BROKE, TIMED_OUT, WATCHDOG, Exit
from unitfleet.model import Cause, CopyPhase
from unitfleet.spec import Restart, RestartPolicy

MIB = 1 << 20
CLEAN, FAILED = True, False

ENDS = {
    "it ended well": (Exit(0), Evidence(), CLEAN, Cause.EXIT),
    "it failed": (Exit(3), Evidence(), FAILED, Cause.EXIT),
    "it did not keep to its type": (Exit(0, cause=BROKE), Evidence(), FAILED, Cause.EXIT),
    "somebody killed it": (Exit(signal="SIGKILL"), Evidence(), FAILED, Cause.SIGNAL),
    "memory killed it": (Exit(signal="SIGKILL"), Evidence(oom_kills=1), FAILED, Cause.OOM),
    "memory killed a child and it failed of it": (Exit(137), Evidence(oom_kills=1), FAILED, Cause.OOM),
    "memory killed a child and it ended well": (Exit(0), Evidence(oom_kills=1), CLEAN, Cause.EXIT),
    "it could not fork": (Exit(1), Evidence(forks_refused=2), FAILED, Cause.ULIMIT),
    "it could not fork and did without": (Exit(0), Evidence(forks_refused=2), CLEAN, Cause.EXIT),
    "it ran out of open files": (Exit(1), Evidence(said_files=True), FAILED, Cause.ULIMIT),
    "it used up its CPU time": (Exit(signal="SIGXCPU"), Evidence(), FAILED, Cause.ULIMIT),
    "its file grew too large": (Exit(signal="SIGXFSZ"), Evidence(), FAILED, Cause.ULIMIT),
    "memory comes before tasks": (Exit(1), Evidence(oom_kills=1, forks_refused=1), FAILED, Cause.OOM),
    "it took too long": (Exit(cause=TIMED_OUT), Evidence(), FAILED, Cause.TIMEOUT),
    "it took too long, and was ended for it": (
        Exit(signal="SIGKILL", cause=TIMED_OUT),
        Evidence(oom_kills=1),
        FAILED,
        Cause.TIMEOUT,
    ),
    "its check failed": (Exit(1, cause=WATCHDOG), Evidence(oom_kills=1), FAILED, Cause.HEALTH),
}


@pytest.mark.parametrize(("exit", "evidence", "clean", "expected"), ENDS.values(), ids=ENDS)
def test_an_end_has_one_cause(exit: Exit, evidence: Evidence, clean: bool, expected: Cause) -> None:
    assert Cause(cause_of(exit, evidence, clean=clean)) is expected


TOLD = {
    "at its limit": (
        Evidence(oom_kills=1, memory_peak=64 * MIB, memory_limit=64 * MIB),
        "OOM-killed at 64 MiB (limit 64 MiB): why",
    ),
    "where its highest use is not known": (
        Evidence(oom_kills=1, memory_limit=64 * MIB),
        "OOM-killed at 64 MiB (limit 64 MiB): why",
    ),
    "when the host ran out": (
        Evidence(oom_kills=1, memory_peak=1536 * 1024),
        "OOM-killed at 1.5 MiB (no limit of its own): why",
    ),
    "where nothing is known": (Evidence(oom_kills=1), "OOM-killed (no limit of its own): why"),
}


@pytest.mark.parametrize(("evidence", "expected"), TOLD.values(), ids=TOLD)
def test_a_copy_that_memory_killed_says_at_which_size(evidence: Evidence, expected: str) -> None:
    assert explain(Cause.OOM, Exit(signal="SIGKILL"), evidence, "why") == expected


def test_a_copy_that_ran_into_a_limit_names_it() -> None:
    def said(exit: Exit, evidence: Evidence) -> str:
        return explain(Cause.ULIMIT, exit, evidence, "why")

    assert said(Exit(1), Evidence(forks_refused=3, tasks_max=20)) == "ran into its limit of 20 tasks: why"
    assert said(Exit(signal="SIGXCPU"), Evidence()) == "ran into its limit of CPU time: why"
    assert "open files" in said(Exit(1), Evidence(said_files=True))
    assert explain(Cause.EXIT, Exit(1), Evidence(oom_kills=1), "why") == "why"


def ended_container(code: int, *, oom: bool = False, policy: RestartPolicy = RestartPolicy()) -> Track:  # noqa: B008
    """Return a container that ended, with a limit of 64 MiB."""
    state = {"Status": "exited", "Pid": 0, "ExitCode": code, "OOMKilled": oom, "Error": ""}
    times = {"StartedAt": "1970-01-01T00:16:40Z", "FinishedAt": "1970-01-01T00:33:20Z"}
    labels = {UNIT: "a.service", KEPT: msgspec.json.encode(Kept(restart=policy)).decode()}
    found = {"Id": "c" * 64, "Name": "/a", "Created": "1970-01-01T00:10:00Z", "State": {**state, **times}}
    return Track(read({**found, "Config": {"Labels": labels}, "HostConfig": {"Memory": 64 * MIB}}))


def test_a_container_has_the_cause_that_its_engine_shows() -> None:
    dice = random.Random(1)
    killed = ended_container(137, oom=True)
    assert killed.judge(5.0, dice).why == "OOM-killed at 64 MiB (limit 64 MiB): killed by SIGKILL"
    assert killed.cause is Cause.OOM
    well = ended_container(0, oom=True)
    assert well.judge(5.0, dice).why == "exited with status 0"
    assert well.cause is Cause.EXIT
    late = ended_container(137)
    late.overdue = True
    late.judge(5.0, dice)
    assert late.cause is Cause.TIMEOUT
    cpu = ended_container(152)
    assert cpu.judge(5.0, dice).why.startswith("ran into its limit of CPU time: ")
    assert cpu.cause is Cause.ULIMIT


def test_an_order_to_start_takes_the_cause_away_and_a_restart_keeps_it() -> None:
    policy = RestartPolicy(when=Restart.ALWAYS)
    track = ended_container(137, oom=True, policy=policy)
    track.judge(5.0, random.Random(1))
    track.begun(6.0, afresh=False)
    kept = track.cause
    track.begun(7.0, afresh=True)
    assert (kept, track.cause) == (Cause.OOM, Cause.NONE)


def seen(phase: CopyPhase, **fields: object) -> Copy:
    identity = {"unit": "a.service", "driver": "docker", "id": "1", "spec": "s", "incarnation": "i"}
    return Copy(**identity, epoch=1, restart=0, phase=phase, **fields)  # type: ignore[arg-type]


def test_the_event_of_an_end_names_its_cause() -> None:
    before = seen(CopyPhase.RUNNING)
    for phase, kind in ((CopyPhase.FAILED, "failed"), (CopyPhase.RESTARTING, "restarted")):
        told = happening(before, seen(phase, message="exited with status 3", cause=Cause.EXIT))
        assert told is not None
        assert (told.kind, told.message) == (kind, "exited with status 3 [exit-code]")


def test_a_process_that_memory_killed_is_an_event_of_a_copy_that_lives_on() -> None:
    before, after = seen(CopyPhase.RUNNING), seen(CopyPhase.RUNNING, oom_kills=1, message="OOM-killed")
    told = happening(before, after)
    assert told is not None
    assert (told.kind, told.message) == ("oom", "OOM-killed")
    assert happening(after, after) is None
    assert happening(after, before) is None


def test_what_a_machine_can_not_keep_of_a_unit_is_told_as_it_starts() -> None:
    told = happening(seen(CopyPhase.STARTING), seen(CopyPhase.RUNNING, message="IOWeight= is not kept here"))
    assert told is not None
    assert told.message == "runs by the docker driver; IOWeight= is not kept here"
