"""A host that limits what units may ask of it: where they go, who is told why not, and who has the last word."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from functional.agent_world import RESTARTING, World, story, until
from harness.builders import SERVICE
from harness.cluster import Cluster
from unitfleet.model import CopyPhase, Wanted
from unitfleet.policy import Policy, Processes

UNIT = "a.service"
WHY = "policy: alpha allows containers only, no [Service] units"


async def _closed(order: object) -> str | None:
    return WHY


def test_a_unit_that_its_host_does_not_allow_fails_with_the_reason_though_it_is_placed_there() -> None:
    async def tell(world: World) -> None:
        async with world.agent(permit=_closed):
            await world.place(UNIT, text=RESTARTING)
            await world.becomes(UNIT, CopyPhase.FAILED)
            state = await world.state(UNIT)
            assert state is not None and (state.message, state.copy_id) == (WHY, "")
            await world.place("b.service", Wanted.LOADED)
            await world.becomes("b.service", CopyPhase.FAILED)
            assert not world.host.copies

    story(tell)


def test_a_stricter_policy_stops_nothing_that_runs_and_starts_nothing_anew() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place(UNIT)
            await world.becomes(UNIT, CopyPhase.RUNNING)
        async with world.agent(permit=_closed):
            await world.becomes(UNIT, CopyPhase.RUNNING)
            await world.place(UNIT, restart=1)

            async def told() -> bool:
                state = await world.state(UNIT)
                return state is not None and state.message == WHY

            await until(told, 5.0, "the restart is refused")
            assert world.host.running() == {UNIT}, "the copy of before runs on"

    story(tell)


def test_an_agent_tells_the_cluster_its_policy() -> None:
    async def tell(world: World) -> None:
        policy = Policy(mounts=("/srv",), processes=Processes.ANY)
        world.facts = replace(world.facts, policy=policy)
        async with world.agent():
            await world.stands()
            presence = await world.presence()
            assert presence is not None and presence.policy == policy

    story(tell)


def test_a_slip_in_the_policy_keeps_the_agent_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("# ours\nhost-newtork = true\n")
    argv = [sys.executable, "-m", "unit_agent", "--policy", str(file), "--state-dir", str(tmp_path / "agent")]
    for flags in (["--check"], []):
        ran = subprocess.run([*argv, *flags], capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 2
        assert f"cannot use {file}:2: unknown key host-newtork" in ran.stderr
        assert "did you mean host-network?" in ran.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: without it no process is root's")
async def test_a_unit_goes_where_a_host_allows_it_and_one_that_none_allows_is_told_why(tmp_path: Path) -> None:
    policies = ("", 'processes = "not-root"', 'processes = "any"\nmounts = "none"')
    files = [tmp_path / f"policy{number}.toml" for number in range(3)]
    for file, text in zip(files, policies, strict=True):
        file.write_text(text)
    logs = tmp_path / "logs"
    logs.mkdir()
    own = [("--policy", str(file)) for file in files]
    async with Cluster.on_loopback(logs, machines=3, masters=1, own_args=own) as cluster:
        cluster.write("rooted@.service", SERVICE)
        await cluster.must("start", "rooted@1.service", "rooted@2.service")
        for name in ("rooted@1.service", "rooted@2.service"):
            (copy,) = await cluster.running(name)
            assert copy.machine == "m3"

        cluster.write("reads.service", SERVICE + "User=nobody\nEnvironmentFile=/etc/hostname\n")
        refused = await cluster.unitctl("start", "reads.service")
        assert refused.code == 3, refused
        assert "policy refused 3: m" in refused.stderr
        assert "or allow it in the policy of" in refused.stderr
        explained = (await cluster.unitctl("explain", "reads.service")).stdout
        assert "policy: allows containers only, no [Service] units" in explained
        assert "policy: allows no environment files of the host, so not /etc/hostname" in explained
        pending = await cluster.unit("reads.service")
        assert (
            pending is not None and pending.phase == "pending" and "3 do not allow what it asks for" in pending.why
        )
