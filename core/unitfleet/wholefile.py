"""Files that are replaced whole: a power cut leaves the old one or the new one, never half."""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY = ".new"
"""What a file's name ends in while it is written; one may be left by a power cut."""


def replace(path: Path, raw: bytes) -> None:
    """Write a file, 0600, durably, in place of the one that is there; its folder, 0700, too. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(path.name + TEMPORARY)
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(raw)
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
