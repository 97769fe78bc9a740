"""Real brokers and stand-ins for those that this machine can't run, each on loopback, to be killed and restarted.

A broker keeps its address and its data over `kill` and `start`; leaving its context ends it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from aiohttp import web

from harness.etcd import free_ports
from harness.eventually import eventually


class Broker:
    """A process that listens on one port."""

    def __init__(self, argv: Sequence[str], port: int, log: Path) -> None:
        self.port = port
        self._argv = [*(("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()), *argv]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    async def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = self._spawn()

        async def listens() -> bool:
            with socket.socket() as probe:
                probe.settimeout(0.2)
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        await eventually(listens, within_s=20, what=lambda: f"it does not listen: {self._log.read_text()[-2000:]}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """End it as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=5)


def nats_server(tmp_path: Path, *, token: str = "", most_payload: int = 1024 * 1024) -> Broker:
    """Return a NATS server with JetStream (Debian's), not started; skips the test where there is none."""
    binary = shutil.which("nats-server")
    if binary is None:
        pytest.skip("no nats-server on PATH (Debian: apt-get install nats-server)")
    [port] = free_ports(1)
    config = tmp_path / "nats.conf"
    access = f"authorization {{ token: {json.dumps(token)} }}" if token else ""
    config.write_text(
        f'listen: "127.0.0.1:{port}"\nmax_payload: {most_payload}\n{access}\n'
        f'jetstream {{ store_dir: "{tmp_path}/jetstream", max_mem: 64M, max_file: 1G }}\n'
    )
    return Broker([binary, "-c", str(config)], port, tmp_path / "nats.log")


def moto_server(tmp_path: Path) -> Broker:
    """Return moto (S3 and EC2), not started. It keeps all in memory: killed, it has nothing."""
    [port] = free_ports(1)
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    return Broker(argv, port, tmp_path / "moto.log")


class LokiStub:
    """Takes pushes as Grafana Loki does, and keeps what Loki would: an entry that equals one it has is dropped.

    `answers` are the statuses of the next pushes (0: the push is taken in, then the connection breaks); then 204.
    """

    def __init__(self) -> None:
        self.entries: dict[tuple[str, ...], dict[tuple[int, str], dict[str, str]]] = {}
        self.pushes = 0
        self.duplicates = 0
        self.answers: list[int] = []
        self.token = ""
        self.longest = 0  # characters of a line, 0: any
        self._runner: web.AppRunner | None = None
        [self.port] = free_ports(1)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen (again)."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/loki/api/v1/push", self._push)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        """Break every connection and take no more."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def texts(self, unit: str) -> list[str]:
        """Return the unit's lines in the order that a query gives them: by time."""
        found = [
            (at, text) for labels, entries in self.entries.items() if labels[0] == unit for at, text in entries
        ]
        return [text for _, text in sorted(found, key=lambda entry: entry[0])]

    async def _push(self, request: web.Request) -> web.Response:
        self.pushes += 1
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401, text="no org id")
        status = self.answers.pop(0) if self.answers else 204
        if status >= 400:
            return web.Response(status=status, text="as the test said")
        body = json.loads(await request.read())
        for stream in body["streams"]:
            for _, text, *_ in stream["values"]:
                if self.longest and len(text) > self.longest:
                    return web.Response(status=400, text="max entry size exceeded")
        for stream in body["streams"]:
            labels = stream["stream"]
            held = self.entries.setdefault((labels["unit"], labels["machine"], labels["stream"]), {})
            for at, text, *more in stream["values"]:
                self.duplicates += (int(at), text) in held
                held[int(at), text] = more[0] if more else {}
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=204)


class SyslogListener:
    """Reads RFC 5424 messages framed by octet counting; keeps them as they came."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.broken = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        [self.port] = free_ports(1)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen (again)."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Break every connection and take no more."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for writer in tuple(self._writers):
                writer.transport.abort()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                length = int(await reader.readuntil(b" "))
                self.messages.append(await reader.readexactly(length))
        except asyncio.IncompleteReadError as error:
            self.broken += bool(error.partial)
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


def objects_of(client: Any, bucket: str) -> dict[str, list[dict[str, Any]]]:
    """Return every object of a bucket by name, as its JSON lines."""
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for each in page.get("Contents", []):
            raw = gzip.decompress(client.get_object(Bucket=bucket, Key=each["Key"])["Body"].read())
            found[each["Key"]] = [json.loads(line) for line in raw.splitlines()]
    return found
