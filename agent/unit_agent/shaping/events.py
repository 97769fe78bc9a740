"""What the kernel tells of traffic control: which interfaces somebody has changed."""

from __future__ import annotations

import errno
import socket
import struct

RTMGRP_TC = 1 << 3
_HEADER, _TCMSG = struct.Struct("=IHHII"), struct.Struct("=B3xi")
_READ = 65536


class TcEvents:
    """A netlink socket in the group of traffic control; `take` never waits. Raises `OSError` without one."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self._socket.bind((0, RTMGRP_TC))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the file to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()

    def take(self) -> frozenset[int] | None:
        """Return the indexes of interfaces that changed since the last call; None when some went unheard."""
        found: set[int] = set()
        while True:
            try:
                raw = self._socket.recv(_READ)
            except BlockingIOError:
                return frozenset(found)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                return None
            found |= indexes(raw)


def indexes(raw: bytes) -> set[int]:
    """Return the interfaces that a batch of messages (rtnetlink(7)) is about."""
    found, offset = set(), 0
    while offset + _HEADER.size + _TCMSG.size <= len(raw):
        length = _HEADER.unpack_from(raw, offset)[0]
        found.add(_TCMSG.unpack_from(raw, offset + _HEADER.size)[1])
        if length < _HEADER.size:
            break
        offset += (length + 3) & ~3
    return found
