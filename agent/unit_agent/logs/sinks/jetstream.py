"""The `nats` sink: a JetStream message a line, with its key as `Nats-Msg-Id`, so that the server drops duplicates.

Subjects are `PREFIX.UNIT` (dots of the unit's name as `_`). The stream that takes `PREFIX.>` is made when there is
none. One connection carries batches in order and is never mended: after any fault a new one sends the batch from
its beginning, so that no line overtakes another.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError

from unit_agent.logs.record import LogRecord
from unit_agent.logs.sinks.address import SinkAddress
from unit_agent.logs.sinks.login import Login, login, tls
from unit_agent.logs.sinks.sink import Pace, SinkRefused, SinkUnavailable, Source

CONNECT_S = 5
ACK_S = 10.0
DUPLICATE_WINDOW_S = 600.0
"""For so long a stream that we made remembers keys."""

FLUSH_LINES = 200

SUBJECT = "unitfleet.logs"
_ROOM = 1024  # of the server's largest payload, for the headers
_NO_RESPONDERS = "503"


class _Answer(msgspec.Struct):
    """What JetStream says of one message."""

    error: dict[str, object] | None = None
    seq: int = 0


_read = msgspec.json.Decoder(_Answer).decode


class NatsSink:
    """Publishes each line of a batch at once and waits until the server has stored the last one."""

    def __init__(
        self,
        name: str,
        servers: Sequence[str],
        source: Source,
        *,
        prefix: str = SUBJECT,
        stream: str = "",
        account: Login | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.pace = Pace()
        self._servers = [f"nats://{server}" for server in servers]
        self._source = source
        self._prefix = prefix
        self._stream = stream or prefix.replace(".", "-")
        self._account = account or Login()
        self._tls = context
        self._client: Client | None = None
        self._inbox = ""
        self._round = 0
        self._missing: set[int] = set()
        self._why: SinkRefused | SinkUnavailable | None = None
        self._done = asyncio.Event()

    @classmethod
    def at(cls, address: SinkAddress, source: Source) -> NatsSink:
        """Make it from its URL; raises `InvalidConfig`."""
        return cls(
            address.name,
            address.hosts,
            source,
            prefix=address.path.replace("/", ".") or SUBJECT,
            stream=address.query.get("stream", ""),
            account=login(address),
            context=tls(address),
        )

    async def send(self, batch: Sequence[LogRecord]) -> None:
        """Publish the batch and wait for every acknowledgement."""
        try:
            client = await self._connected()
            largest = client.max_payload - _ROOM
            self._round += 1
            self._missing = set(range(len(batch)))
            self._why = None
            self._done.clear()
            for number, record in enumerate(batch):
                payload = self._source.line(record)
                if len(payload) > largest:
                    raise SinkRefused(f"{len(payload)} bytes are more than {self.name} takes", of_lines=True)
                await client.publish(
                    f"{self._prefix}.{record.unit.replace('.', '_')}",
                    payload,
                    reply=f"{self._inbox}.{self._round}.{number}",
                    headers={"Nats-Msg-Id": self._source.key(record)},
                )
                if number % FLUSH_LINES == 0:
                    await asyncio.sleep(0)  # what was written so far goes out, and the server works meanwhile
            async with asyncio.timeout(ACK_S):
                await self._done.wait()
        except (NatsError, OSError) as error:
            await self.close()
            raise self._translated(error) from error
        except BaseException:
            await self.close()
            raise
        if self._why is not None:
            await self.close()
            raise self._why

    async def close(self) -> None:
        """Drop the connection."""
        client, self._client = self._client, None
        if client is not None:
            try:
                async with asyncio.timeout(CONNECT_S):
                    await client.close()
            except (NatsError, OSError):
                pass  # it was broken already

    async def _connected(self) -> Client:
        if self._client is not None and self._client.is_connected:
            return self._client
        await self.close()
        client = self._client = Client()
        account = self._account
        await client.connect(
            servers=self._servers,
            name=f"unit-agent {self._source.name}",
            allow_reconnect=False,
            max_reconnect_attempts=1,  # else it tries for a minute to connect at all, and nobody is told meanwhile
            reconnect_time_wait=0,
            connect_timeout=CONNECT_S,
            user=account.user or None,
            password=account.password or None,
            token=account.token or None,
            tls=self._tls,
            error_cb=_quiet,
            skip_subject_validation=True,  # every subject is made of a unit's name, whose rules are stricter
            closed_cb=self._closed,
        )
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.>", cb=self._answered)
        await self._ensure_stream(client)
        return client

    async def _ensure_stream(self, client: Client) -> None:
        """Make the stream when no stream takes our subjects."""
        manager = client.jetstream(timeout=CONNECT_S)
        try:
            await manager.find_stream_name_by_subject(f"{self._prefix}.>")
        except NotFoundError:
            await manager.add_stream(
                StreamConfig(
                    name=self._stream, subjects=[f"{self._prefix}.>"], duplicate_window=DUPLICATE_WINDOW_S
                )
            )

    async def _answered(self, message: Msg) -> None:
        """Take note of one acknowledgement."""
        round_, _, number = message.subject[len(self._inbox) + 1 :].partition(".")
        if round_ != str(self._round):
            return
        if message.headers and message.headers.get("Status") == _NO_RESPONDERS:
            self._fail(
                SinkUnavailable(f"cannot ship to {self.name}: no stream of JetStream takes {self._prefix}.>")
            )
            return
        error = _read(message.data).error
        if error is not None:
            told = str(error.get("description", "it said no"))
            of_lines = "size" in told  # maximum message size of the stream
            self._fail(SinkRefused(f"cannot ship to {self.name}: {told}", of_lines=of_lines))
            return
        self._missing.discard(int(number))
        if not self._missing:
            self._done.set()

    def _fail(self, why: SinkRefused | SinkUnavailable) -> None:
        self._why = self._why or why
        self._done.set()

    async def _closed(self) -> None:
        if self._missing:
            self._fail(SinkUnavailable(f"cannot ship to {self.name}: the connection broke"))

    def _translated(self, error: Exception) -> SinkRefused | SinkUnavailable:
        told = str(error) or type(error).__name__
        if "Authorization" in told or isinstance(error, nats.errors.AuthorizationError):
            hint = "?token-file=PATH names its credentials"
            return SinkRefused(f"cannot ship to {self.name}: it does not let us in", hint=hint)
        if isinstance(error, APIError):
            return SinkRefused(f"cannot ship to {self.name}: {error.description or told}")
        return SinkUnavailable(f"cannot ship to {self.name}: {told.lower()}")


async def _quiet(error: Exception) -> None:
    """Say nothing: what ends a batch is raised where it is sent."""
