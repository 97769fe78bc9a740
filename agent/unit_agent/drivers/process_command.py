"""One command where a unit of the process driver runs: bounded in time and output, ended with all it started."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from unit_agent.driver import MOST_OUTPUT
from unit_agent.drivers.supervisor_link import ACCOUNT, CORE
from unit_agent.drivers.unit_directory import UnitDirectory
from unit_agent.spawned import LEAN
from unit_agent.supervisor import processes
from unitfleet.errors import DriverError

ONCE = Path(__file__).parents[1] / "supervisor" / "once.py"
READ = 65536  # bytes of output that are taken in; the rest is thrown away
ALARM_SLACK_S = 2  # after which the kernel ends a command that we did not
LAST_WORDS_S = 0.2  # for output that is still on its way when the command has ended


class _Command(asyncio.SubprocessProtocol):
    """Keeps the beginning of the output. `exited` when the command is, whoever still holds its output open."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.output = b""
        self.exited = loop.create_future()
        self.silent = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.output += data[: max(0, READ - len(self.output))]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if not self.silent.done():
            self.silent.set_result(None)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)


async def run_in_place(directory: UnitDirectory, words: Sequence[str], timeout_s: float) -> tuple[int, str]:
    """Return exit code (128 + number for a signal) and output; raises `DriverError` when it took too long."""
    account = {} if os.geteuid() == 0 else {name: os.environ[name] for name in ACCOUNT if name in os.environ}
    limit = math.ceil(timeout_s) + ALARM_SLACK_S
    loop = asyncio.get_running_loop()
    try:
        transport, command = await loop.subprocess_exec(
            lambda: _Command(loop),
            sys.executable,
            *(*LEAN, str(ONCE), str(CORE), str(directory.path), str(limit), *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={processes.TOKEN: directory.order["token"], **account},
            start_new_session=True,
        )
    except OSError as error:
        raise DriverError(f"cannot run {words[0]} for {directory.unit}: {error}") from error
    try:
        async with asyncio.timeout(timeout_s):
            await command.exited
        await asyncio.wait({command.silent}, timeout=LAST_WORDS_S)
        code = transport.get_returncode() or 0
    except TimeoutError:
        raise DriverError(f"{words[0]} did not end within {timeout_s:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)  # its session is its own: what it started goes too
        transport.close()
    return (code if code >= 0 else 128 - code), command.output.decode(errors="replace")[:MOST_OUTPUT]
