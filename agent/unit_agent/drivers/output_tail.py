"""Reads the whole bounded output of a unit (`unit_agent.supervisor.output`) from a mark on, across rotations.

A mark is `COPY@OFFSET@HEAD`: whose output, how far, and the first bytes of the file, which begin with a time and
so tell it from the file that takes its place (an inode's number may come again).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from unit_agent.output import LONGEST_LINE, OutputLine, cut
from unit_agent.supervisor.output import CURRENT, PREVIOUS
from unitfleet.shipped import GAP

PIECE = 256 * 1024
LOOK_S = 0.1
STREAMS = {b"o": "stdout", b"e": "stderr", b"O": "stdout", b"E": "stderr"}
UNFINISHED = frozenset((b"O", b"E"))
"""Letters of a piece whose line goes on in the next one of that stream."""

_HEAD = 24


class OutputTail:
    """Reads one copy's files, also when its directory is moved. Its calls block, briefly. Raises OSError."""

    def __init__(self, directory: Path, copy: str, mark: str) -> None:
        self._path = directory
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._copy = copy
        whose, _, rest = mark.partition("@")
        offset, _, head = rest.partition("@")
        self._from = (int(offset), head.encode("latin-1")) if whose == copy else None
        self._file: BinaryIO | None = None
        self._head = b""
        self._offset = 0  # behind the last whole line
        self._rest = b""
        self._open: dict[str, tuple[int, list[bytes]]] = {}

    @property
    def mark(self) -> str:
        """Return where to read on from."""
        return f"{self._copy}@{self._offset}@{self._head.decode('latin-1')}"

    def more(self) -> list[OutputLine]:
        """Return lines that have come, a bounded number; [] when there are none at the moment."""
        lines: list[OutputLine] = []
        if self._file is None:
            lines = self._open_at_mark()
            if self._file is None:
                return lines
        found = self._some()
        if found or lines:
            return lines + found
        following = self._following()
        if following is None:
            return []
        if found := self._some():
            following.close()
            return found  # what came between the first look and the rotation
        self._turn_to(following)
        return self._some()

    @property
    def gone(self) -> bool:
        """Whether the copy was removed, or set aside, or another one is in its place."""
        held = os.fstat(self._directory)
        try:
            there = os.stat(self._path)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino)

    def close(self) -> None:
        """Close what is open."""
        self._close_file()
        os.close(self._directory)

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_at_mark(self) -> list[OutputLine]:
        """Open the file that the mark speaks of; else the oldest one, and a line that says what is missing."""
        lost: list[OutputLine] = []
        previous, current = self._file_of(PREVIOUS), self._file_of(CURRENT)
        files = [file for file in (previous, current) if file is not None]
        if not files:
            return lost
        chosen, offset = files[0], 0
        if self._from is not None and self._from[1]:
            offset, head = self._from
            same = [file for file in files if file.read(len(head)) == head]
            if same:
                chosen = same[0]
            else:
                offset = 0
                at = os.fstat(chosen.fileno()).st_mtime
                lost = [(at, GAP, b"lines were lost here: the output was rotated away before it was read")]
        for file in files:
            if file is not chosen:
                file.close()
        self._from = None
        self._turn_to(chosen, offset)
        return lost

    def _file_of(self, name: str) -> BinaryIO | None:
        try:
            return open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory), "rb")
        except FileNotFoundError:
            return None

    def _turn_to(self, file: BinaryIO, offset: int = 0) -> None:
        self._close_file()
        file.seek(0)
        self._file, self._head, self._rest = file, file.read(_HEAD), b""
        size = file.seek(0, os.SEEK_END)
        self._offset = file.seek(offset if offset <= size else 0)

    def _following(self) -> BinaryIO | None:
        """Return the file that comes after the one being read, None while that is the newest."""
        assert self._file is not None
        status = os.fstat(self._file.fileno())
        for name in (PREVIOUS, CURRENT):
            file = self._file_of(name)
            if file is None:
                continue
            other = os.fstat(file.fileno())
            if (other.st_dev, other.st_ino) != (status.st_dev, status.st_ino):
                if name == CURRENT or status.st_nlink == 0:
                    return file
            elif name == CURRENT:
                file.close()
                return None
            file.close()
        return None

    def _some(self) -> list[OutputLine]:
        """Return the lines of the next pieces that complete any; [] at the end of the file."""
        while (found := self._read()) is not None:
            if found:
                return found
        return []

    def _read(self) -> list[OutputLine] | None:
        """Read a piece; None when there is none."""
        file = self._file
        assert file is not None
        data = file.read(PIECE)
        if not data:
            if os.fstat(file.fileno()).st_size < self._offset:  # somebody emptied the file
                self._offset, self._rest = file.seek(0), b""
                self._head = b""
            return None
        if len(self._head) < _HEAD:
            self._head = os.pread(file.fileno(), _HEAD, 0)
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        self._offset += end
        return self._lines(data[: end - 1]) if end else []

    def _lines(self, data: bytes) -> list[OutputLine]:
        lines: list[OutputLine] = []
        streams = STREAMS
        for raw in data.split(b"\n"):
            try:
                at, letter, text = raw.split(b" ", 2)
                stream = streams[letter]
                if letter in UNFINISHED or self._open:
                    whole = self._piece(stream, text, letter in UNFINISHED)
                    if whole is None:
                        continue
                    text = whole
                lines.append((float(at), stream, text))
            except (ValueError, KeyError):
                continue  # torn by a crash
        return lines

    def _piece(self, stream: str, piece: bytes, unfinished: bool) -> bytes | None:
        length, pieces = self._open.pop(stream, (0, []))
        if length < LONGEST_LINE:
            pieces.append(piece)
        length += len(piece)
        if not unfinished:
            return cut(b"".join(pieces), length)
        self._open[stream] = (length, pieces)
        return None


class OutputWatch:
    """Looks at all files that are read, together and often: one look is cheap, a timer for each unit is not."""

    def __init__(self) -> None:
        self._watched: dict[asyncio.Event, tuple[Path, tuple[int, int] | None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def watching(self, directory: Path) -> Iterator[asyncio.Event]:
        """Give an event that is set when the output in a directory grows, is rotated, or goes away."""
        event = asyncio.Event()
        self._watched[event] = (directory / CURRENT, None)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        try:
            yield event
        finally:
            del self._watched[event]

    def _look(self) -> None:
        self._timer = None
        for event, (path, before) in self._watched.items():
            try:
                status = os.stat(path)
                now = (status.st_ino, status.st_size)
            except OSError:
                now = (0, 0)
            if now != before:
                self._watched[event] = (path, now)
                event.set()
        if self._watched:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
