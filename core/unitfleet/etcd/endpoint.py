"""One etcd member as a client sees it: a channel made when first used, calls with deadlines, errors made ours.

Nothing else in Unitfleet imports grpc. gRPC's core writes to stderr on its own, above all about processes that
fork; it is told not to, unless `GRPC_VERBOSITY` says otherwise (DEBUG, INFO, ERROR, NONE).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from unitfleet.errors import InvalidConfig, LeaseLost, StoreDenied, StoreError, StoreFull
from unitfleet.etcd.messages import RANGE, Method, RangeRequest

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before the import: gRPC reads it then

import grpc
import grpc.aio

PROBE_EVERY_S = 1.0
PROBE_DEADLINE_S = 1.5
"""A frozen member is noticed within the sum: TCP keeps its connections open, gRPC's pings do not notice."""

PATIENCE_S = 6.0
"""One that did not answer in time is given twice the time after the next connection, up to this.

A member that has too much to do gets more by every connection that is given up and made anew.
"""

_REQUIRE_LEADER = (("hasleader", "true"),)
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # a watch that catches up gets one message of any size
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3000),  # despite its name: how long connecting may take
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),  # two stores in one process share no connection, nor its fate
    ("grpc.enable_retries", 0),  # who retries what is decided in members.py alone
)
_PROBE = RangeRequest(key=b"\0", serializable=True, count_only=True)
_NO_LEADER = "etcdserver: no leader"
_COMPACTED = "etcdserver: mvcc: required revision has been compacted"
_NO_SPACE = "etcdserver: mvcc: database space exceeded"
_TOO_MANY = "etcdserver: too many requests"
_NO_LEASE = "etcdserver: requested lease not found"
DENIED = "etcdserver: permission denied"
_NOBODY = "etcdserver: user name is empty"
_OTHER_RULES = (
    "etcdserver: revision of auth store is old",
    "auth: revision in header is old",
)  # 3.4's words, 3.5's

_TRIES = 5
"""What was under way while users or roles changed is refused for that alone: it is asked anew at once."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What TLS needs, as PEM: who to trust (None: the system's authorities), and who we are (None: nobody)."""

    authority: bytes | None = None
    key: bytes | None = None
    certificate: bytes | None = None


TlsSource = Tls | Callable[[], Tls]
"""Files may be replaced while a daemon runs: a source that reads them gives what lies there now."""


