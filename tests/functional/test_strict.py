"""Strict units on a real cluster: an outside witness never sees two of one, whatever is frozen or killed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.cluster import Cluster
from harness.unit_processes import Running

PROFILE = "fast"
TTL_S = 5.0
MOVED_S = 2 * (2.005 * TTL_S + 3.0)
"""Lease, the leader's wait of TTL x 1.005 + 0.5 s, and a start; doubled."""

ALONE = "[Service]\nExecStart=/bin/sleep 100000\nRestart=always\n\n[X-Fleet]\nSingleton=strict\n"
UNIT = "alone.service"


class Watch:
    """Looks at every host many times a second, and keeps the most copies of the unit that ran at one time."""

    def __init__(self, cluster: Cluster, unit: str) -> None:
        self._cluster = cluster
        self._unit = unit
        self.most = 0
        self.last_seen: dict[str, float] = {}
        self.first_seen: dict[str, float] = {}

    async def run(self) -> None:
        while True:
            copies = await self._cluster.running(self._unit)
            self.most = max(self.most, len(copies))
            for copy in copies:
                self.first_seen.setdefault(_id(copy), time.monotonic())
                self.last_seen[_id(copy)] = time.monotonic()
            await asyncio.sleep(0.02)


def _id(copy: Running) -> str:
    return f"{copy.machine} {copy.pid}"


@contextlib.asynccontextmanager
async def watched(cluster: Cluster, unit: str = UNIT) -> AsyncIterator[Watch]:
    watch = Watch(cluster, unit)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()


async def started(cluster: Cluster) -> Running:
    cluster.write(UNIT, ALONE)
    await cluster.must("start", UNIT)
    (copy,) = await cluster.running(UNIT)
    return copy


async def runs_elsewhere(cluster: Cluster, old: Running) -> None:
    async def moved() -> bool:
        copies = await cluster.running(UNIT)
        return [copy.machine != old.machine for copy in copies] == [True]

    await cluster.wait_until(moved, MOVED_S, f"{UNIT} runs on another machine than {old.machine}")


@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_a_strict_unit_whose_agent_is_gone_ends_there_before_it_runs_elsewhere(
    how: str, tmp_path: Path
) -> None:
    async with Cluster.on_loopback(tmp_path, machines=3, profile=PROFILE) as cluster:
        old = await started(cluster)
        agent = cluster.machine(old.machine).agent
        async with watched(cluster) as watch:
            (agent.pause if how == "frozen" else agent.kill)()
            await runs_elsewhere(cluster, old)
            new = (await cluster.running(UNIT))[0]

            async def is_seen() -> bool:
                return _id(new) in watch.first_seen

            await cluster.wait_until(is_seen, 5.0, "the witness sees it, too")
            gap_s = watch.first_seen[_id(new)] - watch.last_seen[_id(old)]
            assert gap_s > 0.5, "it ended with time to spare"
            agent.resume() if how == "frozen" else cluster.start_agent(cluster.machine(old.machine))

            async def at_rest() -> bool:
                views = await cluster.machine_views()
                return views[old.machine].status == "ready" and await cluster.running(UNIT) == [new]

            await cluster.wait_until(at_rest, MOVED_S, "the machine is back, and the unit stays where it went")
            await asyncio.sleep(2.0)
        assert watch.most == 1


async def test_a_strict_unit_of_a_machine_that_is_cut_off_ends_there_before_it_runs_elsewhere(
    tmp_path: Path,
) -> None:
    async with Cluster.on_loopback(tmp_path, machines=3, profile=PROFILE) as cluster:
        old = await started(cluster)
        async with watched(cluster) as watch:
            await cluster.cut(cluster.machine(old.machine))
            await runs_elsewhere(cluster, old)
            await cluster.heal(cluster.machine(old.machine))
            await cluster.wait_until(lambda: cluster.runs_once(UNIT), 10.0, "one copy runs")
        assert watch.most == 1


async def test_a_strict_unit_stops_while_the_store_is_away_and_an_ordinary_one_runs_on(tmp_path: Path) -> None:
    async with Cluster.on_loopback(tmp_path, machines=2, profile=PROFILE) as cluster:
        old = await started(cluster)
        cluster.write("plain.service", ALONE.replace("Singleton=strict\n", ""))
        await cluster.must("start", "plain.service")
        plain = await cluster.running("plain.service")
        (member,) = cluster.etcd.members
        member.kill()

        async def ended() -> bool:
            return await cluster.running(UNIT) == []

        await cluster.wait_until(ended, 2 * TTL_S, "the strict unit has stopped")
        await cluster.etcd.start(member)
        await cluster.wait_until(lambda: cluster.runs_once(UNIT), 20.0, "it runs again")
        assert await cluster.running("plain.service") == plain
        assert (await cluster.running(UNIT))[0] != old


async def test_a_restart_of_the_agent_leaves_a_strict_unit_alone(tmp_path: Path) -> None:
    async with Cluster.on_loopback(tmp_path, machines=1, profile="default") as cluster:
        old = await started(cluster)
        for _ in range(3):
            before = await cluster.fence(old.machine)
            cluster.restart_agent(cluster.machine(old.machine))

            async def confirmed(before: bytes = before) -> bool:
                return await cluster.fence(old.machine) != before

            await cluster.wait_until(confirmed, 10.0, "the new agent has renewed the fence")
        assert await cluster.running(UNIT) == [old]


async def test_a_restart_a_stop_and_a_new_text_of_a_strict_unit_never_make_two(tmp_path: Path) -> None:
    async with Cluster.on_loopback(tmp_path, machines=2, profile=PROFILE) as cluster:
        old = await started(cluster)
        async with watched(cluster) as watch:
            await cluster.must("restart", UNIT)
            (second,) = await cluster.running(UNIT)
            assert second != old
            cluster.write(UNIT, ALONE.replace("100000", "100001"))
            await cluster.must("start", "--replace", UNIT)
            (third,) = await cluster.running(UNIT)
            assert third != second
            await cluster.must("stop", UNIT)
            assert await cluster.running(UNIT) == []
            await cluster.must("start", UNIT)
        assert watch.most == 1


async def test_an_hosts_epoch_rises_with_each_place_and_the_unit_is_told(tmp_path: Path) -> None:
    """The fencing token: what the unit writes elsewhere with an older one can be refused there."""
    async with Cluster.on_loopback(tmp_path, machines=2, profile=PROFILE) as cluster:
        old = await started(cluster)
        before = _token(old.pid)
        await cluster.power_off(cluster.machine(old.machine))
        await runs_elsewhere(cluster, old)
        assert _token((await cluster.running(UNIT))[0].pid) > before


def _token(pid: int) -> int:
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (value,) = (entry.partition(b"=")[2] for entry in environment if entry.startswith(b"UNITFLEET_EPOCH="))
    return int(value)


async def test_a_lease_too_short_for_a_strict_unit_is_said(tmp_path: Path) -> None:
    async with Cluster.on_loopback(tmp_path, machines=1, profile="fastest") as cluster:
        cluster.write(UNIT, ALONE)
        ran = await cluster.unitctl("start", UNIT)
        assert ran.code == 3 and "lease" in ran.stderr, ran
        assert "--profile=fast" in ran.stderr, ran
