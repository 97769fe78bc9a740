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

from unitfleet import codec, wholefile
from unitfleet.errors import BadRecord
from unitfleet.model import Record

R = TypeVar("R", bound=Record)

logger = logging.getLogger(__name__)


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
        path = self._root / name
        wholefile.replace(path, data)

    def _names(self, folder: str) -> list[str]:
        try:
            found = os.listdir(self._root / folder)
        except FileNotFoundError:
            return []
        return sorted(name for name in found if not name.endswith(wholefile.TEMPORARY))
