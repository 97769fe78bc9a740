"""What a Docker driver remembers of containers over the agent's restarts: how each ended, and what followed.

A record a container, `<container id>.json` in a folder of the agent's state directory; a copy that has never ended
by itself needs none. An agent that is killed before it wrote one comes to the same by the record before it and by
what the container shows. What does not show (a check gave it up) is written before the container is ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from unit_agent.drivers.supervisors import to_the_end
from unitfleet import codec, wholefile
from unitfleet.errors import BadRecord
from unitfleet.model import Cause, Record

logger = logging.getLogger(__name__)

RESTARTS = "restarts"
"""The verdict of a copy that is to be started again; the others are values of `CopyPhase`, "" is none yet."""

_SUFFIX = ".json"


class Remembered(Record, frozen=True, kw_only=True):
    """One container: a run of it and what followed. Times are seconds since 1970."""

    started: float
    finished: float
    error: str = ""
    verdict: str = ""
    why: str = ""
    delay_s: float = 0.0  # from its end to the start that the verdict asks for
    starts: tuple[float, ...] = ()
    quick: int = 0
    restarts: int = 0
    cause: Cause = Cause.NONE
    broken: str = ""
    for_good: bool = False
    overdue: bool = False


class Verdicts:
    """The records in memory, and on disk a moment later. Without a folder they are this process's own."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[str, Remembered] = {}
        self._unwritten: dict[str, Remembered | None] = {}
        self._came = asyncio.Event()
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Take up what the agent before this one left."""
        if self._folder is not None:
            self._known = {**await asyncio.to_thread(_read, self._folder), **self._known}

    def of(self, container: str) -> Remembered | None:
        """Return what is remembered of a container."""
        return self._known.get(container)

    @property
    def containers(self) -> frozenset[str]:
        """The containers that something is remembered of."""
        return frozenset(self._known)

    def note(self, container: str, remembered: Remembered) -> None:
        """Remember this of a container."""
        self._known[container] = self._unwritten[container] = remembered
        self._came.set()

    def drop(self, container: str) -> None:
        """Remember nothing of a container: it is gone, or was started afresh."""
        if self._known.pop(container, None) is not None:
            self._unwritten[container] = None
            self._came.set()

    async def run(self) -> None:
        """Write what was noted until cancelled."""
        while True:
            await self._came.wait()
            self._came.clear()
            await self.flush()

    async def flush(self) -> None:
        """Return once what was noted is written, or could not be."""
        async with self._writing:
            batch, self._unwritten = self._unwritten, {}
            if batch and (folder := self._folder) is not None:
                try:
                    await to_the_end(lambda: _write(folder, batch))
                except OSError as error:  # a disk that is full costs what a new agent would know
                    logger.warning("could not write down how %d containers ended: %s", len(batch), error)


def _read(folder: Path) -> dict[str, Remembered]:
    found: dict[str, Remembered] = {}
    for path in folder.glob(f"*{_SUFFIX}"):
        try:
            found[path.name.removesuffix(_SUFFIX)] = codec.decode(path.read_bytes(), Remembered, path.name)
        except (BadRecord, OSError) as error:
            logger.error("ignored what was remembered of a container: %s", error)
    return found


def _write(folder: Path, batch: Mapping[str, Remembered | None]) -> None:
    for container, remembered in batch.items():
        path = folder / (container + _SUFFIX)
        if remembered is None:
            path.unlink(missing_ok=True)
        else:
            wholefile.replace(path, codec.encode(remembered))
