"""The duty `checkup`: what this agent says of itself to `unitctl doctor`, by a master."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence

import msgspec
from aiohttp import web

from unit_agent.driver import Copy
from unit_agent.duty import Context
from unitfleet.findings import Checkup


class CheckupDuty:
    """Answers when it is asked, and does nothing else."""

    def __init__(self, context: Context, *, now: Callable[[], float] = time.time) -> None:
        self._agent = context.agent
        self._config = context.config
        self._now = now

    @property
    def name(self) -> str:
        return "checkup"

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        """Nothing hangs on a change."""

    def order_changed(self, unit: str) -> None:
        """Nothing hangs on orders."""

    async def run(self) -> None:
        await asyncio.Event().wait()

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.get("/v1/checkup", self._serve)]

    async def _serve(self, request: web.Request) -> web.Response:
        disk = await asyncio.to_thread(shutil.disk_usage, self._config.state_dir)
        troubles = self._agent.copies.troubles
        checkup = Checkup(
            at=self._now(),
            awaited=tuple(name for name in self._config.drivers if name != "auto" and name not in troubles),
            troubles={name: why for name, why in troubles.items() if why},
            state_dir=str(self._config.state_dir),
            state_used_percent=100 * (1 - disk.free / disk.total) if disk.total else 0.0,
        )
        return web.Response(body=msgspec.json.encode(checkup), content_type="application/json")
