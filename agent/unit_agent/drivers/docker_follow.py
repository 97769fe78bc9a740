"""Follows the files of all containers that are read: looks at them together, and holds what the Engine rotates."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass

from unit_agent.drivers.docker_output import PAUSES
from unit_agent.drivers.docker_tail import FileTail
from unit_agent.output import Limit, OutputLine

LOOK_S = 0.1
"""Between two looks; in that time an Engine of today can't fill two files of 10 MB."""

QUIET = 20
QUIET_TURNS = 4
"""What has not changed for `QUIET` looks is looked at every `QUIET_TURNS`th time."""

MOST_BYTES = 512 * 1024 * 1024
MOST_FILES = 256
"""Of files that the Engine has rotated, all together; beyond it the oldest of whoever has most is given up."""


@dataclass(slots=True, eq=False)
class _Followed:
    """A tail, what its newest file showed at the last look, and for how many looks it has shown just that."""

    tail: FileTail
    stir: asyncio.Event
    here: Callable[[], bool]
    seen: tuple[int, int] | None = None
    quiet: int = 0


class FileWatch:
    """Looks at all files often, also while whoever takes their lines is busy: a rotation waits for nobody."""

    def __init__(self) -> None:
        self._followed: list[_Followed] = []
        self._timer: asyncio.TimerHandle | None = None
        self._turn = 0

    @contextlib.contextmanager
    def following(self, tail: FileTail, stir: asyncio.Event, here: Callable[[], bool]) -> Iterator[None]:
        """Set `stir` when a file grows or is rotated, or when the container is not `here` any more."""
        followed = _Followed(tail, stir, here)
        self._followed.append(followed)
        if self._timer is None:
            self._look_later()
        try:
            yield
        finally:
            self._followed.remove(followed)

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look) if self._followed else None

    def _look(self) -> None:
        self._turn += 1
        for number, followed in enumerate(self._followed):
            if followed.quiet >= QUIET and (self._turn + number) % QUIET_TURNS:
                continue
            now = followed.tail.files.look()
            if now != followed.seen:
                followed.seen, followed.quiet = now, 0
                followed.stir.set()
            elif followed.here():
                followed.quiet += 1
            else:
                followed.stir.set()
        self._bound()
        self._look_later()

    def _bound(self) -> None:
        """Give up the oldest files when too much is held."""
        held = [followed.tail.files for followed in self._followed if len(followed.tail.files.files) > 1]
        while held:
            count = sum(len(files.files) - 1 for files in held)
            size = sum(files.waiting for files in held)
            if count <= MOST_FILES and size <= MOST_BYTES:
                return
            most = max(held, key=lambda files: files.waiting if size > MOST_BYTES else len(files.files))
            most.give_up()
            held = [files for files in held if len(files.files) > 1]


async def follow(
    watch: FileWatch,
    tail: FileTail,
    stir: asyncio.Event,
    all_read: asyncio.Event,
    here: Callable[[], bool],
    limit: Limit | None,
) -> AsyncGenerator[list[OutputLine], None]:
    """Yield lines as they come, [] where some were dropped, until the container is gone and all was read."""
    with watch.following(tail, stir, here):
        while True:
            stir.clear()
            lines = tail.more(limit)
            if lines is not None:
                if tail.has_mark:
                    yield lines
                await asyncio.sleep(next((pause for size, pause in PAUSES if tail.size < size), 0))
            elif here():
                all_read.set()
                await stir.wait()
            else:
                return
