"""The disk behind a path, as IO…Max= names it: a device node, or any file of a file system on it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from unitfleet.errors import DriverError


def disk_number(path: str, sys: Path = Path("/sys")) -> str:
    """Return `MAJOR:MINOR` of the whole disk (the kernel limits no partition); raises `DriverError`."""
    return _disk(path, sys)[0]


def disk_node(path: str, sys: Path = Path("/sys")) -> str:
    """Return the device node of the whole disk, as the Docker Engine wants it; raises `DriverError`."""
    return _disk(path, sys)[1]


def _disk(path: str, sys: Path) -> tuple[str, str]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise DriverError(f"cannot limit the I/O of {path}: {(error.strerror or str(error)).lower()}") from error
    number = found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev
    directory = sys / "dev/block" / f"{os.major(number)}:{os.minor(number)}"
    if not directory.exists():
        raise DriverError(
            f"cannot limit the I/O of {path}: no disk of this host is behind it", hint="name the device: /dev/…"
        )
    directory = directory.resolve()
    if (directory / "partition").exists():
        directory = directory.parent
    said = dict(line.partition("=")[::2] for line in (directory / "uevent").read_text().splitlines())
    return f"{said['MAJOR']}:{said['MINOR']}", f"/dev/{said['DEVNAME']}"
