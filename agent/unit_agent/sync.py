"""The wanted side of an agent: its placements, kept up with and kept on disk, and the guard against a wrong store.

Every change is in the local copy before it is acted on. Another cluster id, or revisions that went backwards,
are no orders (a store that was wiped, restored or mistaken): the agent then keeps everything as it is, takes
nothing new, says so, and goes on only when its operator has accepted the store.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import msgspec

from unit_agent.backoff import Backoff
from unit_agent.following import Follower
from unit_agent.local_copy import LocalCopy, read_record
from unit_agent.reconcile import amends
from unit_agent.timings import Timings
from unitfleet import codec, keys
from unitfleet.errors import BadRecord, StoreError, StoreUnavailable
from unitfleet.model import Cluster, MachineSpec, Placement, Record
from unitfleet.store import Batch, Event, EventKind, KeyValue, Listing, Store

logger = logging.getLogger(__name__)

WANTED = "wanted.json"

FOUNDED_S = 0.5
"""How often it is looked whether a first master has founded the cluster, while none has."""

DOUBT_S = 5.0
"""Revisions lower than known must be seen for so long: a member that lags (etcd 3.4.20 to 3.4.41) catches up."""


class KeptWanted(Record, frozen=True, kw_only=True):
    """What is kept on disk. `placements` holds values as the store had them, by unit."""

    machine: str
    cluster: str = ""
    revision: int = 0  # highest seen
    keep_everything: str = ""  # why the store is not trusted, "" while it is
    placements: dict[str, str] = msgspec.field(default_factory=dict)


class Sync:
    """The placements of one machine. `on_change` gets the names of units whose placement changed,
    and of those among them that were only given another bandwidth.

    `synced` says whether the store was read since the start; `keep_everything` why it is not trusted, or "".
    """

    def __init__(
        self,
        store: Store,
        local: LocalCopy,
        machine: str,
        timings: Timings,
        rng: random.Random,
        on_change: Callable[[set[str], set[str]], None],
        on_listed: Callable[[], None],
    ) -> None:
        self._store = store
        self._local = local
        self._machine = machine
        self._on_change = on_change
        self._on_listed = on_listed
        self.placements: dict[str, Placement] = {}
        self.revisions: dict[str, int] = {}  # mod revision of each placement, as the store told this process
        self.machine_spec: MachineSpec | None = None
        self.synced = asyncio.Event()
        self.keep_everything = ""
        self.unsaved = ""  # why the local copy could not be written, "" when it was
        self.cluster = ""  # its id, "" until a first master made it
        self.revision = 0
        self._raw: dict[str, str] = {}
        self._saving = asyncio.Lock()  # an older copy must not be written over a newer one
        self._doubted_at: float | None = None

        self._placements = Follower(
            store,
            keys.placements_of(machine),
            listed=self._take_listing,
            changed=self._take_batch,
            interval_s=timings.relist_s,
            backoff=Backoff(rng, *timings.store_retry_s),
            rng=rng,
        )
        self._spec = Follower(
            store,
            keys.machine_spec(machine),
            listed=self._take_spec_listing,
            changed=self._take_spec_batch,
            interval_s=timings.relist_s,
            backoff=Backoff(rng, *timings.store_retry_s),
            rng=rng,
        )

    async def load(self) -> None:
        """Take up what the local copy holds of this machine."""
        kept = await read_record(self._local, WANTED, KeptWanted)
        if kept is None or kept.machine != self._machine:
            return
        self.cluster = kept.cluster
        self.revision = kept.revision
        self.keep_everything = kept.keep_everything
        for unit, raw in kept.placements.items():
            self._take(unit, raw)
        if self.keep_everything:
            logger.error("kept everything as it is: %s", self.keep_everything)

    async def run(self) -> None:
        """Keep up with the store until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._placements.run(), name="placements")
            tasks.create_task(self._spec.run(), name="machine-spec")
            tasks.create_task(self._await_cluster(), name="cluster")

    def relist(self) -> None:
        """Look anew whether this is our store and what it orders."""
        self._placements.relist()

    def hurry(self) -> None:
        """Cut back-offs short: the store answers again."""
        self._placements.hurry()
        self._spec.hurry()

    async def save_again(self) -> None:
        """Write what could not be written, if there is room by now: a boot may come before the next order."""
        if self.unsaved:
            await self._save()

    async def accept_store(self) -> None:
        """Trust the store as it is now, whatever it was before: the operator's word."""
        logger.warning("accepted the store as it is now, by the operator's order")
        self.keep_everything = ""
        self.cluster = ""
        self.revision = 0
        self._doubted_at = None
        await self._save()
        self._placements.relist()

    async def _take_listing(self, listing: Listing) -> None:
        if not await self._trusted(listing):
            return
        placements = {}
        revisions = {}
        for item in listing.items:
            unit, raw = _unit_of(item), _text_of(item)
            # unreadable is no order: what was known stands
            readable = self._readable(unit, raw)
            known = raw if readable else self._raw.get(unit)
            if known is not None:
                placements[unit] = known
            if readable:
                revisions[unit] = item.mod_revision
        changed = {unit for unit in self._raw.keys() | placements if self._raw.get(unit) != placements.get(unit)}
        self.revision = listing.revision
        await self._become(placements, changed, revisions)
        if not self.synced.is_set():
            logger.info("synced with the store: %d placements", len(placements))
            self.synced.set()
        self._on_listed()

    async def _take_batch(self, batch: Batch) -> None:
        if self.keep_everything:
            return
        fresh = [event for event in batch.events if event.kv.mod_revision > self.revision]
        self.revision = max(self.revision, batch.revision)
        if not fresh:
            return
        placements, revisions = dict(self._raw), dict(self.revisions)
        for event in fresh:
            unit = _unit_of(event.kv)
            revisions.pop(unit, None)
            if event.kind is EventKind.DELETE:
                placements.pop(unit, None)
            elif self._readable(unit, raw := _text_of(event.kv)):
                placements[unit] = raw
                revisions[unit] = event.kv.mod_revision
        touched = {_unit_of(event.kv) for event in fresh}
        changed = {unit for unit in touched if self._raw.get(unit) != placements.get(unit)}
        await self._become(placements, changed, revisions)

    async def _become(self, placements: dict[str, str], changed: set[str], revisions: dict[str, int]) -> None:
        """Save first, then let it be acted on: a placement and its revision are seen together.

        A wish to list anew may cancel this while it saves. Nothing is taken for known by then: the list that
        follows finds the same changes.
        """
        await self._save(placements)
        self._raw = placements
        before = {unit: self.placements.get(unit) for unit in changed}
        for unit in changed:
            if unit in placements:
                self._take(unit, placements[unit])
            else:
                self.placements.pop(unit, None)
        self.revisions = revisions
        if changed:
            self._on_change(changed, {u for u in changed if amends(before[u], self.placements.get(u))})

    async def _save(self, placements: dict[str, str] | None = None) -> None:
        """Write down what is known, or `placements` that are about to be."""
        async with self._saving:
            kept = KeptWanted(
                machine=self._machine,
                cluster=self.cluster,
                revision=self.revision,
                keep_everything=self.keep_everything,
                placements=self._raw if placements is None else placements,
            )
            try:
                await self._local.write(WANTED, codec.encode(kept))
            except OSError as error:
                # a full disk must not keep an operator from stopping units: go on from memory, and say so
                if not self.unsaved:
                    logger.error("could not save the placements, went on without: %s", error)
                self.unsaved = str(error)
            else:
                if self.unsaved:
                    logger.info("saved the placements again")
                self.unsaved = ""

    async def _trusted(self, listing: Listing) -> bool:
        """Tell whether this is the store that we know; raises `StoreUnavailable` while it can't be told."""
        if self.keep_everything:
            return False
        cluster = await self._read_cluster()
        if self.cluster and cluster != self.cluster:
            found = f"another cluster ({cluster})" if cluster else "no cluster"
            await self._distrust(f"the store holds {found} where {self.cluster} was")
            return False
        if listing.revision < self.revision:
            now = asyncio.get_running_loop().time()
            if self._doubted_at is None:
                self._doubted_at = now
            lower = f"its revision {listing.revision} is lower than {self.revision}, seen before"
            if now - self._doubted_at < DOUBT_S:
                raise StoreUnavailable(f"cannot trust the store yet: {lower}")
            await self._distrust(f"the store went back: {lower}")
            return False
        self._doubted_at = None
        self.cluster = cluster
        return True

    async def _distrust(self, why: str) -> None:
        self.keep_everything = why
        logger.error(
            "kept everything as it is, nothing is stopped or started anew: %s; if this is meant to be, run "
            "`unit-agent local accept-store`",
            why,
        )
        await self._save()
        self._on_change(set(self.placements), set())

    async def _await_cluster(self) -> None:
        """Learn which cluster this is where an agent came before the first master: no listing would tell soon."""
        await self.synced.wait()
        while not (self.cluster or self.keep_everything):
            await asyncio.sleep(FOUNDED_S)
            try:
                found = await self._read_cluster()
            except StoreError as error:
                logger.debug("could not read which cluster this is: %s", error)
                continue
            if found and not (self.cluster or self.keep_everything):
                self.cluster = found
                await self._save()

    async def _read_cluster(self) -> str:
        found = await self._store.get(keys.CLUSTER)
        if found is None:
            return ""
        try:
            return codec.decode(found.value, Cluster, keys.CLUSTER).id
        except BadRecord as error:
            raise StoreUnavailable(f"cannot tell which cluster this is: {error}") from error

    def _readable(self, unit: str, raw: str) -> bool:
        key = keys.placement(self._machine, unit)
        try:
            placement = codec.decode(raw.encode(), Placement, key)
        except BadRecord as error:
            logger.error("ignored a placement: %s", error)
            return False
        if (placement.unit, placement.machine) != (unit, self._machine):
            logger.error("ignored a placement: %s speaks of %s on %s", key, placement.unit, placement.machine)
            return False
        return True

    def _take(self, unit: str, raw: str) -> None:
        self._raw[unit] = raw
        self.placements[unit] = codec.decode(raw.encode(), Placement, unit)

    async def _take_spec_listing(self, listing: Listing) -> None:
        for item in listing.items:
            self._take_spec(Event(EventKind.PUT, item))

    async def _take_spec_batch(self, batch: Batch) -> None:
        for event in batch.events:
            self._take_spec(event)

    def _take_spec(self, event: Event) -> None:
        if event.kv.key != keys.machine_spec(self._machine):
            return
        if event.kind is EventKind.DELETE:
            self.machine_spec = None
            return
        try:
            self.machine_spec = codec.decode(event.kv.value, MachineSpec, event.kv.key)
        except BadRecord as error:
            logger.error("ignored what the operator set for this machine: %s", error)


def _unit_of(item: KeyValue) -> str:
    return keys.split(item.key)[-1]


def _text_of(item: KeyValue) -> str:
    return item.value.decode(errors="replace")
