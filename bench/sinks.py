"""bench/sinks: how fast lines are shipped to sinks, stored in an archive, and found there."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

from measure import Bench, at_least, at_most, main, say

from harness.brokers import nats_server
from unit_agent.logs.offsets import Offsets
from unit_agent.logs.pipeline import Pipeline
from unit_agent.logs.retention import Limits
from unit_agent.logs.segments import SegmentStore
from unit_agent.logs.sinks.file import FileSink
from unit_agent.logs.sinks.jetstream import NatsSink
from unit_agent.logs.sinks.sink import Sink, Source
from unit_master.archive.archive import Archive
from unit_master.archive.query import Query
from unit_master.archive.shelves import Shelves
from unitfleet.shipped import ShippedLine

UNITS = 20
SOURCE = Source("0123456789abcdef0123456789abcdef", "node-a")
RATE = at_least(50_000)
CPU_MS = at_most(20)  # a thousand lines: 50,000 a second at one core

WORDS = tuple(
    f"{word}{number}"
    for word in "alpha beta request handler timeout connection user session".split()
    for number in range(60)
)


async def measure(bench: Bench) -> None:
    lines = 40_000 if bench.quick else 200_000
    if bench.wants("ship"):
        await ship(bench, lines)
    if bench.wants("archive"):
        await archive(bench, lines * 5)


# --- shipping


async def ship(bench: Bench, lines: int) -> None:
    """Ship what 20 units wrote, from the local store, as fast as it goes."""
    store = await filled(bench.directory / "logs", lines)  # it stays as it is: every run reads it anew
    for kind in ("file", "nats"):
        case = f"{lines} lines of {UNITS} units to {kind}"
        say(f"{case}: from the local store until all are acknowledged")
        rates: list[float] = []
        cpu: list[float] = []
        for run in range(bench.runs):
            folder = bench.directory / f"{kind}-{run}"
            folder.mkdir()
            async with sink_of(kind, folder) as sink:
                took, used = await shipped(sink, store, folder, lines)
            rates.append(lines / took)
            cpu.append(used * 1e6 / lines)
            shutil.rmtree(folder)
        bench.figure(f"{case}, pace", rates, "lines/s", RATE)
        bench.figure(f"{case}, CPU of the agent's side", cpu, "ms/1,000 lines", CPU_MS)


async def filled(folder: Path, lines: int) -> SegmentStore:
    """Return a local store that holds so many lines."""
    store = SegmentStore(folder, Limits(1 << 32, 1 << 34, 1e9), time.time, lambda kind, message: None)
    await store.open()
    rng = random.Random(1)
    at = time.time() - 3600
    for unit in range(UNITS):
        some = [(at + number / 1000, "stdout", text(rng).encode()) for number in range(lines // UNITS)]
        for begin in range(0, len(some), 500):
            store.take(f"unit@{unit}.service", some[begin : begin + 500], 1, marks={"output": str(begin)})
            await store.flush()  # as a unit that writes on and on: a block each
    return store


@contextlib.asynccontextmanager
async def sink_of(kind: str, folder: Path) -> AsyncIterator[Sink]:
    if kind == "file":
        yield FileSink("file", folder / "units.jsonl", SOURCE, max_bytes=1 << 30)
        return
    async with nats_server(folder) as server:
        yield NatsSink("nats", [f"127.0.0.1:{server.port}"], SOURCE)


async def shipped(sink: Sink, store: SegmentStore, folder: Path, lines: int) -> tuple[float, float]:
    """Return the seconds that shipping took, and the CPU seconds of this process meanwhile."""
    pipeline = Pipeline(
        sink,
        store,
        Offsets(folder / "offsets.json"),
        lambda unit: True,
        lambda kind, unit, message: say(f"  {kind}: {message}"),
        time.time,
        random.Random(1),
    )
    began, used = time.perf_counter(), time.process_time()
    running = asyncio.create_task(pipeline.run())
    try:
        while pipeline.sent < lines:
            if running.done():
                await running
            pipeline.wake.set()
            await asyncio.sleep(0.005)
        return time.perf_counter() - began, time.process_time() - used
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# --- the archive


async def archive(bench: Bench, lines: int) -> None:
    """Fill an archive, and search it with and without literals that its index knows of."""
    case = f"an archive of {lines} lines of {UNITS} units"
    say(f"{case}: stored, then searched")
    folder = bench.directory / "archive"
    shelves = Shelves(folder, most_bytes=1 << 34, age_s=7 * 86400.0)
    rng = random.Random(2)
    now = time.time()
    took, used, size = 0.0, 0.0, 0
    for begin in range(0, lines, 1000):
        batch = [line(rng, begin + number, now) for number in range(1000)]
        size += sum(len(each.text) for each in batch)
        began, before = time.perf_counter(), time.process_time()
        shelves.take([batch], now)
        shelves.pack(now)
        took += time.perf_counter() - began
        used += time.process_time() - before
    bench.figure(f"{case}, stored", [lines / took], "lines/s")
    bench.figure(f"{case}, CPU of storing", [used * 1e6 / lines], "ms/1,000 lines")
    bench.figure(f"{case}, its size relative to the text's", [shelves.size() / size], "ratio")
    shelves.close()
    kept = Archive(folder, most_bytes=1 << 34, age_s=7 * 86400.0, now=time.time)
    for what, pattern in (
        ("a rare word", "needle in the hay"),
        ("a common word", r"timeout5\d .* took 1\d\d\d ms"),
        ("no literal", r"[a-z]+59 \w+ id=0"),
    ):
        times = []
        for _ in range(bench.runs):
            began = time.perf_counter()
            found = await kept.search(Query(grep=pattern, limit=1000))
            times.append(time.perf_counter() - began)
        say(f"  {what}: {len(found.lines)} lines found, {found.blocks} of {found.blocks_held} blocks unpacked")
        bench.figure(f"{case}, search for {what}", times, "s")
    await kept.close()


def text(rng: random.Random) -> str:
    """Return a line as servers write them, about 95 characters."""
    return (
        f"2026-11-23T08:{rng.randrange(60):02d}:00Z INFO {rng.choice(WORDS)} {rng.choice(WORDS)} "
        f"id={rng.getrandbits(48):012x} took {rng.randint(1, 2000)} ms path=/v1/{rng.choice(WORDS)}"
    )


def line(rng: random.Random, number: int, now: float) -> ShippedLine:
    unit = number % UNITS
    words = "needle in the haystack" if number == 1234 else text(rng)
    return ShippedLine(
        unit=f"unit@{unit}.service",
        machine=SOURCE.machine,
        name=SOURCE.name,
        epoch=1,
        seq=number // UNITS + 1,
        at=now - 3600 + number / 1e6,
        stream="stdout",
        text=words,
    )


if __name__ == "__main__":
    main("sinks", __doc__, ("ship", "archive"), measure, runs=5, quick_runs=2, limit_s=600)
