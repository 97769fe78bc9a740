"""The Docker Engine's API without any library between, and the Engine alone as one of those compared."""

from __future__ import annotations

import asyncio
import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from harness.image import IMAGE
from harness.sites import Lab

AT_A_TIME = 10
"""Requests to all Engines together; more of them, or fewer, start no faster on two cores."""


class Connection(http.client.HTTPConnection):
    """One kept connection to an Engine."""

    def __init__(self, path: Path, timeout_s: float = 60.0) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the Engine's socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def call(self, method: str, path: str, body: object = None) -> bytes:
        """Return the answer; raises `RuntimeError` for a refusal."""
        text = None if body is None else json.dumps(body)
        self.request(method, f"/v1.41{path}", text, {"Content-Type": "application/json"})
        response = self.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {answer[:200]!r}")
        return answer


def ask(engine: Path, method: str, path: str, body: object = None, timeout_s: float = 60.0) -> Any:
    """Ask one Engine one thing, on a connection of its own. Blocks."""
    with closing(Connection(engine, timeout_s)) as connection:
        answer = connection.call(method, path, body)
    return json.loads(answer) if answer[:1] in (b"{", b"[", b'"') else answer


def sockets(lab: Lab) -> list[Path]:
    """Return where the Engine of each host answers."""
    return [lab.engines.socket(host) for host in range(lab.engines.hosts)]


def create_and_start(connection: Connection, network: str) -> str:
    """Start a container that sleeps; return its id."""
    body = {
        "Image": IMAGE,
        "Cmd": ["sleep", "100000"],
        "Labels": {"bench": "raw"},
        "HostConfig": {"NetworkMode": network},
    }
    copy_id = str(json.loads(connection.call("POST", "/containers/create", body))["Id"])
    connection.call("POST", f"/containers/{copy_id}/start")
    return copy_id


def remove_all(engines: Sequence[Path]) -> None:
    """Remove every container of these Engines, running or not. Blocks."""
    held = [(host, each["Id"]) for host, path in enumerate(engines) for each in ask(path, "GET", ALL)]

    def remove(connections: list[Connection], number: int) -> None:
        host, copy_id = held[number]
        try:
            connections[host].call("DELETE", f"/containers/{copy_id}?force=1")
        except RuntimeError as error:
            if ": 404 " not in str(error) and ": 409 " not in str(error):  # gone, or about to be
                raise

    spread(engines, len(held), 2 * AT_A_TIME, remove)


async def emptied(engines: Sequence[Path], within_s: float) -> None:
    """Wait until no Engine has a container, running or not; raises `TimeoutError`."""

    def held() -> bool:
        return any(ask(path, "GET", ALL) for path in engines)

    async with asyncio.timeout(within_s):
        while await asyncio.to_thread(held):  # noqa: ASYNC110 (what is waited for lies outside this process)
            await asyncio.sleep(0.3)


ALL = "/containers/json?all=1"


def spread(
    engines: Sequence[Path], count: int, concurrency: int, work: Callable[[list[Connection], int], None]
) -> float:
    """Do `count` things with `concurrency` workers; return the seconds that all took, raise what one raised."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(count):
        waiting.put(number)
    failures: list[Exception] = []

    def serve() -> None:
        connections = [Connection(path) for path in engines]
        try:
            while not failures:
                work(connections, waiting.get_nowait())
        except queue.Empty:
            pass
        except Exception as error:  # raised below, in the thread that waits
            failures.append(error)
        finally:
            for connection in connections:
                connection.close()

    workers = [threading.Thread(target=serve) for _ in range(concurrency)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - began
    if failures:
        raise failures[0]
    return took


class RawEngine:
    """The limit: create and start, host by host in turn, by threads of the bench."""

    who = "engine"

    def __init__(self, lab: Lab) -> None:
        self._engines = sockets(lab)

    @classmethod
    @asynccontextmanager
    async def up(cls, lab: Lab) -> AsyncIterator[RawEngine]:
        """Have nothing but the Engines run on the lab's hosts."""
        raw = cls(lab)
        yield raw
        await raw.clear()

    def pids(self) -> dict[str, list[int]]:
        """Nobody works besides the Engines."""
        return {}

    async def start(self, count: int, network: str) -> None:
        """Start containers; returns when the last has started."""

        def one(connections: list[Connection], number: int) -> None:
            create_and_start(connections[number % len(connections)], network)

        await asyncio.to_thread(spread, self._engines, count, AT_A_TIME, one)

    async def clear(self) -> None:
        """Remove what was started."""
        await asyncio.to_thread(remove_all, self._engines)
