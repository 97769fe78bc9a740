"""A container's output as the Engine keeps it: frames of stdout and stderr, each line with its time."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from datetime import datetime

import aiohttp

from unit_agent.driver import LogLine
from unit_agent.drivers.docker_engine import Engine

_HEADER = struct.Struct(">BxxxL")  # stream, length of what follows
_STREAMS = {1: "stdout", 2: "stderr"}
_SECOND = 1_000_000_000
_LONGEST = 1 << 16  # of a line: what is longer comes in pieces


async def read_logs(
    engine: Engine, unit: str, copy_id: str, *, lines: int, follow: bool, since_ns: int = 0
) -> AsyncIterator[tuple[int, LogLine]]:
    """Yield the last `lines` lines (-1: all) since a time, and with `follow` what comes until the container ends.

    Each with its time in nanoseconds, from which the next read can go on.
    """
    params = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1" if follow else "0"}
    params["tail"] = str(lines) if lines >= 0 else "all"
    if since_ns:
        params["since"] = f"{since_ns // _SECOND}.{since_ns % _SECOND:09}"
    async with engine.stream(f"read the output of {unit}", f"containers/{copy_id}/logs", params) as stream:
        rests = {"stdout": b"", "stderr": b""}
        async for name, piece in _frames(stream):
            *whole, rests[name] = (rests[name] + piece).split(b"\n")
            if len(rests[name]) > _LONGEST:
                whole, rests[name] = [*whole, rests[name]], b""
            for line in whole:
                yield parse_line(name, line)
        for name, rest in rests.items():
            if rest:
                yield parse_line(name, rest)


async def _frames(stream: aiohttp.StreamReader) -> AsyncIterator[tuple[str, bytes]]:
    while True:
        try:
            kind, length = _HEADER.unpack(await stream.readexactly(_HEADER.size))
            yield _STREAMS.get(kind, "stdout"), await stream.readexactly(length)
        except (asyncio.IncompleteReadError, aiohttp.ClientError):
            return  # the end of the output, or of the Engine


def parse_line(stream: str, raw: bytes) -> tuple[int, LogLine]:
    """Return a line that begins with its RFC 3339 time, as `timestamps=1` gives it; and that time in ns."""
    stamp, _, text = raw.decode("utf-8", "replace").partition(" ")
    at = parse_time(stamp)
    digits = stamp.partition(".")[2].rstrip("Z")
    fraction = int(digits.ljust(9, "0")) if digits.isdecimal() and len(digits) <= 9 else 0
    return int(at) * _SECOND + fraction, LogLine(at=at, stream=stream, text=text.removesuffix("\r"))


def parse_time(stamp: str) -> float:
    """Return the Engine's time in seconds since 1970; its zero time (never) is 0.0, and so is no time at all."""
    if not stamp or stamp.startswith("0001-"):
        return 0.0
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return 0.0
