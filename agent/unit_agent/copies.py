"""What the drivers hold, as last seen, and which of them can't be asked now.

A driver that can't be asked is no proof of absence: its units are unknown until it answers, and nothing is
concluded from their not being there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from unit_agent.backoff import Backoff, pause
from unit_agent.driver import Copy, Driver
from unit_agent.timings import Timings
from unitfleet.errors import DriverError, DriverUnavailable
from unitfleet.loop import reconcile_forever

logger = logging.getLogger(__name__)

GAP_S = 0.02
"""Events come in bursts: one list answers those of this time, or of twice as long as the last list took."""

OnChange = Callable[[str, Copy | None, Copy | None], None]


@dataclass(slots=True)
class _Held:
    """One driver and what it holds. `begun` and `ended` count its lists; `round` is set when the next one ends."""

    driver: Driver
    backoff: Backoff
    copies: dict[str, Copy] = field(default_factory=dict)
    known: bool = False
    trouble: str = "not asked yet"
    dirty: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0
    ended: int = 0
    round: asyncio.Event = field(default_factory=asyncio.Event)
    skipped: set[str] = field(default_factory=set)


class Copies:
    """The copies of all drivers. `on_change(unit, before, after)`; `on_known` when a driver answers again.

    The first list of a driver is an adoption: it is told by `on_known`, not as changes.
    """

    def __init__(
        self, timings: Timings, rng: random.Random, on_change: OnChange, on_known: Callable[[], None]
    ) -> None:
        self._timings = timings
        self._rng = rng
        self._on_change = on_change
        self._on_known = on_known
        self._held: dict[str, _Held] = {}
        self._stepping: set[str] = set()
        self._ticks = 0
        self._moved: dict[str, int] = {}  # unit → tick of the last step that a list may not overrule

    def add(self, driver: Driver) -> None:
        """Take a driver in; `watch` it next."""
        self._held[driver.name] = _Held(driver, Backoff(self._rng, *self._timings.unit_retry_s))

    @property
    def drivers(self) -> tuple[str, ...]:
        """The drivers taken in."""
        return tuple(self._held)

    @property
    def troubles(self) -> dict[str, str]:
        """Why each driver can't be asked, "" for those that answer."""
        return {name: held.trouble for name, held in self._held.items()}

    def driver(self, name: str) -> Driver | None:
        """Return a driver by name."""
        held = self._held.get(name)
        return held.driver if held else None

    def find(self, unit: str) -> Copy | None:
        """Return the unit's copy; of two (one of a driver it was moved away from) the one that matters more."""
        found = [held.copies[unit] for held in self._held.values() if unit in held.copies]
        return max(found, key=lambda copy: (copy.executing, copy.epoch), default=None)

    def units(self) -> set[str]:
        """Return every unit that any driver holds a copy of."""
        return {unit for held in self._held.values() for unit in held.copies}

    def unknown(self, drivers: Iterable[str] | None = None) -> str:
        """Return why it can't be told what these drivers (None: all) hold, or ""."""
        for name, held in self._held.items():
            if not held.known and (drivers is None or name in drivers):
                return f"{name}: {held.trouble}"
        return ""

    @contextlib.contextmanager
    def stepping(self, unit: str) -> Iterator[None]:
        """Let no list speak of the unit while one of its steps is under way."""
        self._stepping.add(unit)
        try:
            yield
        finally:
            self._stepping.discard(unit)
            self._move(unit)

    def put(self, copy: Copy) -> None:
        """Note what a step has made."""
        self._become(self._held[copy.driver], copy.unit, copy)

    def drop(self, unit: str, driver: str) -> None:
        """Note that a step has removed the copy."""
        self._become(self._held[driver], unit, None)

    async def look(self, name: str) -> None:
        """Ask a driver anew and wait for what it says, or for it to say nothing."""
        held = self._held[name]
        due = held.begun + 1
        while held.ended < due:
            held.dirty.set()
            await held.round.wait()

    async def seek(self, unit: str) -> None:
        """Look for a unit's copy by its name with every driver, whatever was listed. Raises `DriverError`."""
        for held in self._held.values():
            tick = self._ticks
            try:
                async with asyncio.timeout(self._timings.list_timeout_s):
                    found = await held.driver.find(unit)
            except TimeoutError as error:
                why = f"no answer of {held.driver.name} within {self._timings.list_timeout_s:g} s"
                raise DriverUnavailable(f"cannot look for {unit}: {why}") from error
            if found is not None and unit not in self._stepping and self._moved.get(unit, 0) <= tick:
                self._become(held, unit, found)

    async def watch(self, name: str) -> None:
        """Keep up with a driver until cancelled."""
        held = self._held[name]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(held), name=f"events of {name}")
            await reconcile_forever(lambda: self._list(held), held.dirty, self._timings.look_s)

    async def _listen(self, held: _Held) -> None:
        while True:
            try:
                async with contextlib.aclosing(held.driver.events()) as events:
                    async for unit in events:
                        logger.debug("heard of %s from %s", unit or "something", held.driver.name)
                        held.dirty.set()
            except DriverError as error:
                logger.debug("lost the events of %s: %s", held.driver.name, error)
            held.dirty.set()
            await asyncio.sleep(1.0)

    async def _list(self, held: _Held) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        held.begun += 1
        tick = self._ticks
        try:
            async with asyncio.timeout(self._timings.list_timeout_s):
                copies = await held.driver.list()
        except (DriverError, OSError) as error:  # TimeoutError is one
            self._failed(held, str(error) or f"no answer within {self._timings.list_timeout_s:g} s")
        else:
            self._take(held, [*await self._looked_for(held, copies), *copies], tick)
        held.ended = held.begun
        ended, held.round = held.round, asyncio.Event()
        ended.set()
        if held.known:
            await asyncio.sleep(max(GAP_S, 2 * (loop.time() - began)))
        else:
            await pause(held.dirty, held.backoff.next())
            held.dirty.set()

    def _failed(self, held: _Held, why: str) -> None:
        if held.known or held.trouble != why:
            logger.warning("could not ask the %s driver: %s", held.driver.name, why)
        held.known = False
        held.trouble = why

    async def _looked_for(self, held: _Held, listed: Sequence[Copy]) -> list[Copy]:
        """Return what is there of the copies that were seen before and are not listed now.

        That a list leaves out a copy is no proof of its absence: each is asked for by its name, and believed to be
        what it was while that can't be told.
        """
        there: list[Copy] = []
        for unit in sorted(held.copies.keys() - {copy.unit for copy in listed} - self._stepping):
            try:
                async with asyncio.timeout(self._timings.list_timeout_s):
                    found = await held.driver.find(unit)
            except (DriverError, OSError) as error:
                logger.warning("could not look for %s, which %s left out: %s", unit, held.driver.name, error)
                found = held.copies.get(unit)
            if found is not None:
                logger.debug("found %s, which %s left out", unit, held.driver.name)
                there.append(found)
        return there

    def _take(self, held: _Held, copies: Sequence[Copy], tick: int) -> None:
        first, held.known, held.trouble = not held.known, True, ""
        held.backoff.reset()
        held.skipped.clear()
        now = {copy.unit: copy for copy in copies}
        for unit in sorted(held.copies.keys() | now.keys()):
            if unit in self._stepping or self._moved.get(unit, 0) > tick:
                held.skipped.add(unit)
            else:
                self._become(held, unit, now.get(unit), quiet=first and unit not in held.copies)
        if first:
            logger.info("found %d copies with the %s driver", len(now), held.driver.name)
            self._on_known()

    def _become(self, held: _Held, unit: str, copy: Copy | None, *, quiet: bool = False) -> None:
        before = held.copies.get(unit)
        if copy is None:
            held.copies.pop(unit, None)
        else:
            held.copies[unit] = copy
        if before != copy and not quiet:
            self._on_change(unit, before, copy)

    def _move(self, unit: str) -> None:
        self._ticks += 1
        self._moved[unit] = self._ticks
        for held in self._held.values():
            if unit in held.skipped:
                held.skipped.discard(unit)
                held.dirty.set()
