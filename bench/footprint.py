"""bench/footprint: memory and idle CPU of the daemons with 100 units, and how quick the command line is."""

from __future__ import annotations

import asyncio

import psutil
from measure import PROCESS, Bench, at_most, container, cores, cpu_s, main, rss_mb, say

from harness.cluster import Cluster
from harness.engines import Engines
from harness.image import IMAGE

MANY = 1000
WINDOW_S = 30.0


async def measure(bench: Bench) -> None:
    units = 20 if bench.quick else 100
    if bench.wants("process") or bench.wants("unitctl"):
        async with Cluster.on_loopback(bench.directory, machines=1, profile="default") as cluster:
            if bench.wants("process"):
                await idle(bench, cluster, "box@.service", PROCESS, f"{units} process units", units)
                supervisors = supervisor_pids(str(cluster.units_dir.parent))
                assert len(supervisors) == units, supervisors
                bench.figure("RSS of a supervisor", [rss_mb(pid) for pid in supervisors], "MB", at_most(6))
            if bench.wants("unitctl"):
                await command_line(bench, cluster)
    if bench.wants("docker"):
        if reason := Engines.available():
            say(f"no containers are measured: it {reason}")
            return
        async with Cluster.in_lab(bench.directory, hosts=1) as cluster:
            text = container(IMAGE, "host")
            await idle(bench, cluster, "box@.container", text, f"{units} containers", units)


async def idle(bench: Bench, cluster: Cluster, file: str, text: str, what: str, units: int) -> None:
    """Run `units` units on one machine and look at the daemons while nothing happens."""
    say(f"{what} on one machine, then nothing: {bench.runs} times {WINDOW_S:g} s")
    cluster.write(file, text)
    await cluster.must("start", f"box@<1..{units}>")
    leader = await cluster.leader()
    assert leader is not None
    follower = next(master for master in cluster.masters if master is not leader)
    daemons = {"agent": cluster.machines[0].agent, "master that leads": leader, "master that follows": follower}
    rss: dict[str, list[float]] = {name: [] for name in daemons}
    cpu: dict[str, list[float]] = {name: [] for name in daemons}
    await asyncio.sleep(5)  # reports and events of the start are written
    for _ in range(bench.runs):
        before = {name: cpu_s([daemon.pid]) for name, daemon in daemons.items()}
        await asyncio.sleep(WINDOW_S)
        for name, daemon in daemons.items():
            cpu[name].append((cpu_s([daemon.pid]) - before[name]) / WINDOW_S * 100)
            rss[name].append(rss_mb(daemon.pid))
    for name in daemons:
        bench.figure(f"RSS of the {name}, {what}", rss[name], "MB", at_most(60 if name == "agent" else 80))
    for name in daemons:
        bench.figure(f"idle CPU of the {name}, {what}", cpu[name], "% of a core", at_most(1))


def supervisor_pids(root: str) -> list[int]:
    """Return the supervisors of units under `root`: `… start.py DIRECTORY …`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        started = any(part.endswith("/supervisor/start.py") for part in command)
        if started and any(part.startswith(root) for part in command):
            found.append(process.pid)
    return found


async def command_line(bench: Bench, cluster: Cluster) -> None:
    """Time `unitctl` as a whole process."""
    many = 200 if bench.quick else MANY
    say(f"unitctl, with {many} units ({cores()} cores)")
    cluster.write("box@.service", PROCESS)
    await cluster.must("load", f"box@<1..{many}>")
    for args, aim in ((("version",), 0.12), (("list-units",), 0.3)):
        took = [await cluster.must(*args) for _ in range(bench.runs * 7 + 1)][1:]
        said = took[-1].stdout.splitlines()
        assert args == ("version",) or len(said) >= many, said[:3]
        case = " ".join(("unitctl", *args)) + (f", {many} units" if args == ("list-units",) else "")
        bench.figure(case, [ran.took_s * 1e3 for ran in took], "ms", at_most(aim * 1e3))


if __name__ == "__main__":
    main("footprint", __doc__, ("process", "docker", "unitctl"), measure, runs=3, quick_runs=1, limit_s=900)
