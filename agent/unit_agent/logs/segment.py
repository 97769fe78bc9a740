"""A segment: a file of blocks, appended to until it is full, then only read, then removed as a whole.

Its name is the sequence number of its first line. A sparse index, one entry for every 64 KiB, is kept in memory
and made by reading headers when it is first needed. All calls block: they are made in threads.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from unit_agent.logs.block import HEADER, Header, decode, header, is_whole, marks_of
from unit_agent.logs.record import LogRecord

logger = logging.getLogger(__name__)

SUFFIX = ".seg"
STRIDE = 64 * 1024
"""So far apart are the entries of an index; a reader reads at least so much."""

_DIGITS = 16


class Entry(NamedTuple):
    """A place where a block begins, and what is known of the blocks from there to the next entry."""

    offset: int
    first: int
    since: float


class Tail(NamedTuple):
    """How a segment ends: the next sequence number, the marks of its last block, bytes that were cut off."""

    next: int
    marks: dict[str, str]
    torn: int


@dataclass(slots=True)
class Segment:
    """One file. `until` is the time of its last line, or of its last write where that is not known yet."""

    path: Path
    first: int
    size: int
    until: float
    index: list[Entry] | None = None
    _highest: float = field(default=0.0)

    @classmethod
    def new(cls, directory: Path, first: int) -> Segment:
        """Return a segment that begins with this sequence number; its file comes with its first block."""
        return cls(directory / f"{first:0{_DIGITS}}{SUFFIX}", first, 0, 0.0, [])

    @classmethod
    def found(cls, path: Path) -> Segment:
        """Return a segment that is on disk; raises ValueError for a file that is none."""
        status = path.stat()
        return cls(path, int(path.stem), status.st_size, status.st_mtime)

    def append(self, block: bytes) -> None:
        """Write a block, whole or not at all. Raises OSError."""
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            left = memoryview(block)
            try:
                while left:
                    left = left[os.write(file, left) :]
            except OSError:
                os.ftruncate(file, self.size)
                raise
        finally:
            os.close(file)
        found = header(block, 0, self.size)
        assert found is not None, "an encoded block has a header"
        self._note(found)
        self.size += len(block)

    def mend(self) -> Tail:
        """Read every header, cut what is torn off the end, and return how the segment ends. Raises OSError.

        Only the last block is read whole: appends are in order, so a crash tears the end.
        """
        self.index = []
        whole: list[Header] = []
        with open(self.path, "rb") as file:
            data = file.read()
        end = 0
        while (found := header(data, end, end)) is not None and found.end <= len(data):
            whole.append(found)
            end = found.end
        while whole and not is_whole(data, whole[-1].offset, whole[-1]):
            whole.pop()
        for found in whole:
            self._note(found)
        end = whole[-1].end if whole else 0
        if end < len(data):
            os.truncate(self.path, end)
        self.size = end
        if not whole:
            return Tail(self.first, {}, len(data))
        last = whole[-1]
        return Tail(last.first + last.lines, marks_of(data, last.offset, last), len(data) - end)

    def ranges(self) -> list[tuple[Entry, int]]:
        """Return the index: where each stretch of blocks begins, and where it ends. Raises OSError."""
        if self.index is None:
            index: list[Entry] = []
            for found, _, _ in self._blocks(0, self.size):
                if not index or found.offset - index[-1].offset >= STRIDE:
                    index.append(Entry(found.offset, found.first, found.since))
            self.index = index
        entries = self.index[:]
        ends = [entry.offset for entry in entries[1:]] + [self.size]
        return list(zip(entries, ends, strict=True))

    def read(
        self,
        unit: str,
        begin: int,
        end: int,
        *,
        after: int = -1,
        since: float = 0.0,
        until: float = math.inf,
        most: int = -1,
    ) -> Iterator[list[LogRecord]]:
        """Yield the lines of the blocks between two offsets, those that surely lie outside the bounds left out;
        of each block at most `most` (-1: all).

        Raises OSError; a file that is gone meanwhile has no lines.
        """
        for found, data, at in self._blocks(begin, end):
            if found.first + found.lines - 1 > after and found.until >= since and found.since <= until:
                try:
                    lines = decode(data, at, found, unit, after, most)
                except (zlib.error, struct.error, ValueError, IndexError) as error:
                    logger.warning("left out a damaged block of %s at %d: %s", self.path, found.offset, error)
                else:
                    yield lines

    def remove(self) -> None:
        """Remove the file; one that is gone is fine. Raises OSError."""
        self.path.unlink(missing_ok=True)

    def _blocks(self, begin: int, end: int) -> Iterator[tuple[Header, bytes, int]]:
        """Yield each block's header, and the bytes in which it stands at which place."""
        try:
            file = open(self.path, "rb")
        except FileNotFoundError:
            return
        with file:
            offset = begin
            while offset < end:
                file.seek(offset)
                data = file.read(min(STRIDE, end - offset))
                at = 0
                while (found := header(data, at, offset + at)) is not None:
                    if found.end - offset > len(data):
                        break
                    yield found, data, at
                    at = found.end - offset
                if at == 0:
                    if found is None or found.end > end:
                        return
                    file.seek(offset)
                    data = file.read(HEADER.size + found.length)  # a block larger than a stride
                    if len(data) < HEADER.size + found.length:
                        return
                    yield found, data, 0
                    at = len(data)
                offset += at

    def _note(self, found: Header) -> None:
        assert self.index is not None, "who appends has the index"
        if not self.index or found.offset - self.index[-1].offset >= STRIDE:
            self.index.append(Entry(found.offset, found.first, found.since))
        self._highest = max(self._highest, found.until)
        self.until = self._highest
