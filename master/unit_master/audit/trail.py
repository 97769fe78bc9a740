"""This master's audit log: `audit.jsonl`, a line for what was asked, on disk before `write` returns.

Lines that are written at the same time share one fsync: who comes while the disk works waits for the next one.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from unitfleet.accessapi import AuditLine

logger = logging.getLogger(__name__)

NAME = "audit.jsonl"
FILE_BYTES = 10 * 1024 * 1024
FILES = 10

DISK_S = 10.0
"""A disk that takes longer is treated like one that takes nothing."""


LEAST_ROOM = 1024 * 1024
"""Bytes that a disk should have left for the lines of the next while."""


class CannotAudit(Exception):
    """The log takes no line; the message says why."""


@dataclass(slots=True)
class _Batch:
    lines: list[bytes] = field(default_factory=list)
    done: bool = False
    fault: str = ""


class Trail:
    """Writes lines into `folder`: one file and those before it, `audit.1.jsonl` the newest of them."""

    def __init__(self, folder: Path, *, file_bytes: int = FILE_BYTES, files: int = FILES) -> None:
        self.folder = folder
        self._file_bytes = file_bytes
        self._files = files
        self._batch = _Batch()
        self._turn = asyncio.Lock()
        # one thread: what a cancelled writer began goes on; of its own: slow searches must not hold up changes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")

    async def write(self, line: AuditLine) -> None:
        """Put a line on disk; raises `CannotAudit`. The line does not stand there then, unless the disk hung."""
        batch = self._batch
        batch.lines.append(msgspec.json.encode(line) + b"\n")
        try:
            async with asyncio.timeout(DISK_S), self._turn:
                if not batch.done:
                    if self._batch is batch:
                        self._batch = _Batch()
                    await asyncio.get_running_loop().run_in_executor(self._thread, self._append, batch)
        except TimeoutError:
            raise CannotAudit(f"the disk has not answered for {DISK_S:g} s") from None
        if batch.fault:
            raise CannotAudit(batch.fault)

    def trouble(self) -> str:
        """Return why a line could not be written now, as far as a look tells, or ""; blocks."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                return f"{self.folder} can't be written"
            room = os.statvfs(self.folder)
        except OSError as error:
            return f"{self.folder}: {(error.strerror or str(error)).lower()}"
        return f"the disk of {self.folder} is full" if room.f_bavail * room.f_frsize < LEAST_ROOM else ""

    def files(self) -> list[Path]:
        """Return the files that may be there, the newest first."""
        return [self.folder / _name(number) for number in range(self._files)]

    def _append(self, batch: _Batch) -> None:
        if batch.done:
            return
        try:
            self._put(b"".join(batch.lines))
        except OSError as error:
            batch.fault = (error.strerror or str(error)).lower()
            logger.error("could not write the audit log in %s: %s", self.folder, batch.fault)
        batch.done = True

    def _put(self, raw: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # masters of one host may share a folder
            if self._extend(raw):
                os.fsync(folder)  # a new name, too, must be on disk
        finally:
            os.close(folder)

    def _extend(self, raw: bytes) -> bool:
        """Append to the file, and say whether it is a new one."""
        path = self.folder / NAME
        created = not path.exists()
        if not created and path.stat().st_size + len(raw) > self._file_bytes:
            self._rotate()
            created = True
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                raw = b"\n" + raw  # a power cut tore the last line: keep this one whole
            try:
                _write_all(descriptor, raw)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)  # no half of a line, and none of a change that is refused
                raise
        finally:
            os.close(descriptor)
        return created

    def _rotate(self) -> None:
        names = [_name(number) for number in range(self._files)]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if (self.folder / newer).exists():
                os.replace(self.folder / newer, self.folder / older)


def _name(number: int) -> str:
    return f"audit.{number}.jsonl" if number else NAME


def _write_all(descriptor: int, raw: bytes) -> None:
    while raw:
        raw = raw[os.write(descriptor, raw) :]
