"""A container's whole output, from a mark on: the Engine's frames, read in large pieces, not line by line.

A frame is a line, or a piece of one of more than 16 KiB; each begins with its time. A mark says, for stdout and
for stderr, the time of the last line that was taken and how many of that very time: reading goes on behind them,
also when two lines have one time, and when the streams' lines lie in the file a little out of order.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from calendar import timegm
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from urllib.parse import urlencode

from unit_agent.drivers.docker_engine import CONNECT_S, INSPECT_S, EngineAway, EngineRefused
from unit_agent.output import LONGEST_LINE, OutputLine, cut
from unitfleet.errors import DriverError

PIECE = 256 * 1024
"""Read at once at most."""

PAUSES = ((2 * 1024, 0.1), (12 * 1024, 0.02))
"""After a piece of less than so many bytes, wait so many seconds: more lines come with one read then."""

SLACK_NS = 2_000_000_000
"""So far apart may lines of stdout and stderr lie in the file; beyond it a resumed reading has found its place."""

CLOCK_NS = 20_000_000
"""A clock that lost more than this was set back."""

_HEAD = struct.Struct(">BxxxL")  # stream, length of what follows
_STREAMS = ("stdout", "stdout", "stderr")
_SECOND = 1_000_000_000
_PIECE = 16 * 1024  # what the Engine cuts long lines into
_STAMP = 31  # 2026-01-31T14:05:09.123456789Z and a blank


@dataclass(slots=True)
class _Open:
    """A line of which pieces have come: its time, how long it is so far, and what is kept of it."""

    at_ns: int = 0
    length: int = 0
    pieces: list[bytes] = field(default_factory=list)


class Frames:
    """Reads frames as they come; `mark` is where the lines returned so far end."""

    def __init__(self, mark: str = "") -> None:
        self._at_ns = [0, 0, 0]  # by stream: of the last line
        self._same = [0, 0, 0]  # and how many lines had that time
        if mark:
            for kind, part in enumerate(mark.split(","), start=1):
                at, _, same = part.partition("+")
                self._at_ns[kind], self._same[kind] = int(at), int(same)
        self._skip_ns, self._skip = list(self._at_ns), list(self._same)
        self._resuming = bool(mark)
        self._found = max(self._at_ns) + SLACK_NS
        self._rest = b""
        self._texts: list[bytes | None] = [None for _ in _STREAMS]  # of the last line
        self._ahead = 0  # of the clock, before the one that is never set
        self._open = [_Open() for _ in _STREAMS]
        self._seconds: dict[bytes, int] = {}

    @property
    def mark(self) -> str:
        """Return where to read on from."""
        return ",".join(f"{self._at_ns[kind]}+{self._same[kind]}" for kind in (1, 2))

    @property
    def since(self) -> str:
        """Return the time from which the Engine is to read, "" for the beginning."""
        latest = max(self._at_ns)
        if not latest:
            return ""
        at = max(min(self._at_ns[1:]), latest - SLACK_NS)
        return f"{at // _SECOND}.{at % _SECOND:09}"

    def again(self) -> None:
        """Be ready for a new reading from `since` on: pieces of a line come once more."""
        self._replay()
        self._rest = b""
        self._open = [_Open() for _ in _STREAMS]

    def feed(self, data: bytes) -> list[OutputLine]:
        """Return the lines that `data` completes."""
        self._heed_clock()
        if self._rest:
            data = self._rest + data
        lines: list[OutputLine] = []
        add, unpack, seconds = lines.append, _HEAD.unpack_from, self._seconds
        last, same, texts = self._at_ns, self._same, self._texts
        at, size = 0, len(data)
        while at + 8 <= size:
            kind, length = unpack(data, at)
            begin = at + 8
            end = begin + length
            if end > size:
                break
            at = end
            if kind > 2:
                continue  # a word of the Engine's own about its reading
            stamp = data[begin : begin + 19]
            second = seconds.get(stamp)
            if second is None:
                second = self._second(stamp)
            at_ns = second + int(data[begin + 20 : begin + 29])
            if data[end - 1] != 10 or self._open[kind].length:
                lines += self._pieces(kind, at_ns, data[begin + _STAMP : end])
                continue
            text = data[begin + _STAMP : end - 1]
            if at_ns < last[kind]:
                self._replay()
            if self._resuming and self._is_old(kind, at_ns):
                continue
            if at_ns == last[kind]:
                if text == texts[kind]:
                    continue  # the very last line, once more: no two are written within one nanosecond
                same[kind] += 1
            else:
                last[kind] = at_ns
                same[kind] = 1
            texts[kind] = text
            add((at_ns / _SECOND, _STREAMS[kind], text))
        self._rest = data[at:]
        return lines

    def _replay(self) -> None:
        """Leave out what was taken: the Engine gives the last lines before a rotation of its file once more."""
        if any(self._at_ns) and not (self._resuming and self._skip_ns == self._at_ns):
            self._skip_ns, self._skip = list(self._at_ns), list(self._same)
            self._resuming = True
            self._found = max(self._at_ns) + SLACK_NS

    def _heed_clock(self) -> None:
        """Forget where reading was when the host's clock was set back: lines of an earlier time are new then."""
        ahead = time.time_ns() - time.monotonic_ns()
        if ahead < self._ahead - CLOCK_NS:
            self._at_ns, self._same, self._resuming = [0, 0, 0], [0, 0, 0], False
        self._ahead = ahead

    def _second(self, stamp: bytes) -> int:
        if len(self._seconds) > 100:
            self._seconds.clear()
        found = timegm(time.strptime(stamp.decode("ascii"), "%Y-%m-%dT%H:%M:%S")) * _SECOND
        self._seconds[stamp] = found
        return found

    def _pieces(self, kind: int, at_ns: int, piece: bytes) -> list[OutputLine]:
        """Take a piece of a long line, or what comes behind one; only the beginning of a line is held.

        Pieces have the time of their line. The last is told by its newline, or by being shorter than a whole
        piece: Engine 20.10's driver `local` leaves the newline out.
        """
        done: list[OutputLine] = []
        held = self._open[kind]
        if held.length and held.at_ns != at_ns:
            done += self._close(kind)
            held = self._open[kind]
        held.at_ns = at_ns
        text = piece.removesuffix(b"\n")
        if held.length < LONGEST_LINE:
            held.pieces.append(text)
        held.length += len(text)
        if len(piece) < _PIECE:
            done += self._close(kind)
        return done

    def _close(self, kind: int) -> list[OutputLine]:
        """End the line that is open."""
        held, self._open[kind] = self._open[kind], _Open()
        if held.at_ns < self._at_ns[kind]:
            self._replay()
        if self._resuming and self._is_old(kind, held.at_ns):
            return []
        same = self._same[kind] if held.at_ns == self._at_ns[kind] else 0
        self._at_ns[kind], self._same[kind] = held.at_ns, same + 1
        return [(held.at_ns / _SECOND, _STREAMS[kind], cut(b"".join(held.pieces), held.length))]

    def _is_old(self, kind: int, at_ns: int) -> bool:
        """Tell whether a line was taken before the mark."""
        if at_ns > self._found:
            self._resuming = False
            return False
        if at_ns < self._skip_ns[kind]:
            return True
        if at_ns == self._skip_ns[kind] and self._skip[kind]:
            self._skip[kind] -= 1
            return True
        return False


