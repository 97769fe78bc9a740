"""A thousand units on five simulated agents: the real agent over a fake driver, a real etcd and a real master."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from harness.cluster import Cluster
from harness.eventually import eventually
from unit_agent.agent import Agent
from unit_agent.drivers.fake import FakeDriver, FakeHost
from unit_agent.local_copy import MemoryCopy
from unit_agent.machine import Facts
from unit_agent.timings import TIMINGS
from unit_master.cache import Cache
from unit_master.leader import Leader
from unitfleet import keys
from unitfleet.election import Election, Term
from unitfleet.etcd.store import EtcdStore
from unitfleet.model import Capacity
from unitfleet.profiles import Profile

UNITS = 1000
GIB = 1024**3

# What stays when every unit is destroyed (docs/architecture.md, "The store").
STAYS = {"epoch", "cluster", "leader", "masters", "machines", "resources", "roster", "machine-spec"}
STAYS |= {"events", "history"}


@contextlib.asynccontextmanager
async def simulated_agents(cluster: Cluster, count: int) -> AsyncIterator[list[FakeHost]]:
    """Run `count` agents of roomy machines in this process."""
    async with contextlib.AsyncExitStack() as stack:
        hosts, agents = [], []
        for number in range(1, count + 1):
            store = EtcdStore(cluster.etcd.endpoints)
            stack.push_async_callback(store.close)
            hosts.append(FakeHost(wall=time.time))
            agents.append(
                Agent(
                    store,
                    [FakeDriver(hosts[-1], "process")],
                    Facts(
                        id=f"{number:032x}",
                        name=f"s{number}",
                        boot_id="b1",
                        fingerprint=f"f{number}",
                        capacity=Capacity(cpu=64.0, memory=256 * GIB, disk=1024 * GIB),
                    ),
                    MemoryCopy(),
                    now=time.time,
                    rng=random.Random(number),
                    timings=TIMINGS[Profile.FAST],
                )
            )
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(agent.run()) for agent in agents]
            try:
                yield hosts
            finally:
                for task in running:
                    task.cancel()


@contextlib.asynccontextmanager
async def tidying_leader(cluster: Cluster) -> AsyncIterator[None]:
    """Lead in this process, and tidy at once: a master does it every half minute."""
    cache, rng = Cache(cluster.store), random.Random(1)

    async def lead(term: Term) -> None:
        await Leader(cluster.store, cache, term, now=time.time, grace_s=1.0, tidy_every_s=0.1).run()

    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(cache.run()),
            tasks.create_task(Election(cluster.store, "tidy", (), now=time.time, rng=rng).run(lead)),
        ]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


async def only(cluster: Cluster, kept: set[str]) -> bool:
    return set(await kinds(cluster)) <= kept


async def kinds(cluster: Cluster) -> Counter[str]:
    """Count the keys in etcd by their kind."""
    listed = await cluster.store.list(keys.PREFIX)
    return Counter(keys.split(item.key)[0] for item in listed.items)


async def test_a_thousand_units_come_and_go_and_leave_nothing_but_what_the_docs_say_stays(tmp_path: Path) -> None:
    async with Cluster.on_loopback(tmp_path, machines=0, masters=1) as cluster:
        async with simulated_agents(cluster, 5) as hosts:
            await cluster.wait_until(lambda: ready(cluster), 10.0, "five machines joined")
            cluster.write("job@.service", "[Service]\nExecStart=/bin/true\n")
            await cluster.must("submit", f"job@<1..{UNITS}>")
            await cluster.must("start", f"job@<1..{UNITS}>")
            assert [len(host.running()) for host in hosts] == [UNITS // 5] * 5
            await cluster.must("destroy", "job@*")
            assert [len(host.copies) for host in hosts] == [0] * 5
            left = await kinds(cluster)
            assert set(left) <= {*STAYS, "specs"} and left["specs"] == 1, left
            cluster.masters[0].stop()
            async with tidying_leader(cluster):
                await eventually(
                    lambda: only(cluster, STAYS), within_s=10.0, what=lambda: "the text of the units is collected"
                )
            left = await kinds(cluster)
            assert {kind: left[kind] for kind in ("machines", "resources", "roster")} == {
                "machines": 5,
                "resources": 5,
                "roster": 5,
            }


async def ready(cluster: Cluster) -> bool:
    return len(await cluster.machine_views()) == 5
