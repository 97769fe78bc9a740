"""Logs of real containers: over restarts of agent, container and Engine, with bad lines and bad files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.cluster import Cluster
from harness.engines import Engines
from harness.image import IMAGE

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

SOON_S = 30.0
LINES = 8_000

COUNTS = f"""i=0
while [ $i -lt {LINES} ]; do
  i=$((i+1)); echo "line $i"
  [ $((i % 100)) = 0 ] && sleep 0.03
done
exec sleep 100000
"""
ODD = r"""
head -c 10485760 /dev/zero | tr '\0' x; echo
printf 'binary \377\376\033[31m\tend\n'
printf 'no newline at the end' >&2
exec sleep 100000
"""
FILES = r"""mkdir -p /var/log/app /tmp/out
echo "one" >> /var/log/app/a.log
ln -s /host/secret /var/log/app/evil.log
ln -s ../../../../../../host/secret /var/log/app/up.log
ln -s /tmp/out/real.log /var/log/app/linked.log
mkfifo /var/log/app/fifo.log
echo "through a link inside" > /tmp/out/real.log
while [ ! -e /go/1 ]; do sleep 0.1; done
mv /var/log/app/a.log /var/log/app/a.log.1; echo "two, late" >> /var/log/app/a.log.1
echo "three" > /var/log/app/a.log
while [ ! -e /go/2 ]; do sleep 0.1; done
: > /var/log/app/a.log; echo "4" >> /var/log/app/a.log
exec sleep 100000
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared() -> AsyncIterator[Cluster]:
    if reason := Engines.available():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.in_lab(Path(logs), hosts=1, masters=1) as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    yield shared
    await shared.restore()


def unit(cluster: Cluster, name: str, script: str, more: str = "", xfleet: str = "") -> None:
    (cluster.units_dir / f"{name}.sh").write_text(script)
    cluster.write(
        f"{name}.container",
        f"[Container]\nImage={IMAGE}\nExec=sh /units/{name}.sh\nNetwork=none\nPull=never\nStopSignal=SIGKILL\n"
        f"Volume={cluster.units_dir}:/units:ro\n{more}\n[X-Fleet]\n{xfleet}",
    )


async def rows(cluster: Cluster, name: str, *args: str) -> list[dict[str, Any]]:
    """Return the lines that are shown now: none, while an agent starts."""
    ran = await cluster.unitctl("logs", name, *(args or ("-n", "100000")), "-o", "jsonl")
    return [json.loads(line) for line in ran.stdout.splitlines()]


async def test_numbered_lines_are_whole_over_restarts_of_agent_and_engine(cluster: Cluster) -> None:
    unit(cluster, "counts", COUNTS)
    await cluster.must("start", "counts")
    (machine,) = cluster.machines
    for part in (1, 2):

        async def has(part: int = part) -> bool:
            found = await rows(cluster, "counts", "-n", "1")
            return bool(found) and found[-1]["seq"] > part * LINES // 4

        await cluster.wait_until(has, SOON_S, f"part {part} is there")
        cluster.restart_agent(machine)

    async def all_there() -> bool:
        found = await rows(cluster, "counts", "-n", "1")
        return bool(found) and found[-1]["text"] == f"line {LINES}"

    await cluster.wait_until(all_there, SOON_S, "the last line is there")
    assert [row["text"] for row in await rows(cluster, "counts")] == [f"line {n}" for n in range(1, LINES + 1)]

    with contextlib.closing(cluster.engine(machine)) as client:
        (container,) = client.containers.list()
        container.kill("SIGKILL")  # it ends by itself: the unit says nothing of Restart=
    await cluster.must("restart", "counts")

    async def again() -> bool:
        found = await rows(cluster, "counts", "-n", "1")
        return bool(found) and found[-1]["seq"] == 2 * LINES

    await cluster.wait_until(again, SOON_S, "its second run is there too")
    texts = [row["text"] for row in await rows(cluster, "counts")]
    assert texts == [f"line {n}" for n in range(1, LINES + 1)] * 2, "each run whole, each once"


@pytest.mark.parametrize("driver", ["local", "json-file"])
async def test_lines_are_whole_over_rotations_of_the_engines_own_file(cluster: Cluster, driver: str) -> None:
    numbered = "i=0; while [ $i -lt 12000 ]; do i=$((i+1)); echo line $i; [ $((i % 200)) = 0 ] && sleep 0.05; done"
    options = f"LogDriver={driver}\nLogOpt=max-size=200k\nLogOpt=max-file=3\n"
    unit(cluster, f"rotates-{driver}", f"{numbered}; exec sleep 100000\n", options)
    await cluster.must("start", f"rotates-{driver}")

    async def all_there() -> bool:
        found = await rows(cluster, f"rotates-{driver}", "-n", "1")
        return bool(found) and found[-1]["text"] == "line 12000"

    await cluster.wait_until(all_there, SOON_S, "the last line is there")
    texts = [row["text"] for row in await rows(cluster, f"rotates-{driver}")]
    assert texts == [f"line {n}" for n in range(1, 12_001)]


