"""Containers that write faster than anybody reads: every line is kept, or counted where it is missing."""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from harness.cluster import Cluster
from harness.engines import Engines
from harness.image import IMAGE

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

SOON_S = 120.0
FIRST, LINES = 1_000, 500_000
TEXT = "of a unit that writes as fast as it can, without end or reason"
WITHOUT_CAP = ("--log-rate", "100000000,100G")
LOW_CAP = ("--log-rate", "5000,32M")
"""So slow is no Engine that this would be no flood."""

FLOODS = f"""awk 'BEGIN{{for(i=1;i<={FIRST};i++) print "line",i,"{TEXT}"}}'
while [ ! -e /go/go ]; do sleep 0.1; done
awk 'BEGIN{{for(i={FIRST}+1;i<={LINES};i++) print "line",i,"{TEXT}"}}'
sleep 3
echo end
exec sleep 100000
"""


class Row(msgspec.Struct):
    seq: int
    stream: str
    text: str


class Kept(NamedTuple):
    """The numbers of the lines that are there, in order, and what the gaps say."""

    numbers: list[int]
    gaps: list[str]

    @property
    def breaks(self) -> int:
        """Return in how many places lines are missing."""
        follows = zip([0, *self.numbers], [*self.numbers, LINES + 1], strict=True)
        return sum(after != before + 1 for before, after in follows)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared() -> AsyncIterator[Cluster]:
    if reason := Engines.available():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="uf-floods-") as logs:
        async with Cluster.in_lab(Path(logs), hosts=1, masters=1) as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    agent = shared.machines[0].agent
    before = agent.argv
    yield shared
    agent.argv = before
    shared.restart_agent(shared.machines[0])
    await shared.restore()


async def flood(cluster: Cluster, name: str, options: str = "", flags: tuple[str, ...] = ()) -> None:
    """Start a unit that floods once it is told to `go`, with an agent that has these flags."""
    cluster.machines[0].agent.argv += ("--log-sinks", "", *flags)
    cluster.restart_agent(cluster.machines[0])
    (cluster.units_dir / name).mkdir()
    (cluster.units_dir / f"{name}.sh").write_text(FLOODS)
    cluster.write(
        f"{name}.container",
        f"[Container]\nImage={IMAGE}\nExec=sh /units/{name}.sh\nNetwork=none\nPull=never\nStopSignal=SIGKILL\n"
        f"Volume={cluster.units_dir}:/units:ro\nVolume={cluster.units_dir / name}:/go:ro\n{options}\n",
    )
    await cluster.must("start", name)
    await written(cluster, name, FIRST)


async def go(cluster: Cluster, name: str) -> None:
    await asyncio.to_thread((cluster.units_dir / name / "go").touch)


async def rows(cluster: Cluster, name: str, lines: str) -> list[Row]:
    """Ask the agent itself; none, while it starts."""
    agent = cluster.machines[0].agent
    connector = aiohttp.UnixConnector(agent.argv[agent.argv.index("--socket") + 1])
    try:
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"http://agent/local/logs/{name}.service", params={"lines": lines}) as answer,
        ):
            told = await answer.read()
    except (aiohttp.ClientError, OSError):
        return []
    return msgspec.json.Decoder(Row).decode_lines(told) if answer.status == 200 else []


async def kept(cluster: Cluster, name: str) -> Kept:
    """Wait for the flood's end and return what is there of it."""

    async def ended() -> bool:
        return any(row.text == "end" for row in await rows(cluster, name, "3"))

    await cluster.wait_until(ended, SOON_S, "the last line is there")
    found = await rows(cluster, name, "all")
    numbers = [int(row.text.split()[1]) for row in found if row.stream == "stdout" and row.text != "end"]
    return Kept(numbers, [row.text for row in found if row.stream == "gap"])


async def written(cluster: Cluster, name: str, at_least: int) -> None:
    async def so_many() -> bool:
        found = await rows(cluster, name, "1")
        return bool(found) and found[-1].seq >= at_least

    await cluster.wait_until(so_many, SOON_S, f"{at_least} lines are there")


async def test_a_flood_is_whole_though_its_files_are_rotated_away_while_it_is_read(cluster: Cluster) -> None:
    await flood(cluster, "whole", flags=WITHOUT_CAP)
    await go(cluster, "whole")
    found = await kept(cluster, "whole")
    assert (len(found.numbers), found.gaps) == (LINES, [])
    assert found.numbers == list(range(1, LINES + 1)), "in order, each once"


async def test_a_flood_is_whole_over_the_agents_being_killed(cluster: Cluster) -> None:
    await flood(cluster, "killed", "LogOpt=max-file=20\n", WITHOUT_CAP)
    await go(cluster, "killed")
    for part in (1, 2):
        await written(cluster, "killed", part * LINES // 4)
        cluster.restart_agent(cluster.machines[0])
    found = await kept(cluster, "killed")
    assert (len(found.numbers), found.gaps) == (LINES, [])
    assert found.numbers == list(range(1, LINES + 1)), "in order, each once"


async def test_what_was_rotated_away_while_no_agent_was_there_is_told(cluster: Cluster) -> None:
    await flood(cluster, "away", "LogOpt=max-size=1m\n", WITHOUT_CAP)
    with contextlib.closing(cluster.engine(cluster.machines[0])) as client:
        (container,) = client.containers.list()
        oldest = Path(container.attrs["LogPath"] + ".2")
    agent = cluster.machines[0].agent
    agent.kill()
    await go(cluster, "away")

    def beginning() -> str:
        return oldest.read_text()[:20] if oldest.exists() else ""

    async def rotated() -> bool:
        found = await asyncio.to_thread(beginning)
        return bool(found) and int(found.split()[1]) > 2 * FIRST

    await cluster.wait_until(rotated, SOON_S, "more was rotated than is kept")
    agent.start()
    found = await kept(cluster, "away")
    assert any("rotated its files away" in gap for gap in found.gaps), found.gaps
    assert found.numbers == sorted(set(found.numbers)), "in order, each once"
    assert found.breaks <= len(found.gaps), "nothing is missing where nothing says so"


async def test_every_line_of_a_flood_beyond_the_cap_is_kept_or_counted(cluster: Cluster) -> None:
    await flood(cluster, "capped", flags=LOW_CAP)
    await go(cluster, "capped")
    found = await kept(cluster, "capped")
    counts = [re.match(r"at least (\d+) lines \(\d+ bytes\) were dropped here", gap) for gap in found.gaps]
    assert all(counts) and counts, found.gaps
    dropped = sum(int(count[1]) for count in counts if count)
    assert len(found.numbers) + dropped == LINES, f"{len(found.numbers)} kept, {dropped} counted"
    assert found.numbers == sorted(set(found.numbers)), "in order, each once"
    assert 0 < found.breaks <= len(found.gaps)
