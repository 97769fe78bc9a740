"""A slow line to a server: run as `trickle.py PORT SERVER_PORT RATE_FILE`, both ports on loopback.

The file says how many bytes a second of answers may pass, on all connections together; 0: all at once. It is read
again for each piece, so a change counts at once. What clients send is not slowed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

STEP_S = 0.05
PIECE = 65536


class Line:
    """The rate, shared by all connections."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._turn = asyncio.Lock()

    async def send(self, answer: bytes, client: asyncio.StreamWriter) -> None:
        """Pass an answer on, piece by piece."""
        while answer:
            rate = int(self._file.read_text() or 0)
            most = max(1, int(rate * STEP_S)) if rate else len(answer)
            piece, answer = answer[:most], answer[most:]
            async with self._turn:
                client.write(piece)
                await client.drain()
                if rate:
                    await asyncio.sleep(len(piece) / rate)


async def serve(port: int, server_port: int, line: Line) -> None:
    """Take connections until the process is ended."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            answers, requests = await asyncio.open_connection("127.0.0.1", server_port)
            with contextlib.closing(writer), contextlib.closing(requests):
                asking = asyncio.ensure_future(_pass(reader, requests))
                try:
                    while answer := await answers.read(PIECE):
                        await line.send(answer, writer)
                finally:
                    asking.cancel()

    await (await asyncio.start_server(connected, "127.0.0.1", port)).serve_forever()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while sent := await reader.read(PIECE):
            writer.write(sent)
            await writer.drain()
    writer.close()  # the client is gone


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), Line(Path(sys.argv[3]))))