async def test_a_line_of_ten_megabytes_and_bytes_that_are_no_text(cluster: Cluster) -> None:
    unit(cluster, "odd", ODD)
    await cluster.must("start", "odd")

    async def all_three() -> bool:
        return len(await rows(cluster, "odd")) >= 2

    await cluster.wait_until(all_three, SOON_S, "both lines are there")
    long, binary = (await rows(cluster, "odd"))[:2]
    told = re.search(r" … (\d+) bytes, cut$", long["text"])
    assert told is not None and len(long["text"]) < 300_000
    # Engine 20.10 gives a piece of a long line twice now and then, while it is followed
    assert int(told[1]) in range(10_485_760, 10_485_760 + 4 * 16_384, 16_384)
    assert binary["text"] == "binary ��\x1b[31m\tend", "kept as it is, but what is no UTF-8"


@contextlib.contextmanager
def hosts_secret() -> Iterator[None]:
    """Put a file on the host that links in a container point to."""
    secret = Path("/host/secret")
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("the host's own\n")
    try:
        yield
    finally:
        secret.unlink()
        secret.parent.rmdir()


async def test_files_in_the_container_are_followed_and_no_link_leads_out(cluster: Cluster) -> None:
    go = cluster.units_dir / "go"
    go.mkdir(exist_ok=True)
    with hosts_secret():
        unit(cluster, "files", FILES, f"Volume={go}:/go\n", "LogFiles=/var/log/app/*.log\n")
        await cluster.must("start", "files")

        async def shown(*wanted: str) -> bool:
            found = [row for row in await rows(cluster, "files") if row["stream"] == "file"]
            by_file = [row["text"] for row in found if row["file"] == "/var/log/app/a.log"]
            linked = [row["text"] for row in found if row["file"] == "/var/log/app/linked.log"]
            return by_file == list(wanted) and linked == ["through a link inside"]

        await cluster.wait_until(lambda: shown("one"), SOON_S, "the file's first line")
        (go / "1").touch()
        await cluster.wait_until(lambda: shown("one", "two, late", "three"), SOON_S, "rotated by rename")
        (go / "2").touch()
        await cluster.wait_until(lambda: shown("one", "two, late", "three", "4"), SOON_S, "copytruncate")
        cluster.restart_agent(cluster.machines[0])
        await cluster.wait_until(lambda: shown("one", "two, late", "three", "4"), SOON_S, "once, after a restart")
        assert not [row for row in await rows(cluster, "files") if "host" in row["text"]]
        assert {row["file"] for row in await rows(cluster, "files")} <= {
            "",
            "/var/log/app/a.log",
            "/var/log/app/linked.log",
        }


async def test_a_log_driver_that_keeps_nothing_says_so(cluster: Cluster) -> None:
    unit(cluster, "silent", "echo nobody hears; exec sleep 100000\n", "LogDriver=none\n")
    await cluster.must("start", "silent")

    async def said() -> bool:
        gaps = [row["text"] for row in await rows(cluster, "silent") if row["stream"] == "gap"]
        return any("log driver keeps none" in text for text in gaps)

    await cluster.wait_until(said, SOON_S, "a gap says why there are no lines")
    events = await cluster.must("events", "--unit", "silent")
    assert "logs-unreadable" in events.stdout, events


async def test_reading_goes_on_when_the_engine_was_restarted(cluster: Cluster) -> None:
    script = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done\n"
    unit(cluster, "ticks", script, "\n[Service]\nRestart=always\n")
    await cluster.must("start", "ticks")

    async def ticked(at_least: int) -> bool:
        return len(await rows(cluster, "ticks")) > at_least

    await cluster.wait_until(lambda: ticked(5), SOON_S, "it ticks")
    lab = cluster._site.engines  # type: ignore[attr-defined]
    await asyncio.to_thread(lab.kill_engine, 0, signal.SIGKILL)
    await asyncio.to_thread(lab.start_engine, 0)
    before = len(await rows(cluster, "ticks"))
    await cluster.wait_until(lambda: ticked(before + 20), SOON_S, "it ticks on")
    numbers = [int(row["text"].split()[1]) for row in await rows(cluster, "ticks")]
    starts = [index for index, number in enumerate(numbers) if number == 1]
    for begin, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
        assert numbers[begin:end] == list(range(1, end - begin + 1)), "each run whole, each line once"
