"""What the service manager that started a daemon hears of it: the protocol of sd_notify(3), and the watchdog.

Without one (a terminal, a container) nothing is said to nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import MutableMapping

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """Where to tell, taken out of the environment: what a daemon starts must not speak in its name."""

    def __init__(self, env: MutableMapping[str, str]) -> None:
        address, every, pid = (env.pop(name, "") for name in _VARIABLES)
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        meant = not pid or pid == str(os.getpid())
        self.watchdog_s = int(every) / 1e6 if meant and every.isascii() and every.isdecimal() else 0.0
        """So long may the daemon be silent before it is killed and started again, in seconds; 0: for ever."""

    def ready(self, status: str) -> None:
        """Say that the daemon serves now, and what an operator sees in `systemctl status`."""
        self._tell("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        """Say that it ends."""
        self._tell("STOPPING=1")

    async def keep_awake(self) -> None:
        """Tell the watchdog that the event loop turns, until cancelled: twice as often as it asks."""
        while True:
            if self.watchdog_s:
                self._tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2 or 3600)

    def _tell(self, *assignments: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            told.setblocking(False)
            # a manager that hears nothing must not end what it manages
            with contextlib.suppress(OSError):
                told.sendto("\n".join(assignments).encode(), self._address)
