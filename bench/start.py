"""bench/start: how soon a unit runs, and how near a hundred containers come to the Engine's own pace."""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from dataclasses import dataclass

from measure import (
    PROCESS,
    Bench,
    at_least,
    at_most,
    container,
    cpu_s,
    main,
    running_containers,
    say,
    started_at,
)
from versus.engine import Connection, create_and_start, remove_all, sockets, spread

from harness.cluster import Cluster
from harness.engines import Engines
from harness.image import IMAGE

HOSTS = 5
CONCURRENCY = (5, 10, 20)  # requests at a time to all Engines together
AIMS = {"host": at_least(0.9), "bridge": at_least(0.95)}
CPU_AIM_MS = at_most(10)


async def measure(bench: Bench) -> None:
    if bench.wants("process"):
        async with Cluster.on_loopback(bench.directory) as cluster:
            await latency(bench, cluster, "process, 1 unit", "one.service", PROCESS, 0.5)
    if bench.wants("docker") or bench.wants("rate"):
        if reason := Engines.available():
            say(f"no containers are measured: it {reason}")
            return
        async with Cluster.in_lab(bench.directory, hosts=HOSTS) as cluster:
            if bench.wants("docker"):
                text = container(IMAGE, "host")
                await latency(bench, cluster, "docker, 1 warm unit", "one.container", text, 1.0)
            if bench.wants("rate"):
                for network in ("host", "bridge"):
                    await rate(bench, cluster, network)


async def latency(bench: Bench, cluster: Cluster, case: str, name: str, text: str, aim_s: float) -> None:
    """Measure the whole `unitctl start`, from its process's start to its end: it returns when the unit runs."""
    say(f"{case}: from `unitctl start` to running")
    cluster.write(name, text)
    took = []
    for run in range(bench.runs * 3 + 1):
        started = await cluster.must("start", name)
        await cluster.must("destroy", name.split(".")[0])
        if run > 0:  # the first one is everybody's first
            took.append(started.took_s)
    bench.figure(f"unitctl start, {case}", took, "s", at_most(aim_s))


@dataclass(frozen=True, slots=True)
class Round:
    """Containers a second, and CPU milliseconds a container of whoever took part."""

    per_s: float
    cpu_ms: dict[str, float]


async def rate(bench: Bench, cluster: Cluster, network: str) -> None:
    """Start containers over all hosts, by hand and through Unitfleet in turn, in the same minutes."""
    count = 40 if bench.quick else 100
    case = f"{count} containers, {HOSTS} hosts, {network} network"
    say(f"{case}: the Engine's own pace beside ours, in turn")
    raw: dict[int, list[float]] = {each: [] for each in CONCURRENCY}
    ours: list[Round] = []
    for _ in range(bench.runs):
        for concurrency in CONCURRENCY:
            raw[concurrency].append(await asyncio.to_thread(raw_round, cluster, network, count, concurrency))
        ours.append(await our_round(cluster, network, count))
        paces = " ".join(f"{rates[-1]:.2f}" for rates in raw.values())
        say(f"  Engine {paces}, Unitfleet {ours[-1].per_s:.2f} containers/s")
    best = max(raw, key=lambda concurrency: statistics.median(raw[concurrency]))
    bench.figure(f"Engine alone, {case}, {best} at a time", raw[best], "containers/s")
    bench.figure(f"Unitfleet, {case}", [each.per_s for each in ours], "containers/s")
    ratios = [each.per_s / alone for each, alone in zip(ours, raw[best], strict=True)]
    bench.figure(f"Unitfleet relative to the Engine, {case}", ratios, "ratio", AIMS[network])
    for who in ours[0].cpu_ms:
        aim = CPU_AIM_MS if who == "agents and masters" else None
        bench.figure(f"CPU of {who}, {case}", [each.cpu_ms[who] for each in ours], "ms/container", aim)


async def our_round(cluster: Cluster, network: str, count: int) -> Round:
    """Time one command that starts `count` units, up to the last container's start by the Engines' word."""
    cluster.write("box@.container", container(IMAGE, network) + "Spread=rack\n")
    leader = await cluster.leader()
    assert leader is not None
    pids = {
        "agents": [machine.agent.pid for machine in cluster.machines],
        "masters": [master.pid for master in cluster.masters],
        "etcd": [member.pid for member in cluster.etcd.members],
    }
    before = {who: cpu_s(held) for who, held in pids.items()}
    commands = _children_cpu_s()
    began = time.time()
    await cluster.must("start", f"box@<1..{count}>")
    used = {who: (cpu_s(held) - before[who]) * 1e3 / count for who, held in pids.items()}
    used["unitctl"] = (_children_cpu_s() - commands) * 1e3 / count
    used["agents and masters"] = used["agents"] + used["masters"]
    copies = await asyncio.to_thread(running_containers, cluster, cluster.machines)
    assert len(copies) == count, f"{len(copies)} of {count} units run"
    last = max((await asyncio.to_thread(started_at, cluster, copies)).values())
    await cluster.must("destroy", "box@*")
    return Round(count / (last - began), used)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- the Engine alone


def raw_round(cluster: Cluster, network: str, count: int, concurrency: int) -> float:
    """Create and start containers with `concurrency` workers, host by host in turn; containers a second."""
    engines = sockets(cluster.lab)

    def start(connections: list[Connection], number: int) -> None:
        create_and_start(connections[number % len(connections)], network)

    took = spread(engines, count, concurrency, start)
    remove_all(engines)
    return count / took


if __name__ == "__main__":
    main("start", __doc__, ("process", "docker", "rate"), measure, runs=5, quick_runs=1, limit_s=1800)
