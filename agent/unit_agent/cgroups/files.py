"""Reading the kernel's small files: quick, and without exceptions for what is not there.

`os.read` on a bare descriptor takes half the time of `open(…).read()`; hundreds of copies are read at a time.
"""

from __future__ import annotations

import os

from unit_agent.cgroups.reader import UNKNOWN

_BYTES = 1 << 16


def content(path: str) -> bytes:
    """Return the file's first 64 KiB, b"" when it can't be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(handle, _BYTES)
    except OSError:
        return b""
    finally:
        os.close(handle)


def number(path: str) -> int:
    """Return the whole number that the file holds, -1 when it holds none (as `max`) or is not there."""
    try:
        return int(content(path))
    except ValueError:
        return UNKNOWN


def entry(text: bytes, key: bytes) -> int:
    """Return the number beside `key` in lines of `key number`, -1 when it is not there."""
    line = key + b" "
    at = 0 if text.startswith(line) else text.find(b"\n" + line) + 1
    if not text.startswith(line, at):
        return UNKNOWN
    try:
        return int(text[at + len(line) :].split(b"\n", 1)[0])
    except ValueError:
        return UNKNOWN


def some_avg60(text: bytes) -> float:
    """Return the share of the last minute in which somebody waited, in percent, of a PSI file; -1: not there.

    `some avg10=0.00 avg60=1.25 avg300=0.40 total=123` (the kernel's Documentation/accounting/psi.rst).
    """
    for word in text.split(b"\n", 1)[0].split():
        if word.startswith(b"avg60="):
            try:
                return float(word[6:])
            except ValueError:
                break
    return UNKNOWN
