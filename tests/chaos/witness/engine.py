"""An Engine asked by hand, on its socket: its containers with our label, and its events as they come."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWER_S = 10.0
READ_S = 2.0
"""An event stream that is silent for so long is opened anew: the Engine may hang, or be another process."""

_LABELLED = '{"label":["unitfleet.unit"]}'


@dataclass(frozen=True, slots=True)
class Held:
    """A container with our labels, running or not."""

    id: str
    unit: str
    machine: str  # id, by its label
    epoch: str
    state: str


@dataclass(frozen=True, slots=True, order=True)
class Happened:
    """One event of an Engine: `at` is its own time, seconds since 1970; action: start, die, destroy, …"""

    at: float
    host: int
    unit: str
    container: str
    action: str


def containers(path: Path) -> list[Held]:
    """Return the Engine's containers with our labels; raises `OSError` while it does not answer."""
    with contextlib.closing(
        _asked(path, f"/v1.41/containers/json?all=true&filters={_quoted()}", ANSWER_S)
    ) as link:
        listed = json.loads(link.getresponse().read())
    return [_held(each) for each in listed]


class EngineEvents:
    """Follows one Engine in a thread, over its deaths; `seen` only grows."""

    def __init__(self, host: int, path: Path) -> None:
        self._host = host
        self._path = path
        self._over = threading.Event()
        self._known: set[Happened] = set()
        self._thread = threading.Thread(target=self._follow, name=f"events of host {host}", daemon=True)
        self.seen: list[Happened] = []

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end: it does within some seconds."""
        self._over.set()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join(3 * READ_S)

    def since(self, at: float) -> list[Happened]:
        """Return the events from `at` (seconds since 1970) on, in their order."""
        return sorted(each for each in list(self.seen) if each.at >= at)

    def _follow(self) -> None:
        while not self._over.is_set():
            try:
                for event in self._stream():
                    self._take(event)
                    if self._over.is_set():
                        return
            except (OSError, http.client.HTTPException, ValueError):
                pass  # gone, hung or torn: asked again, from the last event on
            self._over.wait(0.2)

    def _stream(self) -> Iterator[dict[str, Any]]:
        since = f"{int(self.seen[-1].at)}" if self.seen else "0"
        with contextlib.closing(
            _asked(self._path, f"/v1.41/events?since={since}&filters={_quoted()}", READ_S)
        ) as link:
            answer = link.getresponse()
            while line := answer.readline():
                yield json.loads(line)

    def _take(self, event: dict[str, Any]) -> None:
        attributes = event.get("Actor", {}).get("Attributes", {})
        happened = Happened(
            event["timeNano"] / 1e9,
            self._host,
            attributes.get("unitfleet.unit", ""),
            event["Actor"]["ID"],
            event.get("Action", ""),
        )
        if happened not in self._known:
            self._known.add(happened)
            self.seen.append(happened)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


def _asked(path: Path, target: str, timeout_s: float) -> _Connection:
    connection = _Connection(path, timeout_s)
    try:
        connection.request("GET", target)
    except BaseException:
        connection.close()
        raise
    return connection


def _quoted() -> str:
    from urllib.parse import quote

    return quote(_LABELLED)


def _held(listed: dict[str, Any]) -> Held:
    labels = listed["Labels"]
    return Held(
        listed["Id"],
        labels["unitfleet.unit"],
        labels.get("unitfleet.machine", ""),
        labels.get("unitfleet.epoch", ""),
        listed["State"],
    )
