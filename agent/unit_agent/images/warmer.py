"""Keeps a host's warm set here: hears what is wanted, looks what is here, pulls the rest when it is its turn."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Set
from dataclasses import replace

from unit_agent.backoff import Backoff, pause
from unit_agent.driver import Progress
from unit_agent.following import Follower
from unit_agent.images.credentials import registry_of
from unit_agent.images.plan import Failure, Seen, next_look, to_pull
from unit_agent.images.pulls import Pulls
from unitfleet import codec, keys
from unitfleet.errors import BadRecord, DriverError, ImageNotFound
from unitfleet.model import CopyPhase, WarmSet
from unitfleet.store import Batch, Event, EventKind, Listing, Store

logger = logging.getLogger(__name__)

LOOK_S = 60.0
"""Somebody may have removed an image: it is looked for so often."""

ENGINE_AWAY_S = 2.0
RELIST_S = 240.0
RETRY_S = (1.0, 20.0)
ABSENT_RETRY_S = (10.0, 600.0)
"""A registry that has not got the image is asked less and less."""

NEW_TURN_S = 5.0
"""An image that failed is tried within this time once it is this machine's turn again."""

SAME_REGISTRY_S = 1.0
"""Once a registry has given one image, the others that failed there are tried within this time."""


class Warmer:
    """The warm set of one machine. `looked` is awaited after each look, `missed(image, why)` at a first failure.

    `changed` is set whenever `seen` may tell something else.
    """

    def __init__(
        self,
        store: Store,
        machine: str,
        rng: random.Random,
        looked: Callable[[], Awaitable[None]],
        missed: Callable[[str, str], None],
    ) -> None:
        self._key = keys.warm_set(machine)
        self._rng = rng
        self._looked = looked
        self._missed = missed
        self._held: frozenset[str] = frozenset()
        self._percents: dict[str, int] = {}
        self._layers: dict[str, str] = {}
        self._failures: dict[str, Failure] = {}
        self._backoffs: dict[tuple[str, bool], Backoff] = {}
        self._underway: set[str] = set()
        self._trouble = "waits for the Docker Engine"
        self._work = asyncio.Event()  # something may be to pull
        self.wanted: WarmSet | None = None
        self.changed = asyncio.Event()
        self._follower = Follower(
            store,
            self._key,
            listed=self._take_listing,
            changed=self._take_batch,
            interval_s=RELIST_S,
            backoff=Backoff(rng, 0.5, 30.0),
            rng=rng,
        )

    def seen(self) -> Seen:
        """Return what is here as last seen."""
        layers = {image: layers for image, layers in self._layers.items() if layers}
        return Seen(self._held, dict(self._percents), layers, dict(self._failures), self._trouble)

    async def run(self, pulls: Pulls) -> None:
        """Keep the warm set here until cancelled."""
        self._underway.clear()
        self._percents.clear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follower.run(), name="warm set")
            await self._keep(pulls, tasks)

    def take(self, wanted: WarmSet) -> None:
        """Let this be the warm set from now on."""
        before = set(self.wanted.turns) if self.wanted else set()
        self._try_soon(set(wanted.turns) - before, NEW_TURN_S)
        self.wanted = wanted
        for image in self._failures.keys() - set(wanted.images):
            self._recovered(image)
        self._work.set()

    def arrived(self, image: str) -> None:
        """Note that an image is here now, pulled for a start perhaps."""
        self._held |= {image}
        self._recovered(image)
        registry = registry_of(image)  # it answers
        self._try_soon({other for other in self._failures if registry_of(other) == registry}, SAME_REGISTRY_S)
        self._work.set()
        self.changed.set()

    async def _take_listing(self, listing: Listing) -> None:
        for item in listing.items:
            self._hear(Event(EventKind.PUT, item))

    async def _take_batch(self, batch: Batch) -> None:
        for event in batch.events:
            self._hear(event)

    def _hear(self, event: Event) -> None:
        if event.kv.key != self._key or event.kind is EventKind.DELETE:
            return  # absence says nothing: what is here stays here
        try:
            self.take(codec.decode(event.kv.value, WarmSet, event.kv.key))
        except BadRecord as error:
            logger.error("ignored the warm set of this machine: %s", error)

    async def _keep(self, pulls: Pulls, tasks: asyncio.TaskGroup) -> None:
        looked_at, looked_for = -LOOK_S, frozenset[str]()
        while True:
            self._work.clear()
            wanted = frozenset(self.wanted.images) if self.wanted else frozenset[str]()
            if self._trouble or self._now() - looked_at >= LOOK_S or looked_for != wanted:
                looked_for = wanted
                if await self._look(pulls, wanted):
                    looked_at = self._now()
            await self._looked()
            told, most = self.wanted, ENGINE_AWAY_S if self._trouble else LOOK_S
            if told is None or self._trouble:
                await pause(self._work, most)
                continue
            for image in to_pull(told, self.seen(), frozenset(self._underway), self._now()):
                self._underway.add(image)
                tasks.create_task(self._warm(pulls, image), name=f"warm {image}")
            await pause(self._work, next_look(told, self.seen(), self._now(), most))

    async def _look(self, pulls: Pulls, images: frozenset[str]) -> bool:
        """See which of the images are here; False when the Engine can't be asked."""
        before = self._held
        try:
            found = await pulls.held(images)
        except DriverError as error:
            self._trouble = str(error)
            return False
        self._held = found | (self._held - before)  # with what has arrived meanwhile
        self._trouble = ""
        self.changed.set()
        return True

    async def _warm(self, pulls: Pulls, image: str) -> None:
        def progressed(progress: Progress) -> None:
            if progress.phase is CopyPhase.PULLING:
                self._percents[image] = max(0, progress.percent)
                self._layers[image] = progress.layers
            else:
                self._percents.pop(image, None)
            self.changed.set()

        try:
            await pulls.for_warming(image, progressed)
        except DriverError as error:
            self._failed(image, error)
        else:
            self.arrived(image)
        finally:
            self._underway.discard(image)
            self._percents.pop(image, None)
            self._layers.pop(image, None)
            self._work.set()
            self.changed.set()

    def _failed(self, image: str, error: DriverError) -> None:
        count = self._failures[image].count + 1 if image in self._failures else 1
        why = str(error).partition(" to hold it warm: ")[2] or str(error)
        absent = isinstance(error, ImageNotFound)
        bounds = ABSENT_RETRY_S if absent else RETRY_S
        backoff = self._backoffs.setdefault((image, absent), Backoff(self._rng, *bounds))
        self._failures[image] = Failure(why, count, self._now() + backoff.next(), absent)
        logger.warning("could not hold %s warm: %s", image, error)
        if count == 1:
            self._missed(image, why)

    def _recovered(self, image: str) -> None:
        self._failures.pop(image, None)
        for absent in (False, True):
            self._backoffs.pop((image, absent), None)

    def _try_soon(self, images: Set[str], within_s: float) -> None:
        """Cut the waits of images that failed; one that does not exist comes no sooner."""
        for image in images & self._failures.keys():
            failure = self._failures[image]
            if not failure.absent:
                soon = self._now() + self._rng.uniform(0.0, within_s)
                self._failures[image] = replace(failure, again_at=min(failure.again_at, soon))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
