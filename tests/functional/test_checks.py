"""Stories of checks and of failed copies on loopback: real etcd, masters, agents with the process driver."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness import moody_server
from harness.cluster import Cluster
from harness.etcd import free_ports
from unitfleet.api import CopyView
from unitfleet.model import Cause

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON_S = 10.0
UNIT = "web.service"
BROKEN = "broken.service"
UNLUCKY = "unlucky.service"

CHECKED = """[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart={python} {server} {port} {mood}
Restart={restart}
RestartSec=100ms
TimeoutStopSec=2s
[X-Fleet]
Check={check}
CheckInterval={interval}
CheckTimeout={timeout}
CheckRetries=2
CheckStartPeriod={period}
OnFailure={on_failure}
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared() -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.on_loopback(Path(logs), masters=1) as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    yield shared
    await shared.restore()


class Web:
    """A unit with a check, whose mood the test sets."""

    def __init__(self, cluster: Cluster, tmp_path: Path, **wishes: str) -> None:
        self.cluster = cluster
        self.mood_file = tmp_path / "mood"
        [self.port] = free_ports(1, "127.0.0.1")
        usual = {"check": f"http://:{self.port}/healthz", "restart": "always", "period": "3s"}
        usual |= {"interval": "300ms", "timeout": "200ms", "on_failure": "restart"}
        cluster.write(
            UNIT,
            CHECKED.format(
                python=sys.executable,
                server=moody_server.__file__,
                port=self.port,
                mood=self.mood_file,
                **{**usual, **wishes},
            ),
        )

    def is_in(self, mood: str) -> None:
        new = self.mood_file.with_suffix(".new")
        new.write_text(mood)
        new.replace(self.mood_file)

    async def copy(self) -> CopyView | None:
        view = await self.cluster.unit(UNIT)
        return view.copies[0] if view is not None and view.copies else None

    async def endpoints(self) -> list[str]:
        api = self.cluster.api()
        listed = await asyncio.to_thread(api._get, "/v1/endpoints", {"unit": UNIT})
        return [str(item["unit"]) for item in json.loads(listed.body)["items"]]

    async def becomes(self, health: str, within_s: float = SOON_S) -> CopyView:
        """Wait until its running copy has this health."""
        await self.cluster.wait_until(lambda: self._is(health), within_s, f"{UNIT} is {health}")
        copy = await self.copy()
        assert copy is not None
        return copy

    async def says(self, words: str) -> bool:
        copy = await self.copy()
        return copy is not None and words in copy.message

    async def _is(self, health: str) -> bool:
        copy = await self.copy()
        return copy is not None and copy.health == health and copy.phase == "running"


async def events(cluster: Cluster, kind: str, unit: str = UNIT) -> list[str]:
    ran = await cluster.must("events", "--unit", unit, "--limit", "1000", "-o", "jsonl")
    told = [json.loads(line) for line in ran.stdout.splitlines() if line.strip()]
    return [one["message"] for one in told if one["kind"] == kind]


async def test_a_copy_is_an_endpoint_only_while_its_check_says_so_and_is_restarted_when_it_does_not(
    cluster: Cluster, tmp_path: Path
) -> None:
    web = Web(cluster, tmp_path)
    web.is_in("bad")
    started = await cluster.must("start", UNIT)
    starting = await web.becomes("starting")
    assert await web.endpoints() == []
    await cluster.wait_until(
        lambda: web.says("503 Service Unavailable: I am bad"), SOON_S, f"it says why: {starting}"
    )
    web.is_in("ok")
    healthy = await web.becomes("healthy")
    assert await web.endpoints() == [UNIT] and healthy.message == ""
    [before] = await cluster.running(UNIT)

    web.is_in("bad")
    gone = asyncio.ensure_future(cluster.wait_until(lambda: no_endpoints(web), SOON_S, "its endpoint is gone"))
    await cluster.wait_until(lambda: was_restarted(web), SOON_S, "it was restarted")
    web.is_in("ok")
    await gone
    again = await web.becomes("healthy")
    assert again.cause is Cause.HEALTH and again.restarts >= 1, again
    [after] = await cluster.running(UNIT)
    assert after != before and after.machine == before.machine
    assert await web.endpoints() == [UNIT]
    told = await events(cluster, "unhealthy")
    assert told and "2 times in a row: 503" in told[-1], told
    assert started.code == 0


async def no_endpoints(web: Web) -> bool:
    return await web.endpoints() == []


async def was_restarted(web: Web) -> bool:
    copy = await web.copy()
    return copy is not None and copy.restarts > 0


@pytest.mark.parametrize("mood", ["hang", "drip"])
async def test_a_check_that_hangs_or_drips_is_a_failure_after_its_timeout_and_no_more(
    cluster: Cluster, tmp_path: Path, mood: str
) -> None:
    web = Web(cluster, tmp_path, restart="no", period="0")
    web.is_in(mood)
    began = time.monotonic()
    await cluster.must("start", UNIT)
    copy = await web.becomes("unhealthy")
    assert "within 0.2 s" in copy.message, copy
    assert time.monotonic() - began < 2 * (0.3 * 2 + 0.2 * 2) + SOON_S
    [running] = await cluster.running(UNIT)  # Restart=no: it is only shown
    web.is_in("ok")
    recovered = await web.becomes("healthy")
    assert await cluster.running(UNIT) == [running] and recovered.restarts == 0


@pytest.mark.parametrize(
    ("mood", "health"), [("flood", "healthy"), ("away", "healthy"), ("redirect", "unhealthy")]
)
async def test_an_answer_without_end_a_redirect_away_and_one_in_circles_are_bounded(
    cluster: Cluster, tmp_path: Path, mood: str, health: str
) -> None:
    web = Web(cluster, tmp_path, restart="no", period="0")
    web.is_in(mood)
    await cluster.must("start", UNIT)
    copy = await web.becomes(health)
    if health == "unhealthy":
        assert "redirected more than 3 times" in copy.message, copy


async def test_a_new_agent_leaves_healthy_copies_to_their_users(cluster: Cluster, tmp_path: Path) -> None:
    web = Web(cluster, tmp_path)
    web.is_in("ok")
    await cluster.must("start", UNIT)
    healthy = await web.becomes("healthy")
    agent = cluster.machine(healthy.machine_name)
    kept = Path(cluster._site.state_dir(agent.host)) / "checks.json"
    await cluster.wait_until(lambda: asyncio.to_thread(says, kept, "healthy"), SOON_S, "its health is on disk")
    web.is_in("hang")  # a new agent gets no answer: what is known must do, until there are enough
    cluster.restart_agent(agent)
    seen = set()
    deadline = time.monotonic() + 0.6
    while time.monotonic() < deadline:
        copy = await web.copy()
        seen.add(copy.health if copy else "gone")
    assert seen == {"healthy"}, seen


def says(path: Path, word: str) -> bool:
    return path.exists() and word in path.read_text()


COMMAND = """echo "$PWD $UNITFLEET_UNIT" > ran
[ -e hang ] && { sleep 4242 & sleep 4242; }
exit $(cat code)
"""


async def test_a_command_checks_as_the_unit_and_what_hangs_is_killed_with_all_it_started(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = tmp_path / "check.sh"
    script.write_text(COMMAND)
    (tmp_path / "code").write_text("0")
    restart = f"no\nWorkingDirectory={tmp_path}"
    web = Web(cluster, tmp_path, restart=restart, period="0", check=f"exec:/bin/sh {script}")
    await cluster.must("start", UNIT)
    await web.becomes("healthy")
    assert (tmp_path / "ran").read_text().split() == [str(tmp_path), UNIT]
    (tmp_path / "code").write_text("3")
    failing = await web.becomes("unhealthy")
    assert "/bin/sh exited with status 3" in failing.message, failing
    (tmp_path / "code").write_text("0")
    await web.becomes("healthy")
    (tmp_path / "hang").touch()
    hanging = await web.becomes("unhealthy")
    assert "did not end within 0.2 s" in hanging.message, hanging
    (tmp_path / "hang").unlink()
    await web.becomes("healthy")
    assert not sleepers(), "what a check started outlived it"


def sleepers() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\x004242\x00":
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


FAILS = """[Unit]
StartLimitIntervalSec=10
StartLimitBurst=3
[Service]
ExecStart=/bin/sh -c {script}
Restart=always
RestartSec=0
[X-Fleet]
OnFailure={on_failure}
"""


async def test_a_unit_that_fails_everywhere_is_tried_on_three_hosts_and_then_says_where(cluster: Cluster) -> None:
    cluster.write(BROKEN, FAILS.format(script="'echo cannot go on; exit 3'", on_failure="keep"))
    await cluster.unitctl("start", BROKEN)
    await cluster.wait_until(lambda: failed_for_good(cluster, BROKEN), SOON_S, "it failed on three hosts")
    view = await cluster.unit(BROKEN)
    assert view is not None and (view.phase, view.settled) == ("failed", True), view
    assert all(name in view.why for name in ("m1", "m2", "m3")), view.why
    assert "started 3 times in 10 s" in view.why, view.why
    moves = await events(cluster, "moved", BROKEN)
    assert len(moves) == 2 and all("failed on m" in move for move in moves), moves
    await cluster.wait_until(lambda: copies_are(cluster, 1), SOON_S, "the other failed copies are gone")

    listed = (await cluster.must("scene", "ls")).stdout
    assert all(name in listed for name in ("m1", "m2", "m3")) and "in place" in listed, listed
    shown = (await cluster.must("scene", BROKEN)).stdout
    assert "exit code 3" in shown and "cannot go on" in shown and "exit-code" in shown, shown
    await cluster.unitctl("start", BROKEN)  # the user's word begins anew
    await cluster.wait_until(lambda: moved(cluster, 4), SOON_S, "it was tried on three hosts again")
    await cluster.wait_until(lambda: failed_for_good(cluster, BROKEN), SOON_S, "it failed on three hosts again")
    await cluster.must("destroy", BROKEN)
    removed = (await cluster.must("scene", "rm", BROKEN)).stdout
    assert removed.count("removed") == 3, removed
    nothing = await cluster.unitctl("scene", BROKEN)
    assert nothing.code == 4 and "no machine keeps a failed copy" in nothing.stderr, nothing
    for machine in cluster.machines:
        assert not list((cluster._site.state_dir(machine.host) / "scenes").glob("*")), machine


async def moved(cluster: Cluster, times: int) -> bool:
    return len(await events(cluster, "moved", BROKEN)) == times


async def copies_are(cluster: Cluster, count: int) -> bool:
    view = await cluster.unit(BROKEN)
    return view is not None and len(view.copies) == count


async def test_a_unit_that_fails_on_one_host_runs_on_the_next_and_its_failed_copy_is_kept(
    cluster: Cluster, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    script = f"'[ -e {first} ] || echo $UNITFLEET_MACHINE >{first}; echo no luck on $UNITFLEET_MACHINE; " + (
        f'[ "$(cat {first})" = $UNITFLEET_MACHINE ] && exit 3; exec sleep 100000' + "'"
    )
    cluster.write(UNLUCKY, FAILS.format(script=script.replace("$", "$$"), on_failure="keep"))
    await cluster.must("start", UNLUCKY)
    await cluster.wait_until(lambda: runs_away_from(cluster, first), SOON_S, "it runs on another host")
    [running] = await cluster.running(UNLUCKY)
    failed_on = first.read_text().strip()
    view = await cluster.unit(UNLUCKY)
    assert view is not None and f"failed on {failed_on}" in view.copies[0].reason, view
    await cluster.wait_until(lambda: scene_is_kept(cluster), SOON_S, "the failed copy was set aside")
    ran = await cluster.must("scene", UNLUCKY.removesuffix(".service"))
    assert f"no luck on {failed_on}" in ran.stdout and f"{failed_on} (" in ran.stdout, ran
    scene = json.loads((await cluster.must("scene", "show", UNLUCKY, "-o", "jsonl")).stdout.splitlines()[0])
    directory = Path(scene["where"])
    assert "no luck" in (directory / "output.log").read_text()
    assert not (directory / "order.json").exists(), "its environment must not be kept"
    await cluster.must("scene", "rm", UNLUCKY)
    assert not await asyncio.to_thread(directory.exists)
    assert await cluster.running(UNLUCKY) == [running]


async def runs_away_from(cluster: Cluster, first: Path) -> bool:
    running = await cluster.running(UNLUCKY)
    return len(running) == 1 and not says(first, running[0].machine)


async def scene_is_kept(cluster: Cluster) -> bool:
    ran = await cluster.unitctl("scene", "show", UNLUCKY, "-o", "jsonl")
    return ran.code == 0 and not json.loads(ran.stdout.splitlines()[0])["in_place"]


async def test_a_copy_that_never_becomes_healthy_is_given_up_and_tried_elsewhere(
    cluster: Cluster, tmp_path: Path
) -> None:
    web = Web(cluster, tmp_path, period="0", interval="100ms", timeout="100ms")
    web.is_in("bad")
    await cluster.must("start", UNIT)
    await cluster.wait_until(lambda: failed_for_good(cluster, UNIT), 3 * SOON_S, "it failed on three hosts")
    view = await cluster.unit(UNIT)
    assert view is not None and "never healthy in 3 runs" in view.why, view
    assert view.copies[0].cause is Cause.HEALTH, view


async def failed_for_good(cluster: Cluster, unit: str) -> bool:
    view = await cluster.unit(unit)
    return view is not None and view.phase == "failed" and view.settled and "it failed on" in view.why
