"""The cap of image pulls, as an agent on a host with an Engine keeps it: while it pulls, and no longer."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from harness.cluster import Cluster
from harness.engines import Engines
from harness.net_rig import NetRig, everything, own_group
from harness.registry import SlowRegistry, serving
from harness.sites import Lab

pytestmark = pytest.mark.lab

SHARED = "image pulls are not capped: the Engine shares its control group with others"


async def test_the_cap_of_pulls_stands_while_one_is_under_way_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    if reason := Engines.available() or NetRig.available():
        pytest.skip(reason)
    async with Cluster.in_lab(tmp_path, hosts=1, masters=1, profile="fast", idle=1) as cluster:
        site = cluster._site
        assert isinstance(site, Lab)
        namespace = site.engines.namespace(0)
        machine = await cluster.join("--ingress", "200M")
        await cluster.wait_until(cluster._is_up, 30, "the agent is up")
        before = everything(namespace)

        async def shaped() -> str:
            return await asyncio.to_thread(everything, namespace)

        async def trouble() -> str:
            return str((await asyncio.to_thread(cluster.local, machine, "/local/net"))["trouble"])

        async def held(image: str) -> bool:
            return " held" in (await cluster.must("images", "ls", image)).stdout

        with contextlib.ExitStack() as stack:
            registry = stack.enter_context(serving(SlowRegistry(site.engines, 0, tmp_path / "registry")))
            with contextlib.closing(cluster.engine(machine)) as engine:
                first, second = [
                    await asyncio.to_thread(registry.push, f"{name}:1", name, engine)
                    for name in ("first", "second")
                ]
            # the harness starts its Engines in the group that the agent is in
            await cluster.must("images", "warm", first)
            await cluster.wait_until(lambda: held(first), 20, "a pull passes that can not be capped")
            assert await trouble() == SHARED
            assert await shaped() == before

            group = stack.enter_context(own_group(site.engines.name))
            engine_pid = (site.engines.folder / "0/pid").read_text()
            (group / "cgroup.procs").write_text(engine_pid)
            registry.slow(100_000)
            await cluster.must("images", "warm", second)

            async def capped() -> bool:
                return "unitfleet-pull-100000000-" in await shaped()

            await cluster.wait_until(capped, 15, "the cap stands")
            assert not await held(second)
            assert await trouble() == ""
            registry.slow(0)
            await cluster.wait_until(lambda: held(second), 20, "the image is here")

            async def clean() -> bool:
                return await shaped() == before

            await cluster.wait_until(clean, 10, "nothing of the cap is left")
            assert "shaping-" not in (await cluster.must("events")).stdout
