"""The two things a supervisor asks of the C library, through `_ctypes` (ctypes costs 0.5 MB more)."""

from __future__ import annotations

from _ctypes import _SimpleCData, call_function, dlopen, dlsym

_PR_SET_CHILD_SUBREAPER = 36
_MADV_DONTNEED = 4


class _Word(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "P"


def _call(name: str, *arguments: int) -> int:
    address = dlsym(dlopen(None, 2), name)  # type: ignore[arg-type]
    result: int = call_function(address, tuple(_Word(argument) for argument in arguments))
    return result


def become_subreaper() -> None:
    """Make every orphan among our descendants our child: a daemonised process stays within reach."""
    if _call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("cannot become a subreaper")


def trim() -> None:
    """Unmap the pages of programs and libraries that start-up touched; the kernel brings back what is used.

    They are two thirds of an interpreter's resident memory, and in the page cache anyway. Mappings with a page
    of our own are left alone: dropping those that the linker has relocated would break the program.
    """
    _call("malloc_trim", 0)
    found: list[tuple[int, int]] = []
    with open("/proc/self/smaps", "rb", buffering=4096) as maps:
        span = b""
        for line in maps:
            first, *rest = line.split()
            if not first.endswith(b":"):
                is_file = rest[3] != b"0" and b"w" not in rest[0]
                span = first if is_file else b""
            elif span and first == b"Anonymous:" and rest[0] == b"0":
                low, high = span.split(b"-")
                found.append((int(high, 16) - int(low, 16), int(low, 16)))
    # The largest, which is the interpreter itself, last: the others are dropped by running it.
    for size, begin in sorted(found):
        _call("madvise", begin, size, _MADV_DONTNEED)
