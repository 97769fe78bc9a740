"""The outside witness: which containers run, by the events of every Engine, whoever started them."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from versus.engine import Connection

_FILTERS = quote(json.dumps({"type": ["container"], "event": ["start", "die"]}))


class Witness:
    """Follows the events of Engines that have no container yet; a context manager.

    A host whose Engine is gone runs nothing.
    """

    def __init__(self, engines: Sequence[Path]) -> None:
        self._running: dict[tuple[int, str], float] = {}
        self._lock = threading.Lock()
        self._streams = [Connection(path, timeout_s=3600) for path in engines]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Witness:
        for host, stream in enumerate(self._streams):
            stream.request("GET", f"/v1.41/events?filters={_FILTERS}")
            reader = threading.Thread(target=self._follow, args=(host, stream.getresponse()), daemon=True)
            self._threads.append(reader)
            reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams:
            if stream.sock is not None:
                try:
                    stream.sock.shutdown(socket.SHUT_RDWR)  # wakes its reader
                except OSError:
                    pass
        for reader in self._threads:
            reader.join(5)
        for stream in self._streams:
            stream.close()

    def on(self, host: int) -> int:
        """Return how many run on a host."""
        with self._lock:
            return sum(1 for each, _ in self._running if each == host)

    def count(self) -> int:
        """Return how many run."""
        with self._lock:
            return len(self._running)

    async def see(self, count: int, within_s: float) -> float:
        """Wait until so many run; return when the last of them started, in seconds since 1970.

        Raises `TimeoutError` with what was seen.
        """
        try:
            async with asyncio.timeout(within_s):
                while self.count() < count:  # noqa: ASYNC110 (the readers are threads)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise TimeoutError(f"{self.count()} of {count} containers run after {within_s:g} s") from None
        with self._lock:
            return sorted(self._running.values())[count - 1]

    def _follow(self, host: int, events: http.client.HTTPResponse) -> None:
        try:
            while line := events.readline():
                self._take(host, json.loads(line))
        except (OSError, ValueError, http.client.HTTPException):
            pass  # the Engine is gone, or this witness is
        finally:
            with self._lock:
                for each in [each for each in self._running if each[0] == host]:
                    del self._running[each]

    def _take(self, host: int, event: dict[str, object]) -> None:
        key = (host, str(event["id"]))
        with self._lock:
            if event["status"] == "start":
                self._running[key] = int(str(event["timeNano"])) / 1e9
            else:
                self._running.pop(key, None)
