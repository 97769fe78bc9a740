"""The files of one container's log, each held open until it is read to its end.

The Engine writes to `PATH`; when that is full it becomes `PATH.1`, `PATH.1` becomes `PATH.2`, and the last one is
deleted (with `compress`, all but the newest are a `.gz`). What is open stays readable all the same. Where files
may have come and gone unseen between two looks, and where one is given up because too much is held, a text says so
in the file behind it.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from unit_agent.drivers.docker_records import Record, read

COUNTED = 32 * 1024 * 1024
"""So many bytes of what is given up are read to count its lines."""

MISSED = "lines may be missing here: the Engine rotated its files away before they were seen"
EMPTIED = "lines may be missing here: the Engine's file was emptied in place"

_PIECE = 1024 * 1024
_FIRST = 256 * 1024  # no record is longer: 16 KiB of text, escaped, and what the options of the driver add
_MOST = 1000  # generations on disk, the Engine's own bound
_TRIES = 3


@dataclass(slots=True, eq=False)
class Generation:
    """One file. `offset` is behind the last record that was read; `gaps` tell what is missing before it."""

    handle: int
    node: tuple[int, int]
    packed: gzip.GzipFile | None = None
    offset: int = 0
    gaps: list[str] = field(default_factory=list)
    _first: bytes = b""  # the first record
    _name: str = ""

    @classmethod
    def open(cls, path: str) -> Generation | None:
        """Open a file, or what it was packed into; None when neither is there. Raises OSError."""
        for name in (path, f"{path}.gz"):
            with contextlib.suppress(FileNotFoundError):
                handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                status = os.fstat(handle)
                packed = gzip.GzipFile(fileobj=os.fdopen(os.dup(handle), "rb")) if name != path else None
                return cls(handle, (status.st_dev, status.st_ino), packed)
        return None

    def read(self, size: int) -> bytes:
        """Return what stands behind `offset`, at most so much; that does not move."""
        return self._read(size, self.offset)

    def _read(self, size: int, offset: int) -> bytes:
        if self.packed is None:
            return os.pread(self.handle, size, offset)
        try:
            self.packed.seek(offset)
            return self.packed.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return b""  # its packing was broken off

    @property
    def name(self) -> str:
        """Return what tells the file, which has a record, from all others: its inode, and a checksum of that.

        The checksum alone does not: all pieces of a long line may be alike. The inode neither: it is given again.
        """
        if not self._name:
            self._name = f"{self.node[1]}.{zlib.crc32(self.first)}"
        return self._name

    def answers_to(self, name: str) -> bool:
        """Tell whether this is the file of a name; one that was packed meanwhile takes on its old one."""
        inode, _, checksum = name.partition(".")
        if not self.first or checksum != str(zlib.crc32(self.first)):
            return False
        if self.packed is not None:
            self._name = name
        return self.packed is not None or inode == str(self.node[1])

    @property
    def first(self) -> bytes:
        """Return the first record, b"" while there is none."""
        if not self._first:
            beginning = self._read(_FIRST, 0)
            self._first = beginning[: beginning.find(b"\n") + 1]
        return self._first

    @property
    def first_record(self) -> Record | None:
        """Return what the first record says, None while there is none."""
        return read(self.first)[0] if self.first else None

    @property
    def unread(self) -> int:
        """Return how many bytes of it wait; of a packed one, about."""
        return max(0, os.fstat(self.handle).st_size - (self.offset if self.packed is None else 0))

    def was_emptied(self) -> bool:
        """Tell whether the file was emptied in place, or written anew since; begin it again then."""
        if self.packed is not None or not self.offset:
            return False
        kept = os.fstat(self.handle).st_size >= self.offset
        if kept and os.pread(self.handle, len(self._first), 0) == self._first:
            return False
        self.offset, self._first, self._name = 0, b"", ""
        return True

    def left(self) -> str:
        """Return how much is lost when the rest of it is not read."""
        size = self.unread
        if size <= COUNTED:
            count, at = 0, self.offset
            with contextlib.suppress(OSError):
                while piece := self._read(_PIECE, at):
                    count += piece.count(b"\n")
                    at += len(piece)
                return f"{count} lines ({at - self.offset} bytes)"
        return f"some lines ({size} bytes)"

    def close(self) -> None:
        if self.packed is not None:
            self.packed.fileobj.close()  # type: ignore[union-attr]  # ours
        os.close(self.handle)


class Generations:
    """The files that are held, the oldest first; the last one is what the Engine writes to."""

    def __init__(self, path: str, most: int) -> None:
        """Hold all there is; `most` files are what the Engine keeps. Raises OSError."""
        self._path = path
        self._most = most
        self.files: deque[Generation] = deque(self._newer(None))
        if not self.files:
            raise FileNotFoundError(f"{path} is not there")

    @property
    def oldest(self) -> Generation:
        """Return the one to read."""
        return self.files[0]

    @property
    def is_whole(self) -> bool:
        """Tell whether what is held may be all there ever was."""
        return len(self.files) < self._most

    def turn(self) -> None:
        """Go on to the next one."""
        self.files.popleft().close()

    def look(self) -> tuple[int, int]:
        """See whether the Engine has rotated, and hold what is new; return what the newest file shows."""
        try:
            status = os.stat(self._path)
        except OSError:  # removed, or between two names
            return (0, 0)
        if (status.st_dev, status.st_ino) != self.files[-1].node:
            with contextlib.suppress(OSError):
                self.files += self._newer(self.files[-1])
        return (status.st_ino, status.st_size)

    def give_up(self) -> None:
        """Let go of the oldest one, of at least two, and note how much of it was not read."""
        lost = self.oldest
        text = f"{lost.left()} were lost here: they came faster than they could be read"
        self.files[1].gaps[:0] = [*lost.gaps, text]
        self.turn()

    @property
    def waiting(self) -> int:
        """Return how many bytes are held of files that the Engine may have deleted."""
        return sum(file.unread for file in list(self.files)[:-1])

    def close(self) -> None:
        """Close all."""
        while self.files:
            self.turn()

    def _newer(self, known: Generation | None) -> list[Generation]:
        """Open what came after a file, the oldest first; again, when the Engine rotates meanwhile."""
        for _ in range(_TRIES):
            with contextlib.ExitStack() as opened:
                found: list[Generation] = []
                seen = False
                for file in self._on_disk():
                    opened.callback(file.close)
                    if known is not None and (
                        file.node == known.node or (file.packed and known.first == file.first != b"")
                    ):
                        seen = True
                        break
                    found.insert(0, file)
                if not found or not self._still(found):
                    continue
                if known is not None and not seen:
                    found[0].gaps.append(MISSED)
                opened.pop_all()
                if seen:
                    file.close()
                return found
        return []

    def _still(self, found: list[Generation]) -> bool:
        """Tell whether no file changed its name while they were opened."""
        nodes = {file.node for file in found}
        try:
            status = os.stat(self._path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == found[-1].node and len(nodes) == len(found)

    def _on_disk(self) -> Iterator[Generation]:
        """Open the files, the newest first."""
        for number in range(_MOST):
            file = Generation.open(f"{self._path}.{number}" if number else self._path)
            if file is None:
                return
            yield file
