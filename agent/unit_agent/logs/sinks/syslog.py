"""The `syslog` sink: RFC 5424 by TCP (octet counting), UDP, or a Unix socket.

The protocol has no acknowledgement. By TCP a batch counts as sent when the receiver's kernel has all of it: what
a receiver had not read when it died is lost. By UDP and by a datagram socket nothing tells.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import ssl
import struct
from collections.abc import Sequence

from unit_agent.logs.record import LogRecord
from unit_agent.logs.sinks.address import SinkAddress
from unit_agent.logs.sinks.login import tls
from unit_agent.logs.sinks.rfc5424 import frame, message
from unit_agent.logs.sinks.sink import Pace, SinkRefused, SinkUnavailable, Source
from unitfleet.errors import InvalidConfig

CONNECT_S = 5.0
LOOK_S = 0.01
SIOCOUTQ = 0x5411  # linux/sockios.h: bytes that the peer has not acknowledged
MOST_DATAGRAM = 60_000

TRANSPORTS = ("tcp", "udp")


class SyslogSink:
    """One connection, made anew when it breaks."""

    def __init__(
        self,
        name: str,
        source: Source,
        *,
        host: str = "",
        port: int = 0,
        path: str = "",
        transport: str = "tcp",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.pace = Pace()
        self._source = source
        self._shown = path or f"{host}:{port} by {transport}"
        self._host, self._port, self._path, self._transport = host, port, path, transport
        self._tls = context
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._datagrams: socket.socket | None = None

    @classmethod
    def at(cls, address: SinkAddress, source: Source) -> SyslogSink:
        """Make it from its URL; raises `InvalidConfig`."""
        transport = address.query.get("transport", "tcp")
        if transport not in TRANSPORTS or (address.path and "transport" in address.query):
            raise InvalidConfig(
                f"cannot use log-sinks: {address.shown()}: transport={transport}", hint="transport=tcp or udp"
            )
        return cls(
            address.name,
            source,
            host=address.host,
            port=address.port,
            path=address.path if not address.host else "",
            transport=transport,
            context=tls(address),
        )

    async def send(self, batch: Sequence[LogRecord]) -> None:
        """Send the batch; by TCP wait until the other side's kernel has it."""
        messages = [message(record, self._source) for record in batch]
        try:
            if self._path and self._stream is None and self._datagrams is None:
                await self._connect_path()
            if self._transport == "udp" or self._datagrams is not None:
                await self._send_datagrams(messages)
            else:
                await self._send_stream(b"".join(frame(each) for each in messages))
        except OSError as error:
            await self.close()
            if isinstance(error, PermissionError):
                raise SinkRefused(f"cannot ship to syslog at {self._shown}: permission denied") from error
            why = (error.strerror or str(error) or type(error).__name__).lower()
            raise SinkUnavailable(f"cannot ship to syslog at {self._shown}: {why}") from error
        except BaseException:
            await self.close()  # cut in the middle of a frame: nothing may follow it
            raise

    async def close(self) -> None:
        """Drop the connection."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream[1].transport.abort()
        datagrams, self._datagrams = self._datagrams, None
        if datagrams is not None:
            datagrams.close()

    async def _connect_path(self) -> None:
        """Connect to a Unix socket: of datagrams, as /dev/log is, or of a stream."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            if error.errno != errno.EPROTOTYPE:
                raise
            self._stream = await asyncio.open_unix_connection(self._path)
        else:
            self._datagrams = sock

    async def _send_stream(self, raw: bytes) -> None:
        reader, writer = await self._connected()
        if reader.at_eof():
            raise ConnectionResetError(errno.ECONNRESET, "the receiver closed the connection")
        writer.write(raw)
        await writer.drain()
        while writer.transport.get_write_buffer_size() or _unacknowledged(writer):
            if reader.at_eof() or writer.is_closing():
                raise ConnectionResetError(errno.ECONNRESET, "the receiver closed the connection")
            await asyncio.sleep(LOOK_S)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._stream is None:
            async with asyncio.timeout(CONNECT_S):
                self._stream = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
            # unlimited writes would hide how much is under way
            self._stream[1].transport.set_write_buffer_limits(high=65536)
        return self._stream

    async def _send_datagrams(self, messages: Sequence[bytes]) -> None:
        if self._datagrams is None:
            loop = asyncio.get_running_loop()
            [(family, kind, _, _, address), *_] = await loop.getaddrinfo(
                self._host, self._port, type=socket.SOCK_DGRAM
            )
            self._datagrams = socket.socket(family, kind)
            self._datagrams.setblocking(False)
            self._datagrams.connect(address)
        for each in messages:
            await asyncio.get_running_loop().sock_sendall(self._datagrams, each[:MOST_DATAGRAM])


def _unacknowledged(writer: asyncio.StreamWriter) -> int:
    """Return how many bytes the other side's kernel has not got yet."""
    sock = writer.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return 0
    [left] = struct.unpack("i", fcntl.ioctl(sock.fileno(), SIOCOUTQ, b"\0\0\0\0"))
    return int(left)
