"""Stories of logs on a cluster of process units: what was written is all there, once, wherever it was written."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from harness.cluster import Cluster
from harness.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

LINES = 20_000
SOON_S = 20.0

COUNTS = f"""i=0
while [ $i -lt {LINES} ]; do
  i=$((i+1)); echo "line $i"
  [ $((i % 200)) = 0 ] && sleep 0.02
done
exec sleep 100000
"""
TICKS = """i=0
while :; do i=$((i+1)); echo "$UNITFLEET_MACHINE tick $i"; sleep 0.05; done
"""
FAILS = """echo "begins $$"
echo "Traceback (most recent call last):" >&2
echo '  File "a.py", line 1, in <module>' >&2
echo "ValueError: no" >&2
sleep 0.3
[ -e "$1" ] && { echo "goes well"; exec sleep 100000; }
exit 3
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared() -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.on_loopback(Path(logs), machines=2, masters=1) as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    yield shared
    await shared.restore()


def script(cluster: Cluster, name: str, text: str, *words: str, more: str = "") -> None:
    """Put a unit where unitctl runs that runs a shell script."""
    path = cluster.units_dir / f"{name}.sh"
    path.write_text(text)
    run = " ".join(("/bin/sh", str(path), *words))
    cluster.write(f"{name}.service", f"[Service]\nExecStart={run}\n{more}")


async def texts(cluster: Cluster, *args: str) -> list[str]:
    return (await cluster.must("logs", *args)).stdout.splitlines()


async def seen(cluster: Cluster, *args: str) -> list[str]:
    """Return what is shown now: nothing, while an agent starts."""
    return (await cluster.unitctl("logs", *args)).stdout.splitlines()


async def place(cluster: Cluster, name: str) -> str:
    """Return the machine that the unit runs on, "" while it does not."""
    view = await cluster.unit(f"{name}.service")
    found = view.copies if view is not None else ()
    copies = [copy for copy in found if copy.phase == "running" and copy.machine_status == "ready"]
    return copies[0].machine_name if len(copies) == 1 else ""


async def popen(cluster: Cluster, *args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "unitctl", *args), stdout=subprocess.PIPE, env=cluster._environment()
    )


async def test_nothing_is_lost_or_doubled_when_the_agent_is_killed_while_a_unit_writes(cluster: Cluster) -> None:
    script(cluster, "counts", COUNTS)
    await cluster.must("start", "counts")
    machine = cluster.machine(await place(cluster, "counts"))
    for part in (1, 2, 3):

        async def has(part: int = part) -> bool:
            return len(await seen(cluster, "counts", "-n", "100000")) > part * LINES // 5

        await cluster.wait_until(has, SOON_S, f"part {part} is there")
        cluster.restart_agent(machine)

    async def all_there() -> bool:
        ran = await cluster.unitctl("logs", "counts", "-n", "1")
        return ran.stdout == f"line {LINES}\n"

    await cluster.wait_until(all_there, SOON_S, "the last line is there")
    assert await texts(cluster, "counts", "-n", "100000") == [f"line {n}" for n in range(1, LINES + 1)]
    assert await texts(cluster, "counts", "--since", "1h") == [f"line {n}" for n in range(1, LINES + 1)]
    rows = [json.loads(line) for line in await texts(cluster, "counts", "-n", "5", "-o", "jsonl")]
    assert [row["seq"] for row in rows] == list(range(LINES - 4, LINES + 1))
    assert {(row["machine"], row["stream"], row["epoch"] > 0) for row in rows} == {(machine.name, "stdout", True)}
    assert await texts(cluster, "counts", "--grep", "line 1999[0-3]$", "--since", "1h") == [
        f"line {n}" for n in range(19990, 19994)
    ]


