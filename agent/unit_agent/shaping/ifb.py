"""Our ifbs, made and removed by hand over netlink (rtnetlink(7)) in the network namespace of the calling process.

pyroute2 could do it, for 11 MB: a host whose image pulls are capped needs nothing else of it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

QUEUE = 1000
"""Packets that a class on an ifb may hold back; the kernel's 32 loses bursts that a rate would carry."""

TIMEOUT_S = 5.0
_NEWLINK, _DELLINK = 16, 17
_REQUEST_ACK, _CREATE = 0x5, 0x600  # with NLM_F_EXCL
_UP = 1
_NAME, _QUEUE_LENGTH, _INFO, _KIND = 3, 13, 18, 1
_HEADER, _LINK, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=HH")


def make(name: str) -> int:
    """Make the interface, up, and return its index. Raises `OSError`."""
    kind = _attribute(_INFO, _attribute(_KIND, b"ifb"))
    about = _attribute(_NAME, name.encode() + b"\0") + _attribute(_QUEUE_LENGTH, struct.pack("=I", QUEUE)) + kind
    _tell(_NEWLINK, _REQUEST_ACK | _CREATE, _LINK.pack(0, 0, 0, _UP, _UP) + about)
    return socket.if_nametoindex(name)


def remove(name: str) -> None:
    """Remove the interface with all that stands on it; none there is fine. Raises `OSError`."""
    try:
        _tell(_DELLINK, _REQUEST_ACK, _LINK.pack(0, 0, 0, 0, 0) + _attribute(_NAME, name.encode() + b"\0"))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _tell(kind: int, flags: int, body: bytes) -> None:
    """Send one message and wait for its acknowledgement."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as told:
        told.settimeout(TIMEOUT_S)
        told.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        code = struct.unpack_from("=i", told.recv(4096), _HEADER.size)[0]
        if code:
            raise OSError(-code, os.strerror(-code))
