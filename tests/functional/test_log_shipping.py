"""What units write, from a real agent to the masters' archive and to another sink, and back by unitctl."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.cluster import Cluster, Machine

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEARCHABLE_S = 2 * 5.0
SOON_S = 15.0

TALKER = """[Service]
ExecStart=/bin/sh -c 'i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo "%i says $i of {lines}"; done; \\
  exec sleep 100000'

[X-Fleet]
{more}
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """A cluster whose first machine ships to a file too."""
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.on_loopback(Path(logs)) as made:
            agent = made.machines[0].agent
            target = tmp_path_factory.mktemp("shipped") / "units.jsonl"
            agent.argv = (*agent.argv, "--log-sinks", f"store:,file://{target}")
            made.restart_agent(made.machines[0])
            yield made


def shipped_to(machine: Machine) -> list[dict[str, object]]:
    path = Path(machine.agent.argv[-1].partition("file://")[2])
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def found(cluster: Cluster, *args: str) -> list[str]:
    ran = await cluster.must("logs", "--all", *args, "-o", "jsonl")
    return [json.loads(line)["text"] for line in ran.stdout.splitlines()]


async def test_a_line_is_found_by_expression_within_five_seconds(cluster: Cluster) -> None:
    cluster.write("talker@.service", TALKER.format(lines=3, more=""))
    began = time.monotonic()
    await cluster.must("start", "talker@<1..3>")

    async def searchable() -> bool:
        return len(await found(cluster, "--grep", r"says [23] of 3", "--since", "2h")) == 6

    await cluster.wait_until(searchable, SEARCHABLE_S, "the lines are found in the archive")
    assert time.monotonic() - began < 2 * SEARCHABLE_S
    ran = await cluster.must("logs", "--all", "--grep", "^2 says 3", "--since", "2h")
    assert "talker@2.service@" in ran.stdout and ran.stdout.endswith(": 2 says 3 of 3\n")
    await cluster.must("destroy", "talker@<1..3>")
    assert len(await found(cluster, "--grep", "of 3$")) == 9, "it outlives the units"


async def test_every_line_arrives_once_in_order_though_the_agent_is_killed(cluster: Cluster) -> None:
    machine = cluster.machines[0]
    more = f"MachineMetadata=rack=r{machine.host + 1}"
    cluster.write("chatty@.service", TALKER.format(lines=20_000, more=more))
    await cluster.must("start", "chatty@1")
    for _ in range(2):
        cluster.restart_agent(machine)

    async def all_there() -> bool:
        return any(line["text"] == "1 says 20000 of 20000" for line in shipped_to(machine))

    await cluster.wait_until(all_there, SOON_S, "the last line is shipped")
    lines = [line for line in shipped_to(machine) if line["unit"] == "chatty@1.service"]
    by_key = {(line["machine"], line["seq"]): line["text"] for line in lines}
    assert list(by_key.values()) == [f"1 says {n} of 20000" for n in range(1, 20_001)]

    async def archived() -> bool:
        return len(await found(cluster, "--grep", "says .* of 20000", "-n", "10000")) == 10_000

    await cluster.wait_until(archived, SOON_S, "the archive has it all")
    newest = await found(cluster, "--grep", "of 20000", "-n", "3", "chatty@1")
    assert newest == [f"1 says {n} of 20000" for n in (19_998, 19_999, 20_000)]


async def test_a_unit_chooses_its_sinks_and_an_unknown_one_is_told(cluster: Cluster) -> None:
    machine = cluster.machines[0]
    place = f"MachineMetadata=rack=r{machine.host + 1}\n"
    cluster.write("choosy@.service", TALKER.format(lines=2, more=f"{place}LogSink=file kafka"))
    cluster.write("silent@.service", TALKER.format(lines=2, more=f"{place}LogSink=none"))
    await cluster.must("start", "choosy@1", "silent@1")

    async def told() -> bool:
        ran = await cluster.must("events", "--unit", "choosy@1")
        return "no sink is called kafka: this agent has file, store" in ran.stdout

    await cluster.wait_until(told, SOON_S, "an event says that the sink is unknown")
    assert await cluster.runs_once("choosy@1.service", "silent@1.service")

    async def shipped() -> bool:
        return [line["text"] for line in shipped_to(machine) if line["unit"] == "choosy@1.service"] == [
            "1 says 1 of 2",
            "1 says 2 of 2",
        ]

    await cluster.wait_until(shipped, SOON_S, "the chosen sink has its lines")
    assert await found(cluster, "--grep", "of 2$") == []
    assert not [line for line in shipped_to(machine) if line["unit"] == "silent@1.service"]


async def test_a_dead_master_leaves_the_lines_that_others_hold_and_is_named(cluster: Cluster) -> None:
    assert (await cluster.status()).masters == ("master1", "master2")
    victim = cluster.masters[-1]
    cluster.kill(victim)
    ran = await cluster.must("logs", "--all", "--grep", "of 3$")
    assert f"cannot ask master {victim.name}" in ran.stderr
    victim.start()
