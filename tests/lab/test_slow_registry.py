"""A registry that trickles: it delays the readiness of new hosts, and nothing that runs or could start."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest

from harness.cluster import Cluster
from harness.engines import Engines
from harness.image import IMAGE
from harness.registry import SlowRegistry, serving
from harness.sites import Lab

pytestmark = pytest.mark.lab

SLOW = 20_000
"""Bytes a second: the image takes a minute."""


def container(image: str, *, host: int) -> str:
    """Return a unit of one host that runs until it is stopped."""
    text = f"[Container]\nImage={image}\nExec=sleep 1000\nNetwork=none\nStopSignal=SIGKILL\n"
    return f"{text}[X-Fleet]\nMachineMetadata=rack=r{host + 1}\n"


async def test_a_slow_registry_delays_readiness_and_neither_running_units_nor_starts_of_images_held(
    tmp_path: Path,
) -> None:
    if reason := Engines.available():
        pytest.skip(reason)
    async with Cluster.in_lab(tmp_path, hosts=3, masters=1, profile="fast", idle=2) as cluster:
        site = cluster._site
        assert isinstance(site, Lab)
        with contextlib.ExitStack() as stack:
            registries = [
                stack.enter_context(serving(SlowRegistry(site.engines, host, tmp_path / "registry")))
                for host in range(3)
            ]
            with contextlib.closing(cluster.engine(cluster.machine("m1"))) as engine:
                app = await asyncio.to_thread(registries[0].push, "app:1", "app", engine)
            cluster.write("ad.container", container(app, host=0))
            await cluster.must("start", "ad")
            await cluster.must("images", "warm", app)
            await cluster.must("images", "warm", IMAGE)  # every host has it
            ad = await cluster.running("ad.service")
            for registry in registries:
                registry.slow(SLOW)

            await cluster.join()
            await cluster.join("--warm-timeout", "3s")

            async def statuses() -> dict[str, str]:
                return {name: view.status for name, view in (await cluster.machine_views()).items()}

            async def warming() -> bool:
                shown = (await cluster.must("images", "ls", app)).stdout
                return (await statuses()).get("m2") == "warming" and bool(re.search(r"m2 .*\d %", shown))

            await cluster.wait_until(warming, 20, "m2 is warming, and its image trickles")

            cluster.write("here.container", container(IMAGE, host=1))
            await cluster.must("start", "here", "--timeout", "5s")
            here = await cluster.running("here.service")
            assert [one.machine for one in here] == ["m2"]

            async def gave_up() -> bool:
                return (await statuses()).get("m3") == "ready"

            await cluster.wait_until(gave_up, 15, "m3 is ready after its own time")
            assert (await statuses())["m2"] == "warming"
            said = rf"takes containers after 3s, not warm: 1 of 2 images; {app}: \d+ % of it pulled"

            async def told() -> bool:
                return bool(re.search(said, (await cluster.must("events", "--machine", "m3")).stdout))

            await cluster.wait_until(told, 10, "an event says what m3 lacks")

            registries[1].slow(0)

            async def ready() -> bool:
                return (await statuses())["m2"] == "ready"

            await cluster.wait_until(ready, 15, "m2 is ready once its registry is quick")

            async def warm() -> bool:
                return "holds its warm set, 2 images" in (await cluster.must("events", "--machine", "m2")).stdout

            await cluster.wait_until(warm, 10, "an event says that m2 holds its images")
            assert await cluster.running("ad.service") == ad
            assert await cluster.running("here.service") == here
