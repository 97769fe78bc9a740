"""The `store` sink: the archive that the masters keep, searched by `unitctl logs --grep`.

Each agent stays with one master while that answers, and goes on to the next when it does not: a search asks all.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
import msgspec

from unit_agent.logs.record import LogRecord
from unit_agent.logs.sinks.sink import Pace, SinkRefused, SinkUnavailable, Source
from unitfleet.api import ErrorBody

PATH = "/v1/ingest/logs"
CONNECT_S = 3.0
MOST_TOLD = 4096

FindMasters = Callable[[], Awaitable[Sequence[str]]]
"""Returns where the masters that keep an archive answer, the best first."""


class ArchiveSink:
    """Posts batches, compressed, with the cluster's key, or by TLS with this machine's certificate."""

    def __init__(
        self,
        name: str,
        source: Source,
        find: FindMasters,
        cluster_key: str,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.pace = Pace()
        self._source = source
        self._find = find
        self._headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
        self._context = context
        if context is None:
            self._headers["Authorization"] = f"Bearer {cluster_key}"
        self._master = ""
        self._session: aiohttp.ClientSession | None = None

    async def send(self, batch: Sequence[LogRecord]) -> None:
        """Hand the batch to the master that took the last one, or to the first that takes it."""
        packer = zlib.compressobj(1, wbits=31)
        raw = b"".join(self._source.line(record) + b"\n" for record in batch)
        body = await asyncio.to_thread(lambda: packer.compress(raw) + packer.flush())
        why: SinkUnavailable | SinkRefused = SinkUnavailable(
            "cannot ship to the masters: none that keeps an archive is known"
        )
        if self._master:
            try:
                await self._post(self._master, body)
                return
            except (SinkUnavailable, SinkRefused) as error:
                why, self._master = error, ""
        for master in await self._find():
            try:
                await self._post(master, body)
                self._master = master
                return
            except (SinkUnavailable, SinkRefused) as error:
                why = error
        raise why

    async def close(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, master: str, body: bytes) -> None:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context) if self._context is not None else None
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=20.0, sock_connect=CONNECT_S)
            )
        try:
            async with self._session.post(f"{master}{PATH}", data=body, headers=self._headers) as answer:
                if answer.status < 300:
                    return
                told = _told(await answer.content.read(MOST_TOLD))
        except (aiohttp.ClientError, OSError) as error:
            why = str(error) or "no answer in time"
            raise SinkUnavailable(f"cannot ship to the master at {master}: {why}") from error
        why = f"cannot ship to the master at {master}: {told or f'it answered {answer.status}'}"
        match answer.status:
            case 401 | 403:
                raise SinkRefused(why, hint="masters and agents share --cluster-key-file")
            case 400 | 413:
                raise SinkRefused(why, of_lines=True)
        raise SinkUnavailable(why)


def _told(raw: bytes) -> str:
    """Return what the master said, "" when it is not in our words."""
    try:
        return msgspec.json.decode(raw, type=ErrorBody).message
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
