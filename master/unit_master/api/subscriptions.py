"""Live figures of every machine: one subscription an agent, shared by all who look, closed when nobody does.

Masters poll no agent: an agent pushes a line every few seconds while somebody looks at the cluster, and nothing
else is asked of it. A reader that is slower than the agents gets the newest line of each and misses the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import aiohttp
import msgspec

from unit_master.api.agents import AgentAway, AgentLink, opened
from unit_master.cache import Cache
from unitfleet import foreign
from unitfleet.api import MachineFigures
from unitfleet.model import Capacity, Presence

logger = logging.getLogger(__name__)

PATH = "/v1/figures?follow=true"
LOOK_S = 1.0
"""How soon a machine that joins, or comes back elsewhere, is followed."""

SILENCE_S = 20.0
"""An agent tells something every few seconds: one that is silent for so long is asked anew."""

FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 10.0
MAX_LINE = 4 * 1024 * 1024


@dataclass(eq=False, slots=True)
class Reader:
    """Who looks: the newest line of each machine that it has not taken yet."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _lines: dict[str, MachineFigures] = field(default_factory=dict)

    def put(self, figures: MachineFigures) -> None:
        """Let it have a line, in place of an older one of the same machine."""
        self._lines[figures.machine] = figures
        self.changed.set()

    def take(self) -> list[MachineFigures]:
        """Return what came since the last call, by machine name."""
        self.changed.clear()
        lines, self._lines = self._lines, {}
        return sorted(lines.values(), key=lambda line: (line.name, line.machine))


class _Source(NamedTuple):
    """One life of an agent."""

    machine: str
    nonce: str


class Figures:
    """Follows the agents while anybody reads and `run` does."""

    def __init__(self, cache: Cache, link: AgentLink, now: Callable[[], float]) -> None:
        self._cache = cache
        self._link = link
        self._now = now
        self._readers: dict[Reader, None] = {}
        self._latest: dict[str, MachineFigures] = {}
        self._came = asyncio.Event()
        self._left = asyncio.Event()
        self.followed = 0
        """Subscriptions that are open."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """Give the present figures, as far as they are known, and those to come."""
        reader = Reader()
        for figures in self._latest.values():
            reader.put(figures)
        self._readers[reader] = None
        self._came.set()
        try:
            yield reader
        finally:
            del self._readers[reader]
            if not self._readers:
                self._came.clear()
                self._left.set()

    async def run(self) -> None:
        """Follow while anybody reads, until cancelled."""
        while True:
            await self._came.wait()
            self._left.clear()
            async with asyncio.TaskGroup() as tasks:
                following: dict[_Source, asyncio.Task[None]] = {}
                while self._readers:
                    self._match(following, tasks)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_S):
                            await self._left.wait()
                            self._left.clear()
                for task in following.values():
                    task.cancel()
            self._latest.clear()

    def _match(self, following: dict[_Source, asyncio.Task[None]], tasks: asyncio.TaskGroup) -> None:
        """Follow the agents that are there now, and no other."""
        present = {
            _Source(machine, entry.value.nonce): entry.value
            for machine, entry in self._cache.view.presence.items()
        }
        for source in following.keys() - present.keys():
            following.pop(source).cancel()
        for machine in self._latest.keys() - {source.machine for source in present}:
            del self._latest[machine]
        for source in present.keys() - following.keys():
            following[source] = tasks.create_task(
                self._follow(present[source]), name=f"figures of {source.machine}"
            )

    async def _follow(self, agent: Presence) -> None:
        self.followed += 1
        try:
            pause_s = FIRST_PAUSE_S
            while True:
                try:
                    async with opened(self._link, agent, PATH, silence_s=SILENCE_S) as source:
                        async for raw in _lines(source):
                            self._take(agent, raw)
                            pause_s = FIRST_PAUSE_S
                    why = "its agent ended the stream"
                except AgentAway as error:
                    why = error.message
                except (aiohttp.ClientError, TimeoutError) as error:
                    why = f"its agent broke off: {error}"
                except Exception:  # the bulkhead between machines: one that confuses us must not end the master
                    logger.exception("failed to follow the figures of %s", agent.name)
                    why = "its figures could not be followed: a fault in the master, see its log"
                logger.debug("no figures of %s: %s", agent.name, why)
                self._tell(missing(agent, why, self._now()))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)
        finally:
            self.followed -= 1

    def _take(self, agent: Presence, raw: bytes) -> None:
        if not raw.strip():
            return
        try:
            figures = foreign.decode(raw, MachineFigures)
        except msgspec.MsgspecError as error:
            self._tell(missing(agent, f"cannot read its figures: {error}", self._now()))
            return
        self._tell(msgspec.structs.replace(figures, machine=agent.id, name=agent.name))

    def _tell(self, figures: MachineFigures) -> None:
        self._latest[figures.machine] = figures
        for reader in self._readers:
            reader.put(figures)


async def _lines(source: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the lines of an answer; aiohttp's own reader takes none above 128 KiB, two hundred units are more."""
    rest = b""
    async for chunk in source.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > MAX_LINE:
            raise aiohttp.ClientPayloadError(f"a line of more than {MAX_LINE} bytes")


def missing(agent: Presence, why: str, at: float) -> MachineFigures:
    """Return the line of a machine that tells nothing."""
    return MachineFigures(
        machine=agent.id, name=agent.name, at=at, capacity=agent.capacity, used=Capacity(), why=why
    )
