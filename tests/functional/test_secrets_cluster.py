"""A secret from `unitctl secret set` to a process and over to the next machine, and nowhere else on the way."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.canary import VALUE, found_in, traces
from harness.cluster import Cluster

LOOK = """#!/bin/sh
cd "$CREDENTIALS_DIRECTORY" || exit 1
echo "digest $(sha256sum < db | cut -c1-64) mode $(stat -c %a:%u db) of $(df --output=fstype db | tail -1)"
exec sleep 1000
"""
DIGEST = hashlib.sha256(VALUE).hexdigest()
DEBUG = ("--log-level", "debug")


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="uf-secrets-") as folder:
        os.chmod(folder, 0o711)
        yield Path(folder) / "secrets"


def unit(command: str, more: str = "") -> str:
    return f"[Service]\nExecStart={command}\nRestart=no\n[X-Fleet]\nSecret=db\n{more}"


async def test_a_secret_reaches_a_process_follows_it_to_another_machine_and_is_nowhere_else(
    tmp_path: Path, memory: Path
) -> None:
    look, source = tmp_path / "look.sh", tmp_path / "value"
    look.write_text(LOOK)
    source.write_bytes(VALUE)
    async with Cluster.on_loopback(
        tmp_path, machines=2, agent_args=(*DEBUG, "--secrets-dir", str(memory)), master_args=DEBUG
    ) as cluster:
        (cluster.units_dir / "db.service").write_text(unit(f"/bin/sh {look}"))
        (cluster.units_dir / "bad.service").write_text(unit("/no/such/program"))
        (cluster.units_dir / "broken.service").write_text(unit("/bin/false", "OnFailure=keep\n"))

        early = await cluster.unitctl("start", "db.service")
        assert early.code == 3, early
        assert "db is not set" in early.stderr and "hint: unitctl secret set db" in early.stderr, early
        assert "secret: db is not set" in (await cluster.must("explain", "db.service")).stdout

        await cluster.must("secret", "set", "db", "--from-file", str(source))
        source.unlink()

        async def reads_it() -> bool:
            told = await cluster.unitctl("logs", "db.service")
            return f"digest {DIGEST} mode 400:{os.geteuid()} of tmpfs" in told.stdout

        await cluster.wait_until(reads_it, 30, "the process reads the value")
        (one,) = await cluster.running("db.service")
        assert not found_in(environment_of(one.pid))
        for name in ("bad.service", "broken.service"):
            assert not found_in(str(await cluster.unitctl("start", name)).encode())

        async def is_kept() -> bool:
            return '"broken.service"' in (await cluster.unitctl("scene", "ls", "-o", "json")).stdout

        await cluster.wait_until(is_kept, 20, "the failed copy is kept")
        answers = [await cluster.unitctl(*words) for name in UNITS for words in asked(name)]
        answers.append(await cluster.must("scene", "show", "broken.service", "-o", "json"))
        answers += [await cluster.must("audit", "-o", "json"), await cluster.must("secret", "ls", "-o", "json")]
        assert "set secret db" in answers[-2].stdout
        assert '"db.service"' in answers[-1].stdout and '"version": 1' in answers[-1].stdout, answers[-1]
        assert not [ran for ran in answers if found_in((ran.stdout + ran.stderr).encode())]

        await cluster.power_off(cluster.machine(one.machine))

        async def moved() -> bool:
            there = await cluster.running("db.service")
            return [each.machine != one.machine for each in there] == [True]

        await cluster.wait_until(moved, 60, "it runs on the other machine")
        await cluster.wait_until(reads_it, 20, "and reads the value there")
        (other,) = await cluster.running("db.service")
        survivor = str(cluster.local(cluster.machine(other.machine), "/local/ps")["machine"])
        assert (memory / survivor / "db.service" / "db").read_bytes() == VALUE
        for name in UNITS:
            await cluster.must("destroy", name)

        async def files_are_gone() -> bool:
            return not any((memory / survivor).iterdir())

        await cluster.wait_until(files_are_gone, 20, "its files go with it")
        assert traces(cluster.root, cluster.etcd.directory, tmp_path) == []
        assert traces(memory), "what is looked for can be found"


UNITS = ("db.service", "bad.service", "broken.service")


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def asked(name: str) -> list[tuple[str, ...]]:
    return [
        ("cat", name),
        ("status", name, "-o", "json"),
        ("explain", name, "-o", "json"),
        ("logs", name),
        ("events", "-o", "json"),
        ("list-units", "-o", "json"),
    ]
