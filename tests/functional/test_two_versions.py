"""A cluster in the middle of an upgrade: an agent and a master of the former version beside those of today."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness import former
from harness.cluster import Cluster
from unitfleet import codec, keys
from unitfleet.model import Presence

SOON_S = 20.0
TICKS = """[Service]
ExecStart=/bin/sh -c 'i=0; while :; do i=$((i+1)); echo "$UNITFLEET_MACHINE tick $i"; sleep 0.1; done'
"""
TICK = re.compile(r"(m\d) tick (\d+)")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    try:
        yield former.tree(tmp_path_factory.mktemp("former") / "tree")
    except former.NoFormer as error:
        pytest.skip(str(error))


async def home(cluster: Cluster, unit: str) -> str:
    """Return the name of the machine of a unit's one copy, "" while it has none or several."""
    view = await cluster.unit(unit)
    copies = view.copies if view is not None else ()
    names = {machine.id: name for name, machine in (await cluster.machine_views()).items()}
    return names[copies[0].machine] if len(copies) == 1 else ""


async def ticks(cluster: Cluster) -> list[tuple[str, int]]:
    """Return what the ticker wrote, wherever it ran: machine and number of each line."""
    said = (await cluster.must("logs", "--since", "1h", "ticker")).stdout
    return [(machine, int(number)) for machine, number in TICK.findall(said)]


def runs(lines: list[tuple[str, int]]) -> list[str]:
    """Return the machines of the ticker's runs as they began; of each no line is missing or twice.

    A move lets two copies run for a moment: their lines lie among each other.
    """
    found: list[str] = []
    last: dict[str, int] = {}
    for machine, number in lines:
        if number == 1:
            found.append(machine)
        else:
            assert number == last[machine] + 1, f"{machine} {number} comes behind {last}"
        last[machine] = number
    return found


@pytest.mark.parametrize("master", ["master1", ""], ids=["a former master", "a master of today"])
async def test_agents_of_two_versions_work_under_a_master_of_either(tree: Path, master: str) -> None:
    started_as = former.started_as(tree, {"m1", master})
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.on_loopback(Path(logs), machines=2, masters=1, started_as=started_as) as cluster:
            keyed = {}
            for name, view in (await cluster.machine_views()).items():
                held = await cluster.store.get(keys.presence(view.id))
                assert held is not None
                keyed[name] = bool(codec.decode(held.value, Presence).public_key)
            assert keyed == {"m1": False, "m2": True}, "agents of the former version have no key"
            assert (str(tree) in psutil.Process(cluster.masters[0].pid).environ().get("PYTHONPATH", "")) is bool(
                master
            )

            cluster.write("ticker.service", TICKS)
            cluster.write("sleeper@.service", "[Service]\nExecStart=/bin/sleep 100000\n[X-Fleet]\nSpread=rack\n")
            await cluster.must("start", "sleeper@<1..4>")
            assert {await home(cluster, f"sleeper@{number}.service") for number in range(1, 5)} == {"m1", "m2"}

            await cluster.must("machines", "cordon", "m2")
            await cluster.must("start", "ticker")
            await cluster.must("machines", "uncordon", "m2")
            expected = ["m1"]
            for leaves, stays in (("m1", "m2"), ("m2", "m1")):

                async def moved(where: str = stays) -> bool:
                    one = await cluster.runs_once("ticker.service")
                    return one and await home(cluster, "ticker.service") == where

                async def wrote(where: str = leaves) -> bool:
                    return (where, 3) in (await ticks(cluster))[-200:]

                await cluster.wait_until(wrote, SOON_S, f"lines of {leaves} are there")
                await cluster.must("machines", "cordon", leaves)
                await cluster.must("machines", "drain", leaves)
                await cluster.wait_until(moved, SOON_S, f"the ticker is on {stays}")
                await cluster.must("machines", "undrain", leaves)
                await cluster.must("machines", "uncordon", leaves)
                expected.append(stays)

            async def whole() -> bool:
                lines = await ticks(cluster)
                return runs(lines) == expected and lines[-1][1] > 3

            await cluster.wait_until(whole, SOON_S, f"its output is whole, from {expected}")
            await cluster.must("restart", "ticker")
            await cluster.must("stop", "ticker")
            assert not await cluster.running("ticker.service")

            async def found() -> bool:
                said = (await cluster.must("logs", "--all", "--grep", "tick 3$")).stdout
                return "m1 tick 3" in said and "m2 tick 3" in said

            await cluster.wait_until(found, SOON_S, "the masters' archive has lines of both")
            listed = former.of_former(tree, [sys.executable, "-m", "unitctl", "list-units", "-o", "name"])
            environment = {name: value for name, value in cluster._environment().items() if name != "PYTHONPATH"}
            ran = await asyncio.to_thread(subprocess.run, listed, env=environment, capture_output=True, text=True)
            assert "sleeper@4.service" in ran.stdout.split(), ran
            assert "Traceback" not in "".join(
                daemon.log.read_text() for daemon in (*cluster.masters, *(m.agent for m in cluster.machines))
            )
