"""What a container said just before it failed: the one trace that some limits leave, once its group is gone.

The Engine removes a container's control groups with its last process, and a limit of open files is never counted
anywhere. What is recognised is the C library's own text, in English, in the last lines of the output.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from unit_agent.causes import FILES_WORDS, LAST_WORDS_S
from unit_agent.drivers.docker_engine import Engine
from unit_agent.drivers.docker_logs import read_logs
from unit_agent.drivers.docker_seen import Seen
from unitfleet.errors import DriverError

LINES = 20
WITHIN_S = 2.0  # a copy's restart waits for no longer

_FORK_WORDS = ("fork", "Resource temporarily unavailable")


def may_tell(seen: Seen) -> bool:
    """Tell whether the last words of this run are of use: it failed by itself, with an exit code."""
    by_itself = seen.ended and not seen.stopped_on_order and not seen.error and not seen.oom_killed
    return by_itself and 0 < seen.exit_code < 128


async def listened(engine: Engine, seen: Seen) -> Seen:
    """Return the container with what it said of a limit in the last seconds of its run, if it did."""
    said: list[str] = []
    with contextlib.suppress(DriverError, TimeoutError):  # a log driver that keeps nothing, an Engine that hangs
        async with asyncio.timeout(WITHIN_S):
            async for _, line in read_logs(engine, seen.unit, seen.id, lines=LINES, follow=False):
                if line.at >= max(seen.started - 1, seen.finished - LAST_WORDS_S):
                    said.append(line.text)
    return replace(
        seen,
        said_files=any(FILES_WORDS in line for line in said),
        said_tasks=seen.tasks_max > 0 and any(all(word in line for word in _FORK_WORDS) for line in said),
    )