class Failure(Exception):
    """A member gave no answer. `maybe_done`: it may have carried out what was asked."""

    def __init__(self, reason: str, *, maybe_done: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.maybe_done = maybe_done


class RevisionCompacted(Exception):
    """A member said that a revision is compacted, as it does without saying up to where."""


class Stream:
    """A call that goes both ways. Every method raises `Failure` when the member or the connection fails."""

    def __init__(self, endpoint: Endpoint, call: Any) -> None:
        self._endpoint = endpoint
        self._call = call
        self._over = asyncio.Event()
        self._answered = False
        call.add_done_callback(lambda _: self._over.set())

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent or read any more."""
        return self._over.is_set()

    async def write(self, request: Any) -> None:
        """Send one message.

        gRPC waits for ever where a call ends before its headers are sent, so until there was an answer its end is
        waited for too.
        """
        if self._answered:
            with _failures(self._endpoint.address, self._call):
                await self._call.write(request)
            return
        sending = asyncio.ensure_future(self._call.write(request))
        over = asyncio.ensure_future(self._over.wait())
        with _failures(self._endpoint.address, self._call):
            try:
                await asyncio.wait((sending, over), return_when=asyncio.FIRST_COMPLETED)
                if not sending.done():
                    raise Failure("the stream is over", maybe_done=True)
                sending.result()
            finally:
                sending.cancel()
                over.cancel()

    async def read(self) -> Any:
        """Wait for one message; must be the only reader, and when cancelled the stream is over."""
        with _failures(self._endpoint.address, self._call):
            message = await self._call.read()
            if message is grpc.aio.EOF:
                raise Failure("the member ended the stream", maybe_done=True)
        self._answered = True
        self._endpoint.heard()
        return message


class Endpoint:
    """One member. `drop` closes its connection; the next use opens a new one.

    While something waits, a member that said nothing for `probe_s` seconds is asked for a sign of life.
    """

    def __init__(self, address: str, tls: TlsSource | None, probe_s: float = PROBE_EVERY_S) -> None:
        self.address = address.removeprefix("http://").removeprefix("https://")
        self._tls = tls
        self._shown: Tls | None = None  # by the channel that is open
        self._channel: Any = None
        self._asks: dict[str, Any] = {}  # of that channel, by the method's path
        self._calls: set[Any] = set()
        self._guard: asyncio.Future[None] | None = None
        self._waiting = 0  # how many things are guarded
        self._probe_s = probe_s
        self._heard_at = -probe_s
        self._patience_s = PROBE_DEADLINE_S  # of the next probe

    async def connect(self, timeout_s: float) -> None:
        """Wait for a connection. Raises `Failure`: then surely nothing was sent."""
        channel = self._opened()
        try:
            async with asyncio.timeout(timeout_s):
                while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state in (
                        grpc.ChannelConnectivity.TRANSIENT_FAILURE,
                        grpc.ChannelConnectivity.SHUTDOWN,
                    ):
                        if self._identity() != self._shown:
                            await self.drop()  # gRPC would connect with the former certificate for ever
                        raise Failure("no connection", maybe_done=False)
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            raise Failure(f"no connection within {timeout_s:.1f} s", maybe_done=False) from None

    async def call(
        self, method: Method, request: Any, timeout_s: float, *, require_leader: bool = True, token: str = ""
    ) -> Any:
        """Ask and return the answer; raises `Failure`, or the `StoreError` that the member answered with.

        `token` is one of etcd's own: whose it is counts, and not whose certificate is shown.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        metadata = (_REQUIRE_LEADER if require_leader else ()) + ((("token", token),) if token else ())
        for _ in range(_TRIES - 1):
            try:
                return await self._call(method, request, until - loop.time(), metadata)
            except Failure as failure:
                if failure.reason not in _OTHER_RULES:
                    raise
        return await self._call(method, request, until - loop.time(), metadata)

    async def _call(
        self, method: Method, request: Any, timeout_s: float, metadata: tuple[tuple[str, str], ...]
    ) -> Any:
        channel = self._opened()
        ask = self._asks.get(method.path)
        if ask is None:
            ask = self._asks[method.path] = channel.unary_unary(
                method.path,
                request_serializer=type(request).SerializeToString,
                response_deserializer=method.answer.FromString,
            )
        call = ask(request, timeout=max(timeout_s, 0.001), metadata=metadata)
        with self._holding(call), _failures(self.address, call):
            answer = await call
        self.heard()
        return answer

    @contextlib.contextmanager
    def stream(self, method: Method, request_type: Any) -> Iterator[Stream]:
        """Open a call that goes both ways, ended when the context is left."""
        ask = self._opened().stream_stream(
            method.path,
            request_serializer=request_type.SerializeToString,
            response_deserializer=method.answer.FromString,
        )
        call = ask(metadata=_REQUIRE_LEADER)
        with self._holding(call):
            yield Stream(self, call)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Watch over the connection meanwhile: whatever waits on a member that falls silent fails.

        However many things wait, one task guards them all: a message that comes costs none.
        """
        self._waiting += 1
        if self._guard is None or self._guard.done():
            self._guard = asyncio.ensure_future(self._keep_guard())
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting and self._guard is not None:
                self._guard.cancel()
                self._guard = None

    async def _keep_guard(self) -> None:
        """Probe a member that said nothing for `probe_s`, and drop it when it does not answer."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._heard_at + self._probe_s - loop.time())
            if loop.time() < self._heard_at + self._probe_s:
                continue
            channel = self._channel
            try:
                await self.call(RANGE, _PROBE, self._patience_s)
                self._patience_s = PROBE_DEADLINE_S
            except (StoreError, RevisionCompacted):
                self.heard()  # a refusal is an answer
            except Failure:
                self.heard()  # the next connection has its own time before it is probed
                if self._channel is channel:
                    self._patience_s = min(2 * self._patience_s, PATIENCE_S)
                    await self.drop()

    async def drop(self) -> None:
        """Close the connection; whatever waits on it fails."""
        channel, self._channel = self._channel, None
        self._asks.clear()
        for call in tuple(self._calls):
            call.cancel()
        if channel is not None:
            await channel.close()

    def _opened(self) -> Any:
        if self._channel is None:
            self._shown = self._identity()
            if self._shown is None:
                self._channel = grpc.aio.insecure_channel(self.address, _OPTIONS)
            else:
                credentials = grpc.ssl_channel_credentials(
                    self._shown.authority, self._shown.key, self._shown.certificate
                )
                self._channel = grpc.aio.secure_channel(self.address, credentials, _OPTIONS)
        return self._channel

    def _identity(self) -> Tls | None:
        try:
            return self._tls() if callable(self._tls) else self._tls
        except InvalidConfig as error:
            raise Failure(str(error), maybe_done=False) from error

    def heard(self) -> None:
        """Note that the member answered just now."""
        self._heard_at = asyncio.get_running_loop().time()

    @contextlib.contextmanager
    def _holding(self, call: Any) -> Iterator[None]:
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)
            call.cancel()


@contextlib.contextmanager
def _failures(address: str, call: Any) -> Iterator[None]:
    """Turn what grpc raises into `Failure` or a `StoreError`."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _translated(address, error.code(), error.details() or "") from error
    except asyncio.InvalidStateError as error:  # a write on a stream that is over
        raise Failure("the stream is over", maybe_done=True) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if call.cancelled() and not (task and task.cancelling()):  # our `drop` ended the call, nobody this task
            raise Failure("the connection was given up", maybe_done=True) from None
        raise


def _translated(address: str, code: grpc.StatusCode, details: str) -> Exception:
    """Return what a caller should see for gRPC's status: etcd's words decide, for one code says many things."""
    if details in (_NO_LEADER, _TOO_MANY, *_OTHER_RULES):
        return Failure(details, maybe_done=False)
    if details == _NOBODY:
        return Failure("it takes no identity from our certificate (--client-cert-auth)", maybe_done=False)
    if details == _COMPACTED:
        return RevisionCompacted()
    if details == _NO_SPACE:
        return StoreFull(
            "cannot write: etcd is full (NOSPACE)",
            hint="compact, defragment, then disarm its alarm (etcdctl alarm disarm)",
        )
    if details == DENIED:
        return StoreDenied(f"cannot do this on {address}: etcd refuses it to this identity")
    if details == _NO_LEASE:
        return LeaseLost("cannot use the lease: it expired or was revoked")
    match code:
        case (
            grpc.StatusCode.UNAVAILABLE
            | grpc.StatusCode.DEADLINE_EXCEEDED
            | grpc.StatusCode.UNKNOWN
            | grpc.StatusCode.INTERNAL
            | grpc.StatusCode.CANCELLED
            | grpc.StatusCode.ABORTED
        ):
            return Failure(details or code.name.lower().replace("_", " "), maybe_done=True)
        case _:
            return StoreError(f"cannot do this on {address}: {details or code.name}")