async def test_the_lines_of_a_unit_that_moved_twice_are_whole_and_in_order(cluster: Cluster) -> None:
    script(cluster, "ticks", TICKS)
    await cluster.must("start", "ticks")
    order = []
    for _ in range(3):
        was = await place(cluster, "ticks")
        order.append(was)

        async def ticked(machine: str = was) -> bool:
            return any(line.startswith(f"{machine} tick 5") for line in await seen(cluster, "ticks", "-n", "50"))

        await cluster.wait_until(ticked, SOON_S, f"it ticks on {was}")
        if len(order) == 3:
            break
        await cluster.must("machine", "drain", was)

        async def moved(machine: str = was) -> bool:
            return await place(cluster, "ticks") not in ("", machine)

        await cluster.wait_until(moved, SOON_S, f"it left {was}")
        await cluster.must("machine", "undrain", was)
    assert order[0] != order[1] and order[2] == order[0]
    rows = [json.loads(line) for line in await texts(cluster, "ticks", "--since", "5min", "-o", "jsonl")]
    by_epoch: dict[int, list[str]] = {}
    for row in rows:
        by_epoch.setdefault(row["epoch"], []).append(row["text"])
    assert len(by_epoch) == 3
    for machine, (_, lines) in zip(order, sorted(by_epoch.items()), strict=True):
        assert lines == [f"{machine} tick {n}" for n in range(1, len(lines) + 1)], "whole, from its first line on"
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    first = min(by_epoch)
    kept = [json.loads(line)["epoch"] for line in await texts(cluster, "ticks", "--since", "5min", "-o", "jsonl")]
    assert first in kept


async def test_what_a_lost_machine_took_with_it_is_named_as_a_gap(cluster: Cluster) -> None:
    script(cluster, "ticks", TICKS)
    await cluster.must("start", "ticks")
    lost = cluster.machine(await place(cluster, "ticks"))
    await cluster.power_off(lost)

    async def moved() -> bool:
        return await place(cluster, "ticks") not in ("", lost.name)

    await cluster.wait_until(moved, 2 * 20.0, "it runs elsewhere")
    ran = await cluster.must("logs", "ticks", "--since", "10min")
    assert f"from {lost.name}" in ran.stderr and "the machine is lost" in ran.stderr
    assert f"{lost.name} tick" not in ran.stdout or "come" in ran.stderr, (
        "what stands there is said to be archived"
    )
    (other,) = {machine.name for machine in cluster.machines} - {lost.name}
    assert f"{other} tick 1\n" in ran.stdout
    at = [json.loads(line) for line in await texts(cluster, "ticks", "--since", "10min", "-o", "jsonl")]
    assert any(row["stream"] == "gap" and row["machine"] == lost.name for row in at)


async def test_previous_shows_the_run_that_failed_and_not_the_one_that_runs(cluster: Cluster) -> None:
    flag = cluster.units_dir / "well"
    script(cluster, "fails", FAILS, str(flag), more="Restart=always\nRestartSec=0.5\n")
    await cluster.unitctl("start", "fails", "--no-block")

    async def failed_twice() -> bool:
        return (await seen(cluster, "fails", "-n", "100")).count("ValueError: no") >= 2

    await cluster.wait_until(failed_twice, SOON_S, "it failed twice")
    flag.touch()

    async def goes_well() -> bool:
        return "goes well" in await seen(cluster, "fails")

    await cluster.wait_until(goes_well, SOON_S, "it runs")
    before = await texts(cluster, "fails", "--previous")
    now = (await texts(cluster, "fails", "-n", "1"))[0]
    assert now == "goes well" and now not in before
    assert len(before) == 4 and before.count("ValueError: no") == 1, before
    joined = await texts(cluster, "fails", "--previous", "--join", "-o", "jsonl")
    traces = [json.loads(line)["text"] for line in joined if "Traceback" in line]
    assert [trace.count("\n") for trace in traces] == [2]


async def test_following_goes_on_where_the_unit_moves_to(cluster: Cluster) -> None:
    script(cluster, "ticks", TICKS)
    await cluster.must("start", "ticks")
    first = await place(cluster, "ticks")
    (other,) = {machine.name for machine in cluster.machines} - {first}
    following = await popen(cluster, "logs", "-f", "-n", "1", "ticks")
    try:
        assert following.stdout is not None
        assert (await following.stdout.readline()).startswith(f"{first} tick".encode())
        await cluster.must("machine", "drain", first)
        seen: list[str] = []

        async def followed() -> bool:
            assert following.stdout is not None
            seen.append((await following.stdout.readline()).decode().strip())
            return seen[-1].startswith(f"{other} tick") and int(seen[-1].split()[-1]) >= 5

        await eventually(followed, within_s=2 * SOON_S, what=lambda: f"lines of {other}: {seen[-3:]}", every_s=0.0)
        ticks = [int(line.split()[-1]) for line in seen if line.startswith(other)]
        assert ticks == list(range(1, len(ticks) + 1)), "from its first line on, each once"
    finally:
        following.kill()
        await following.wait()


