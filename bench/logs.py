"""bench/logs: lines a second from 20 chatty units to the local store, and the agent's CPU for 1,000 of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
import psutil
from measure import Bench, at_least, at_most, cores, cpu_s, main, say

from harness.cluster import Cluster
from harness.engines import Engines
from harness.image import IMAGE
from unit_agent.drivers.docker_records import Records
from unit_agent.logs.retention import Limits
from unit_agent.logs.segments import SegmentStore
from unitfleet import codec, keys
from unitfleet.model import Presence

UNITS = 20
AIM_RATE = 50_000
AIM_CPU_MS = 20.0  # for 1,000 lines: one core at the aimed rate
TEXT = "GET /index.html 200 from 10.0.0.1 in 0.003 s, agent curl/7.88.1"
PATIENCE_S = 240.0


async def measure(bench: Bench) -> None:
    lines = 10_000 if bench.quick else 50_000
    if bench.wants("path"):
        await path(bench, 500_000 if bench.quick else 2_000_000)
    writes = f'awk \'BEGIN{{for(i=1;i<={lines};i++) print "line",i,"{TEXT}"}}\''
    if bench.wants("process"):
        async with Cluster.on_loopback(bench.directory, machines=1, masters=1, profile="default") as cluster:
            go = cluster.units_dir / "go"
            script = cluster.units_dir / "chatty.sh"
            script.write_text(f"while [ ! -e {go}/go ]; do sleep 0.1; done; {writes}; exec sleep 100000\n")
            text = f"[Service]\nExecStart=/bin/sh {script}\n"
            await chatty(bench, cluster, "chatty@.service", text, "process units", lines, go)
    if bench.wants("docker"):
        if reason := Engines.available():
            say(f"no containers are measured: it {reason}")
            return
        async with Cluster.in_lab(bench.directory, hosts=1, masters=1) as cluster:
            go = cluster.units_dir / "go"
            (cluster.units_dir / "chatty.sh").write_text(
                f"while [ ! -e /go/go ]; do sleep 0.1; done; {writes}; exec sleep 100000\n"
            )
            text = (
                f"[Container]\nImage={IMAGE}\nExec=sh /units/chatty.sh\nNetwork=none\nPull=never\n"
                f"Volume={go}:/go\nVolume={cluster.units_dir}:/units:ro\nStopSignal=SIGKILL\n\n[X-Fleet]\n"
            )
            await chatty(bench, cluster, "chatty@.container", text, "containers", lines, go)


async def chatty(bench: Bench, cluster: Cluster, file: str, text: str, what: str, lines: int, go: Path) -> None:
    """Let 20 units write as fast as they can, and wait until all of it is in the store."""
    say(f"{UNITS} {what} that write {lines} lines each, on one machine ({cores()} cores for all of it)")
    rates, costs, others = [], [], []
    agent = cluster.machines[0].agent
    agent.argv += ("--log-sinks", "")  # the local store alone
    cluster.restart_agent(cluster.machines[0])
    cluster.write(file, text)
    units = [f"chatty@{number}.service" for number in range(1, UNITS + 1)]
    for _ in range(bench.runs):
        await asyncio.to_thread(shutil.rmtree, go, ignore_errors=True)
        await asyncio.to_thread(go.mkdir)
        await cluster.must("start", f"chatty@<1..{UNITS}>")
        async with aiohttp.ClientSession() as session:
            look = await _reader(cluster, session)
            first = {unit: await look(unit) for unit in units}
            before, engines, began = cpu_s([agent.pid]), _engine_cpu(), time.monotonic()
            await asyncio.to_thread((go / "go").touch)
            await _all_there(look, units, first, lines, began)
            took, spent = time.monotonic() - began, cpu_s([agent.pid]) - before
        rates.append(UNITS * lines / took)
        costs.append(spent / (UNITS * lines) * 1e6)
        others.append((_engine_cpu() - engines) / (UNITS * lines) * 1e6)
        await cluster.must("destroy", f"chatty@<1..{UNITS}>")
    bench.figure(f"lines a second into the local store, {UNITS} {what}", rates, "lines/s", at_least(AIM_RATE))
    bench.figure(f"agent's CPU for 1,000 lines, {UNITS} {what}", costs, "ms", at_most(AIM_CPU_MS))
    if what == "containers":
        bench.figure(f"Engine's CPU for 1,000 lines, {UNITS} {what}", others, "ms")


async def _reader(cluster: Cluster, session: aiohttp.ClientSession) -> Callable[[str], Awaitable[int]]:
    """Return what asks the agent itself for the number of a unit's last line: a command a look would cost more."""
    (item,) = (await cluster.store.list(keys.presence(""))).items
    presence = codec.decode(item.value, Presence, item.key)
    key = (cluster.units_dir.parent / "cluster.key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}

    async def last(unit: str) -> int:
        url = f"http://{presence.address}:{presence.port}/v1/logs/{unit}?lines=1"
        async with session.get(url, headers=headers) as answer:
            told = (await answer.read()).splitlines()
        return int(json.loads(told[-1])["seq"]) if answer.status == 200 and told else 0

    return last


async def _all_there(
    look: Callable[[str], Awaitable[int]], units: Sequence[str], first: dict[str, int], lines: int, began: float
) -> None:
    """Wait until all lines of each unit are there, and none twice."""
    missing = list(units)
    while missing:
        if time.monotonic() - began > PATIENCE_S:
            raise RuntimeError(f"lines of {len(missing)} units never came, as of {missing[0]}")
        came = await look(missing[0]) - first[missing[0]]
        if came > lines:
            raise RuntimeError(f"{missing[0]} has {came} lines of {lines}")
        if came == lines:
            missing.pop(0)
        else:
            await asyncio.sleep(0.1)


def _engine_cpu() -> float:
    """Return the CPU time of all Engines here, in seconds."""
    total = 0.0
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "dockerd":
            with contextlib.suppress(psutil.Error):
                total += cpu_s([process.pid])
    return total


async def path(bench: Bench, lines: int) -> None:
    """Feed the records of 20 containers to the reader and the store: the agent's own way, without an Engine."""
    say(f"{lines} lines in an Engine's records through the reader into the store, in one process")
    each = 500
    now = time.time()
    stamps = [_second(now + turn) for turn in range(lines // each // UNITS + 1)]
    pieces = []
    for number in range(each):
        at = f"{stamps[0]}.{number * 1000:09}Z"
        pieces.append(f'{{"log":"line {number} {TEXT}\\n","stream":"stdout","time":"{at}"}}\n'.encode())
    first = b"".join(pieces)
    rates, costs = [], []
    for run in range(bench.runs):
        store = SegmentStore(
            Path(bench.directory) / f"path-{run}", Limits(64 << 20, 2 << 30, 7e5), time.time, _told
        )
        await store.open()
        writing = asyncio.create_task(store.run())
        records = [Records() for _ in range(UNITS)]
        began, before = time.monotonic(), time.process_time()
        for turn in range(lines // each):
            unit = turn % UNITS
            data = first.replace(stamps[0].encode(), stamps[turn // UNITS].encode())
            found = records[unit].feed(data, ("file", turn))
            store.take(f"u{unit}.service", found, 1, marks={"output": f"id@{turn}"})
            await asyncio.sleep(0)
        await store.flush()
        took, spent = time.monotonic() - began, time.process_time() - before
        held = sum(store.span(unit).last for unit in store.units())
        if held != lines // each * each:
            raise RuntimeError(f"{held} lines of {lines} are held")
        rates.append(held / took)
        costs.append(spent / held * 1e6)
        writing.cancel()
        await asyncio.wait({writing})
        store.close()
    bench.figure("lines a second from records to disk", rates, "lines/s", at_least(AIM_RATE))
    bench.figure("CPU for 1,000 lines from records to disk", costs, "ms", at_most(AIM_CPU_MS))


def _second(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def _told(kind: str, message: str) -> None:
    say(f"  {kind}: {message}")


if __name__ == "__main__":
    main("logs", __doc__, ("path", "process", "docker"), measure, runs=3, quick_runs=1, limit_s=900)
