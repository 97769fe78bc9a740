"""The master as a process sees it: where it serves, who may ask, who leads, what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import random
import signal
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from harness.api import NOW, start
from harness.eventually import eventually
from unit_master import daemon
from unit_master.daemon import Master
from unit_master.doctor.etcd_faults import faults_of
from unit_master.settings import MasterConfig
from unitfleet import codec, keys
from unitfleet.errors import InvalidConfig
from unitfleet.findings import Severity
from unitfleet.keyfile import read_or_make, read_or_make_private
from unitfleet.logs import LogFormat, LogLevel, set_up
from unitfleet.memory import MemoryStore
from unitfleet.model import Secret
from unitfleet.sealing import public_key
from unitfleet.signals import until_told


def a_config(folder: Path, name: str = "one") -> MasterConfig:
    return MasterConfig(listen="127.0.0.1:0", socket=str(folder / f"{name}.sock"), state_dir=folder, name=name)


@contextlib.asynccontextmanager
async def a_master(store: MemoryStore, config: MasterConfig) -> AsyncIterator[Master]:
    master = Master(
        store.client(config.name),
        config,
        token="the-token-of-a-test",
        cluster_key="k",
        now=lambda: NOW,
        rng=random.Random(config.name),
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(master.run())
        await asyncio.wait(
            [running, waiting := tasks.create_task(master.started.wait())], return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        if not running.done():
            await master.cache.wait_for(0, 5.0)
            yield master
            running.cancel()


async def leader(store: MemoryStore) -> str:
    kv = await store.get(keys.LEADER)
    name: str = json.loads(kv.value)["name"] if kv else ""
    return name


async def leads(store: MemoryStore, name: str) -> None:
    async def look() -> bool:
        return await leader(store) == name

    await eventually(look, within_s=10.0, what=lambda: f"{name} does not lead")


async def test_a_master_serves_leads_and_decides(tmp_path: Path) -> None:
    store = MemoryStore()
    async with a_master(store, a_config(tmp_path)) as master, aiohttp.ClientSession() as session:
        assert master.addresses[0].startswith("http://127.0.0.1:")
        await leads(store, "one")
        url = f"{master.addresses[0]}/v1/units"
        async with session.post(url, json={"changes": [start()]}) as response:
            assert response.status == 401
        told = {"Authorization": "Bearer the-token-of-a-test"}
        async with session.post(url, json={"changes": [start()]}, headers=told) as response:
            assert response.status == 202

        async def pending() -> bool:
            return await store.get(keys.pending("a.service")) is not None

        await eventually(pending, within_s=10.0, what=lambda: "the leader did not look at the unit")
    assert await leader(store) == "", "it resigned"
    assert not (tmp_path / "one.sock").exists()


async def test_a_master_with_a_key_of_its_own_says_so_once_it_has_seen_the_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    for name in ("a", "b"):
        secret = Secret(name=name, version=1, id="i", key="the public key of others", sealed="…")
        await store.put(keys.secret(name), codec.encode(secret))
    async with a_master(store, a_config(tmp_path)):

        async def said() -> bool:
            return "cannot open 2 secrets (a …)" in caplog.text and "--secrets-key-file" in caplog.text

        await eventually(said, within_s=5.0, what=lambda: "it does not say so")


async def test_the_unix_socket_is_its_owners_alone_and_asks_for_no_token(tmp_path: Path) -> None:
    async with a_master(MemoryStore(), a_config(tmp_path)):
        path = tmp_path / "one.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        connector = aiohttp.UnixConnector(str(path))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://x/v1/units") as answer,
        ):
            assert answer.status == 200


async def test_the_cluster_is_founded_once_and_another_master_takes_over(tmp_path: Path) -> None:
    store = MemoryStore()
    async with contextlib.AsyncExitStack() as both:
        first = await both.enter_async_context(a_master(store, a_config(tmp_path, "one")))
        await leads(store, "one")
        cluster = await store.get(keys.CLUSTER)
        async with a_master(store, a_config(tmp_path, "two")) as second:
            assert second.cache.view.cluster == first.cache.view.cluster is not None
            assert await store.get(keys.CLUSTER) == cluster
            await both.aclose()
            await leads(store, "two")


async def test_an_open_stream_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "SHUTDOWN_S", 60.0)
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        async with asyncio.timeout(5.0), a_master(MemoryStore(), a_config(tmp_path)) as master:
            headers = {"Authorization": "Bearer the-token-of-a-test"}
            response = await stack.enter_async_context(
                session.get(f"{master.addresses[0]}/v1/stream", headers=headers)
            )
            assert (await response.content.readline()).startswith(b"id:")


@pytest.mark.parametrize("taken", ["a socket that is served", "a file"])
async def test_a_path_that_something_else_has_is_left_alone(tmp_path: Path, taken: str) -> None:
    path = tmp_path / "one.sock"
    with contextlib.ExitStack() as held:
        if taken == "a file":
            path.write_text("mine")
        else:
            other = held.enter_context(socket.socket(socket.AF_UNIX))
            other.bind(str(path))
            other.listen()
        with pytest.raises(ExceptionGroup) as caught:
            async with a_master(MemoryStore(), a_config(tmp_path)):
                pass
        assert caught.group_contains(InvalidConfig, match="cannot listen on")
        assert path.exists()


async def test_the_socket_of_a_killed_master_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "one.sock"))
    async with a_master(MemoryStore(), a_config(tmp_path)) as master:
        assert len(master.addresses) == 2


async def test_a_signal_ends_the_work_and_waits_for_its_end() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append("cleanly")

    assert await until_told(work(), (signal.SIGUSR1,)) == "SIGUSR1"
    assert ended == ["cleanly"]


def test_a_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token"
    secret = read_or_make(path)
    assert len(secret) == 64 and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_or_make(path) == secret
    assert os.listdir(path.parent) == ["token"]


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (b"x" * 32, 0o644, "others can read it"),
        (b"short", 0o600, "no secret"),
        (b"\xff" * 32, 0o600, "cannot use"),
    ],
    ids=["open to others", "too short", "binary junk"],
)
def test_a_secret_that_can_not_be_used_is_refused(tmp_path: Path, content: bytes, mode: int, why: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(InvalidConfig, match=why):
        read_or_make(path)
    assert path.read_bytes() == content


def test_a_private_key_is_made_once_and_a_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    key = read_or_make_private(path)
    assert read_or_make_private(path) == key and len(public_key(key)) == len(key)
    path.write_text("x" * 64)
    with pytest.raises(InvalidConfig, match="no private key"):
        read_or_make_private(path)


@pytest.mark.parametrize(
    ("version", "faulty"),
    [
        ("3.4.23", True),
        ("3.5.1", True),
        ("3.5.3", False),
        ("3.6.0-rc.1", False),
        ("3.3.9", True),
        ("memory", False),
    ],
)
def test_known_faults_of_etcd_are_told(version: str, faulty: bool) -> None:
    assert any(fault.severity.rank > Severity.NOTE.rank for fault in faults_of(version)) is faulty


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])


@pytest.mark.usefixtures("root_logger")
def test_log_lines_are_json_when_asked_for_and_can_not_be_forged() -> None:
    out = io.StringIO()
    set_up("unit-master", LogFormat.JSON, LogLevel.INFO, out)
    logging.getLogger("x").info("placed %s", "a\nb")
    logging.getLogger("x").debug("unheard")
    (line,) = out.getvalue().splitlines()
    read = json.loads(line)
    assert (read["level"], read["program"], read["logger"], read["message"]) == (
        "info",
        "unit-master",
        "x",
        "placed a\nb",
    )
    out = io.StringIO()
    set_up("unit-master", LogFormat.TEXT, LogLevel.DEBUG, out)
    logging.getLogger("x").info("placed %s", "a\nb")
    assert out.getvalue().count("\n") == 1 and "placed a\\nb" in out.getvalue()