async def read_output(
    socket_path: str, unit: str, copy_id: str, frames: Frames
) -> AsyncGenerator[list[OutputLine], None]:
    """Yield what the container wrote since the frames' mark, and what it writes, until it ends.

    It reads the socket itself, with HTTP/1.0 (no chunks) and a pause after each small piece: woken for every line,
    an agent would spend more on waking than on lines. Raises `DriverError`: `EngineAway`, or `EngineRefused`
    when the container is gone or its log driver can't be read.
    """
    loop = asyncio.get_running_loop()
    doing = f"read the output of {unit}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.sock_connect(connection, socket_path)
            async with asyncio.timeout(INSPECT_S):
                await loop.sock_sendall(connection, _request(copy_id, frames.since))
                data = await _answer(loop, connection, doing)
            while True:
                yield _understood(frames, data, doing)
                await asyncio.sleep(next((pause for size, pause in PAUSES if len(data) < size), 0))
                data = await loop.sock_recv(connection, PIECE)
                if not data:
                    return
        except TimeoutError as error:
            raise EngineAway(f"cannot {doing}: the Docker Engine did not answer in time") from error
        except OSError as error:
            raise EngineAway(f"cannot {doing}: the Docker Engine broke off: {error}") from error


def _request(copy_id: str, since: str) -> bytes:
    query = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1", **({"since": since} if since else {})}
    return f"GET /containers/{copy_id}/logs?{urlencode(query)} HTTP/1.0\r\nHost: engine\r\n\r\n".encode()


async def _answer(loop: asyncio.AbstractEventLoop, connection: socket.socket, doing: str) -> bytes:
    """Read the head of the answer and return what came behind it; raises `DriverError` for a refusal."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await loop.sock_recv(connection, PIECE)
        if not more:
            raise EngineAway(f"cannot {doing}: the Docker Engine broke off")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if status == 200:
        return body
    while more := await loop.sock_recv(connection, PIECE):
        body += more
    try:
        reason = str(json.loads(body)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        reason = f"it answered {status}"
    raise EngineRefused(f"cannot {doing}: {reason}", status, reason)


def _understood(frames: Frames, data: bytes, doing: str) -> list[OutputLine]:
    try:
        return frames.feed(data)
    except (ValueError, IndexError) as error:
        raise DriverError(f"cannot {doing}: the Docker Engine wrote what is no line: {error}") from error
