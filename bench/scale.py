"""bench/scale: 100, 300 and 1,000 simulated machines with 10 units each, on a real etcd and two real masters.

Every machine is the real agent core with a connection of its own to etcd, over a driver in memory: no containers
are started. All of it shares this computer. So each size is placed once more with stand-ins for agents that cost
next to nothing (`…_master_only`): what masters take when agents have computers of their own. `--only masters` does
that alone, for 1,000. Each figure is a JSON line; a table with the aims comes at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from measure import Aim, Bench, at_least, at_most, cpu_s, main, rss_mb, say

from harness.cluster import Cluster
from harness.eventually import eventually
from unitfleet import codec, keys
from unitfleet.api import Change
from unitfleet.errors import UnitfleetError
from unitfleet.etcd.endpoint import Endpoint, Failure
from unitfleet.etcd.messages import RANGE, RangeRequest, first_key, range_end
from unitfleet.model import CopyPhase, Leader, MachineStatus, Placement, RosterEntry, TargetState, UnitState
from unitfleet.profiles import Profile
from unitfleet.store import EventKind

SIZES, QUICK = (100, 300, 1000), 30
MASTERS = "masters"  # the part without real agents
UNITS_EACH = 10
A_CALL, AHEAD = 250, 500  # units in a request; so many may be under way: all of it shares this computer
A_CALL_IN_BULK = 1000
PROCESSES = 4  # that the simulated machines share
IDLE_S = 20.0
SETTLE_S = 3.0
JOIN_S, JOIN_EACH_S = 60.0, 0.25  # to wait for all, and more for each machine
TELL_EVERY = 100  # machines that joined
SILENT = 5  # machines that end one by one, to see how soon each is noticed
SHARE_LOST = 10  # one in ten
PROFILE = Profile.DEFAULT
PLACEMENTS, STATES = keys.PREFIX + "placements/", keys.PREFIX + "states/"
TEXT = "[Service]\nExecStart=/bin/true\n"

AIMS: dict[str, Aim] = {
    "placements": at_least(1000),
    "placements_master_only": at_least(1000),
    "etcd-writes-idle": at_most(5),
    "detection": at_most(PROFILE.ttl_s + PROFILE.grace_s + 1),
    "replaced": at_most(30),
    "takeover": at_most(6),
}

MEANING = {
    "joined": "all machines on the roster, after the first of them began",
    "accepted": "units written for their user, from the first request on",
    "decided": "placements that stand in etcd, from the first request on",
    "placements": "units placed, seen by their agents and told as running in etcd, from the first request on",
    "leader-cpu-placement": "CPU of the leader for one of these",
    "follower-cpu-placement": "CPU of the other master for one of these",
    "etcd-cpu-placement": "CPU of etcd for one of these",
    "agents-cpu-placement": "CPU of all agents together for one of these",
    "placements_master_only": "the same with stand-ins that tell what is placed as running, in bulk",
    "leader-cpu_master_only": "CPU of the leader for one of these",
    "follower-cpu_master_only": "CPU of the other master for one of these",
    "etcd-cpu_master_only": "CPU of etcd for one of these",
    "agents-cpu_master_only": "CPU of the stand-ins for one of these",
    "leader-cpu-idle": "while nothing changes",
    "follower-cpu-idle": "while nothing changes",
    "etcd-cpu-idle": "while nothing changes",
    "agent-cpu-idle": "of one agent, while nothing changes",
    "leader-rss": "with all units running",
    "follower-rss": "with all units running",
    "etcd-writes-idle": "revisions of etcd while nothing changes",
    "agent-received-idle": "by one agent over TCP, while nothing changes",
    "agent-sent-idle": "by one agent over TCP, while nothing changes",
    "agent-watches": "open watches of one agent",
    "detection": "from an agent's end until the roster says lost",
    "replaced": "one machine in ten ends: until all of its units run elsewhere",
    "takeover": "the leader is killed: until another leads",
    "takeover-placed": "the leader is killed: until a unit that was asked for then is placed",
}


@dataclass(slots=True)
class Scale:
    """One size, one run. `figures` keeps what was printed."""

    cluster: Cluster
    agents: Agents
    run: int
    figures: dict[str, list[float]] = field(default_factory=dict)

    @property
    def machines(self) -> int:
        """How many there are at first."""
        return self.agents.count

    @property
    def units(self) -> int:
        """How many are started on them."""
        return self.agents.count * UNITS_EACH

    def figure(self, kind: str, value: float, unit: str) -> None:
        """Print one figure."""
        self.figures.setdefault(kind, []).append(value)
        print(line(kind, self.machines, self.units, value, unit, self.run), flush=True)
        say(f"  {kind}: {value:.4g} {unit} ({MEANING[kind]})")


def line(kind: str, machines: int, units: int, value: float, unit: str, run: int) -> str:
    """Return the JSON line of one figure of one run."""
    told = {
        "bench": "scale",
        "kind": kind,
        "n": machines,
        "units": units,
        "value": float(f"{value:.4g}"),
        "unit": unit,
        "run": run,
    }
    return json.dumps(told)


# --- the simulated machines


class Agents:
    """The processes that simulate `count` machines, numbered from 1."""

    def __init__(self, count: int, processes: list[asyncio.subprocess.Process]) -> None:
        self.count = count
        self._processes = processes
        self.living = set(range(1, count + 1))

    @classmethod
    @contextlib.asynccontextmanager
    async def started(
        cls,
        count: int,
        cluster: Cluster,
        directory: Path,
        program: str = "scale_agents.py",
        share: int = PROCESSES,
    ) -> AsyncIterator[Agents]:
        """Start them in `share` processes of a program beside this one; they end with the context."""
        async with contextlib.AsyncExitStack() as stack:
            processes = []
            for number in range(share):
                first, last = (count * part // share for part in (number, number + 1))
                log = stack.enter_context((directory / f"agents{number}.log").open("wb"))
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, str(Path(__file__).with_name(program))),
                    *("--etcd", ",".join(cluster.etcd.endpoints)),
                    *("--first", str(first + 1), "--count", str(last - first)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                )
                stack.push_async_callback(_ended, process)
                processes.append(process)
            yield cls(count, processes)

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [process.pid for process in self._processes]

    async def end(self, machines: Iterable[int]) -> dict[int, float]:
        """End these machines' agents at once; return when, in seconds since 1970."""
        asked = [
            [machine for machine in machines if self.count * part // PROCESSES < machine <= upper]
            for part, upper in enumerate(self.count * (part + 1) // PROCESSES for part in range(PROCESSES))
        ]
        told = await asyncio.gather(
            *(
                self._ask(process, {"do": "end", "machines": wanted})
                for process, wanted in zip(self._processes, asked, strict=True)
                if wanted
            )
        )
        ended = {int(machine): at for each in told for machine, at in each["at"].items()}
        self.living -= ended.keys()
        return ended

    async def traffic(self) -> tuple[int, int, int]:
        """Return connections to etcd, bytes sent, bytes received, of all machines since they began."""
        told = await asyncio.gather(*(self._ask(process, {"do": "traffic"}) for process in self._processes))
        connections, sent, received = (
            sum(each[what] for each in told) for what in ("connections", "sent", "received")
        )
        return connections, sent, received

    async def _ask(self, process: asyncio.subprocess.Process, command: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(command).encode() + b"\n")
        async with asyncio.timeout(60):
            answer: dict[str, Any] = json.loads(await process.stdout.readline())
        return answer


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


def id_of(machine: int) -> str:
    """Return the id of a simulated machine."""
    return f"{machine:032x}"


# --- what is measured


async def measure(bench: Bench) -> None:
    done: list[Scale] = []
    for machines in (QUICK,) if bench.quick else SIZES:
        masters_alone = bench.only == MASTERS
        if not (bench.quick or bench.wants(str(machines)) or (masters_alone and machines == SIZES[-1])):
            continue
        for run in range(1, bench.runs + 1):
            say(f"{machines} machines x {UNITS_EACH} units, run {run}")
            done.append(await one_size(bench.directory, machines, run, in_bulk))
            if not masters_alone:
                done.append(await one_size(bench.directory, machines, run, for_real))
    for row in table(done):
        say(row)


async def one_size(directory: Path, machines: int, run: int, part: Callable[..., Awaitable[Scale]]) -> Scale:
    """Take one cluster through a part of what is measured."""
    logs = directory / f"{part.__name__}-{machines}-{run}"
    logs.mkdir()
    try:
        async with Cluster.on_loopback(logs, machines=0, masters=2, profile=PROFILE.value) as cluster:
            return await part(cluster, logs, machines, run)
    except (AssertionError, TimeoutError):
        for log in sorted(logs.glob("*.log")):
            say(f"--- the end of {log.name}:\n{log.read_text(errors='replace')[-2000:]}")
        raise


async def for_real(cluster: Cluster, logs: Path, machines: int, run: int) -> Scale:
    """Measure all with the real agent core."""
    async with Agents.started(machines, cluster, logs) as agents:
        scale = Scale(cluster, agents, run)
        await joining(scale)
        await asyncio.sleep(SETTLE_S)
        await placing(scale)
        await asyncio.sleep(SETTLE_S)
        await idling(scale)
        await noticing(scale)
        await losing(scale)
        await taking_over(scale)
        return scale


async def in_bulk(cluster: Cluster, logs: Path, machines: int, run: int) -> Scale:
    """Measure what masters do when agents cost next to nothing."""
    async with Agents.started(machines, cluster, logs, "scale_bulk.py", 1) as agents:
        scale = Scale(cluster, agents, run)
        await joined(scale)
        await asyncio.sleep(SETTLE_S)
        _, _, took, used = await placed(scale, A_CALL_IN_BULK, scale.units)
        scale.figure("placements_master_only", scale.units / took, "placements/s")
        for who, spent in used.items():
            scale.figure(f"{who}-cpu_master_only", spent, "ms")
        return scale


async def joining(scale: Scale) -> None:
    """Wait until every machine is on the roster."""
    began = time.monotonic()
    await joined(scale)
    scale.figure("joined", time.monotonic() - began, "s")


async def joined(scale: Scale) -> None:
    """Wait until every machine is on the roster, and tell how far it is."""
    told = 0

    async def look() -> bool:
        nonlocal told
        there = await _count(scale.cluster, keys.roster(""))
        if there // TELL_EVERY > told // TELL_EVERY:
            say(f"    {there} machines have joined")
        told = max(told, there)
        return there >= scale.machines

    within_s = JOIN_S + scale.machines * JOIN_EACH_S
    await eventually(look, within_s=within_s, what=lambda: f"{told} machines joined", every_s=0.2)


async def placing(scale: Scale) -> None:
    """Start all units as fast as the API takes them."""
    accepted, decided, took, used = await placed(scale, A_CALL, AHEAD)
    scale.figure("accepted", scale.units / accepted, "units/s")
    scale.figure("decided", scale.units / decided, "placements/s")
    scale.figure("placements", scale.units / took, "placements/s")
    for who, spent in used.items():
        scale.figure(f"{who}-cpu-placement", spent, "ms")


async def placed(scale: Scale, a_call: int, ahead: int) -> tuple[float, float, float, dict[str, float]]:
    """Start all units: return after how many seconds all were accepted, decided, running, and whose CPU it took.

    That is in milliseconds a unit. `a_call`, `ahead`: as in `_submit`.
    """
    cluster, pids = scale.cluster, await _pids(scale)
    changes = [
        Change(name=f"job@{number}.service", text=TEXT, target=TargetState.LAUNCHED)
        for number in range(1, scale.units + 1)
    ]
    before = {who: cpu_s(held) for who, held in pids.items()}
    began = time.monotonic()
    asked = asyncio.create_task(_submit(cluster, changes, a_call, ahead))
    decided = asyncio.create_task(_counted(cluster, PLACEMENTS, scale.units))
    reported = asyncio.create_task(_counted(cluster, STATES, scale.units))
    accepted_at = await asked
    decided_at = await decided
    await reported
    await eventually(lambda: _all_run(cluster, scale.units), within_s=60, what=lambda: "all run", every_s=0.2)
    took = time.monotonic() - began
    used = {who: (cpu_s(held) - before[who]) * 1e3 / scale.units for who, held in pids.items()}
    return accepted_at - began, decided_at - began, took, used


async def idling(scale: Scale) -> None:
    """Look while nothing happens."""
    pids, endpoint = await _pids(scale), scale.cluster.etcd.endpoints[0]
    watches = await asyncio.to_thread(_metric, endpoint, "etcd_debugging_mvcc_watcher_total")
    cpu, revision = {who: cpu_s(held) for who, held in pids.items()}, await _revision(scale.cluster)
    connections, sent, received = await scale.agents.traffic()
    began = time.monotonic()
    await asyncio.sleep(IDLE_S)
    for who, held in pids.items():
        share = 100 * (cpu_s(held) - cpu[who]) / (time.monotonic() - began)
        if who == "agents":
            scale.figure("agent-cpu-idle", share / scale.machines, "% of a core")
        else:
            scale.figure(f"{who}-cpu-idle", share, "% of a core")
    _, sent_now, received_now = await scale.agents.traffic()
    took = time.monotonic() - began
    scale.figure("etcd-writes-idle", (await _revision(scale.cluster) - revision) / took, "writes/s")
    scale.figure("agent-received-idle", (received_now - received) / took / scale.machines, "B/s")
    scale.figure("agent-sent-idle", (sent_now - sent) / took / scale.machines, "B/s")
    scale.figure("agent-watches", (watches - OF_OTHERS) / scale.machines, "watches")
    assert connections == scale.machines, f"{connections} connections of {scale.machines} agents"
    for who in ("leader", "follower"):
        scale.figure(f"{who}-rss", rss_mb(pids[who][0]), "MB")


OF_OTHERS = 3
"""Watches of two masters' caches, and of the one that waits to lead."""


async def noticing(scale: Scale) -> None:
    """End single machines at any moment between two renewals, and wait until the roster says so of each."""
    doomed = random.sample(sorted(scale.agents.living), SILENT)
    revision = await _revision(scale.cluster)
    lost: dict[str, float] = {}

    async def watch() -> None:
        watching = scale.cluster.store.watch(keys.roster(""), start_revision=revision + 1)
        async with contextlib.aclosing(watching) as batches:
            async for batch in batches:
                for event in batch.events:
                    entry = codec.decode(event.kv.value, RosterEntry, event.kv.key)
                    if entry.status is MachineStatus.LOST:
                        lost[entry.id] = time.time()
                if len(lost) == SILENT:
                    return

    ended: dict[int, float] = {}
    async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        for machine in doomed:
            await asyncio.sleep(random.uniform(0, PROFILE.renew_s))
            ended.update(await scale.agents.end([machine]))
    for machine, at in ended.items():
        scale.figure("detection", lost[id_of(machine)] - at, "s")
    await asyncio.sleep(SETTLE_S)


async def losing(scale: Scale) -> None:
    """End one machine in ten at once; wait until what ran there is told as running elsewhere."""
    doomed = random.sample(sorted(scale.agents.living), scale.machines // SHARE_LOST)
    gone = {id_of(machine) for machine in doomed}
    listed = await scale.cluster.store.list(PLACEMENTS)
    placed = [keys.split(item.key) for item in listed.items]
    missing = {unit for _, machine, unit in placed if machine in gone}
    units = len(missing)
    watching = scale.cluster.store.watch(STATES, start_revision=listed.revision + 1)
    ended = await scale.agents.end(doomed)
    async with asyncio.timeout(120), contextlib.aclosing(watching) as batches:
        async for batch in batches:
            for event in batch.events:
                if event.kind is EventKind.PUT:
                    state = codec.decode(event.kv.value, UnitState, event.kv.key)
                    if state.phase is CopyPhase.RUNNING and state.machine not in gone:
                        missing.discard(state.unit)
            if not missing:
                break
    took = time.time() - min(ended.values())
    scale.figure("replaced", took, "s")
    say(f"    {units} units of {len(doomed)} machines")
    await asyncio.sleep(SETTLE_S)


async def taking_over(scale: Scale) -> None:
    """Kill the leader, ask the other master for one more unit at that moment."""
    cluster = scale.cluster
    leader = await cluster.leader()
    assert leader is not None
    revision = await _revision(cluster)
    watching = cluster.store.watch(keys.PREFIX, start_revision=revision + 1)
    leader.kill()
    began = time.monotonic()
    name = f"late-{scale.run}.service"
    change = [Change(name=name, text=TEXT, target=TargetState.LAUNCHED)]
    asked = asyncio.create_task(_submit(cluster, change, 1, 1))
    led = 0.0
    async with asyncio.timeout(60), contextlib.aclosing(watching) as batches:
        async for batch in batches:
            for event in batch.events:
                if event.kv.key == keys.LEADER and event.kind is EventKind.PUT:
                    told = codec.decode(event.kv.value, Leader, event.kv.key).name
                    assert told != leader.name
                    led = time.monotonic() - began
                if keys.split(event.kv.key)[0] == "placements":
                    if codec.decode(event.kv.value, Placement, event.kv.key).unit == name:
                        scale.figure("takeover", led, "s")
                        scale.figure("takeover-placed", time.monotonic() - began, "s")
                        await asked
                        return


# --- what is asked


async def _submit(cluster: Cluster, changes: Sequence[Change], a_call: int, ahead: int) -> float:
    """Ask for all of it, `a_call` units a request; return when the last one was answered.

    No more than `ahead` of them are under way at once. What was not taken is asked for again, as a user would.
    """
    left, taken = list(changes), 0
    while left:
        if taken >= ahead:
            look = partial(_told, cluster, taken - ahead)
            await eventually(look, within_s=60, what=lambda: "what was taken runs", every_s=0.05)
        call, left = left[:a_call], left[a_call:]
        try:
            results = (await asyncio.to_thread(cluster.api().change, call)).items
            failed = [change for change, result in zip(call, results, strict=True) if result.error is not None]
        except UnitfleetError as error:
            say(f"    {error}")
            failed = call
        taken += len(call) - len(failed)
        if failed:
            left = failed + left
            await asyncio.sleep(0.5)
    return time.monotonic()


async def _told(cluster: Cluster, more_than: int) -> bool:
    return await _count(cluster, STATES) > more_than


async def _pids(scale: Scale) -> dict[str, list[int]]:
    leader = await scale.cluster.leader()
    assert leader is not None
    [follower] = [master for master in scale.cluster.masters if master is not leader]
    return {
        "leader": [leader.pid],
        "follower": [follower.pid],
        "etcd": [member.pid for member in scale.cluster.etcd.members],
        "agents": scale.agents.pids,
    }


async def _revision(cluster: Cluster) -> int:
    return (await cluster.store.list(keys.CLUSTER)).revision


async def _counted(cluster: Cluster, prefix: str, count: int) -> float:
    """Wait until there are so many keys; return when."""

    async def there() -> bool:
        return await _count(cluster, prefix) >= count

    await eventually(there, within_s=180, what=lambda: f"{count} of {prefix}", every_s=0.1)
    return time.monotonic()


async def _count(cluster: Cluster, prefix: str) -> int:
    """Return how many keys are under a prefix by etcd's own count, which costs nearly nothing; 0: it is slow."""
    endpoint = Endpoint(cluster.etcd.endpoints[0], None)
    try:
        await endpoint.connect(5)
        asked = RangeRequest(key=first_key(prefix), range_end=range_end(prefix), count_only=True)
        return int((await endpoint.call(RANGE, asked, 5)).count)
    except Failure:
        return 0  # it has too much to do
    finally:
        await endpoint.drop()


async def _all_run(cluster: Cluster, count: int) -> bool:
    listed = await cluster.store.list(STATES)
    states = (codec.decode(item.value, UnitState, item.key) for item in listed.items)
    return sum(state.phase is CopyPhase.RUNNING for state in states) == count


def _metric(endpoint: str, name: str) -> float:
    """Read one of etcd's own figures. Blocks."""
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=10) as answer:
        for row in answer.read().decode().splitlines():
            if row.startswith(f"{name} "):
                return float(row.split()[1])
    raise AssertionError(f"etcd tells no {name}")


# --- what a person reads


def table(done: list[Scale]) -> list[str]:
    """Return the figures of all sizes side by side, the median of each, with aims and whether they are met."""
    sizes = sorted({scale.machines for scale in done})
    rows = [("", *(f"{size} machines" for size in sizes), "aim", "")]
    for kind in MEANING:
        cells, values = [], []
        for size in sizes:
            held = sorted(
                value for scale in done if scale.machines == size for value in scale.figures.get(kind, ())
            )
            cells.append(f"{held[len(held) // 2]:.4g}" if held else "-")
            values += held[len(held) // 2 : len(held) // 2 + 1]
        aim = AIMS.get(kind)
        verdict = "" if aim is None or not values else "met" if all(map(aim.met_by, values)) else "MISSED"
        rows.append((kind, *cells, str(aim or ""), verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(_cells(row, widths)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


if __name__ == "__main__":
    main("scale", __doc__, [*map(str, SIZES), MASTERS], measure, runs=1, quick_runs=1, limit_s=600)
