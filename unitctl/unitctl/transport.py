"""HTTP on the wire: TCP or a unix socket, a deadline on everything, several endpoints in turn."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from unitctl.context import Context, Endpoint
from unitctl.failures import Unreachable
from unitfleet.api import ErrorBody
from unitfleet.errors import OutcomeUnknown

CONNECT_S = 3.0
ANSWER_S = 15.0
READ_S = 3.0
"""A master that has not answered a read after so long may be frozen: the next is asked, while there is one."""

# The code of an answer that Unitfleet did not write.
FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered."""

    endpoint: Endpoint
    status: int
    body: bytes
    stale: str = ""  # for how many seconds the master has not heard of the store, "" when it has


class Connection(http.client.HTTPConnection):
    """One HTTP connection to an endpoint; `timeout` first bounds the connect, then each read."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        super().__init__(endpoint.host or "localhost", endpoint.port or None, timeout=timeout)
        self._socket_path = endpoint.socket

    def connect(self) -> None:
        if not self._socket_path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)


class Transport:
    """Sends requests to the first endpoint that answers, and remembers which one did."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._endpoints = list(context.endpoints)

    def request(self, method: str, path: str, body: bytes | None = None, *, answer_s: float = ANSWER_S) -> Answer:
        """Ask each endpoint in turn until one answers.

        A read goes on to the next endpoint whatever broke. A write does so only when it surely was not carried
        out; else it raises `OutcomeUnknown`. A 503 is taken from the last endpoint only. Raises `Unreachable`.
        """
        reasons: list[str] = []
        unavailable: Answer | None = None
        untried = list(self._endpoints)
        while untried:
            endpoint = untried.pop(0)
            connection = None
            patience = min(READ_S, answer_s) if method == "GET" and untried else answer_s
            try:
                connection = self.open(endpoint)
                answer = self._ask(connection, endpoint, method, path, body, patience)
            except (OSError, http.client.HTTPException) as error:
                if connection is not None and method != "GET":
                    raise OutcomeUnknown(
                        f"cannot tell whether the command was carried out: {endpoint.name} {describe(error)}",
                        hint="look at the units with unitctl list-units, and give the command again",
                    ) from error
                reasons.append(f"{endpoint.name}: {describe(error)}")
                continue
            if answer.status == 503 and (method == "GET" or error_of(answer).code == "unavailable"):
                unavailable = unavailable or answer
                continue
            self.prefer(endpoint)
            return answer
        if unavailable is not None:
            return unavailable
        raise unreachable(self.context, reasons)

    def open(self, endpoint: Endpoint, connect_s: float = CONNECT_S) -> Connection:
        """Connect to one endpoint; raises OSError."""
        connection = Connection(endpoint, connect_s)
        try:
            connection.connect()
        except OSError:
            connection.close()
            raise
        return connection

    def send(
        self,
        connection: Connection,
        method: str,
        path: str,
        body: bytes | None,
        accept: str,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Send one request with the context's token."""
        headers = {"Accept": accept, "User-Agent": "unitctl", **more}
        if self.context.token:
            headers["Authorization"] = f"Bearer {self.context.token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, body=body, headers=headers)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints, the one that answered last first."""
        return tuple(self._endpoints)

    def prefer(self, endpoint: Endpoint) -> None:
        """Ask this endpoint first from now on."""
        if self._endpoints[0] is not endpoint:
            self._endpoints.remove(endpoint)
            self._endpoints.insert(0, endpoint)

    def demote(self, endpoint: Endpoint) -> None:
        """Ask this endpoint last from now on."""
        self._endpoints.remove(endpoint)
        self._endpoints.append(endpoint)

    def _ask(
        self,
        connection: Connection,
        endpoint: Endpoint,
        method: str,
        path: str,
        body: bytes | None,
        answer_s: float,
    ) -> Answer:
        try:
            connection.sock.settimeout(answer_s)
            self.send(connection, method, path, body, "application/json")
            response = connection.getresponse()
            stale = response.getheader("Unitfleet-Stale", "")
            return Answer(endpoint=endpoint, status=response.status, body=response.read(), stale=stale)
        finally:
            connection.close()


def error_of(answer: Answer) -> ErrorBody:
    """Read the error in an answer; one that Unitfleet did not write is named as such."""
    try:
        return msgspec.json.decode(answer.body, type=ErrorBody)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ErrorBody(
            code=FOREIGN,
            message=f"cannot understand {answer.endpoint.name}: it answered {answer.status} without saying why",
            hint="is this endpoint the API of a unit-master?",
        )


def unreachable(context: Context, reasons: list[str]) -> Unreachable:
    """Say which endpoints were tried, each with why it gave no answer, and who named them."""
    return Unreachable(
        f"cannot reach the API named by {context.source}",
        details=reasons,
        hint="is a unit-master running there? Name another with --endpoint, UNITCTL_ENDPOINT or a context "
        "in ~/.config/unitctl/config.toml",
    )


def describe(error: BaseException) -> str:
    """Say in a few words why a connection gave no answer."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case ConnectionRefusedError():
            return "connection refused"
        case FileNotFoundError():
            return "no such socket"
        case PermissionError():
            return "permission denied"
        case http.client.RemoteDisconnected() | ConnectionResetError() | BrokenPipeError():
            return "closed the connection"
        case http.client.IncompleteRead():
            return "broke off in the middle of its answer"
        case http.client.HTTPException():
            return "does not speak HTTP"
        case socket.gaierror():
            return "the host name does not resolve"
        case OSError():
            return (error.strerror or str(error)).lower()
        case _:
            return str(error)
