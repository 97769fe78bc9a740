"""What an agent keeps on its host over restarts and reboots: small named documents, each written whole.

A `write` that has returned survives a power cut; one that was cut short leaves the old content. Names are
relative paths of one or two parts. `DirectoryCopy` is the real one, `MemoryCopy` that of simulations.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Protocol, TypeVar

from unitfleet import codec
from unitfleet.errors import BadRecord
from unitfleet.model import Record

R = TypeVar("R", bound=Record)

logger = logging.getLogger(__name__)

_TEMPORARY = ".new"


class LocalCopy(Protocol):
    """Named documents. Every call may raise OSError (disk full, read-only)."""

    async def read(self, name: str) -> bytes | None:
        """Return a document, or None."""
        ...

    async def write(self, name: str, data: bytes) -> None:
        """Replace a document, durably."""
        ...

    async def delete(self, name: str) -> None:
        """Remove a document; none there is fine."""
        ...

    async def names(self, folder: str) -> list[str]:
        """Return the documents' names in a folder, without it."""
        ...


async def read_record(local: LocalCopy, name: str, kind: type[R]) -> R | None:
    """Return a record that is kept, or None when there is none or it can't be read."""
    raw = await local.read(name)
    if raw is None:
        return None
    try:
        return codec.decode(raw, kind, name)
    except BadRecord as error:
        logger.error("ignored a damaged file of the local copy: %s", error)
        return None


class MemoryCopy:
    """A local copy in memory; it outlives the agents that a simulation kills."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}

    async def read(self, name: str) -> bytes | None:
        return self.documents.get(name)

    async def write(self, name: str, data: bytes) -> None:
        self.documents[name] = data

    async def delete(self, name: str) -> None:
        self.documents.pop(name, None)

    async def names(self, folder: str) -> list[str]:
        prefix = folder + "/"
        return sorted(name.removeprefix(prefix) for name in self.documents if name.startswith(prefix))


class DirectoryCopy:
    """A local copy under a directory that only its owner can read."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def read(self, name: str) -> bytes | None:
        return await asyncio.to_thread(self._read, name)

    async def write(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._write, name, data)

    async def delete(self, name: str) -> None:
        await asyncio.to_thread((self._root / name).unlink, missing_ok=True)

    async def names(self, folder: str) -> list[str]:
        return await asyncio.to_thread(self._names, folder)

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        """Write beside it, fsync, rename, fsync the directory: old or new, never half."""
        path = self._root / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = path.with_name(path.name + _TEMPORARY)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _names(self, folder: str) -> list[str]:
        try:
            found = os.listdir(self._root / folder)
        except FileNotFoundError:
            return []
        return sorted(name for name in found if not name.endswith(_TEMPORARY))
