"""One question to the Engine and its whole answer, on a connection of its own, with as little work as can be.

For the calls that every start makes: an HTTP library's request costs ten times what this does. HTTP/1.0, because
its answers end with the connection: nothing is chunked, nothing is kept.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec

_PIECE = 1 << 16


class BrokenOff(OSError):
    """The Engine ended the connection within an answer."""


async def ask(path: str, method: str, target: str, body: object = None) -> tuple[int, bytes]:
    """Return the status and body that the Engine at the socket `path` answers with; raises `OSError`.

    Whether it did what was asked is not known then. It waits for ever: the caller has a deadline.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as own:
        await loop.sock_connect(own, path)
        await loop.sock_sendall(own, request(method, target, body))
        return answer(await _until_closed(loop, own))


async def _until_closed(loop: asyncio.AbstractEventLoop, own: socket.socket) -> bytes:
    """Return all that comes. The loop watches the socket once, not anew for each piece as `sock_recv` does."""
    pieces: list[bytes] = []
    ended: asyncio.Future[None] = loop.create_future()

    def come() -> None:
        try:
            while piece := own.recv(_PIECE):
                pieces.append(piece)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if not ended.done():
                ended.set_exception(error)
        else:
            if not ended.done():
                ended.set_result(None)

    loop.add_reader(own, come)
    try:
        await ended
    finally:
        loop.remove_reader(own)
    return b"".join(pieces)


def request(method: str, target: str, body: object = None) -> bytes:
    """Return what is sent; `body` as JSON, None for nothing."""
    head = f"{method} /{target} HTTP/1.0\r\nHost: docker\r\n"
    if body is None:
        return f"{head}Content-Length: 0\r\n\r\n".encode()
    data = msgspec.json.encode(body)
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def answer(raw: bytes) -> tuple[int, bytes]:
    """Take an answer apart. Raises `BrokenOff` when it is not whole, as far as its head can tell."""
    head, separator, body = raw.partition(b"\r\n\r\n")
    status = head[9:12]
    if not separator or not head.startswith(b"HTTP/1.") or not status.isdigit():
        raise BrokenOff("it ended the connection without an answer")
    length = _length(head)
    if length is not None and len(body) < length:
        raise BrokenOff(f"it sent {len(body)} of {length} bytes")
    return int(status), body


def _length(head: bytes) -> int | None:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    return None


def reason(body: bytes) -> str:
    """Return the Engine's own words of a refusal."""
    try:
        told: Any = msgspec.json.decode(body)
        return str(told["message"]).strip()
    except (msgspec.MsgspecError, TypeError, KeyError):
        return body.decode(errors="replace").strip()
