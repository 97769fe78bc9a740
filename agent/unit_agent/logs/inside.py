"""Opens files below a root that somebody else owns: no link leads out of it, nothing but regular files is opened.

openat2(2) resolves every link as the container itself would, against its own root (Linux 5.6); where it is not to
be had, links are not followed at all.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fnmatch
import os
import stat
from collections.abc import Iterator

_OPENAT2 = 437  # the same on every architecture of Linux that has it
_NO_MAGICLINKS = 0x02
_IN_ROOT = 0x10
_PATH = os.O_PATH | os.O_CLOEXEC

MOST_ENTRIES = 10_000
"""Of a directory that a glob is matched against."""

_libc = ctypes.CDLL(None, use_errno=True)
_WILD = frozenset("*?[")


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_root(path: str) -> int:
    """Open a directory that is to be a root. Raises OSError."""
    return os.open(path, _PATH | os.O_DIRECTORY)


def open_file(root: int, path: str) -> int | None:
    """Open a regular file for reading; None for what is no such file, or is not there, or lies outside."""
    try:
        handle = _resolve(root, path)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None  # a device or a fifo is not even opened
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    finally:
        os.close(handle)


def matching(root: int, glob: str, most: int) -> Iterator[str]:
    """Yield the paths below the root, at most `most`, that a glob names now; they begin with `/`."""
    found = 0
    for path in _matching(root, "", [part for part in glob.split("/") if part]):
        yield path
        found += 1
        if found >= most:
            return


def _matching(root: int, base: str, parts: list[str]) -> Iterator[str]:
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if not _WILD & set(part):
        yield from _matching(root, f"{base}/{part}", rest)
        return
    for name in _names(root, base):
        if fnmatch.fnmatchcase(name, part) and name.startswith(".") <= part.startswith("."):
            yield from _matching(root, f"{base}/{name}", rest)


def _names(root: int, path: str) -> list[str]:
    try:
        handle = _resolve(root, path or "/")
    except OSError:
        return []
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            return []
        directory = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return []
    finally:
        os.close(handle)
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry, _ in zip(entries, range(MOST_ENTRIES), strict=False)]
            return sorted(name for name in names if name.isprintable())  # what is no text can't be stored or shown
    except OSError:
        return []
    finally:
        os.close(directory)


def _resolve(root: int, path: str) -> int:
    how = _How(_PATH, 0, _IN_ROOT | _NO_MAGICLINKS)
    result: int = _libc.syscall(
        _OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )
    if result >= 0:
        return result
    number = ctypes.get_errno()
    if number not in (errno.ENOSYS, errno.EPERM):
        raise OSError(number, os.strerror(number), path)
    return _walk(root, path)


def _walk(root: int, path: str) -> int:
    """Resolve without openat2: any link on the way is an error."""
    at = os.dup(root)
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            os.close(at)
            raise OSError(errno.EPERM, "no way up", path)
        try:
            following = os.open(part, _PATH | os.O_NOFOLLOW, dir_fd=at)
        finally:
            os.close(at)
        at = following
        if stat.S_ISLNK(os.fstat(at).st_mode):
            os.close(at)
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return at


@contextlib.contextmanager
def root_at(path: str) -> Iterator[int]:
    """Hold a root open meanwhile. Raises OSError."""
    root = open_root(path)
    try:
        yield root
    finally:
        os.close(root)
