"""An archive on disk: lines come in, are packed into compressed blocks by hour, and go by size and age.

A line is stored when its transaction is: first as a row, then, with others of its unit, in a block. A crash
between the two leaves bytes at the end of a file that nothing points to, never a line twice. Everything blocks and
is called from one thread at a time.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from unit_master.archive.query import Row
from unit_master.archive.schema import grams_of, open_writer, segment
from unitfleet.shipped import ShippedLine

BLOCK_LINES = 1000
BLOCK_BYTES = 256 * 1024
"""A block is packed when so much of one unit waits,"""

PACK_AFTER_S = 300.0
"""or when its first line has waited for so long."""

HOUR_S = 3600.0
PARTS = 8
"""An hour that takes more than this share of the archive goes into several files: the oldest can still go."""


@dataclass(slots=True)
class _Waiting:
    """Rows of one unit and machine that are not packed: how many, their size, and when the first came."""

    name: str
    lines: int = 0
    size: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of lines that were handed in."""

    stored: int
    duplicates: int


class Shelves:
    """The writing side of an archive; `most_bytes` and `age_s` bound it.

    Making one raises OSError, also when another master has it, and `sqlite3.Error` for an index that is none.
    """

    def __init__(self, directory: Path, *, most_bytes: int, age_s: float) -> None:
        self.directory = directory
        self._lock = _lock(directory)
        self._most_bytes = most_bytes
        self._age_s = age_s
        self._unsynced: set[Path] = set()
        try:
            self._db = open_writer(directory)
        except BaseException:
            os.close(self._lock)
            raise
        self._marks: dict[tuple[str, str], tuple[int, float]] = {
            (machine, unit): (seq, at)
            for machine, unit, seq, at in self._db.execute("SELECT machine, unit, seq, at FROM marks")
        }
        self._waiting: dict[tuple[str, str], _Waiting] = {
            (machine, unit): _Waiting(name, lines, size, since)
            for machine, unit, name, lines, size, since in self._db.execute(
                "SELECT machine, unit, max(name), count(*), sum(length(text)), min(came)"
                " FROM fresh GROUP BY machine, unit"
            )
        }

    def close(self) -> None:
        """Close the index."""
        self._db.close()
        os.close(self._lock)

    def take(self, batches: Sequence[Iterable[ShippedLine]], now: float) -> list[Taken]:
        """Store lines, each once: of a machine and unit only what comes after the newest that is stored.

        A number that is not above that one, on a line written after it, is that of a machine that began to count
        anew: it is stored. Raises `sqlite3.Error`, and then nothing of any batch was stored.
        """
        rows: list[tuple[object, ...]] = []
        marks: dict[tuple[str, str], tuple[int, float]] = {}
        waiting: dict[tuple[str, str], _Waiting] = {}
        taken: list[Taken] = []
        for lines in batches:
            before, duplicates = len(rows), 0
            for line in lines:
                key = (line.machine, line.unit)
                seq, at = marks.get(key) or self._marks.get(key, (0, 0.0))
                if line.seq <= seq and line.at <= at:
                    duplicates += 1
                    continue
                marks[key] = (line.seq, max(at, line.at))
                held = waiting.setdefault(key, _Waiting(line.name))
                held.lines += 1
                held.size += len(line.text)
                rows.append(
                    (
                        *(line.machine, line.name, line.unit, now, line.seq, line.at),
                        *(line.epoch, line.stream, line.text, line.file),
                    )
                )
            taken.append(Taken(len(rows) - before, duplicates))
        if rows:
            self._insert(rows, [(*key, seq, at) for key, (seq, at) in marks.items()])
        self._marks |= marks
        for key, more in waiting.items():
            held = self._waiting.setdefault(key, _Waiting(more.name, since=now))
            held.name = more.name
            held.lines += more.lines
            held.size += more.size
        return taken

    def pack(self, now: float) -> int:
        """Pack what has waited long enough, or is enough; return how many blocks that made. Raises as `take`.

        Blocks are written and synced, then one transaction points to them and drops their rows.
        """
        ripe = [
            key
            for key, held in self._waiting.items()
            if held.lines >= BLOCK_LINES or held.size >= BLOCK_BYTES or now - held.since > PACK_AFTER_S
        ]
        if not ripe:
            return 0
        left: dict[tuple[str, str], _Waiting] = {}
        made = 0
        self._begin()
        try:
            for key in ripe:
                left[key] = replace(self._waiting[key], since=now)
                made += self._pack_unit(*key, left[key], now)
            for path in self._unsynced:
                _sync(path)
            self._db.execute("COMMIT")
        except BaseException:
            self._undo()
            raise
        finally:
            self._unsynced.clear()
        self._waiting |= left
        for key in ripe:
            if self._waiting[key].lines <= 0:
                del self._waiting[key]
        return made

    def tidy(self, now: float) -> list[str]:
        """Remove what is too old, then the oldest beyond the size; return why, for each part that went."""
        gone = []
        parts = self._db.execute("SELECT id, hour, size, newest FROM parts ORDER BY id").fetchall()
        total = sum(size for _, _, size, _ in parts) + self._index_size()
        for part, hour, size, newest in parts:
            if now - newest > self._age_s:
                gone.append("older than asked for")
            elif total > self._most_bytes:
                gone.append("beyond the size asked for")
            else:
                break
            before = self._index_size()
            self._remove(part, hour)
            total -= size + before - self._index_size()
        self._db.execute("DELETE FROM marks WHERE at < ?", (now - 2 * self._age_s,))
        old = [key for key, (_, at) in self._marks.items() if at < now - 2 * self._age_s]
        for key in old:
            del self._marks[key]
        return gone

    def size(self) -> int:
        """Return how many bytes it takes."""
        [blocks] = self._db.execute("SELECT coalesce(sum(size), 0) FROM parts").fetchone()
        return int(blocks) + self._index_size()

    def _insert(self, rows: Sequence[tuple[object, ...]], marks: Sequence[tuple[object, ...]]) -> None:
        self._begin()
        try:
            self._db.executemany(
                "INSERT INTO fresh (machine, name, unit, came, seq, at, epoch, stream, text, file)"
                " VALUES (?,?,?,?,?,?,?,?,?,?)",
                rows,
            )
            self._db.executemany("INSERT OR REPLACE INTO marks VALUES (?,?,?,?)", marks)
            self._db.execute("COMMIT")
        except BaseException:
            self._undo()
            raise

    def _pack_unit(self, machine: str, unit: str, held: _Waiting, now: float) -> int:
        """Pack the rows of one unit until less than a block is left."""
        made = 0
        while held.lines > 0 and (made == 0 or held.lines >= BLOCK_LINES):
            rows = self._db.execute(
                "SELECT id, seq, at, epoch, stream, text, file FROM fresh"
                " WHERE machine = ? AND unit = ? ORDER BY id LIMIT ?",
                (machine, unit, BLOCK_LINES),
            ).fetchall()
            if not rows:
                held.lines = 0
                break
            self._write_block(machine, held.name, unit, rows, now)
            held.lines -= len(rows)
            held.size -= sum(len(row[5]) for row in rows)
            made += 1
        return made

    def _write_block(
        self,
        machine: str,
        name: str,
        unit: str,
        rows: Sequence[tuple[int, int, float, int, str, str, str]],
        now: float,
    ) -> None:
        lines: list[Row] = [row[1:] for row in rows]
        raw = zlib.compress(msgspec.json.encode(lines), 6)
        times = [line[1] for line in lines]
        part, hour = self._part(now)
        path = segment(self.directory, part, hour)
        place = _append(path, raw)
        self._unsynced.add(path)
        block = self._db.execute(
            "INSERT INTO blocks (part, machine, name, unit, since, until, lines, place, length)"
            " VALUES (?,?,?,?,?,?,?,?,?)",
            (part, machine, name, unit, min(times), max(times), len(lines), place, len(raw)),
        ).lastrowid
        words = "\n".join(line[4] for line in lines).replace("\0", "\n")
        self._db.execute(f"INSERT INTO {grams_of(part)} (rowid, words) VALUES (?, ?)", (block, words))
        self._db.execute("UPDATE parts SET size = ?, newest = ? WHERE id = ?", (place + len(raw), now, part))
        self._db.executemany("DELETE FROM fresh WHERE id = ?", [(row[0],) for row in rows])

    def _part(self, now: float) -> tuple[int, int]:
        """Return the part to write to, a new one with each hour, and the hour it began in."""
        hour = int(now // HOUR_S)
        last = self._db.execute("SELECT id, hour, size FROM parts ORDER BY id DESC LIMIT 1").fetchone()
        if last is not None and last[1] == hour and last[2] < self._most_bytes // PARTS:
            return last[0], hour
        part = (last[0] if last else 0) + 1
        self._db.execute("INSERT INTO parts VALUES (?, ?, 0, ?)", (part, hour, now))
        self._db.execute(
            f"CREATE VIRTUAL TABLE {grams_of(part)} USING"
            " fts5(words, content='', detail=none, columnsize=0, tokenize='trigram')"
        )
        return part, hour

    def _remove(self, part: int, hour: int) -> None:
        self._begin()
        try:
            self._db.execute(f"DROP TABLE IF EXISTS {grams_of(part)}")
            self._db.execute("DELETE FROM blocks WHERE part = ?", (part,))
            self._db.execute("DELETE FROM parts WHERE id = ?", (part,))
            self._db.execute("COMMIT")
        except BaseException:
            self._undo()
            raise
        segment(self.directory, part, hour).unlink(missing_ok=True)

    def _index_size(self) -> int:
        """Return what the index takes, pages that are free for what comes left out."""
        [pages] = self._db.execute("PRAGMA page_count").fetchone()
        [free] = self._db.execute("PRAGMA freelist_count").fetchone()
        [size] = self._db.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def _begin(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def _undo(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _lock(directory: Path) -> int:
    """Hold the directory, made when it is missing; raises OSError when another master does."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise OSError(f"another master keeps its archive in {directory}") from error
    return file


def _append(path: Path, raw: bytes) -> int:
    """Append a block; return where it begins. Raises OSError, with nothing of it left."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        place = os.fstat(file).st_size
        try:
            left = memoryview(raw)
            while left:
                left = left[os.write(file, left) :]
        except OSError:
            os.ftruncate(file, place)
            raise
        return place
    finally:
        os.close(file)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(file)
    finally:
        os.close(file)
