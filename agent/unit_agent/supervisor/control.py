"""The supervisor's socket: agents give commands, and are told of each change.

A command is a line `NUMBER start|stop|reload|quit|fail WHY|give-up WHY`; its answer
`{"done": NUMBER, "error": ""}` comes when it is carried out. Each change of state goes to every connection as a
line of JSON, the present one on connecting.
"""

from __future__ import annotations

import _socket
import os

from unit_agent.supervisor import plainjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from unit_agent.supervisor.poller import Poller


class Connection:
    """One agent. One that does not read what it is told is cut off: it connects and asks again."""

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self.rest = b""
        self.open = True

    def tell(self, line: str) -> None:
        try:
            raw = line.encode() + b"\n"
            self.open = self.open and self.socket.send(raw) == len(raw)
        except OSError:
            self.open = False


class Control:
    """Listens on `listener`; commands go to `commanded(connection, number, verb)`."""

    def __init__(
        self, poller: Poller, listener: int, greeting: Callable[[], str],
        commanded: Callable[[Connection, str, str], None],
    ) -> None:  # fmt: skip
        self._poller = poller
        self._greeting = greeting
        self._commanded = commanded
        self._listener = _socket.socket(fileno=listener)
        self._listener.setblocking(False)
        self._connections: list[Connection] = []
        poller.add(listener, self._accept)

    def _accept(self) -> None:
        try:
            file, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        connection = Connection(_socket.socket(fileno=file))
        connection.socket.setblocking(False)
        self._connections.append(connection)
        self._poller.add(file, lambda: self._read(connection))
        connection.tell(self._greeting())

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        lines = (connection.rest + data).split(b"\n")
        connection.rest = lines.pop()
        for line in lines:
            number, _, verb = line.decode(errors="replace").partition(" ")
            self._commanded(connection, number, verb)
        if not data or not connection.open:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        if connection in self._connections:
            connection.open = False
            self._connections.remove(connection)
            self._poller.remove(connection.socket.fileno())
            connection.socket.close()

    def broadcast(self, line: str) -> None:
        """Tell every agent."""
        for connection in list(self._connections):
            connection.tell(line)
            if not connection.open:
                self._drop(connection)

    def close(self) -> None:
        """Take no more commands; those connected see the end of the line."""
        os.unlink("control")
        self._listener.close()
        for connection in list(self._connections):
            self._drop(connection)


def answer(connection: Connection, number: str, error: str = "") -> None:
    """Say that a command is carried out, or why it could not be."""
    connection.tell(plainjson.write({"done": number, "error": error}))
