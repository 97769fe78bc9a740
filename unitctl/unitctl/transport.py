"""HTTP on the wire: TCP or a unix socket, a deadline on everything, several endpoints in turn."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from unitctl.context import Context, Endpoint, Trust
from unitctl.failures import Unreachable
from unitfleet.api import ErrorBody
from unitfleet.errors import OutcomeUnknown
from unitfleet.fleetapi import Error

CONNECT_S = 3.0
ANSWER_S = 15.0
READ_S = 3.0
"""A master that has not answered a read after so long may be frozen: the next is asked, while there is one."""

TOO_MANY = 429
"""The status of an answer that asks to come again later."""

# The code of an answer that Unitfleet did not write.
FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered."""

    endpoint: Endpoint
    status: int
    body: bytes
    stale: str = ""  # for how many seconds the master has not heard of the store, "" when it has
    retry_s: float = 0.0  # in how many seconds to ask again, of one that was too many


class Connection(http.client.HTTPConnection):
    """One HTTP connection to an endpoint; `timeout` first bounds the connect, then each read."""

    def __init__(self, endpoint: Endpoint, timeout: float, trust: Trust | None = None) -> None:
        super().__init__(endpoint.host or "localhost", endpoint.port or None, timeout=timeout)
        self._endpoint = endpoint
        self._trust = trust or Trust()

    def connect(self) -> None:
        endpoint = self._endpoint
        if endpoint.tls:
            from unitctl import secure  # plain HTTP does without

            context = secure.context_for(self._trust, endpoint, float(self.timeout or CONNECT_S))
            super().connect()
            self.sock = secure.wrapped(context, self.sock, endpoint, self._trust)
            return
        if not endpoint.socket:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(endpoint.socket)


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
                never_began = _never_began(error, endpoint, self.context.trust)
                if connection is not None and method != "GET" and not never_began:
                    raise OutcomeUnknown(
                        f"cannot tell whether the command was carried out: {endpoint.name} {describe(error)}",
                        hint="look at the units with unitctl list-units, and give the command again",
                    ) from error
                reasons.append(f"{endpoint.name}: {never_began or describe(error)}")
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
        connection = Connection(endpoint, connect_s, self.context.trust)
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
            retry_s = _seconds(response.getheader("Retry-After", "")) if response.status == TOO_MANY else 0.0
            return Answer(
                endpoint=endpoint, status=response.status, body=response.read(), stale=stale, retry_s=retry_s
            )
        finally:
            connection.close()


def _seconds(text: str) -> float:
    """Read Retry-After; one that nobody can read is a second."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 1.0


def error_of(answer: Answer) -> ErrorBody:
    """Read the error in an answer, in our form or fleet's; one that Unitfleet did not write is named as such."""
    try:
        if answer.body.startswith(b'{"error":'):
            return ErrorBody(code="", message=msgspec.json.decode(answer.body, type=Error).error.message)
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


def _never_began(error: BaseException, endpoint: Endpoint, trust: Trust) -> str:
    """Return why a server of TLS surely carried nothing out, "" when that is not sure."""
    broke = (http.client.HTTPException, ConnectionError)
    if endpoint.socket or not isinstance(error, OSError | http.client.HTTPException):
        return ""
    if not endpoint.tls and not isinstance(error, broke):
        return ""
    if isinstance(error, ConnectionRefusedError | socket.gaierror | TimeoutError):
        return ""
    from unitctl import secure

    if endpoint.tls:
        return secure.denied_by_tls(error, trust)
    return "speaks TLS: name it https://" if secure.speaks_tls(endpoint) else ""


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
            return error.strerror.lower() if error.strerror else str(error)
        case _:
            return str(error)
