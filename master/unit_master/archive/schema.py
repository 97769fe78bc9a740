"""The tables of an archive's index, and how a connection to it is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

INDEX = "index.db"
VERSION = 1

_TABLES = """
CREATE TABLE marks (machine TEXT, unit TEXT, seq INTEGER, at REAL, PRIMARY KEY (machine, unit)) WITHOUT ROWID;
CREATE TABLE fresh (
    id INTEGER PRIMARY KEY, machine TEXT, name TEXT, unit TEXT, came REAL,
    seq INTEGER, at REAL, epoch INTEGER, stream TEXT, text TEXT, file TEXT
);
CREATE INDEX fresh_of ON fresh (machine, unit);
CREATE TABLE parts (id INTEGER PRIMARY KEY, hour INTEGER, size INTEGER, newest REAL);
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY, part INTEGER, machine TEXT, name TEXT, unit TEXT,
    since REAL, until REAL, lines INTEGER, place INTEGER, length INTEGER
);
CREATE INDEX blocks_of ON blocks (part);
CREATE INDEX blocks_until ON blocks (until);
"""
# marks: the newest line that was stored of a unit and machine, by number and by time.
# fresh: lines not yet packed into a block. parts: one hour's file of blocks, or a piece of it; the words of its
# blocks are in the table grams_<part>.


def grams_of(part: int) -> str:
    """Return the table that knows which runs of three characters stand in the blocks of a part."""
    return f"grams_{part}"


def segment(directory: Path, part: int, hour: int) -> Path:
    """Return the file of a part's blocks."""
    return directory / f"{hour:08d}-{part:08d}.blocks"


def open_writer(directory: Path) -> sqlite3.Connection:
    """Open the index for its one writer, made when it is missing. Raises `sqlite3.Error`.

    A commit is on disk when it returns.
    """
    connection = sqlite3.connect(directory / INDEX, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -16000")
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version != VERSION:
        raise sqlite3.DatabaseError(
            f"the archive in {directory} is of version {version}, this program's is {VERSION}"
        )
    return connection


def open_reader(directory: Path) -> sqlite3.Connection:
    """Open the index to read from it, while it is written to. Raises `sqlite3.Error`."""
    return sqlite3.connect(f"{(directory / INDEX).as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
