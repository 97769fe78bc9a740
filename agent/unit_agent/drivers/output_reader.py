"""Reads the bounded output of a unit (`unit_agent.supervisor.output`): its last lines, and what comes."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import BinaryIO

from unit_agent.driver import LogLine
from unit_agent.supervisor.output import CURRENT, PREVIOUS

BLOCK = 64 * 1024
MOST_LINES_AT_ONCE = 5000
STREAMS = {b"o": "stdout", b"e": "stderr", b"O": "stdout", b"E": "stderr"}


def parse(line: bytes) -> LogLine | None:
    """Return the line, or None for one that was torn by a crash."""
    at, _, rest = line.partition(b" ")
    letter, _, text = rest.partition(b" ")
    stream = STREAMS.get(letter)
    try:
        return LogLine(float(at), stream, text.decode(errors="replace")) if stream else None
    except ValueError:
        return None


class OutputReader:
    """Follows the files of one unit across their rotation. Its calls block, briefly."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._rest = b""

    def last(self, count: int) -> list[LogLine]:
        """Return the last `count` lines, and stand at the end of them."""
        self._file = self._open()
        current = _tail(self._file, count) if self._file is not None else []
        if len(current) < count:
            try:
                with open(self._directory / PREVIOUS, "rb") as previous:
                    current = _tail(previous, count - len(current)) + current
            except FileNotFoundError:
                pass
        return [line for line in map(parse, current) if line is not None]

    def more(self) -> list[LogLine]:
        """Return lines that have come since, a bounded number; [] when there are none at the moment."""
        lines = self._read()
        if not lines and self._was_rotated():
            lines = self._read()  # what came between the first look and the rotation
            if not lines:
                self.close()
                self._file = self._open()
                lines = self._read()
        return [line for line in map(parse, lines) if line is not None]

    def _open(self) -> BinaryIO | None:
        try:
            return open(self._directory / CURRENT, "rb")
        except FileNotFoundError:
            return None

    def _was_rotated(self) -> bool:
        if self._file is None:
            return True
        try:
            return os.stat(self._directory / CURRENT).st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False

    def _read(self) -> list[bytes]:
        if self._file is None:
            return []
        *lines, self._rest = (self._rest + self._file.read(BLOCK)).split(b"\n")
        return lines

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._rest = b""


def _tail(file: BinaryIO, count: int) -> list[bytes]:
    """Return the last `count` whole lines, read from the end, and leave the file after them."""
    end = file.seek(0, os.SEEK_END)
    blocks: deque[bytes] = deque()
    newlines = 0
    at = end
    while at > 0 and newlines <= count:
        size = min(BLOCK, at)
        at -= size
        file.seek(at)
        blocks.appendleft(file.read(size))
        newlines += blocks[0].count(b"\n")
    *lines, rest = b"".join(blocks).split(b"\n")
    file.seek(end - len(rest))
    return lines[len(lines) - count :] if count < len(lines) else lines
