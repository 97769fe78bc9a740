"""The `loki` sink: Grafana Loki's push protocol (`POST /loki/api/v1/push`, JSON).

Labels are unit, machine and stream; number, epoch and file go as structured metadata. Loki drops an entry that
equals one it has (labels, time and text), so time carries the number's last digits in its nanoseconds: two equal
lines of one moment stay two, and one line sent twice stays one.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import aiohttp
import msgspec

from unit_agent.logs.record import LogRecord
from unit_agent.logs.sinks.address import SinkAddress
from unit_agent.logs.sinks.login import Login, login, tls
from unit_agent.logs.sinks.sink import Pace, SinkRefused, SinkUnavailable, Source
from unitfleet.errors import InvalidConfig

PATH = "/loki/api/v1/push"
CONNECT_S = 5.0
MOST_TOLD = 300

_OF_LINES = (400, 413, 422)
"""What Loki answers for lines it does not like: too old, too long, or too much at once."""


def payload(batch: Sequence[LogRecord], source: Source, *, metadata: bool = True) -> bytes:
    """Return the body of one push, each stream's lines in their order."""
    streams: dict[tuple[str, str], list[tuple[object, ...]]] = {}
    for record in batch:
        value: tuple[object, ...] = (str(nanoseconds(record)), record.text)
        if metadata:
            more = {"seq": str(record.seq), "epoch": str(record.epoch)}
            value += ({**more, "file": record.file} if record.file else more,)
        streams.setdefault((record.unit, record.stream), []).append(value)
    found = [
        {"stream": {"unit": unit, "machine": source.name, "stream": stream}, "values": values}
        for (unit, stream), values in streams.items()
    ]
    return msgspec.json.encode({"streams": found})


def nanoseconds(record: LogRecord) -> int:
    """Return when it was written, to the microsecond, and the last three digits of its number below that."""
    return round(record.at * 1_000_000) * 1000 + record.seq % 1000


class LokiSink:
    """Pushes batches, compressed, over one session."""

    def __init__(
        self,
        name: str,
        url: str,
        source: Source,
        *,
        account: Login | None = None,
        tenant: str = "",
        metadata: bool = True,
        connector: aiohttp.BaseConnector | None = None,
    ) -> None:
        self.name = name
        self.pace = Pace()
        self._url = url
        self._source = source
        self._metadata = metadata
        self._connector = connector
        self._session: aiohttp.ClientSession | None = None
        self._headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        account = account or Login()
        if tenant:
            self._headers["X-Scope-OrgID"] = tenant
        if account.token:
            self._headers["Authorization"] = f"Bearer {account.token}"
        elif account.user:
            self._headers["Authorization"] = aiohttp.encode_basic_auth(account.user, account.password)

    @classmethod
    def at(cls, address: SinkAddress, source: Source) -> LokiSink:
        """Make it from its URL; raises `InvalidConfig`."""
        context = tls(address)
        if address.path:
            raise InvalidConfig(
                f"cannot use log-sinks: {address.shown()}: a path is not wanted", hint="loki://HOST:3100"
            )
        return cls(
            address.name,
            f"{'https' if context else 'http'}://{address.hosts[0]}{PATH}",
            source,
            account=login(address),
            tenant=address.query.get("tenant", ""),
            metadata=address.flag("metadata", True),
            connector=aiohttp.TCPConnector(ssl=context) if context else None,
        )

    async def send(self, batch: Sequence[LogRecord]) -> None:
        """Push the batch."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
            self._session = aiohttp.ClientSession(connector=self._connector, timeout=timeout)
        body = _gzip(payload(batch, self._source, metadata=self._metadata))
        try:
            async with self._session.post(self._url, data=body, headers=self._headers) as answer:
                if answer.status < 300:
                    return
                told = (await answer.content.read(MOST_TOLD)).decode(errors="replace").strip()
        except (aiohttp.ClientError, OSError) as error:
            why = str(error) or type(error).__name__
            raise SinkUnavailable(f"cannot ship to {self.name} at {self._url}: {why}") from error
        why = (
            f"cannot ship to {self.name} at {self._url}: it answered {answer.status}{f': {told}' if told else ''}"
        )
        if answer.status == 429 or answer.status >= 500:
            raise SinkUnavailable(why)
        hint = "?token-file=PATH names its credentials" if answer.status in (401, 403) else None
        raise SinkRefused(why, of_lines=answer.status in _OF_LINES, hint=hint)

    async def close(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _gzip(raw: bytes) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(raw) + packer.flush()
