"""`unitctl doctor` on a real cluster: what a person is told, and how the command ends."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from harness.api import NOW, an_api
from harness.cluster import Cluster, Ran
from harness.stub_agent import stub_agent
from unitfleet.findings import Checkup, Finding, Severity

FAILS = "[Service]\nExecStart=/bin/false\n"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster.on_loopback(tmp_path, machines=2, masters=2) as made:
        yield made


def findings(ran: Ran) -> list[Finding]:
    return msgspec.convert(json.loads(ran.stdout)["items"], list[Finding])


async def examined(cluster: Cluster) -> tuple[Ran, list[Finding]]:
    ran = await cluster.unitctl("doctor", "-o", "json")
    return ran, findings(ran)


async def test_agents_masters_and_etcd_are_asked_and_a_failed_unit_is_named_first(cluster: Cluster) -> None:
    async def all_answer() -> bool:
        _, found = await examined(cluster)
        return not any(each.about in ("machines", "masters", "clocks") and each.severity.rank for each in found)

    await cluster.wait_until(all_answer, 20.0, "every agent and master answers the doctor")
    ran, found = await examined(cluster)
    said = {each.about: each for each in found}
    assert said["machines"].what == "2 machines there, and all answer"
    assert said["clocks"].severity is said["audit"].severity is said["versions"].severity is Severity.OK
    assert said["policy"].severity is said["links"].severity is Severity.NOTE
    worse = [each for each in found if each.severity.rank > Severity.NOTE.rank and each.about != "etcd"]
    assert not worse

    cluster.write("fails.service", FAILS)
    await cluster.unitctl("start", "fails.service")
    await cluster.wait_until(lambda: fails(cluster), 20.0, "the doctor names the unit")
    ran = await cluster.unitctl("doctor")
    assert ran.code == 1
    first, why, *_ = ran.stdout.splitlines()
    assert first.startswith("problem") and "fails.service failed" in first
    assert "fix: unitctl status fails.service" in why
    assert "examined by master" in ran.stdout.splitlines()[-1]


async def fails(cluster: Cluster) -> bool:
    _, found = await examined(cluster)
    return found[0].about == "units"


async def test_an_agent_that_hangs_is_named_in_time_and_the_others_are_examined() -> None:
    async with stub_agent("m1") as hangs, stub_agent("m2") as late:
        late.checkup = Checkup(at=NOW - 90.0, troubles={"docker": "no such socket"}, state_used_percent=50.0)
        async with an_api(built=[hangs.built(), late.built()]) as api, asyncio.timeout(10.0):
            status, told = await api.ask("GET", "/v1/doctor")
            assert (status, told["master"], told["at"]) == (200, "one", NOW)
            said = {finding["about"]: finding["what"] for finding in told["findings"]}
            assert said["machines"] == "m1 could not be asked: its agent did not answer within 2 s"
            assert said["clocks"] == "the clock of m2 is 90.0 s behind"
            assert said["drivers"] == "the docker driver of m2 can't be used: no such socket"
            await api.ask("GET", "/v1/doctor")
            assert (hangs.asked, late.asked) == (1, 1), "who asks again at once gets the same answer"


@pytest.mark.parametrize(("identities", "severity"), [(True, "ok"), (False, "note")])
async def test_links_in_the_clear_are_told_of_where_masters_have_no_identity(
    identities: bool, severity: str
) -> None:
    async with an_api(identities=identities) as api:
        _, told = await api.ask("GET", "/v1/doctor")
        (finding,) = [finding for finding in told["findings"] if finding["about"] == "links"]
        assert finding["severity"] == severity


async def test_an_audit_log_that_takes_no_line_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with an_api() as api:
        api.trail.folder = tmp_path / "file"
        _, told = await api.ask("GET", "/v1/doctor")
        (finding,) = [finding for finding in told["findings"] if finding["about"] == "audit"]
        assert finding["severity"] == "problem" and "master one takes no line" in finding["what"]


def test_where_no_api_answers_it_says_what_can_be_seen_from_here(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o640)
    os.utime(token, (4e9, 4e9))
    named = {"UNITCTL_ENDPOINT": "http://127.0.0.1:1,unix:///nowhere/api.sock", "UNITCTL_TOKEN_FILE": str(token)}
    ran = doctor(tmp_path, named)
    assert ran.returncode == 7 and not ran.stderr
    assert "http://127.0.0.1:1, of UNITCTL_ENDPOINT: connection refused" in ran.stdout
    assert "unix:///nowhere/api.sock, of UNITCTL_ENDPOINT: no such socket" in ran.stdout
    assert f"chmod 600 {token}" in ran.stdout
    assert "from the future" in ran.stdout
    assert "no API answered" in ran.stdout


def test_a_context_that_can_not_be_used_is_a_finding(tmp_path: Path) -> None:
    ran = doctor(tmp_path, {"UNITCTL_CONTEXT": "nobody-wrote-it"})
    assert ran.returncode == 7 and not ran.stderr
    assert "cannot find context 'nobody-wrote-it'" in ran.stdout


def doctor(home: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "unitctl", "doctor"]
    env = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), **env}
    return subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60, check=False)
