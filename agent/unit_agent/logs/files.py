"""Follows the files that a unit writes where it runs (`LogFiles=`), over rotation by rename and by copytruncate.

What is taken of a file is marked by its path, device, inode and beginning, with the offset behind the last whole
line: the mark holds over restarts of the agent and of the unit. A line is stamped when it is read. At most
`MOST_FILES` of a unit are followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from unit_agent.logs import inside
from unit_agent.logs.rate import Rate, RateCap
from unit_agent.logs.segments import SegmentStore
from unit_agent.output import LONGEST_LINE, OutputLine, cut
from unitfleet.shipped import GAP

logger = logging.getLogger(__name__)

LOOK_S = 0.5
MOST_FILES = 100
PIECE = 1024 * 1024
BEGINNING = 64
"""Bytes that tell a file from another that got its inode."""

MARK = "file:"


@dataclass(slots=True)
class _Followed:
    """One file, open. `offset` is behind the last whole line; `rest` what came after it, of which only the first
    `LONGEST_LINE` bytes are held while `length` goes on."""

    path: str
    handle: int
    offset: int
    place: int = 0
    rest: bytes = b""
    length: int = 0
    missing: bool = False
    lines: list[bytes] = field(default_factory=list)

    def read(self) -> bool:
        """Read a piece; tell whether there was any. Raises OSError."""
        size = os.fstat(self.handle).st_size
        if size < self.place:  # emptied in place
            self.offset, self.place, self.rest, self.length = 0, 0, b"", 0
        data = os.pread(self.handle, PIECE, self.place)
        if not data:
            return False
        self.place += len(data)
        first, *others = data.split(b"\n")
        self._add(first)
        for part in others:
            self.lines.append(cut(self.rest, self.length))
            self.rest, self.length = b"", 0
            self._add(part)
        if others:
            self.offset = self.place - len(others[-1])
        return True

    def end(self) -> None:
        """Take what has no newline for a line: nothing will follow it."""
        if self.length:
            self.lines.append(cut(self.rest, self.length))
            self.offset, self.rest, self.length = self.place, b"", 0

    def _add(self, part: bytes) -> None:
        if len(self.rest) <= LONGEST_LINE:
            self.rest += part
        self.length += len(part)

    def mark(self) -> str:
        """Return where to read on from."""
        status = os.fstat(self.handle)
        count = min(BEGINNING, self.offset)
        return f"{status.st_dev}:{status.st_ino}:{count}:{_sum(self.handle, count)}@{self.offset}"


class FileReader:
    """The files of one copy. `whole`: what a file held before it was first seen is the unit's own, and is read."""

    def __init__(
        self, store: SegmentStore, unit: str, epoch: int, globs: Sequence[str], rate: Rate, *, whole: bool
    ) -> None:
        self._store = store
        self._unit = unit
        self._epoch = epoch
        self._globs = globs
        self._cap = RateCap(rate, time.monotonic())
        self._whole = whole
        self._first = True
        self._root: tuple[str, int] | None = None
        self._files: dict[str, _Followed] = {}
        self._told_of_most = False

    async def run(self, root: Callable[[], str | None]) -> None:
        """Read on until the copy is gone; `root` says what is its `/`, "" while it has none, None at the end."""
        try:
            while (path := root()) is not None:
                more = True
                while more:
                    more = await asyncio.to_thread(self._look, path)
                    self._take()
                    await self._store.room()
                await asyncio.sleep(LOOK_S)
            while await asyncio.to_thread(self._read_all):
                self._take()
            for followed in self._files.values():
                followed.end()
            self._take()
        finally:
            for followed in self._files.values():
                os.close(followed.handle)
            self._files.clear()
            self._leave_root()

    def _take(self) -> None:
        """Hand over what was read."""
        now = time.time()
        for followed in self._files.values():
            if not followed.lines:
                continue
            texts, followed.lines = followed.lines, []
            lines: list[OutputLine] = [(now, "file", text) for text in texts]
            if not self._cap.admit(len(texts), sum(map(len, texts)), time.monotonic()):
                lines = []
            if account := self._cap.account(time.monotonic()):
                lines.insert(0, (now, GAP, account.encode()))
            marks = {f"{MARK}{followed.path}": followed.mark()}
            self._store.take(self._unit, lines, self._epoch, file=followed.path, marks=marks)

    def _look(self, root: str) -> bool:
        """Find new files and read a piece of each; tell whether there is more to read at once."""
        try:
            self._enter_root(root)
            self._find()
        except OSError as error:
            logger.debug("could not look for log files of %s: %s", self._unit, error)
        return self._read_all()

    def _enter_root(self, path: str) -> None:
        if self._root is not None and self._root[0] != path:
            self._leave_root()
        if self._root is None and path:
            self._root = (path, inside.open_root(path))

    def _leave_root(self) -> None:
        if self._root is not None:
            os.close(self._root[1])
            self._root = None

    def _find(self) -> None:
        """Open what the globs name now; a file that took another's place is turned to once that one is read."""
        if self._root is None:
            return
        root = self._root[1]
        named = dict.fromkeys(path for glob in self._globs for path in inside.matching(root, glob, MOST_FILES + 1))
        if len(named) > MOST_FILES and not self._told_of_most:
            self._told_of_most = True
            logger.warning("followed %d log files of %s, its globs name more", MOST_FILES, self._unit)
        for path in list(named)[:MOST_FILES]:
            handle = inside.open_file(root, path)
            followed = self._files.get(path)
            if handle is None:
                continue
            if followed is None:
                self._files[path] = self._begin(root, path, handle)
            elif os.path.sameopenfile(handle, followed.handle):
                os.close(handle)
            else:
                self._turn(followed, handle)
        for path in self._files.keys() - named.keys():  # renamed or removed: read to its end, then let go
            followed = self._files[path]
            if followed.missing and not followed.lines and not followed.read():
                os.close(self._files.pop(path).handle)
            followed.missing = True
        self._first = False

    def _begin(self, root: int, path: str, handle: int) -> _Followed:
        """Return a file to follow, from where its mark stands; what a rotated one was left with comes first."""
        mark = self._store.mark(self._unit, f"{MARK}{path}")
        if (offset := _offset(mark, handle)) is not None:
            return _Followed(path, handle, offset, offset)
        if not mark:
            begin = 0 if self._whole or not self._first else os.fstat(handle).st_size
            return _Followed(path, handle, begin, begin)
        followed = _Followed(path, handle, 0)
        rotated = self._rotated(root, path, mark)
        if rotated is not None:
            old = _Followed(path, rotated[0], rotated[1], rotated[1])
            while old.read():
                pass
            old.end()
            followed.lines = old.lines
            os.close(old.handle)
        return followed

    def _rotated(self, root: int, path: str, mark: str) -> tuple[int, int] | None:
        """Find the file of a mark under the name that a rotation gave it."""
        folder, _, name = path.rpartition("/")
        for other in inside.matching(root, f"{folder}/*", MOST_FILES):
            if other.rpartition("/")[2].startswith(name.partition(".")[0]):
                handle = inside.open_file(root, other)
                if handle is not None:
                    if (offset := _offset(mark, handle)) is not None:
                        return handle, offset
                    os.close(handle)
        return None

    def _turn(self, followed: _Followed, handle: int) -> None:
        """Turn to the file that has the path now, the old one read to its end."""
        while followed.read():
            pass
        followed.end()
        os.close(followed.handle)
        followed.handle, followed.offset, followed.place = handle, 0, 0

    def _read_all(self) -> bool:
        any_read = False
        for followed in self._files.values():
            with contextlib.suppress(OSError):
                any_read = followed.read() or any_read
        return any_read


def _offset(mark: str, handle: int) -> int | None:
    """Return the offset of a mark, if it is of this file."""
    identity, _, offset = mark.partition("@")
    parts = identity.split(":")
    if len(parts) != 4:
        return None
    status = os.fstat(handle)
    if (int(parts[0]), int(parts[1])) != (status.st_dev, status.st_ino) or status.st_size < int(offset):
        return None
    return int(offset) if _sum(handle, int(parts[2])) == int(parts[3]) else None


def _sum(handle: int, count: int) -> int:
    return zlib.crc32(os.pread(handle, count, 0))
