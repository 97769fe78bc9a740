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
"""What has not changed for `QUIET` looks is looked at every `QUIET_TURNS`th time, all of it at once: between, an
agent none of whose units writes has nothing to wake for."""

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
        self._rests = False

    @property
    def rests(self) -> bool:
        """Whether no file has changed for a while, and the next look is one at all of them."""
        return self._rests

    @contextlib.contextmanager
    def following(self, tail: FileTail, stir: asyncio.Event, here: Callable[[], bool]) -> Iterator[None]:
        """Set `stir` when a file grows or is rotated, or when the container is not `here` any more."""
        followed = _Followed(tail, stir, here)
        self._followed.append(followed)
        if self._rests:
            self._turn = QUIET_TURNS - 1  # so that those that rest are looked at no later for it
        if self._timer is None or self._rests:
            self._look_later(1)
        try:
            yield
        finally:
            self._followed.remove(followed)

    def _look_later(self, turns: int) -> None:
        """Look again after so many turns."""
        if self._timer is not None:
            self._timer.cancel()
        self._rests = turns > 1
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LOOK_S * turns, self._look, turns) if self._followed else None

    def _look(self, turns: int) -> None:
        self._turn = (self._turn + turns) % QUIET_TURNS
        stirring = [followed for followed in self._followed if followed.quiet < QUIET]
        for followed in stirring if self._turn else self._followed:
            now = followed.tail.files.look()
            if now != followed.seen:
                followed.seen, followed.quiet = now, 0
                followed.stir.set()
            elif self._turn or followed.here():  # its file goes with it: seldom is it gone with nothing changed
                followed.quiet += 1
            else:
                followed.stir.set()
        self._bound()
        self._look_later(1 if any(each.quiet < QUIET for each in self._followed) else QUIET_TURNS - self._turn)

    def _bound(self) -> None:
        """Give up the oldest files when too much is held."""
        held = [files for each in self._followed if len((files := each.tail.files).files) > 1]
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
