"""A unit's output on disk: `output.log` and the one before it, bounded whatever the unit prints.

A line is `SECONDS.MICROS o|e TEXT` (o: stdout, e: stderr; O and E: it goes on in the next one of its stream).
The supervisor reads the unit's pipes, so a full disk costs lines and never stops the unit; how many were lost is
written once there is room again.
"""

from __future__ import annotations

import os
import time

from unit_agent.causes import FILES_WORDS

CURRENT = "output.log"
PREVIOUS = "output.log.1"
LONGEST_LINE = 16 * 1024
_COMPLAINT = FILES_WORDS.encode()
STREAMS = {"stdout": b"o", "stderr": b"e"}


class Output:
    """Writes lines into the working directory; each of the two files holds at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._file = -1
        self._size = 0
        self._rests = dict.fromkeys(STREAMS, b"")
        self._unfinished: set[str] = set()  # streams of which the beginning of a line is written
        self._lost = 0
        self.complained = float("-inf")  # monotonic: when it last said that it has no more files

    def feed(self, stream: str, data: bytes) -> None:
        """Take what came out of a stream; b"" is its end."""
        if _COMPLAINT in data:
            self.complained = time.monotonic()
        lines = (self._rests[stream] + data).split(b"\n")
        rest = lines.pop()
        if not data and (rest or stream in self._unfinished):
            lines.append(rest)
            rest = b""
        pieces = []
        while len(rest) > LONGEST_LINE:
            pieces.append(rest[:LONGEST_LINE])
            rest = rest[LONGEST_LINE:]
        self._rests[stream] = rest
        if pieces:
            self._unfinished.add(stream)
        elif lines:
            self._unfinished.discard(stream)
        if lines or pieces:
            self._write(STREAMS[stream], lines, pieces)

    def _write(self, letter: bytes, lines: list[bytes], pieces: list[bytes]) -> None:
        stamp = b"%.6f " % time.time()
        head, goes_on = stamp + letter + b" ", stamp + letter.upper() + b" "
        text = b"".join([head + line + b"\n" for line in lines] + [goes_on + piece + b"\n" for piece in pieces])
        if self._lost:
            text = stamp + b"e %d lines were lost here: the disk did not take them\n" % self._lost + text
        try:
            written = self._append(text)
        except OSError:
            written = 0
        if written:
            self._lost = text.count(b"\n", written)
        else:
            self._lost += len(lines) + len(pieces)

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
