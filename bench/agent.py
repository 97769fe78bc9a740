"""bench/agent: CPU and memory of an agent with many containers, while nobody looks and while somebody does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from measure import Bench, at_most, container, cpu_s, main, rss_mb, say

from harness.cluster import Cluster
from harness.engines import Engines
from harness.image import IMAGE
from unit_agent.cgroups.choose import reader
from unit_agent.driver import Copy
from unit_agent.resources.copies import CopyMeter
from unitfleet import codec, keys
from unitfleet.api import MachineFigures
from unitfleet.model import CopyPhase, Presence

WINDOW_S = 30.0
EVERY_S = 2


async def measure(bench: Bench) -> None:
    if reason := Engines.available():
        say(f"nothing is measured: it {reason}")
        return
    async with Cluster.in_lab(bench.directory, hosts=1) as cluster:
        cluster.write("box@.container", container(IMAGE, "host"))
        for units in (20,) if bench.quick else (100, 200):
            say(f"{units} containers on one machine: {bench.runs} times {WINDOW_S:g} s twice")
            await cluster.must("start", f"box@<1..{units}>")
            await asyncio.sleep(5)  # reports and events of the start are written
            await windows(bench, cluster, f"{units} containers, nobody looks")
            async with looking(cluster) as seen:
                await windows(bench, cluster, f"{units} containers, figures read every {EVERY_S} s")
                assert seen and len(seen[-1].units) == units, [len(each.units) for each in seen]
                sample(bench, seen[-1])


async def windows(bench: Bench, cluster: Cluster, what: str) -> None:
    """Look at the agent while nothing changes."""
    agent = cluster.machines[0].agent
    cpu, rss = [], []
    for _ in range(bench.runs):
        before, began = cpu_s([agent.pid]), time.monotonic()
        await asyncio.sleep(WINDOW_S)
        cpu.append((cpu_s([agent.pid]) - before) / (time.monotonic() - began) * 100)
        rss.append(rss_mb(agent.pid))
    bench.figure(f"CPU of the agent, {what}", cpu, "% of a core", at_most(3))
    bench.figure(f"RSS of the agent, {what}", rss, "MB", at_most(80))


@asynccontextmanager
async def looking(cluster: Cluster) -> AsyncIterator[list[MachineFigures]]:
    """Read the agent's figures as they come, as a master does for whoever looks."""
    [listed] = (await cluster.store.list(keys.presence(""))).items
    presence = codec.decode(listed.value, Presence, listed.key)
    key = (cluster.units_dir.parent / "cluster.key").read_text().strip()
    url = f"http://{presence.address}:{presence.port}/v1/figures?follow=true&every={EVERY_S}"
    seen: list[MachineFigures] = []

    async def read() -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 22) as session:
            async with session.get(url, headers={"Authorization": f"Bearer {key}"}) as answer:
                while line := await answer.content.readline():
                    seen[:] = [msgspec.json.decode(line, type=MachineFigures)]

    task = asyncio.create_task(read())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def sample(bench: Bench, seen: MachineFigures) -> None:
    """Time samples of the same containers in this process."""
    pids = {unit.unit: int((_first(unit.cgroup)) or 0) for unit in seen.units}
    copies = [
        Copy(
            unit=unit.unit,
            driver=unit.driver,
            id=unit.id,
            spec="",
            incarnation="",
            epoch=0,
            restart=0,
            phase=CopyPhase.RUNNING,
            pid=pids[unit.unit],
        )
        for unit in seen.units
    ]
    meter, took = CopyMeter(reader()), []
    meter.sample(copies, {})
    for _ in range(20):
        began = time.thread_time()
        assert len(meter.sample(copies, {})) == len(copies)
        took.append((time.thread_time() - began) / len(copies) * 1e3)
    bench.figure(f"sample of a copy, {len(copies)} containers", took, "ms of CPU", at_most(0.2))


def _first(cgroup: str) -> str:
    with open(f"/sys/fs/cgroup/memory{cgroup}/cgroup.procs") as file:
        return file.readline().strip()


if __name__ == "__main__":
    main("agent", __doc__, (), measure, runs=2, quick_runs=1, limit_s=900)
