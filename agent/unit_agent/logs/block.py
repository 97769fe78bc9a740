"""A block: some lines of one unit as they lie on disk, in columns and compressed, with the marks they end at.

The header tells what a reader must know to pass a block over: how long it is, its sequence numbers and times. A
checksum over all of it tells a block that was torn by a crash or a full disk. The resume marks of the unit's
sources (`unit_agent.logs.collect`) stand in the block itself: lines and marks are kept, or lost, together.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from unit_agent.logs.record import LogRecord

MAGIC = b"UFB1"
HEADER = struct.Struct("<4sIIIQdd")  # magic, checksum, bytes that follow, lines, first seq, times from, to
_CHECKED = struct.Struct("<IIQdd")
_META = struct.Struct("<I")

MOST_SOURCES = 255
_LEVEL = 1  # of zlib: four times as fast as its default, a tenth larger


class Source(NamedTuple):
    """What the lines of a source have in common."""

    epoch: int
    stream: str
    file: str = ""


class Header(NamedTuple):
    """What a block's header says; `offset` is where the block begins in its segment."""

    offset: int
    length: int  # of the payload
    lines: int
    first: int  # sequence number
    since: float
    until: float

    @property
    def end(self) -> int:
        """Where the next block begins."""
        return self.offset + HEADER.size + self.length


class _Meta(msgspec.Struct, frozen=True):
    sources: tuple[Source, ...]
    marks: dict[str, str]


@dataclass(slots=True)
class Columns:
    """Lines on their way to a block: a column for each field, so that a batch is taken in without a loop."""

    times: array[float] = field(default_factory=lambda: array("d"))
    kinds: bytearray = field(default_factory=bytearray)
    texts: list[bytes] = field(default_factory=list)
    sources: dict[Source, int] = field(default_factory=dict)
    size: int = 0  # of the texts, in bytes

    def kind(self, source: Source) -> int | None:
        """Return the number of a source, None when this block takes no further one."""
        number = self.sources.get(source)
        if number is None and len(self.sources) < MOST_SOURCES:
            number = self.sources[source] = len(self.sources)
        return number

    def add(self, times: Sequence[float], kinds: bytes, texts: Sequence[bytes]) -> None:
        """Take in lines; `kinds` are numbers of `kind`."""
        self.times.extend(times)
        self.kinds += kinds
        self.texts.extend(texts)
        self.size += sum(map(len, texts))


def encode(columns: Columns, first: int, marks: Mapping[str, str]) -> bytes:
    """Return the block of these lines, of which the first has sequence number `first`."""
    meta = msgspec.json.encode(_Meta(tuple(columns.sources), dict(marks)))
    lengths = array("I", map(len, columns.texts)).tobytes()
    times = columns.times
    head = (_META.pack(len(meta)), meta, times.tobytes(), bytes(columns.kinds), lengths)
    payload = zlib.compress(b"".join([*head, *columns.texts]), _LEVEL)
    checked = _CHECKED.pack(len(payload), len(times), first, min(times, default=0.0), max(times, default=0.0))
    return MAGIC + struct.pack("<I", zlib.crc32(payload, zlib.crc32(checked))) + checked + payload


def header(data: bytes, at: int, offset: int) -> Header | None:
    """Read the header at `at` in `data`, which lies at `offset` in its segment; None when it is not whole."""
    if at + HEADER.size > len(data):
        return None
    magic, _, length, count, first, since, until = HEADER.unpack_from(data, at)
    return Header(offset, length, count, first, since, until) if magic == MAGIC else None


def is_whole(data: bytes, at: int, found: Header) -> bool:
    """Tell whether the block at `at` is there to its end and is what was written."""
    end = at + HEADER.size + found.length
    checksum = struct.unpack_from("<I", data, at + len(MAGIC))[0]
    return end <= len(data) and zlib.crc32(data[at + 8 : end]) == checksum


def marks_of(data: bytes, at: int, found: Header) -> dict[str, str]:
    """Return the marks that stand in the block at `at`."""
    raw = _payload(data, at, found)
    return _meta(raw)[0].marks


def decode(data: bytes, at: int, found: Header, unit: str, after: int = -1, most: int = -1) -> list[LogRecord]:
    """Return the lines of the block at `at` with numbers above `after`, at most so many (-1: all)."""
    raw = _payload(data, at, found)
    meta, place = _meta(raw)
    count = found.lines
    times = array("d", raw[place : place + 8 * count])
    place += 8 * count
    kinds = raw[place : place + count]
    place += count
    lengths = array("I", raw[place : place + 4 * count])
    begin = max(0, after + 1 - found.first)
    end = count if most < 0 else min(count, begin + most)
    place += 4 * count + sum(lengths[:begin])
    lines = []
    sources = meta.sources
    for index in range(begin, end):
        epoch, stream, file = sources[kinds[index]]
        length = lengths[index]
        text = raw[place : place + length].decode("utf-8", "replace")
        lines.append(LogRecord(unit, epoch, found.first + index, times[index], stream, text, file))
        place += length
    return lines


def _payload(data: bytes, at: int, found: Header) -> bytes:
    begin = at + HEADER.size
    return zlib.decompress(data[begin : begin + found.length])


def _meta(raw: bytes) -> tuple[_Meta, int]:
    (length,) = _META.unpack_from(raw)
    end = _META.size + length
    return msgspec.json.decode(raw[_META.size : end], type=_Meta), end
