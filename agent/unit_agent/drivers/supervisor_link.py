"""A connection of the process driver to one supervisor: commands with answers, and word of every change."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unit_agent.drivers.unit_directory import UnitDirectory
from unit_agent.spawned import LEAN
from unit_agent.supervisor import processes
from unitfleet import quoting
from unitfleet.errors import DriverError

START = Path(__file__).parents[1] / "supervisor" / "start.py"
CORE = Path(quoting.__file__).parents[1]
CONNECT_S = 5.0
ACCOUNT = ("HOME", "USER", "LOGNAME", "SHELL")  # handed on by an agent that is not root


class SupervisorGone(Exception):
    """The connection ended before the answer came."""


class SupervisorLink(asyncio.Protocol):
    """`state` is the last that the supervisor told; `changed` is called at each, and when the line ends."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.state: dict[str, Any] | None = None
        self.open = True
        self._changed = changed
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._number = 0
        self._answers: dict[str, asyncio.Future[str]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "done" not in said:
                self.state = said
                self._changed()
            elif (answer := self._answers.get(said["done"])) is not None and not answer.done():
                answer.set_result(said["error"])

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(SupervisorGone())
        self._changed()

    async def ask(self, verb: str) -> str:
        """Give a command; returns "" once it is carried out, or why it failed. Raises `SupervisorGone`."""
        if not self.open:
            raise SupervisorGone
        number = str(self._number + 1)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self.command(verb)
            return await answer
        finally:
            del self._answers[number]

    def command(self, verb: str) -> None:
        """Give a command without waiting for it."""
        assert self._transport is not None
        self._number += 1
        self._transport.write(f"{self._number} {verb}\n".encode())

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def connect(directory: UnitDirectory, changed: Callable[[], None]) -> SupervisorLink | None:
    """Connect to the directory's supervisor; None when it no longer (or not yet) listens."""
    handle = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # By the open directory: a socket's path may have 107 bytes, a state directory's may be longer.
        async with asyncio.timeout(CONNECT_S):
            _, link = await asyncio.get_running_loop().create_unix_connection(
                lambda: SupervisorLink(changed), f"/proc/self/fd/{handle}/control"
            )
    except (FileNotFoundError, ConnectionError, TimeoutError):
        return None
    finally:
        os.close(handle)
    return link


def spawn(directory: UnitDirectory, boot_id: str, lock: int, *, start: bool) -> int:
    """Start a supervisor that holds `lock` and already listens; returns its pid, which is ours to reap.

    With `start` it starts the unit at once, else when it is asked to.
    Spawned, never forked from a process that has threads and gRPC; in a session of its own: it outlives us.
    It bears the unit's token, as the unit's processes do from their very fork.
    """
    control = directory.path / "control"
    control.unlink(missing_ok=True)
    account = {} if os.geteuid() == 0 else {name: os.environ[name] for name in ACCOUNT if name in os.environ}
    log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    handle = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(f"/proc/self/fd/{handle}/control")
            listener.listen(16)
            words = [sys.executable, *LEAN, str(START), str(CORE), str(directory.path), boot_id]
            return os.posix_spawn(
                sys.executable,
                [*words, str(lock), str(listener.fileno()), *(["start"] if start else [])],
                {processes.TOKEN: directory.order["token"], **account},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(directory.path / "supervisor.log"), log_flags, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                    # Onto themselves: these two stay open there, and are never inheritable here.
                    (os.POSIX_SPAWN_DUP2, lock, lock),
                    (os.POSIX_SPAWN_DUP2, listener.fileno(), listener.fileno()),
                ],
                setsid=True,
            )
    except OSError as error:
        raise DriverError(f"cannot start a supervisor for {directory.unit}: {error}") from error
    finally:
        os.close(handle)
