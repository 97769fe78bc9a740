"""The event stream: read in a thread, resumed over another endpoint at the revision it broke off.

A thread, because a read that timed out can't be taken up again, and the one who waits has a deadline to keep.
"""

from __future__ import annotations

import http.client
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

import msgspec

from unitctl.client import LONGEST_QUERY, error_from
from unitctl.context import Endpoint
from unitctl.loglines import unit_path
from unitctl.transport import TOO_MANY, Answer, Connection, Transport, describe, unreachable
from unitfleet.api import LogLine, MachineFigures, StreamMessage
from unitfleet.errors import UnitfleetError
from unitfleet.logquery import LogQuery

# Masters send a heartbeat every 15 s: silence for longer than two of them is a broken connection.
SILENCE_S = 35.0
CONNECT_S = 2.0
PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection broke and no endpoint has taken it up yet; it is tried on and on."""

    error: UnitfleetError


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream can't go on."""

    error: UnitfleetError


@dataclass(frozen=True, slots=True)
class Line:
    """One line of output and the unit that wrote it."""

    unit: str
    line: LogLine


Read = StreamMessage | Line | MachineFigures | Lost | Ended


class Feed:
    """What a stream of the API says, from a thread of its own. Several feeds may share one queue."""

    accept = "text/event-stream"

    def __init__(self, transport: Transport, into: queue.Queue[Read] | None = None) -> None:
        self.queue: queue.Queue[Read] = into or queue.Queue()
        self._transport = transport
        self._closed = threading.Event()

    def start(self) -> None:
        """Begin to read; the thread ends with the process at the latest."""
        threading.Thread(target=self._work, name="stream", daemon=True).start()

    def next(self, timeout: float | None) -> Read | None:
        """Return what came next, None when nothing came in time."""
        try:
            return self.queue.get(timeout=timeout if timeout is None else max(0.0, timeout))
        except queue.Empty:
            return None

    def close(self) -> None:
        """End the stream; a read under way is given up at its next line."""
        self._closed.set()

    def path(self) -> str:
        """Where to read on from."""
        raise NotImplementedError

    def read(self, response: http.client.HTTPResponse) -> None:
        """Put what a response says into the queue until it ends."""
        raise NotImplementedError

    def headers(self) -> dict[str, str]:
        """What the request carries besides."""
        return {}

    def compacted(self) -> None:
        """Begin anew: the place to read on from is no more."""

    def _work(self) -> None:
        while not self._closed.is_set():
            reasons: list[str] = []
            for endpoint in self._transport.endpoints:
                try:
                    reason = self._try(endpoint)
                except UnitfleetError as error:
                    self.queue.put(Ended(error))
                    return
                if reason is None:
                    break
                reasons.append(f"{endpoint.name}: {reason}")
            else:
                self.queue.put(Lost(unreachable(self._transport.context, reasons)))
            self._closed.wait(PAUSE_S)

    def _try(self, endpoint: Endpoint) -> str | None:
        """Read from one endpoint until it breaks off: None then, or why nothing could be read there."""
        connection: Connection | None = None
        began = False
        try:
            connection = self._transport.open(endpoint, CONNECT_S)
            connection.sock.settimeout(SILENCE_S)
            self._transport.send(connection, "GET", self.path(), None, self.accept, self.headers())
            response = connection.getresponse()
            if response.status == 200:
                began = True
                self._transport.prefer(endpoint)
                self.read(response)
                return None
            answer = Answer(endpoint=endpoint, status=response.status, body=response.read())
            if response.status == 410:
                self.compacted()
                return None
            error = error_from(answer)
            if response.status in (TOO_MANY, 502, 503, 504):
                return error.message
            raise error
        except (OSError, http.client.HTTPException, msgspec.MsgspecError, UnicodeDecodeError) as error:
            if not began:
                return describe(error)
            self._transport.demote(endpoint)  # it broke off: ask the others first
            return None
        finally:
            if connection is not None:
                connection.close()


