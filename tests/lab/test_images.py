"""Images on real hosts: agents, Engines and registries; the Engine's events and access logs are the witnesses."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cluster import Cluster
from harness.engines import Engines
from harness.registry import Registry, serving
from harness.sites import Lab

pytestmark = pytest.mark.lab


def container(image: str, more: str = "") -> str:
    """Return a unit that runs until it is stopped."""
    return f"[Container]\nImage={image}\nExec=sleep 1000\nNetwork=none\nStopTimeout=1\n{more}"


@contextlib.contextmanager
def witness(cluster: Cluster, name: str) -> Iterator[Any]:
    with contextlib.closing(cluster.engine(cluster.machine(name))) as client:
        yield client


def actions_of(engine: Any) -> list[str]:
    """Return which images an Engine pulled and made containers of, in order: `pull app`, `create app`."""
    filters = {"event": ["pull", "create"]}
    found = []
    for event in engine.events(since=0, until=time.time(), decode=True, filters=filters):
        image = event["Actor"]["Attributes"]["image"] if event["Type"] == "container" else event["Actor"]["ID"]
        found.append(f"{event['Action']} {image.rpartition('/')[2].partition('@')[0].partition(':')[0]}")
    return found


async def status_of(cluster: Cluster, name: str) -> str:
    views = await cluster.machine_views()
    return views[name].status if name in views else ""


async def test_a_fresh_machine_is_warming_until_it_holds_its_images_and_its_start_pulls_nothing(
    tmp_path: Path,
) -> None:
    if reason := Engines.available():
        pytest.skip(reason)
    async with Cluster.in_lab(tmp_path, hosts=2, masters=1, profile="fast", idle=1) as cluster:
        site = cluster._site
        assert isinstance(site, Lab)
        here = Registry(site.engines, 0, tmp_path / "registry")
        there = Registry(site.engines, 1, tmp_path / "registry")  # the same images, down as yet
        with serving(here):
            with witness(cluster, "m1") as engine:
                app = await asyncio.to_thread(here.push, "app:1", "app", engine)
                extra = await asyncio.to_thread(here.push, "extra:1", "extra", engine)
            cluster.write("ad@.container", container(app))
            ran = await cluster.must("start", "ad@1")
            assert "layer" in ran.stderr or "pulling" not in ran.stderr, ran  # it may be over before it is told
            await cluster.must("images", "warm", extra, "--where", "rack=r2")
            none = f"{here.address}/none:1"  # is in no registry: that keeps nobody out
            await cluster.must("images", "warm", none, "--where", "rack=r2")
            before = await cluster.running("ad@1.service")

            await cluster.join()

            async def warming() -> bool:
                return await status_of(cluster, "m2") == "warming"

            await cluster.wait_until(warming, 15, "m2 is warming")
            await cluster.must("machines", "cordon", "m1")
            refused = await cluster.unitctl("start", "ad@2")
            assert refused.code == 3, refused
            assert "wait until m2 is warm (0 of 3 images)" in refused.stderr, refused

            async def told() -> bool:
                listed = (await cluster.must("images", "ls")).stdout
                return "missing" in listed and "connection refused" in listed

            await cluster.wait_until(told, 20, "why the images are missing is told")
            assert await cluster.running("ad@1.service") == before  # the registry of m2 is down, m1 runs on
            assert await status_of(cluster, "m2") == "warming"

            with serving(there):

                async def ready() -> bool:
                    return await status_of(cluster, "m2") == "ready"

                await cluster.wait_until(ready, 40, "m2 is ready")

                async def runs() -> bool:
                    return await cluster.runs_once("ad@2.service")

                await cluster.wait_until(runs, 15, "ad@2 runs on m2")
                names = [path.split("/")[2] for path in there.pulled()]
                assert set(names) == {"app", "extra"}
                with witness(cluster, "m2") as engine:
                    actions = await asyncio.to_thread(actions_of, engine)
                # each image was pulled once, and the container came after its own: its start pulled nothing
                assert sorted(actions) == ["create app", "pull app", "pull extra"]
                assert actions.index("pull app") < actions.index("create app")
                view = await cluster.unit("ad@2.service")
                assert view is not None
                assert view.copies[0].machine_name == "m2"

                async def held() -> bool:
                    return (await cluster.must("images", "ls", app)).stdout.count("held") == 2

                await cluster.wait_until(held, 10, "both are shown to hold it")
                events = (await cluster.must("events", "--machine", "m2")).stdout
                assert f"holds its warm set, 3 images but for {none}: " in events, events
                assert "manifest for 127.0.0.1:5000/none:1 not found" in events, events

                await cluster.must("machines", "uncordon", "m1")
                bad = app.replace("app:1", "app:9")
                cluster.write("ad@.container", container(bad))
                ran = await cluster.unitctl("start", "--replace", "ad@1", "--timeout", "5s")
                assert ran.code != 0
                assert "manifest for 127.0.0.1:5000/app:9 not found" in ran.stderr, ran
                assert await cluster.running("ad@1.service") == before  # the pull comes before the stop
