"""The socket of Type=notify (sd_notify(3)), as an abstract one: no path that User= could not reach."""

from __future__ import annotations

import _socket
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from unit_agent.supervisor.poller import Poller

_CREDENTIALS_SIZE = 12  # struct ucred: pid, uid, gid


class NotifySocket:
    """Hands `heard(sender's pid, assignments)` what processes of this host send to `address`."""

    def __init__(self, poller: Poller, heard: Callable[[int, dict[str, str]], None]) -> None:
        self._heard = heard
        name = "unitfleet/notify/" + os.urandom(8).hex()
        self.address = "@" + name
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
        self._socket.bind(b"\0" + name.encode())
        self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        poller.add(self._socket.fileno(), self._read)

    def _read(self) -> None:
        try:
            data, extras, _, _ = self._socket.recvmsg(8192, _socket.CMSG_SPACE(_CREDENTIALS_SIZE))
        except OSError:
            return
        for level, kind, raw in extras:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_CREDENTIALS:
                assignments = dict(
                    line.split("=", 1) for line in data.decode(errors="replace").splitlines() if "=" in line
                )
                self._heard(int.from_bytes(raw[:4], "little"), assignments)