class UnitFeed(Feed):
    """`/v1/stream` of some units, or of everything, from a revision on; since 0 begins with a snapshot."""

    def __init__(self, transport: Transport, units: tuple[str, ...], since: int) -> None:
        super().__init__(transport)
        self._units = units
        self._since = since

    def path(self) -> str:
        """Name the units, unless they are too many for a request line."""
        names = ",".join(self._units)
        query = {"units": names if len(names) <= LONGEST_QUERY else "", "since": str(self._since or "")}
        text = urlencode({key: value for key, value in query.items() if value})
        return f"/v1/stream?{text}" if text else "/v1/stream"

    def headers(self) -> dict[str, str]:
        """Resume as browsers do."""
        return {"Last-Event-ID": str(self._since)} if self._since else {}

    def compacted(self) -> None:
        """Begin with a snapshot."""
        self._since = 0

    def read(self, response: http.client.HTTPResponse) -> None:
        """Pass on messages and remember the revision of the last one."""
        for message in events(response):
            self._since = max(self._since, message.rev)
            self.queue.put(message)
            if self._closed.is_set():
                return


class LogFeed(Feed):
    """`/v1/logs` of a unit as it writes. After a break, what came meanwhile is asked for anew."""

    accept = "application/x-ndjson"
    _BACK_S = 120.0

    def __init__(
        self, transport: Transport, unit: str, query: LogQuery, machine: str, into: queue.Queue[Read] | None = None
    ) -> None:
        super().__init__(transport, into)
        self.unit = unit
        self._query = query
        self._machine = machine
        self._began = 0.0
        self._latest = 0.0
        self._last: dict[str, tuple[int, float]] = {}  # by machine: number and time of the last line

    def path(self) -> str:
        """Ask for the last lines and what follows; after a break, for what has come since."""
        return unit_path(self.unit, self._query, self._machine)

    def read(self, response: http.client.HTTPResponse) -> None:
        """Pass on lines; those that an earlier connection brought are left out."""
        before = dict(self._last)
        self._began = self._began or time.time()
        try:
            for raw in response:
                if self._closed.is_set():
                    return
                if raw.strip():
                    self._pass_on(msgspec.json.decode(raw, type=LogLine), before)
        finally:
            since = max(self._query.since, (self._latest or self._began) - self._BACK_S)
            self._query = msgspec.structs.replace(self._query, lines=-1, since=since)

    def _pass_on(self, line: LogLine, before: dict[str, tuple[int, float]]) -> None:
        seq, at = before.get(line.machine, (0, self._began if before else 0.0))
        if (line.seq and line.machine in before and line.seq <= seq) or (not line.seq and line.at <= at):
            return
        if before and line.machine not in before and line.at < self._began:
            return
        if not before:
            self._began = min(self._began, line.at) if line.at else self._began
        self._latest = max(self._latest, line.at)
        known = self._last.get(line.machine, (0, 0.0))
        self._last[line.machine] = (max(known[0], line.seq), max(known[1], line.at))
        self.queue.put(Line(self.unit, line))


class FiguresFeed(Feed):
    """`/v1/figures`: a line of a machine every few seconds; an empty one says that the master is there."""

    accept = "application/x-ndjson"

    def path(self) -> str:
        """Everything."""
        return "/v1/figures"

    def read(self, response: http.client.HTTPResponse) -> None:
        """Pass on lines."""
        for raw in response:
            if self._closed.is_set():
                return
            if raw.strip():
                self.queue.put(msgspec.json.decode(raw, type=MachineFigures))


def events(response: http.client.HTTPResponse) -> Iterator[StreamMessage]:
    """Read server-sent events: `data:` lines up to an empty line are one message; the rest is heartbeat."""
    data: list[bytes] = []
    for raw in response:
        line = raw.rstrip(b"\r\n")
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            yield msgspec.json.decode(b"\n".join(data), type=StreamMessage)
            data = []
