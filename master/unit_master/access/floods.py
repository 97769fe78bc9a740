"""How much one caller may ask of a master by TCP, and all together: nobody's flood is the others' drought."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second, and so many at once after a rest."""

    per_s: int
    burst: int

    @property
    def item(self) -> RateLimitItemPerSecond:
        """The same as a window: `burst` of them in any `burst / per_s` seconds."""
        return RateLimitItemPerSecond(self.burst, self.burst // self.per_s)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Rates for each caller; requests and streams at once for all, of which one caller may have half."""

    reads: Rate = Rate(50, 100)
    writes: Rate = Rate(5, 20)
    told: Rate = Rate(1, 10)
    """Refusals of strangers that are audited one by one."""
    requests: int = 200
    streams: int = 100
    agents: int = 100
    """Requests with the cluster's key: batches of output, questions of other masters."""


class Lane(Enum):
    """Kinds of requests that don't take each other's room."""

    REQUESTS = "requests"
    STREAMS = "streams"
    AGENTS = "agents"


@dataclass(frozen=True, slots=True)
class Full:
    """There is no room now: for whom, and in how many seconds to ask again."""

    why: str
    retry_s: int


class Floods:
    """Counts what callers ask. `who` is a token's id, or an address."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._held: Counter[tuple[Lane, str]] = Counter()

    def ask(self, who: str, *, writes: bool) -> Full | None:
        """Count a request; say when `who` asks too often."""
        rate, kind = (self._bounds.writes, "changes") if writes else (self._bounds.reads, "reads")
        if self._limiter.hit(rate.item, kind, who):
            return None
        reset, _ = self._limiter.get_window_stats(rate.item, kind, who)
        wait = max(1, math.ceil(reset - time.time()))
        if wait > rate.item.get_expiry():
            # this host's clock was set back: what was counted would lock the caller out until it has caught up
            self._limiter.clear(rate.item, kind, who)
            return None
        return Full(f"more than {rate.per_s} {kind} a second, {rate.burst} at once, were asked for", wait)

    def tell(self) -> bool:
        """Whether one more refusal of a stranger may be written down."""
        return self._limiter.hit(self._bounds.told.item, "told")

    @contextlib.contextmanager
    def room(self, lane: Lane, who: str) -> Iterator[Full | None]:
        """Take a place in a lane meanwhile, or say that there is none."""
        most = getattr(self._bounds, lane.value)
        share = max(1, most // 2)
        if self._held[lane, ""] >= most:
            yield Full(f"{most} {_WORDS[lane]} are open here", 1)
            return
        if self._held[lane, who] >= share:
            yield Full(f"{share} {_WORDS[lane]} of yours are open here, as many as one caller may have", 1)
            return
        self._held.update({(lane, ""): 1, (lane, who): 1})
        try:
            yield None
        finally:
            self._held.subtract({(lane, ""): 1, (lane, who): 1})
            if not self._held[lane, who]:
                del self._held[lane, who]


_WORDS = {Lane.REQUESTS: "requests", Lane.STREAMS: "streams", Lane.AGENTS: "requests of agents and masters"}
