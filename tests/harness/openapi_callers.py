"""Who asks a master's API, one connection each, and what must become of it: the table of routes says."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from harness.openapi import Asked, Got
from unit_master.api.route import Route
from unitfleet.model import Role

ANSWER_S = 60.0
FIRST_S = 0.25
"""For the first piece of an answer that may never end; what comes within `NEXT_S` of the last is read, too."""

NEXT_S = 0.02
MOST_BYTES = 1 << 20

BY_CERTIFICATE = frozenset({"/v1/ingest/logs", "/v1/renew"})
"""What an agent's certificate opens, beside what is `own`."""

RANKS = {None: 0, Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


@dataclass(slots=True)
class Caller:
    """Asks over one connection that is kept. `machine`: it shows that machine's certificate, and has no token."""

    name: str
    endpoint: str
    tls: ssl.SSLContext
    role: Role | None = None
    token: str = ""
    machine: str = ""
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)

    def may(self, asked: Asked) -> bool:
        """Tell whether the caller's role, or certificate, is enough for this route."""
        route = asked.route
        if route.public:
            return True
        if self.machine:
            own = route.own and asked.case.path_parameters.get("machine") == self.machine
            return own or route.path in BY_CERTIFICATE
        return RANKS[self.role] >= RANKS[route.needs]

    def bypass(self, asked: Asked, status: int) -> str | None:
        """Return what is wrong with who was let in, or kept out; None when it is right."""
        if self.may(asked):
            if status == 403 or (status == 401 and not _tells_by_itself(asked.route)):
                return f"{status}: {self.name} may ask this"
            return None
        known = self.role is not None or (self.machine and asked.route.own)
        if status != (403 if known else 401):
            return f"{status}: {self.name} may not ask this"
        return None

    def ask(self, asked: Asked) -> Got:
        """Send a case and return the answer; of one that may never end what comes at once."""
        connection = self._connection
        if connection is None or connection.sock is None:
            connection = self._connection = self._connect()
        connection.putrequest(asked.route.method, asked.target, skip_accept_encoding=True)
        body = asked.sent.body or b""
        raw = body if isinstance(body, bytes) else str(body).encode()
        for name, value in self._headers(asked, raw).items():
            connection.putheader(name, value)
        connection.endheaders(raw)
        response = connection.getresponse()
        content, whole = self._read(connection, response, asked.route)
        if not whole or response.will_close:
            self.close()
        headers: dict[str, list[str]] = {}
        for name, value in response.getheaders():
            headers.setdefault(name.lower(), []).append(value)
        return Got(response.status, headers, content, cut=not whole)

    def open(self, target: str) -> http.client.HTTPConnection:
        """Ask for an answer that never ends, over a connection of its own; whoever closes that ends it."""
        connection = self._connect()
        connection.request("GET", target, headers={"Authorization": f"Bearer {self.token}"})
        connection.getresponse()
        return connection

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.endpoint)
        assert parts.hostname is not None
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=ANSWER_S, context=self.tls)

    def _headers(self, asked: Asked, raw: bytes) -> Mapping[str, str]:
        found = {"Content-Length": str(len(raw))} if raw or asked.route.method != "GET" else {}
        if kind := asked.sent.headers.get("Content-Type"):
            found["Content-Type"] = str(kind)
        if self.token:
            found["Authorization"] = f"Bearer {self.token}"
        return found

    def _read(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, route: Route
    ) -> tuple[bytes, bool]:
        """Return the body, and whether it is all of it."""
        if not route.streams or response.status != route.status or response.length is not None:
            return response.read(), True
        found = b""
        try:
            connection.sock.settimeout(FIRST_S)
            while len(found) < MOST_BYTES:
                piece = response.read1(1 << 16)
                if not piece:
                    connection.sock.settimeout(ANSWER_S)
                    return found, True
                found += piece
                connection.sock.settimeout(NEXT_S)
        except TimeoutError:
            pass
        return found, False


def _tells_by_itself(route: Route) -> bool:
    """Whether a route asks for something beside the caller's role: a join token, a certificate."""
    return route.path in ("/v1/join", "/v1/renew", "/v1/ingest/logs")


def line_fault(asked: Asked, got: Got) -> str | None:
    """Return what is wrong with an answer in lines or events, of which only whole ones are looked at."""
    route = asked.route
    if got.status != route.status or route.media not in ("application/x-ndjson", "text/event-stream"):
        return None
    lines = got.content.split(b"\n")[:-1]
    if route.media == "text/event-stream":
        lines = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
    for line in lines:
        try:
            if line:
                msgspec.json.decode(line, type=route.gives)
        except msgspec.MsgspecError as error:
            return f"{error} in {line[:200]!r}"
    return None
