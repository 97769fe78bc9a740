"""What this master knows of the store: one `ClusterView`, kept by one task that lists and then watches.

Watches are hints and make it quick; listing anew every few minutes makes it right. While the store is away the
view stays as it was, and `stale_s` says for how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field

from unit_master.view import ClusterView
from unitfleet import keys
from unitfleet.errors import Compacted, Refused, StoreError, StoreUnavailable
from unitfleet.loop import run_out
from unitfleet.model import MachineStatus
from unitfleet.store import MemberStatus, Store, StoreStatus

logger = logging.getLogger(__name__)

RELIST_S = 300.0
RETRY_S = 0.5
PATIENCE_S = 1.0
LIST_AGAIN_S = 5.0  # not sooner, however many ask for a revision that never comes
PROBE_S = 2.0
STALE_S = 6.0
"""No answer of the store for this long, three probes, is worth telling."""

MAX_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Update:
    """Keys that changed up to `revision`; None when there were too many to name."""

    revision: int
    keys: frozenset[str] | None


@dataclass(eq=False, slots=True)
class Subscription:
    """What one reader has yet to be told. A slow reader loses no change: they add up to one `Update`.

    With `kinds` it is of these kinds of keys alone: each state that an agent reports would wake a reader.
    """

    kinds: frozenset[str] = frozenset()
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _revision: int = 0
    _keys: set[str] | None = field(default_factory=set)

    def add(self, revision: int, changed: Set[str]) -> None:
        """Remember a change."""
        if self.kinds:
            changed = {key for key in changed if keys.split(key)[0] in self.kinds}
            if not changed:
                return
        self._revision = revision
        if self._keys is not None:
            self._keys |= changed
            if len(self._keys) > MAX_KEYS:
                self._keys = None
        self.changed.set()

    def take(self) -> Update:
        """Return everything since the last call; `changed` is clear until there is more."""
        update = Update(self._revision, None if self._keys is None else frozenset(self._keys))
        self._keys = set()
        self.changed.clear()
        return update

    async def next(self) -> Update:
        """Wait for a change and take it."""
        await self.changed.wait()
        return self.take()


class Cache:
    """Keeps `view` like the store. Readers take `view` anew after every wait: its content changes under them."""

    def __init__(self, store: Store, *, relist_s: float = RELIST_S) -> None:
        self._store = store
        self._relist_s = relist_s
        self._view = ClusterView()
        self._subscriptions: dict[Subscription, None] = {}
        self._advanced = asyncio.Event()
        self._until: asyncio.Timeout | None = None  # when to list anew
        self._listed_at = -math.inf
        self._answered_at: float | None = None
        self.synced = False
        self.store_status: StoreStatus | None = None
        self.absent_since: dict[str, float] = {}
        """Roster machines without presence: loop time at which this process first saw it absent."""
        self._lost_since: dict[str, float] = {}  # loop time at which it first saw them lost

    @property
    def view(self) -> ClusterView:
        """The cluster as last heard; empty until `synced`."""
        return self._view

    def lost_for(self) -> dict[str, float]:
        """Return for how many seconds each lost machine has been lost, as far as this process saw it.

        The record's own time was taken by another master's clock, and no two wall clocks agree: for a process that
        has just begun, every lost machine is lately lost, and the brake may hold a minute longer than it has to.
        """
        now = asyncio.get_running_loop().time()
        return {machine: now - at for machine, at in self._lost_since.items()}

    def stale_s(self) -> float:
        """Return for how many seconds the store has not answered; 0 while it answers."""
        if self._answered_at is None:
            return 0.0
        silent = asyncio.get_running_loop().time() - self._answered_at
        return silent if silent > STALE_S else 0.0

    @property
    def ready(self) -> bool:
        """Whether the view is complete and the store answered lately."""
        return self.synced and self.stale_s() == 0.0

    async def run(self) -> None:
        """Follow the store until cancelled; no failure of the store ends it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="follow the store")
            tasks.create_task(self._probe(), name="probe the store")

    @contextlib.contextmanager
    def subscribe(self, kinds: Iterable[str] = ()) -> Iterator[Subscription]:
        """Tell the holder of the subscription about every change from now on, or of some kinds of keys alone."""
        subscription = Subscription(frozenset(kinds))
        self._subscriptions[subscription] = None
        try:
            yield subscription
        finally:
            del self._subscriptions[subscription]

    async def members(self) -> tuple[MemberStatus, ...]:
        """Ask every member of the store how it is."""
        return await self._store.members()

    async def wait_for(self, revision: int, timeout_s: float) -> None:
        """Wait until the view is complete and not older than `revision`; raises `StoreUnavailable`.

        A revision of someone else's keys is never seen by the watch: after a second the store is listed anew.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not self.synced or self._view.revision < revision:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(PATIENCE_S):
                            await self._advanced.wait()
                            continue
                    self.list_soon()
        except TimeoutError:
            raise StoreUnavailable(
                f"cannot read revision {revision}: this master is at {self._view.revision} after {timeout_s:g} s",
                hint="ask another master, or look at the store's health",
            ) from None

    async def wait_for_asked(self, revision: int, timeout_s: float) -> None:
        """Wait for a revision that a client names; raises `Refused` when the store has not come so far.

        What was answered to the client stands in the store: one that it never gave would be waited for in vain.
        """
        if self.synced and self._view.revision < revision:
            with contextlib.suppress(StoreError):  # nothing is heard: wait for it, as long as for any
                at = (await self._store.list(keys.CLUSTER)).revision
                if at < revision:
                    raise Refused(
                        f"cannot wait for revision {revision}: the store is at {at}",
                        hint="take the revision of an answer of this cluster; etcd may have been made anew since",
                    )
        await self.wait_for(revision, timeout_s)

    def list_soon(self) -> None:
        """List anew, where the last list is `LIST_AGAIN_S` old: the view seems to lack something."""
        now = asyncio.get_running_loop().time()
        if self._until is not None and now - self._listed_at > LIST_AGAIN_S:
            self._listed_at = now
            run_out(self._until)

    async def _follow(self) -> None:
        while True:
            try:
                await self._list()
                async with asyncio.timeout(self._relist_s) as self._until:
                    await self._watch()
                logger.warning("watch ended: listing anew")
            except TimeoutError:
                continue  # list anew though nothing is wrong: what a watch has lost heals here
            except Compacted as error:
                logger.info("listing anew: %s", error)
            except StoreError as error:
                logger.warning("could not follow the store: %s", error)
            finally:
                self._until = None  # it is over: whoever wants a new list waits for the one that comes now
            await asyncio.sleep(RETRY_S)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        watching = self._store.watch(keys.PREFIX, start_revision=self._view.revision + 1)
        async with contextlib.aclosing(watching) as watch:
            async for batch in watch:
                self._answered_at = loop.time()
                self._tell(self._view.apply_batch(batch))

    async def _list(self) -> None:
        listing = await self._store.list(keys.PREFIX)
        self._answered_at = self._listed_at = asyncio.get_running_loop().time()
        if listing.revision < self._view.revision:
            # a restored store counts anew: nothing known may be compared with it by revision
            logger.warning("store went back from revision %d to %d", self._view.revision, listing.revision)
            former = set(self._view.revisions)
            self._view = ClusterView()
            changed = former | self._view.apply_listing(listing)
        else:
            changed = self._view.apply_listing(listing)
        if not self.synced:
            logger.info("read the store: %d keys at revision %d", len(listing.items), listing.revision)
        self.synced = True
        self._tell(changed)

    def _tell(self, changed: set[str]) -> None:
        self._note_absences(changed)
        self._note_losses(changed)
        for key in sorted(changed & self._view.bad.keys()):
            logger.error("left alone what stands in the store: %s", self._view.bad[key])
        self._advanced.set()
        self._advanced = asyncio.Event()
        if changed:
            for subscription in self._subscriptions:
                subscription.add(self._view.revision, changed)

    def _note_losses(self, changed: set[str]) -> None:
        if not any(keys.split(key)[0] == "roster" for key in changed):
            return
        now = asyncio.get_running_loop().time()
        lost = [m for m, entry in self._view.roster.items() if entry.value.status is MachineStatus.LOST]
        self._lost_since = {machine: self._lost_since.get(machine, now) for machine in sorted(lost)}

    def _note_absences(self, changed: set[str]) -> None:
        if not any(keys.split(key)[0] in ("machines", "roster") for key in changed):
            return
        absent = self._view.roster.keys() - self._view.presence.keys()
        now = asyncio.get_running_loop().time()
        self.absent_since = {machine: self.absent_since.get(machine, now) for machine in sorted(absent)}

    async def _probe(self) -> None:
        """Ask the store how it is: a silent watch does not tell whether it is alive."""
        while True:
            try:
                status = await self._store.status()
                if status.has_leader:
                    self._answered_at = asyncio.get_running_loop().time()
                self.store_status = status
            except StoreError as error:
                logger.debug("store did not answer: %s", error)
            await asyncio.sleep(PROBE_S)
