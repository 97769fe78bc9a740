"""Keeps the agent small in memory: gives back the pages of libraries that start-up alone has touched.

Half of what a Python program holds in memory are pages of its libraries (grpc's alone are 10 MB), read once
while they were loaded and relocated. They are clean and in the page cache: the kernel brings back what is used.
Only mappings of large shared libraries are touched. Those stay mapped for as long as the program runs, so that
no other thread can have put memory of its own in their place meanwhile; pages that were written to are left
alone with the whole of their mapping. What malloc holds free goes back too, and threads share its arenas: each of
its own would keep what its thread has used most.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

FIRST_S = 5.0
"""After the start: by then everything is imported."""

EVERY_S = 60.0
LARGE = 1 << 20
_MADV_DONTNEED = 4  # <asm-generic/mman-common.h>
_M_ARENA_MAX = -8  # <malloc.h>

Span = tuple[int, int]


async def keep_slim() -> None:
    """Give back what is not in use, now and then, until cancelled."""
    pause_s = FIRST_S
    while True:
        await asyncio.sleep(pause_s)
        pause_s = EVERY_S
        try:
            await asyncio.to_thread(give_back)
        except OSError as error:
            logger.debug("could not give back pages of libraries: %s", error)


def share_arenas() -> None:
    """Let threads that begin from now on use one arena: they wait for each other's interpreter anyway."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's alone, as is malloc_trim
        libc.mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Drop the clean pages of large libraries, and what malloc holds free.

    Raises `OSError` where the kernel does not tell what is mapped.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for begin, end in clean_libraries(Path("/proc/self/smaps").read_text(errors="replace")):
        libc.madvise(begin, end - begin, _MADV_DONTNEED)


def clean_libraries(smaps: str) -> list[Span]:
    """Return the mappings of large libraries that nothing was written to, and nothing can be (proc(5), smaps)."""
    found = list(_libraries(smaps))
    sizes: dict[str, int] = {}
    for path, (begin, end), _ in found:
        sizes[path] = sizes.get(path, 0) + end - begin
    return [span for path, span, clean in found if clean and sizes[path] >= LARGE]


def _libraries(smaps: str) -> Iterator[tuple[str, Span, bool]]:
    """Yield each mapping of a shared library: its file, where, and whether it is read-only and has no own page."""
    current: tuple[str, Span, bool] | None = None
    for line in smaps.splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            current = None
            if len(words) == 6 and (words[5].endswith(".so") or ".so." in words[5]):
                begin, end = (int(word, 16) for word in words[0].split("-"))
                current = words[5], (begin, end), words[1] in ("r--p", "r-xp")
        elif words[0] == "Anonymous:" and current is not None:
            path, span, read_only = current
            yield path, span, read_only and words[1] == "0"
            current = None
