"""Finds lines in an archive on disk: a process of its own per search, that can be killed.

    python -m unit_master.archive.search DIRECTORY SECONDS  < Query as JSON  > Found as JSON

A regular expression can take for ever and can't be interrupted from within its process: a master that matched it
itself would stand still, and lose its term.
"""

from __future__ import annotations

import heapq
import os
import re
import resource
import sqlite3
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from unit_master.archive.literals import grams, required
from unit_master.archive.query import Found, Query, Row, compiled
from unit_master.archive.schema import grams_of, open_reader, segment
from unitfleet.shipped import ShippedLine

MEMORY = 1024 * 1024 * 1024
CPU_S = 10
"""Of processor time beyond the deadline: then the kernel ends the process."""

_rows = msgspec.json.Decoder(list[Row]).decode


def find(directory: Path, query: Query, clock: Callable[[], float], within_s: float) -> Found:
    """Return the newest lines that match; of what was looked at within the time.

    Raises `re.error` and `sqlite3.Error`.
    """
    return _Search(directory, query, clock, within_s).run()


class _Search:
    """One search. What is found is a heap of the newest lines, the oldest of them on top."""

    def __init__(self, directory: Path, query: Query, clock: Callable[[], float], within_s: float) -> None:
        self._directory = directory
        self._query = query
        self._pattern = compiled(query.grep)
        self._grams = grams(required(query.grep)) if query.grep else []
        self._clock = clock
        self._until = clock() + within_s
        self._best: list[tuple[float, str, str, int, ShippedLine]] = []
        self._lines_read = self._blocks = self._blocks_held = 0

    def run(self) -> Found:
        if self._query.limit < 1:
            return Found(lines=[])
        db = open_reader(self._directory)
        try:
            db.execute("BEGIN")  # one view of it, whatever is packed and removed meanwhile
            whole = self._fresh(db) and self._packed(db)
        finally:
            db.close()
        lines = [line for _, _, _, _, line in sorted(self._best, key=lambda each: each[:4])]
        return Found(
            lines=lines,
            whole=whole,
            lines_read=self._lines_read,
            blocks=self._blocks,
            blocks_held=self._blocks_held,
        )

    def _fresh(self, db: sqlite3.Connection) -> bool:
        """Look at the lines that are not packed; False when the time is over."""
        query = self._query
        exact, values = self._of_unit()
        rows = db.execute(
            "SELECT machine, name, unit, seq, at, epoch, stream, text, file FROM fresh"
            f" WHERE at >= ? AND at <= ?{exact}",
            (query.since, query.until, *values),
        )
        for count, (machine, name, unit, *row) in enumerate(rows):
            if query.takes_unit(unit) and query.takes_machine(machine, name):
                self._look(machine, name, unit, tuple(row))
            if count % 1000 == 0 and self._clock() > self._until:
                return False
        return True

    def _packed(self, db: sqlite3.Connection) -> bool:
        """Look at blocks, the newest first, until none can hold a newer line; False when the time is over."""
        query = self._query
        exact, values = self._of_unit()
        blocks = db.execute(
            "SELECT blocks.id, part, hour, machine, name, unit, until, place, length FROM blocks"
            " JOIN parts ON parts.id = part"
            f" WHERE until >= ? AND since <= ?{exact} ORDER BY until DESC",
            (query.since, query.until, *values),
        )
        may_hold: dict[int, set[int] | None] = {}
        for block, part, hour, machine, name, unit, until, place, length in blocks:
            if len(self._best) >= query.limit and until < self._best[0][0]:
                return True
            if not (query.takes_unit(unit) and query.takes_machine(machine, name)):
                continue
            self._blocks_held += 1
            if part not in may_hold:
                may_hold[part] = self._candidates(db, part)
            candidates = may_hold[part]
            if candidates is not None and block not in candidates:
                continue
            if self._clock() > self._until:
                return False
            for row in self._read(segment(self._directory, part, hour), place, length):
                if query.since <= row[1] <= query.until:
                    self._look(machine, name, unit, row)
        return True

    def _of_unit(self) -> tuple[str, tuple[str, ...]]:
        """Return a condition for a unit that is named in full: the index of SQL is quicker than ours."""
        name = self._query.unit
        return (" AND unit = ?", (name,)) if name and not re.search(r"[*?\[\\]", name) else ("", ())

    def _candidates(self, db: sqlite3.Connection, part: int) -> set[int] | None:
        """Return the blocks of a part that hold every run of three characters; None when any may match."""
        if not self._grams:
            return None
        wanted = " AND ".join('"' + gram.replace('"', '""') + '"' for gram in self._grams)
        table = grams_of(part)
        return {found for (found,) in db.execute(f"SELECT rowid FROM {table} WHERE {table} MATCH ?", (wanted,))}

    def _read(self, path: Path, place: int, length: int) -> Iterator[Row]:
        try:
            with open(path, "rb") as file:
                file.seek(place)
                raw = zlib.decompress(file.read(length))
        except FileNotFoundError:
            return  # it was removed by age or size meanwhile
        self._blocks += 1
        yield from _rows(raw)

    def _look(self, machine: str, name: str, unit: str, row: Row) -> None:
        self._lines_read += 1
        seq, at, epoch, stream, text, file = row
        full = len(self._best) >= self._query.limit
        if full and at < self._best[0][0]:
            return
        if self._pattern is not None and self._pattern.search(text) is None:
            return
        line = ShippedLine(
            unit=unit,
            machine=machine,
            name=name,
            epoch=epoch,
            seq=seq,
            at=at,
            stream=stream,
            text=text,
            file=file,
        )
        entry = (at, machine, unit, seq, line)
        if full:
            heapq.heappushpop(self._best, entry)
        else:
            heapq.heappush(self._best, entry)


def main() -> None:
    """Answer the query on stdin."""
    directory, within_s = Path(sys.argv[1]), float(sys.argv[2])
    os.nice(10)  # the processor is the master's first
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    most = int(within_s) + CPU_S  # if the master dies, nobody else ends an expression that never does
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    query = msgspec.json.decode(sys.stdin.buffer.read(), type=Query)
    found = find(directory, query, time.monotonic, within_s)
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
