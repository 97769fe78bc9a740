"""The real agent daemon with a real etcd and the process driver."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from harness.builders import digest_of
from harness.etcd import EtcdCluster
from harness.group_leftovers import machine_of, remove_groups
from unitfleet import codec, keys
from unitfleet.etcd.store import EtcdStore
from unitfleet.model import Cluster, CopyPhase, Placement, Presence, UnitState, Wanted

UNIT = "ticker@1.service"
TEXT = "[Service]\nExecStart=/bin/sh -c 'echo hello from the unit; exec sleep 1000'\n"
KEY = "a-key-of-the-cluster"


class Host:
    """A directory in place of a host: the agent's state, its socket, its process."""

    def __init__(self, root: Path, endpoints: tuple[str, ...], store: EtcdStore) -> None:
        self.root = root
        self.socket = root / "agent.sock"
        self.log = root / "agent.log"
        self.store = store
        self._endpoints = endpoints
        self._agent: subprocess.Popen[bytes] | None = None
        self.epoch = 0

    def start(self) -> int:
        """Start the agent and return its pid."""
        (self.root / "cluster.key").write_text(KEY)
        command = [
            *(sys.executable, "-m", "unit_agent", "--etcd", ",".join(self._endpoints)),
            *("--state-dir", str(self.root / "state"), "--socket", str(self.socket), "--name", "alpha"),
            *("--listen", "127.0.0.1:0", "--address", "127.0.0.1", "--drivers", "process"),
            *("--metadata", "zone=a,disk=ssd", "--profile", "fast"),
            *("--cluster-key-file", str(self.root / "cluster.key")),
        ]
        with self.log.open("ab") as log:
            self._agent = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return self._agent.pid

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End the agent and return its exit code."""
        assert self._agent is not None
        self._agent.send_signal(number)
        code = self._agent.wait(timeout=10)
        self._agent = None
        return code

    async def local(self, *words: str) -> tuple[int, str]:
        """Run `unit-agent local …`; return its exit code and output."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "unit_agent", "local", "--socket", str(self.socket), *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    @property
    def machine(self) -> str:
        """The machine's id, once the agent has made it."""
        found: str = json.loads((self.root / "state/machine.json").read_text())["id"]
        return found

    async def place(self, wanted: Wanted = Wanted.LAUNCHED) -> None:
        """Order the unit, as the leader does."""
        self.epoch += 1
        await self.store.put(keys.spec(digest_of(TEXT)), TEXT.encode())
        placement = Placement(
            unit=UNIT,
            machine=self.machine,
            spec=digest_of(TEXT),
            incarnation="i1",
            epoch=self.epoch,
            wanted=wanted,
            restart=0,
            reason="least loaded",
        )
        await self.store.put(keys.placement(self.machine, UNIT), codec.encode(placement))

    async def state(self) -> UnitState | None:
        """Return what the agent reports of the unit."""
        found = await self.store.get(keys.state(self.machine, UNIT))
        return codec.decode(found.value, UnitState) if found else None

    async def presence(self) -> Presence | None:
        """Return the machine's presence."""
        with contextlib.suppress(FileNotFoundError):
            found = await self.store.get(keys.presence(self.machine))
            return codec.decode(found.value, Presence) if found else None
        return None

    async def runs(self) -> psutil.Process:
        """Wait until the unit is reported running and return its main process."""
        state = await self.until(self.state, lambda seen: seen is not None and seen.phase is CopyPhase.RUNNING)
        return psutil.Process(state.pid)

    async def until(self, read: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool]) -> Any:
        """Read until it holds, for 20 s at most; return what was read."""
        last = None
        try:
            async with asyncio.timeout(20):
                while True:
                    if holds(last := await read()):
                        return last
                    await asyncio.sleep(0.05)
        except TimeoutError:
            said = self.log.read_text(errors="replace")[-3000:]
            raise AssertionError(f"still {last}; the agent said:\n{said}") from None

    async def status(self) -> dict[str, Any]:
        """Return what `local ps` knows."""
        code, output = await self.local("ps", "-o", "json")
        return dict(json.loads(output)) if code == 0 else {}

    def clear(self) -> None:
        """End everything that runs from this directory: agent, supervisors, units."""
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait(timeout=10)
        mine = str(self.root)
        for _ in range(3):
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if process.pid != os.getpid() and any(mine in word for word in process.cmdline()):
                        for each in (*process.children(recursive=True), process):
                            with contextlib.suppress(psutil.Error):
                                each.kill()
        remove_groups([machine_of(self.root / "state")])
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[EtcdCluster]:
    async with EtcdCluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