async def test_a_unit_that_writes_without_end_loses_lines_and_says_so_and_its_neighbour_loses_none(
    cluster: Cluster,
) -> None:
    script(cluster, "flood", "exec yes flood", more="[X-Fleet]\nMachineOf=beats.service\n")
    script(cluster, "beats", TICKS)
    await cluster.must("start", "beats")
    await cluster.must("start", "flood")

    async def dropped() -> bool:
        rows = await seen(cluster, "flood", "-n", "100000", "-o", "jsonl", "--grep", "no such text")
        return any("were dropped here" in row for row in rows)

    await cluster.wait_until(dropped, 2 * SOON_S, "a gap says how many were dropped")
    agent = cluster.machine(await place(cluster, "beats")).agent
    before, began = cpu_s(agent.pid), time.monotonic()
    ticks = [int(line.split()[-1]) for line in await texts(cluster, "beats", "-n", "100000")]
    assert ticks == list(range(1, len(ticks) + 1))
    await _pause_for_a_look()
    share = (cpu_s(agent.pid) - before) / (time.monotonic() - began)
    assert share < 2 * 0.6, f"the agent takes {share:.2f} of a core"
    await cluster.must("destroy", "flood")


async def test_log_files_on_the_host_are_followed_over_rotation(cluster: Cluster) -> None:
    folder = cluster.units_dir / "log"
    folder.mkdir(exist_ok=True)
    log = folder / "app.log"
    script(cluster, "files", "echo up; exec sleep 100000", more=f"[X-Fleet]\nLogFiles={folder}/*.log\n")
    await cluster.must("start", "files")

    async def shown(*wanted: str) -> bool:
        found = [
            json.loads(line)
            for line in await seen(cluster, "files", "-n", "1000", "-o", "jsonl")
            if json.loads(line)["stream"] == "file"
        ]
        return [row["text"] for row in found] == list(wanted) and {row["file"] for row in found} == {str(log)}

    await cluster.wait_until(lambda: _has(cluster, "files", "up"), SOON_S, "it is up")
    await _pause_for_a_look()
    log.write_text("one\ntwo\n")
    await cluster.wait_until(lambda: shown("one", "two"), SOON_S, "two lines")
    log.rename(folder / "app.log.1")
    append(folder / "app.log.1", "three, late\n")
    log.write_text("four\n")
    await cluster.wait_until(lambda: shown("one", "two", "three, late", "four"), SOON_S, "rotated by rename")
    os.truncate(log, 0)
    append(log, "5\n")
    await cluster.wait_until(lambda: shown("one", "two", "three, late", "four", "5"), SOON_S, "copytruncate")
    cluster.restart_agent(cluster.machine(await place(cluster, "files")))
    append(log, "six\n")
    wanted = ("one", "two", "three, late", "four", "5", "six")
    await cluster.wait_until(lambda: shown(*wanted), SOON_S, "each line once after a restart of the agent")


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process took so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def append(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


async def _has(cluster: Cluster, unit: str, text: str) -> bool:
    return text in await seen(cluster, unit)


async def _pause_for_a_look() -> None:
    """Let the reader look once: what is there at its first look on a host is history."""
    began = time.monotonic()

    async def passed() -> bool:
        return time.monotonic() - began > 1.2

    await eventually(passed, within_s=5.0, what=lambda: "a second passes")


async def test_bad_queries_are_refused_before_anything_is_asked(cluster: Cluster) -> None:
    for args, said in (
        (("--since", "yesterday-ish"), "is no time"),
        (("--grep", "(a+)+"), "take for ever"),
        (("--grep", "("), "cannot use --grep"),
        (("--since", "1h", "--until", "2h"), "--until is before --since"),
    ):
        ran = await cluster.unitctl("logs", "any", *args)
        assert ran.code == 2 and said in ran.stderr, ran
