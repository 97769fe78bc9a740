"""One command in a container, through the Engine: bounded in time and output."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from aiodocker.execs import Exec

from unit_agent.driver import MOST_OUTPUT
from unit_agent.drivers.docker_engine import INSPECT_S, Engine
from unitfleet.errors import DriverError

logger = logging.getLogger(__name__)

READ = 65536  # bytes of output that are taken in; the rest is thrown away


async def run_inside(
    engine: Engine, unit: str, copy_id: str, words: Sequence[str], timeout_s: float
) -> tuple[int, str]:
    """Return exit code and output; raises `DriverError` when it took too long or the Engine could not run it."""
    doing = f"run {words[0]} in the container of {unit}"
    container = engine.docker.containers.container(copy_id)
    made: list[Exec] = []

    async def run() -> tuple[int, str]:
        made.append(await container.exec(list(words), stdout=True, stderr=True))
        output = await _read(made[0])
        told: dict[str, Any] = await made[0].inspect()
        return int(told["ExitCode"] or 0), output

    try:
        async with asyncio.timeout(timeout_s):
            return await engine.call(doing, run(), None)
    except TimeoutError:
        raise DriverError(f"{words[0]} did not end within {timeout_s:g} s") from None
    finally:
        if made:
            await _end(engine, copy_id, made[0])


async def _read(running: Exec) -> str:
    """Read to the end, and keep the beginning."""
    kept = b""
    async with running.start(detach=False) as stream:
        while (message := await stream.read_out()) is not None:
            kept += message.data[: max(0, READ - len(kept))]
    return kept.decode(errors="replace")[:MOST_OUTPUT]


async def _end(engine: Engine, copy_id: str, running: Exec) -> None:
    """End a command that still runs, with its children: the Engine has no word for it, so by the host's pid.

    A process is one of the container's when its cgroup says so; on another host it is left to the container's end.
    """
    with contextlib.suppress(DriverError):
        told = await asyncio.shield(engine.call("look at a command", running.inspect(), INSPECT_S))
        if told.get("Running") and told.get("Pid"):
            await asyncio.to_thread(_kill, int(told["Pid"]), copy_id)


def _kill(pid: int, copy_id: str) -> None:
    try:
        main = psutil.Process(pid)
        family = [main, *main.children(recursive=True)]
        if copy_id not in Path(f"/proc/{pid}/cgroup").read_text():
            return
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    except (OSError, psutil.Error) as error:
        logger.debug("could not end process %d of container %s: %s", pid, copy_id[:12], error)
