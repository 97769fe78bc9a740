"""A TCP proxy on loopback that a test lets break connections, refuse them, or swallow answers."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Proxy:
    """Between a client and `target` (`host:port`); listens on `endpoint` while the context is open."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0
        self._swallowing = False

    @property
    def endpoint(self) -> str:
        """`host:port` for clients; the same over `refuse` and `accept`."""
        return f"127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    async def accept(self) -> None:
        """Take connections (again)."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Break every connection and take no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Break every connection; new ones are fine."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def swallow_answers(self) -> None:
        """Pass on what clients send and throw away what they should get back, until `cut` or `refuse`."""
        self._swallowing = True

    def pass_answers(self) -> None:
        """Let new connections get answers again; those that lost some are broken."""
        self._swallowing = False
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._writers.add(far_writer)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._pump(reader, far_writer, answers=False))
                    tasks.create_task(self._pump(far_reader, writer, answers=True))
            finally:
                self._writers.discard(far_writer)
                far_writer.transport.abort()
        except* OSError:
            pass  # either side broke: so does the other
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await reader.read(65536):
            if not (answers and self._swallowing):
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError("the other side closed the connection")
