"""Who may pull now: so many pulls at once, starts before warming, and one pull for all who want the same image."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from unitfleet.loop import run_out


class MadeWay(Exception):
    """The pull was ended for a start that needs its slot: it is to be asked for again."""


@dataclass(slots=True)
class _Held:
    """An image that is being pulled: for how many, how many of them a start, and who can be made to give way."""

    number: int
    holders: int = 0
    starts: int = 0
    told: bool = False  # to make way
    scopes: set[asyncio.Timeout] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class _Waiting:
    """One who waits for a slot."""

    number: int
    image: str
    start: bool
    turn: asyncio.Future[None]

    @property
    def rank(self) -> tuple[bool, int]:
        """Starts come first, then who came first."""
        return not self.start, self.number


class Slots:
    """Room for `count` pulls at once. All who want an image that is being pulled share its slot.

    A start that finds no room takes that of the youngest pull for warming, which has to ask again.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: dict[str, _Held] = {}
        self._waiting: list[_Waiting] = []
        self._numbers = itertools.count()

    @property
    def pulling(self) -> frozenset[str]:
        """The images that are being pulled."""
        return frozenset(self._held)

    def free(self, image: str) -> bool:
        """Tell whether a pull of `image` could begin at once."""
        return image in self._held or len(self._held) < self._count

    @contextlib.asynccontextmanager
    async def taken(self, image: str, *, start: bool) -> AsyncIterator[None]:
        """Hold a slot for a pull of `image` meanwhile; raises `MadeWay` when a start needs it, one for warming."""
        await self._enter(image, start)
        scope = asyncio.timeout(None)
        try:
            async with scope:
                if not start:
                    self._held[image].scopes.add(scope)
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise MadeWay(image) from None
        finally:
            self._leave(image, start, scope)

    async def _enter(self, image: str, start: bool) -> None:
        one = _Waiting(next(self._numbers), image, start, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._admit()
        if not one.turn.done() and start:
            self._make_way()
        try:
            await one.turn
        except asyncio.CancelledError:
            if one in self._waiting:
                self._waiting.remove(one)
            else:  # it was let in at this very moment
                self._leave(image, start, None)
            raise

    def _admit(self) -> None:
        for one in sorted(self._waiting, key=lambda waiting: waiting.rank):
            held = self._held.get(one.image)
            if held is None:
                if len(self._held) >= self._count:
                    continue
                held = self._held[one.image] = _Held(next(self._numbers))
            held.holders += 1
            held.starts += one.start
            self._waiting.remove(one)
            if not one.turn.done():
                one.turn.set_result(None)

    def _make_way(self) -> None:
        """Tell the youngest pull for warming to end, unless as many were told as there are starts that wait."""
        starts = {one.image for one in self._waiting if one.start}
        warming = [held for held in self._held.values() if not held.starts]
        ending = sum(held.told for held in warming)
        staying = sorted((held for held in warming if not held.told), key=lambda held: -held.number)
        for held in staying[: max(0, len(starts) - ending)]:
            held.told = True
            for scope in held.scopes:
                run_out(scope)

    def _leave(self, image: str, start: bool, scope: asyncio.Timeout | None) -> None:
        held = self._held[image]
        held.holders -= 1
        held.starts -= start
        if scope is not None:
            held.scopes.discard(scope)
        if not held.holders:
            del self._held[image]
        self._admit()
