"""The `file` sink: JSON lines appended to a file of this host, rotated by size.

A batch is on disk when it is acknowledged. A line that an agent's death left half written is cut off when the
file is opened again; lines that were written and not acknowledged stand there twice, under the same key.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from unit_agent.logs.record import LogRecord
from unit_agent.logs.sinks.address import SinkAddress
from unit_agent.logs.sinks.sink import Pace, SinkRefused, SinkUnavailable, Source
from unitfleet import quantities
from unitfleet.errors import InvalidConfig

MAX_BYTES = 100 * 1024 * 1024
KEEP = 5


class FileSink:
    """Appends to `path`; beyond `max_bytes` it becomes `path.1`, and so on up to `path.<keep>`."""

    def __init__(self, name: str, path: Path, source: Source, *, max_bytes: int = MAX_BYTES, keep: int = KEEP):
        self.name = name
        self.pace = Pace()
        self._path = path
        self._source = source
        self._max_bytes = max_bytes
        self._keep = keep
        self._file: int | None = None
        self._size = 0

    @classmethod
    def at(cls, address: SinkAddress, source: Source) -> FileSink:
        """Make it from its URL; raises `InvalidConfig`."""
        keep = address.query.get("keep", str(KEEP))
        if not (keep.isascii() and keep.isdigit() and len(keep) < 4):
            raise InvalidConfig(
                f"cannot use log-sinks: {address.shown()}: keep={keep} is no number", hint="keep=5"
            )
        try:
            most = quantities.size(address.query.get("max", str(MAX_BYTES)))
        except ValueError as error:
            raise InvalidConfig(
                f"cannot use log-sinks: {address.shown()}: max: {error}", hint="max=100M"
            ) from error
        return cls(address.name, Path(address.path), source, max_bytes=most, keep=int(keep))

    async def send(self, batch: Sequence[LogRecord]) -> None:
        """Append the batch and sync it to the disk."""
        try:
            await asyncio.to_thread(self._append, b"".join(self._source.line(record) + b"\n" for record in batch))
        except PermissionError as error:
            raise SinkRefused(f"cannot write {self._path}: {(error.strerror or '').lower()}") from error
        except OSError as error:
            raise SinkUnavailable(
                f"cannot write {self._path}: {(error.strerror or str(error)).lower()}"
            ) from error

    async def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _append(self, raw: bytes) -> None:
        file = self._open()
        if self._size and self._size + len(raw) > self._max_bytes:
            file = self._rotate(file)
        try:
            left = memoryview(raw)
            while left:
                left = left[os.write(file, left) :]
            os.fdatasync(file)
        except OSError:
            os.ftruncate(file, self._size)  # a full disk: no half of a line stays
            raise
        self._size += len(raw)

    def _open(self) -> int:
        """Return the file, whole lines only; one that was moved away by others is made anew."""
        if self._file is not None:
            try:
                if os.stat(self._path).st_ino == os.fstat(self._file).st_ino:
                    return self._file
            except FileNotFoundError:
                pass
            os.close(self._file)
            self._file = None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = _cut_to_lines(file)
        self._file = file
        return file

    def _rotate(self, file: int) -> int:
        os.close(file)
        self._file = None
        if not self._keep:
            self._path.unlink()
            return self._open()
        for number in range(self._keep - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.rename(self._numbered(number + 1))
        self._path.rename(self._numbered(1))
        return self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _cut_to_lines(file: int) -> int:
    """Cut off what follows the last newline; return the size."""
    size = end = os.fstat(file).st_size
    while end:
        begin = max(0, end - 65536)
        found = os.pread(file, end - begin, begin).rfind(b"\n")
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    if end != size:
        os.ftruncate(file, end)
    return end
