"""Checks of containers, and failed containers that are kept, on a real Engine; the `docker` SDK is the witness."""

from __future__ import annotations

import asyncio
import io
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.cluster import Cluster
from harness.engines import Engines
from harness.image import IMAGE
from unitctl.commands.scene import shell_commands
from unitfleet.api import Change, CopyView, Scene
from unitfleet.errors import NotFound
from unitfleet.model import Cause, TargetState

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

SOON_S = 2 * 10.0

SERVES = f"""[Container]
Image={IMAGE}
Pull=never
StopSignal=SIGKILL
Exec=sh -c "mkdir -p /www && echo fine >/www/healthz && exec httpd -f -p 8080 -h /www"
{{network}}
[Service]
Restart=always
RestartSec=100ms
[X-Fleet]
Check={{check}}
CheckInterval=500ms
CheckTimeout=400ms
CheckRetries=2
CheckStartPeriod=5s
"""

FAILS = f"""[Container]
Image={IMAGE}
Pull=never
Network=none
Environment=PASSWORD=hunter2
Exec=sh -c "echo evidence >/data/evidence; echo it hurts; exit 9"
[X-Fleet]
OnFailure=keep
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


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def witness(shared: Cluster) -> AsyncIterator[Any]:
    client = shared.engine(shared.machine("m1"))
    yield client
    for container in client.containers.list(all=True):
        container.remove(force=True, v=True)
    client.close()


async def copy_of(cluster: Cluster, unit: str) -> CopyView | None:
    view = await cluster.unit(unit)
    return view.copies[0] if view is not None and view.copies else None


async def is_in(cluster: Cluster, unit: str, health: str, restarts: int = 0) -> bool:
    copy = await copy_of(cluster, unit)
    return copy is not None and copy.health == health and copy.restarts >= restarts


@pytest.mark.parametrize(
    ("check", "network", "breaks"),
    [
        ("http://:8080/healthz", "", "rm /www/healthz"),
        ("tcp://:8080", "Network=host", ""),
        ("exec:test -e /www/healthz", "Network=none", "rm /www/healthz"),
    ],
    ids=["http to its own address", "tcp on the host's network", "a command inside"],
)
async def test_a_container_is_asked_where_it_is_and_restarted_when_it_is_not_well(
    cluster: Cluster, witness: Any, check: str, network: str, breaks: str
) -> None:
    cluster.write("web.container", SERVES.format(check=check, network=network))
    await cluster.must("start", "web.container")
    unit = "web.service"
    await cluster.wait_until(lambda: is_in(cluster, unit, "healthy"), SOON_S, "it is healthy")
    if not breaks:
        return
    [container] = witness.containers.list(filters={"label": f"unitfleet.unit={unit}"})
    assert container.exec_run(["sh", "-c", breaks]).exit_code == 0
    await cluster.wait_until(lambda: is_in(cluster, unit, "healthy", restarts=1), SOON_S, "it was restarted")
    copy = await copy_of(cluster, unit)
    assert copy is not None and copy.cause is Cause.HEALTH, copy
    container.reload()
    assert container.status == "running" and copy.copy_id == container.id  # in place: the same container


async def scenes(cluster: Cluster, unit: str) -> list[Scene]:
    try:
        return list((await asyncio.to_thread(cluster.api().scenes, unit)).items)
    except NotFound:
        return []


async def in_places(cluster: Cluster, unit: str) -> list[bool]:
    return [scene.in_place for scene in await scenes(cluster, unit)]


async def fail(cluster: Cluster, unit: str) -> Scene:
    """Let a unit fail, then start it anew, so that its failed container is set aside; return its scene."""

    async def recorded() -> bool:
        view = await cluster.unit(unit)
        return view is not None and view.phase == "failed" and any(await in_places(cluster, unit))

    async def kept() -> bool:
        return sorted(await in_places(cluster, unit)) == [False, True]

    change = cluster.api().change
    launched = TargetState.LAUNCHED
    await asyncio.to_thread(change, [Change(name=unit, text=FAILS, target=launched)])
    await cluster.wait_until(recorded, SOON_S, f"the failure of {unit} is recorded")
    await asyncio.to_thread(change, [Change(name=unit, target=launched)])
    await cluster.wait_until(kept, SOON_S, f"the failed container of {unit} is kept, and the next one recorded")
    return next(scene for scene in await scenes(cluster, unit) if not scene.in_place)


async def test_a_failed_container_stays_as_it_was_until_its_scene_is_removed(
    cluster: Cluster, witness: Any
) -> None:
    unit = "broken.service"
    scene = await fail(cluster, unit)
    assert (scene.exit_code, scene.oom_killed, scene.size > 0) == (9, False, True)
    assert [line.text for line in scene.lines] == ["it hurts"]
    assert "hunter2" not in repr(scene) and "PASSWORD=…" in scene.inspect["Config"]["Env"]
    container = witness.containers.get(scene.copy_id)
    assert container.name == scene.where and container.status == "exited"
    assert container.attrs["State"]["ExitCode"] == 9
    assert b"it hurts" in container.logs()
    stream, _ = container.get_archive("/data/evidence")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        evidence = archive.extractfile("evidence")
        assert evidence is not None and evidence.read() == b"evidence\n"
    assert [one.copy_id for one in await scenes(cluster, unit) if one.in_place] != [container.id]

    agent = cluster.machine("m1")
    cluster.restart_agent(agent)  # the next agent takes it for a copy no more than this one
    await cluster.wait_until(lambda: is_ready(cluster), SOON_S, "the agent is back")
    assert await in_places(cluster, unit) == [False, True]
    container.reload()
    assert container.status == "exited"

    assert await asyncio.to_thread(said_in_a_shell, witness, scene) == b"evidence\n"
    printed = (await cluster.must("scene", "shell", "--print", unit)).stdout
    assert "docker commit" in printed and "--entrypoint sh" in printed, printed
    await cluster.must("destroy", unit)
    removed = await cluster.must("scene", "rm", unit)
    assert "on m1 removed" in removed.stdout, removed  # the one that failed last: one a unit is kept
    left = witness.containers.list(all=True, filters={"label": f"unitfleet.unit={unit}"})
    assert [one.id for one in left] == []


def said_in_a_shell(witness: Any, scene: Scene) -> bytes:
    """Do what `scene shell` does, without a terminal; return what the evidence says there."""
    commit, run, clean = shell_commands(scene)
    repository, _, tag = commit[-1].partition(":")
    image = witness.containers.get(scene.copy_id).commit(repository, tag)
    options = {"network_mode": run[run.index("--network") + 1], "entrypoint": run[run.index("--entrypoint") + 1]}
    volumes = [run[run.index("--volumes-from") + 1]]
    look = ["-c", "cat /data/evidence"]
    said: bytes = witness.containers.run(image.id, look, remove=True, volumes_from=volumes, **options)
    witness.images.remove(clean[-1])
    return said


async def is_ready(cluster: Cluster) -> bool:
    return (await cluster.machine_views())["m1"].status == "ready" and bool(
        await scenes(cluster, "broken.service")
    )


async def test_no_more_than_three_failed_containers_are_kept_on_a_host_and_an_event_says_which_went(
    cluster: Cluster, witness: Any
) -> None:
    units = [f"fails-{number}.service" for number in range(4)]
    kept = [await fail(cluster, units[0])]
    kept += await asyncio.gather(*(fail(cluster, unit) for unit in units[1:]))

    async def three_left() -> bool:
        names = await asyncio.to_thread(kept_names, witness)
        return names == sorted(scene.where for scene in kept[1:])

    await cluster.wait_until(three_left, SOON_S, "the three newest are left")
    told = (await cluster.must("events", "--unit", units[0])).stdout
    assert "at most 3 are kept on a host" in told, told
    await cluster.must("destroy", *units)
    for unit in units:
        await cluster.unitctl("scene", "rm", unit)  # none is left of the one that was one too many
    assert kept_names(witness) == []


def kept_names(witness: Any) -> list[str]:
    return sorted(one.name for one in witness.containers.list(all=True) if ".scene-" in one.name)
