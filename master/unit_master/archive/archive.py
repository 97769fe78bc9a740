"""A master's archive: takes what agents ship, and answers searches, without ever holding up the master.

Lines that wait are stored together, many batches in one transaction, by one thread. A search runs in a process of
its own, and dies with its deadline.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from unit_master.archive.query import Found, Query, compiled
from unit_master.archive.shelves import Shelves, Taken
from unitfleet.errors import Refused, StoreFull, StoreUnavailable, UnitfleetError
from unitfleet.shipped import ShippedLine

logger = logging.getLogger(__name__)

TIDY_S = 10.0
SEARCH_S = 20.0
KILL_S = 2.0
"""A search that has not ended so long after its deadline is in one line's expression: it is killed."""

SEARCHES = 2
MOST_WAITING = 64 * 1024 * 1024


class SearchTooSlow(UnitfleetError):
    """The expression took longer than a search may."""


@dataclass(slots=True)
class _Batch:
    lines: Sequence[ShippedLine]
    size: int
    taken: asyncio.Future[Taken] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Archive:
    """`open` it and keep `run` running. A fault of its disk is its own, never the master's."""

    def __init__(
        self,
        directory: Path,
        *,
        most_bytes: int,
        age_s: float,
        now: Callable[[], float],
        search_s: float = SEARCH_S,
    ) -> None:
        self.directory = directory
        self.stored = 0
        self.duplicates = 0
        self._most_bytes = most_bytes
        self._age_s = age_s
        self._now = now
        self._search_s = search_s
        self._thread = ThreadPoolExecutor(1, "archive")
        self._waiting: list[_Batch] = []
        self._waiting_bytes = 0
        self._came = asyncio.Event()
        self._searches = asyncio.Semaphore(SEARCHES)
        self._shelves: Shelves | None = None

    async def open(self) -> None:
        """Open the files. Raises `sqlite3.Error` and OSError when they can't be used."""
        self._shelves = await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def run(self) -> None:
        """Store what comes until cancelled."""
        assert self._shelves is not None, "it is open"
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store(self._shelves), name="archive")
            tasks.create_task(self._tidy(self._shelves), name="tidy the archive")

    async def close(self) -> None:
        """Close the files, after what is being written."""
        shelves, self._shelves = self._shelves, None
        if shelves is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, shelves.close)
        self._thread.shutdown(wait=False)

    async def ingest(self, lines: Sequence[ShippedLine], size: int) -> Taken:
        """Store lines of `size` bytes, and return once they are on disk.

        Raises `StoreUnavailable` when more waits than can be stored, `StoreFull` when the disk is.
        """
        if self._waiting_bytes + size > MOST_WAITING:
            raise StoreUnavailable("cannot take more lines now: the disk is slower than what comes")
        batch = _Batch(lines, size)
        self._waiting.append(batch)
        self._waiting_bytes += size
        self._came.set()
        return await batch.taken

    async def search(self, query: Query) -> Found:
        """Return the newest lines that match. Raises `Refused` for what is no expression, `SearchTooSlow`."""
        try:
            compiled(query.grep)
        except (re.error, RecursionError, OverflowError) as error:
            raise Refused(
                f"cannot search for {query.grep[:80]!a}: {error}", hint="it is a regular expression"
            ) from error
        async with self._searches:
            return await self._ask(query)

    async def _ask(self, query: Query) -> Found:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "unit_master.archive.search", str(self.directory), f"{self._search_s:g}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(self._search_s + KILL_S):
                out, told = await process.communicate(msgspec.json.encode(query))
        except TimeoutError:
            raise SearchTooSlow(
                f"cannot search for {query.grep[:80]!a}: it took longer than {self._search_s:g} s",
                hint="a simpler expression, or a shorter time (--since)",
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            last = told.decode(errors="replace").strip().rpartition("\n")[2]
            raise StoreUnavailable(f"cannot search the archive: {last or f'exit {process.returncode}'}")
        return msgspec.json.decode(out, type=Found)

    def _open(self) -> Shelves:
        return Shelves(self.directory, most_bytes=self._most_bytes, age_s=self._age_s)

    async def _store(self, shelves: Shelves) -> None:
        """Store whatever waits, at once."""
        loop = asyncio.get_running_loop()
        while True:
            await self._came.wait()
            self._came.clear()
            batches, self._waiting = self._waiting, []
            size = sum(batch.size for batch in batches)
            try:
                taken = await loop.run_in_executor(self._thread, self._take, shelves, batches)
            except (sqlite3.Error, OSError) as error:
                logger.error("could not store lines: %s", error)
                full = "full" in str(error)
                fault = (StoreFull if full else StoreUnavailable)(f"cannot store lines: {error}")
                for batch in batches:
                    if not batch.taken.done():
                        batch.taken.set_exception(fault)
            else:
                for batch, each in zip(batches, taken, strict=True):
                    self.stored += each.stored
                    self.duplicates += each.duplicates
                    if not batch.taken.done():
                        batch.taken.set_result(each)
            finally:
                self._waiting_bytes -= size
                for batch in batches:
                    batch.taken.cancel()

    def _take(self, shelves: Shelves, batches: Sequence[_Batch]) -> list[Taken]:
        now = self._now()
        taken = shelves.take([batch.lines for batch in batches], now)
        shelves.pack(now)
        return taken

    async def _tidy(self, shelves: Shelves) -> None:
        """Pack what has waited, and remove what has to go."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                gone = await loop.run_in_executor(self._thread, self._tidy_once, shelves)
                for why in gone:
                    logger.info("removed the oldest lines of the archive: %s", why)
            except (sqlite3.Error, OSError) as error:
                logger.error("could not tidy the archive: %s", error)
            await asyncio.sleep(TIDY_S)

    def _tidy_once(self, shelves: Shelves) -> list[str]:
        now = self._now()
        gone = shelves.tidy(now)  # first: it makes room
        shelves.pack(now)
        return gone