async def host(etcd: EtcdCluster) -> AsyncIterator[Host]:
    store = EtcdStore(etcd.endpoints)
    await store.put(keys.CLUSTER, codec.encode(Cluster(id="c1")))
    made = Host(Path(tempfile.mkdtemp(prefix="unitfleet-agent-")), etcd.endpoints, store)
    try:
        made.start()
        await made.until(made.presence, lambda seen: seen is not None)
        yield made
    finally:
        made.clear()
        await store.close()


async def test_a_killed_agent_is_back_and_its_unit_never_stopped(host: Host) -> None:
    presence = await host.presence()
    assert presence is not None
    assert (presence.name, presence.metadata) == ("alpha", {"zone": "a", "disk": "ssd"})
    assert presence.drivers == ("process",) and presence.port
    await host.place()
    process = await host.runs()
    started = process.create_time()
    before = await host.store.get(keys.presence(host.machine))
    host.end(signal.SIGKILL)
    assert process.is_running()
    host.start()
    await host.until(host.presence, lambda seen: seen is not None and seen.nonce != presence.nonce)
    after = await host.store.get(keys.presence(host.machine))
    assert before is not None and after is not None
    assert (after.lease, after.create_revision) == (before.lease, before.create_revision)
    again = await host.runs()
    assert (again.pid, again.create_time()) == (process.pid, started)
    await host.place(Wanted.GONE)
    await host.until(host.state, lambda seen: seen is not None and seen.phase is CopyPhase.GONE)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_sigterm_ends_the_agent_and_leaves_unit_and_presence(host: Host) -> None:
    await host.place()
    process = await host.runs()
    assert host.end(signal.SIGTERM) == 0
    assert process.is_running()
    assert await host.presence() is not None


async def test_local_commands_serve_with_etcd_away(host: Host, etcd: EtcdCluster) -> None:
    await host.place()
    process = await host.runs()
    etcd.members[0].kill()

    code, output = await host.local("ps")
    assert code == 0 and UNIT in output and "running" in output
    code, output = await host.local("logs", UNIT)
    assert (code, output) == (0, "hello from the unit\n")
    code, output = await host.local("stop", UNIT)
    assert code == 0, output
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    code, output = await host.local("start", UNIT)
    assert (code, output) == (0, f"{UNIT}: running\n")
    pid = (await host.status())["units"][0]["state"]["pid"]

    await etcd.start(etcd.members[0])
    await host.until(host.state, lambda seen: seen is not None and seen.pid == pid)
    assert psutil.pid_exists(pid), "it runs on when the store is back"

    code, output = await host.local("stop", "nosuch.service")
    assert code == 1 and "cannot stop nosuch.service: it is not on alpha" in output


async def test_the_listener_asks_for_the_clusters_key(host: Host) -> None:
    await host.place()
    await host.runs()
    presence = await host.presence()
    assert presence is not None
    base = f"http://{presence.address}:{presence.port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/healthz") as answer:
            assert answer.status == 200 and (await answer.json())["status"] == "ok"
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
            async with session.get(f"{base}/v1/units", headers=headers) as answer:
                assert answer.status == 401
        key = {"Authorization": f"Bearer {KEY}"}
        async with session.get(f"{base}/v1/units", headers=key) as answer:
            assert [item["unit"] for item in (await answer.json())["items"]] == [UNIT]
        async with session.get(f"{base}/v1/logs/{UNIT}?lines=10", headers=key) as answer:
            assert [json.loads(line)["text"] async for line in answer.content] == ["hello from the unit"]
        async with session.get(f"{base}/v1/logs/nosuch.service", headers=key) as answer:
            assert answer.status == 404


async def test_an_agent_with_a_state_directory_that_is_in_use_is_refused(host: Host) -> None:
    second = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "unit_agent", "--state-dir", str(host.root / "state"), "--socket", ""),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        _, said = await second.communicate()
    assert second.returncode == 2 and b"another agent runs there" in said
