"""The members of an etcd cluster, tried in turn: who is asked, what is asked again, when to give up."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from unitfleet.errors import OutcomeUnknown, StoreDenied, StoreUnavailable
from unitfleet.etcd.endpoint import PROBE_EVERY_S, Endpoint, Failure, TlsSource
from unitfleet.etcd.renewals import Renewals
from unitfleet.etcd.watches import Watches

logger = logging.getLogger(__name__)

T = TypeVar("T")

REFUSED_AGAIN_S = 60.0
"""Who is refused asks again and again: it is told once, and anew after so long without."""


class Repeat(enum.Enum):
    """What may be asked again although it may have been done."""

    READ = "read"  # changes nothing: ends in StoreUnavailable
    HARMLESS = "harmless"  # doing it twice is as good as once: ends in OutcomeUnknown
    NEVER = "never"  # OutcomeUnknown at once


WATCH_AGAIN_S = 5.0
"""The longest pause of a watch that fails again and again: what wakes it sooner is a call that is answered."""


class Backoff:
    """Pauses that double from 50 ms to `most_s`, each between half and one and a half of that."""

    def __init__(self, rng: random.Random, most_s: float = 1.0) -> None:
        self._rng = rng
        self._most_s = most_s
        self._pause_s = 0.05

    def reset(self) -> None:
        """Begin with the short pause again."""
        self._pause_s = 0.05

    def next_s(self) -> float:
        """Return how long to wait now."""
        pause_s = self._pause_s
        self._pause_s = min(pause_s * 2, self._most_s)
        return pause_s * (0.5 + self._rng.random())


class Members:
    """The endpoints, and which of them is asked at present: all calls stay with it until it fails one."""

    def __init__(
        self, addresses: Sequence[str], tls: TlsSource | None, rng: random.Random, probe_s: float = PROBE_EVERY_S
    ) -> None:
        if not addresses:
            raise ValueError("a store needs at least one endpoint")
        self._endpoints = tuple(Endpoint(address, tls, probe_s) for address in addresses)
        self._watches = {endpoint: Watches(endpoint) for endpoint in self._endpoints}
        self._renewals = {endpoint: Renewals(endpoint) for endpoint in self._endpoints}
        self._index = 0
        self._failing: set[Endpoint] = set()
        self._rng = rng
        self._refused_at = float("-inf")
        self._news = asyncio.Event()  # set, and replaced, when a member that failed answers again
        self.closed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._endpoints)

    @property
    def all(self) -> tuple[Endpoint, ...]:
        """Every endpoint, in the order they were given."""
        return self._endpoints

    @property
    def current(self) -> Endpoint:
        """The endpoint to ask."""
        return self._endpoints[self._index]

    def watches(self, endpoint: Endpoint) -> Watches:
        """Return the watches of this client at one member."""
        return self._watches[endpoint]

    def renewals(self, endpoint: Endpoint) -> Renewals:
        """Return what renews leases of this client at one member."""
        return self._renewals[endpoint]

    def leave(self, endpoint: Endpoint, reason: str) -> None:
        """Ask the next one from now on, unless others have moved on already."""
        if endpoint is self.current:
            self._index = (self._index + 1) % len(self)
        if endpoint not in self._failing and not self.closed.is_set():
            self._failing.add(endpoint)
            logger.info("left etcd at %s: %s", endpoint.address, reason)

    def answered(self, endpoint: Endpoint) -> None:
        """Note that one works, for the log."""
        if endpoint in self._failing:
            self._failing.discard(endpoint)
            logger.info("reached etcd at %s again", endpoint.address)
            self._wake()

    def refused(self, error: StoreDenied) -> None:
        """Tell once that etcd refuses something to this identity, and what to do, however often it is asked."""
        now = asyncio.get_running_loop().time()
        if now - self._refused_at > REFUSED_AGAIN_S:
            logger.error(
                "%s; was this host shut out (unitctl machines allow), or has etcd lost its users and roles "
                "(unitctl cluster protect-etcd sets them right)? What runs here goes on",
                error,
            )
        self._refused_at = now

    async def pause(self, seconds: float) -> None:
        """Wait, but no longer than until a member that failed answers again, or until `close`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def _wake(self) -> None:
        self._news.set()
        if not self.closed.is_set():
            self._news = asyncio.Event()

    def backoff(self, most_s: float = 1.0) -> Backoff:
        """Return pauses for one series of attempts."""
        return Backoff(self._rng, most_s)

    async def ask(self, send: Callable[[Endpoint, float], Awaitable[T]], repeat: Repeat, timeout_s: float) -> T:
        """Let `send` ask one endpoint after the other, given the seconds it may take, until one answers.

        Each gets an equal share of `timeout_s`, but a write that is never repeated may use all that is left.
        Raises `StoreUnavailable` when surely nothing was done and `OutcomeUnknown` when it may have been.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        share_s = timeout_s / len(self)
        backoff = self.backoff()
        failures: dict[str, str] = {}
        maybe_done = False
        for attempt in itertools.count():
            if attempt and attempt % len(self) == 0:
                await self.pause(min(backoff.next_s(), deadline - loop.time()))
            left_s = deadline - loop.time()
            if left_s <= 0 or self.closed.is_set():
                break
            endpoint = self.current
            try:
                await endpoint.connect(min(share_s, left_s))
                left_s = deadline - loop.time()
                answer = await send(endpoint, left_s if repeat is Repeat.NEVER else min(share_s, left_s))
                self.answered(endpoint)
                return answer
            except StoreDenied as error:
                self.refused(error)
                raise
            except Failure as failure:
                failures[endpoint.address] = failure.reason
                self.leave(endpoint, failure.reason)
                maybe_done = maybe_done or failure.maybe_done
                if failure.maybe_done and repeat is Repeat.NEVER:
                    break
        reason = "; ".join(f"{address}: {why}" for address, why in failures.items())
        if self.closed.is_set():
            reason = "the client was closed"
        if maybe_done and repeat is not Repeat.READ:
            raise OutcomeUnknown(f"cannot know whether the write happened: {reason}")
        raise StoreUnavailable(f"cannot reach etcd: {reason}", hint="is it running, and are the endpoints right?")

    async def close(self) -> None:
        """Give up all connections; whatever waits on them fails, watches end."""
        self.closed.set()
        self._wake()
        for endpoint in self._endpoints:
            await endpoint.drop()
