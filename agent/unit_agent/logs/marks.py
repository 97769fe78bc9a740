"""Under which names a reader's mark is kept, so that an agent of an earlier version can go on from it, too. Pure.

A mark of a container's own files is `CONTAINER@TIMES@PLACE` (`docker_tail`). Agents that knew no places can't read
it: one such mark ended the logs of their whole host. What they read, `CONTAINER@TIMES`, is kept under the name
that they know, and the whole beside it; where one of them went on meanwhile, its times are others, and count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

OUTPUT = "output"
"""The mark of stdout and stderr, as every version reads it."""

WHOLE = "output, with its place"

_OF_TIMES = re.compile(r"([^@]+@\d+\+\d+,\d+\+\d+)@")


def kept(mark: str) -> dict[str, str]:
    """Return what is kept of a mark."""
    found = _OF_TIMES.match(mark)
    return {OUTPUT: found[1], WHOLE: mark} if found else {OUTPUT: mark, WHOLE: ""}


def latest(marks: Mapping[str, str]) -> str:
    """Return the mark to read on from, of what was kept."""
    known, whole = marks.get(OUTPUT, ""), marks.get(WHOLE, "")
    return whole if whole and kept(whole)[OUTPUT] == known else known
