"""A unit's output on disk: `output.log` and the one before it, bounded whatever the unit prints.

A line is `SECONDS.MICROS o|e TEXT` (o: stdout, e: stderr). The supervisor reads the unit's pipes, so a full
disk costs lines and never stops the unit; how many were lost is written once there is room again.
"""

from __future__ import annotations

import os
import time

CURRENT = "output.log"
PREVIOUS = "output.log.1"
LONGEST_LINE = 16 * 1024
STREAMS = {"stdout": b"o", "stderr": b"e"}


class Output:
    """Writes lines into the working directory; each of the two files holds at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._file = -1
        self._size = 0
        self._rests = dict.fromkeys(STREAMS, b"")
        self._lost = 0

    def feed(self, stream: str, data: bytes) -> None:
        """Take what came out of a stream; b"" is its end."""
        lines = (self._rests[stream] + data).split(b"\n")
        rest = lines.pop()
        if not data and rest:
            lines.append(rest)
            rest = b""
        while len(rest) > LONGEST_LINE:
            lines.append(rest[:LONGEST_LINE])
            rest = rest[LONGEST_LINE:]
        self._rests[stream] = rest
        if lines:
            self._write(STREAMS[stream], lines)

    def _write(self, letter: bytes, lines: list[bytes]) -> None:
        stamp = b"%.6f " % time.time()
        head = stamp + letter + b" "
        text = b"".join([head + line + b"\n" for line in lines])
        if self._lost:
            text = stamp + b"e %d lines were lost here: the disk did not take them\n" % self._lost + text
        try:
            written = self._append(text)
        except OSError:
            written = 0
        if written:
            self._lost = text.count(b"\n", written)
        else:
            self._lost += len(lines)

    def _append(self, text: bytes) -> int:
        """Write whole lines, as many as the disk takes; returns how many bytes those are."""
        if self._file < 0:
            self._file = os.open(CURRENT, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            self._size = os.fstat(self._file).st_size
        if self._size and self._size + len(text) > self._limit:
            os.rename(CURRENT, PREVIOUS)
            os.close(self._file)
            self._file = -1
            return self._append(text)
        written = os.write(self._file, text)
        if written < len(text) and text[written - 1 : written] != b"\n":
            size = os.fstat(self._file).st_size  # somebody else may have emptied the file
            whole = text.rfind(b"\n", 0, written) + 1
            os.ftruncate(self._file, size - (written - whole))  # half a line would spoil the next one
            written = whole
        self._size += written
        return written
