"""Keeps the machine closed to new units while a disk that they live on is full."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from unit_agent.agent import Agent
from unit_agent.backoff import pause
from unit_agent.resources import disks
from unit_agent.resources.guard import OPEN, Marks, judge
from unitfleet.errors import DriverError

logger = logging.getLogger(__name__)

LOOK_S = 3.0
LOOK_FOR_ENGINE_S = 2.0
ASK_ENGINE_S = 600.0
ASK_ENGINE_AGAIN_S = 15.0


class DiskGuard:
    """Watches the Engine's storage and the agent's own state directory."""

    def __init__(self, agent: Agent, state_dir: Path, docker_socket: str, marks: Marks) -> None:
        self._agent = agent
        self._state_dir = str(state_dir)
        self._docker_socket = docker_socket
        self._marks = marks
        self._docker_root = ""
        self._look = asyncio.Event()  # now: there is another disk to look at
        self._verdict = OPEN

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._find_docker(), name="docker's storage")
            tasks.create_task(self._watch(), name="disks")

    async def _watch(self) -> None:
        while True:
            paths = [path for path in (self._docker_root, self._state_dir) if path]
            verdict = judge(await asyncio.to_thread(disks.uses, paths), self._marks, self._verdict)
            was, self._verdict = self._verdict, verdict
            self._agent.presence.close(verdict.reason)
            if verdict.reason and not was.reason:
                logger.warning("closed this machine to new units: %s", verdict.reason)
                self._agent.happened("closed", "", f"takes no new units: {verdict.reason}")
            elif was.reason and not verdict.reason:
                logger.info("opened this machine to new units: there is room on its disks again")
                self._agent.happened("opened", "", "takes new units again: there is room on its disks")
            await pause(self._look, LOOK_S)
            self._look.clear()

    async def _find_docker(self) -> None:
        """Ask the Engine, once it is in use, where its storage is; and again now and then."""
        while True:
            pause_s = LOOK_FOR_ENGINE_S
            if "docker" in self._agent.copies.drivers:
                try:
                    self._docker_root = await disks.docker_root(self._docker_socket)
                    self._look.set()
                    pause_s = ASK_ENGINE_S
                except DriverError as error:
                    logger.debug("could not ask where Docker's storage is: %s", error)
                    pause_s = ASK_ENGINE_AGAIN_S
            await asyncio.sleep(pause_s)
