"""A secret in a container, on a real Engine: its user reads the file, and nothing that can be asked shows it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.canary import VALUE, found_in, traces
from harness.cluster import Cluster
from harness.engines import Engines
from harness.image import IMAGE

pytestmark = pytest.mark.lab

DIGEST = hashlib.sha256(VALUE).hexdigest()
DEBUG = ("--log-level", "debug")
UNIT = f"""[Container]
Image={IMAGE}
Pull=never
Network=none
User=65534:65534
StopSignal=SIGKILL
Secret=db
Secret=db,target=/etc/app/key,uid=0,gid=65534,mode=0440
Exec=sleep 1000
[Service]
Restart=always
RestartSec=100ms
"""
FAILS = f"""[Container]
Image={IMAGE}
Pull=never
Network=none
Secret=db
Exec=/no/such/program
[X-Fleet]
OnFailure=keep
"""


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="uf-secrets-") as folder:
        os.chmod(folder, 0o711)
        yield Path(folder) / "secrets"


async def test_a_container_reads_its_secret_as_its_user_and_the_engine_shows_it_to_nobody(
    tmp_path: Path, memory: Path
) -> None:
    if reason := Engines.available():
        pytest.skip(reason)
    source = tmp_path / "value"
    source.write_bytes(VALUE)
    async with Cluster.in_lab(
        tmp_path, hosts=1, masters=1, agent_args=(*DEBUG, "--secrets-dir", str(memory)), master_args=DEBUG
    ) as cluster:
        engine = cluster.engine(cluster.machine("m1"))
        try:
            await cluster.must("secret", "set", "db", "--from-file", str(source))
            source.unlink()
            cluster.write("db.container", UNIT)
            await cluster.must("start", "db.container")
            assert await asyncio.to_thread(look, engine) == [
                f"{DIGEST} 400 65534:65534",
                f"{DIGEST} 440 0:65534",
                "read-only",
            ]
            cluster.write("bad.container", FAILS)
            failed = await cluster.unitctl("start", "bad.container")
            assert not found_in(str(failed).encode())

            shown = await asyncio.to_thread(all_that_is_shown, engine)
            assert b"/run/secrets/db" in shown and not found_in(shown)
            for words in (("status", "db.service", "-o", "json"), ("cat", "db.service"), ("events", "-o", "json")):
                assert not found_in(str(await cluster.unitctl(*words)).encode())

            (container,) = copies(engine, "db.service")
            await asyncio.to_thread(container.kill)

            async def runs_again() -> bool:
                container.reload()
                return container.attrs["RestartCount"] == 0 and await cluster.runs_once("db.service")

            await cluster.wait_until(runs_again, 20, "it is restarted after its crash")
            assert (await asyncio.to_thread(look, engine))[0] == f"{DIGEST} 400 65534:65534"

            await cluster.power_off(cluster.machine("m1"))
            empty(memory)
            await cluster.boot(cluster.machine("m1"))
            await cluster.wait_until(lambda: cluster.runs_once("db.service"), 60, "it runs after the boot")
            engine.close()
            engine = cluster.engine(cluster.machine("m1"))
            assert (await asyncio.to_thread(look, engine))[0] == f"{DIGEST} 400 65534:65534"

            data = engine.info()["DockerRootDir"]
            await cluster.must("destroy", "db.service", "bad.service")
            await cluster.wait_until(lambda: is_empty(memory), 20, "its files go with it")
            assert traces(Path(data), cluster.root, cluster.etcd.directory, tmp_path) == []
        finally:
            engine.close()


def look(engine: Any) -> list[str]:
    """Return what the container's own user reads, in which modes, and whether it may write there."""
    script = (
        "for f in /run/secrets/db /etc/app/key; do"
        ' echo "$(sha256sum < $f | cut -d" " -f1) $(stat -c "%a %u:%g" $f)"; done;'
        "touch /run/secrets/db 2>/dev/null && echo writable || echo read-only"
    )
    (container,) = copies(engine, "db.service")
    ran = container.exec_run(["sh", "-c", script])
    assert ran.exit_code == 0, ran
    lines: list[str] = ran.output.decode().splitlines()
    return lines


def copies(engine: Any, unit: str) -> list[Any]:
    return list(engine.containers.list(all=True, filters={"label": f"unitfleet.unit={unit}"}))


def all_that_is_shown(engine: Any) -> bytes:
    """Return all that the Engine says of its containers, images and volumes, and the containers' own files."""
    told = [container.attrs for container in engine.containers.list(all=True)]
    told += [
        {"log": container.logs().decode(), "diff": container.diff()} for container in engine.containers.list()
    ]
    told += [image.attrs for image in engine.images.list()]
    told += [image.history() for image in engine.images.list()]
    told += [volume.attrs for volume in engine.volumes.list()]
    layers = b"".join(b"".join(container.export()) for container in engine.containers.list(all=True))
    return json.dumps(told).encode() + layers


def empty(memory: Path) -> None:
    """Let go of what is in memory, as a host does without power."""
    for path in sorted(memory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def files(memory: Path) -> list[Path]:
    return [path for path in memory.rglob("*") if path.is_file()]


async def is_empty(memory: Path) -> bool:
    return not files(memory)
