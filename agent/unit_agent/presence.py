"""An agent's sign of life: one lease a machine, its presence key, and its resources.

The lease is renewed every quarter of its time, whatever else fails. A presence key that is gone although we
live (etcd 3.4 revokes live leases) is written again at once. A restarted agent takes its lease up again, so
that a restart within the lease's time is not noticed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable

import msgspec

from unit_agent.backoff import Backoff, pause
from unit_agent.following import Follower
from unit_agent.local_copy import LocalCopy, read_record
from unit_agent.machine import Facts
from unit_agent.timings import Timings
from unitfleet import codec, keys
from unitfleet.errors import BadRecord, LeaseLost, Refused, StoreError
from unitfleet.model import Presence, Record, Resources
from unitfleet.store import Batch, Event, EventKind, KeyValue, Listing, Put, Store, absent, unchanged

logger = logging.getLogger(__name__)

LEASE = "lease.json"

CHANGE = 0.1  # of a machine's capacity: less is not worth a write


class KeptLease(Record, frozen=True, kw_only=True):
    """The lease on disk: of use to an agent of the same host and the same boot alone."""

    lease: int
    boot_id: str
    fingerprint: str


class PresenceKeeper:
    """Keeps `machines/<id>` and `resources/<id>` standing. `nonce` is this agent process.

    `drivers` tells the drivers at hand. `on_contact` is called when the store answers again, or a new lease or
    a new presence had to be made. `run` raises `Refused` when another host lives under our id, or another
    process took over.
    """

    def __init__(
        self,
        store: Store,
        local: LocalCopy,
        facts: Facts,
        timings: Timings,
        rng: random.Random,
        now: Callable[[], float],
        measure: Callable[[], Resources],
        drivers: Callable[[], tuple[str, ...]],
        on_contact: Callable[[], None],
    ) -> None:
        self._store = store
        self._local = local
        self._facts = facts
        self._timings = timings
        self._measure = measure
        self._drivers = drivers
        self._on_contact = on_contact
        self._started_at = now()
        self._key = keys.presence(facts.id)
        self._lease = 0
        self._usable = asyncio.Event()  # the lease is known to live
        self._renew = asyncio.Event()
        self._stale = asyncio.Event()  # the presence key may not be as it should
        self._joined = asyncio.Event()  # resources are to be written anew, at once
        self._closed = ""  # why this machine takes no new units
        self._stood = False  # this process wrote its presence once
        self._wrote = 0  # at this revision, the last time
        self._retry = Backoff(rng, 0.1, min(2.0, timings.renew_s))
        self._write_retry = Backoff(rng, 0.1, min(2.0, timings.renew_s))
        self.nonce = f"{rng.getrandbits(64):016x}"
        self.away = ""  # why the lease could not be renewed, "" when it was
        self._renewed_at: float | None = None  # loop time of the last renewal that was answered
        self.warming = ""  # what this machine lacks before it takes new units; `rewrite` tells it
        self.warm: tuple[str, ...] = ()  # images that this machine's settings name
        self._watch = Follower(
            store,
            self._key,
            listed=self._check_listing,
            changed=self._check_batch,
            interval_s=timings.verify_s,
            backoff=Backoff(rng, 0.1, timings.store_retry_s[1]),
            rng=rng,
        )

    @property
    def standing(self) -> bool:
        """Whether the presence key stands, as far as is known."""
        return self._stood and not self._stale.is_set() and not self.away

    def silent_s(self) -> float | None:
        """Return for how long the lease has not been renewed; None before the first time."""
        return None if self._renewed_at is None else asyncio.get_running_loop().time() - self._renewed_at

    @property
    def lease(self) -> int:
        """The lease that this machine's keys are bound to, 0 while there is none that is known to live."""
        return self._lease if self._usable.is_set() else 0

    def close(self, reason: str) -> None:
        """Take no new units for `reason`, or with "" take them again: told at once, where that is a change."""
        if bool(reason) != bool(self._closed):
            self._joined.set()
        self._closed = reason

    def rewrite(self) -> None:
        """Write the presence anew: its content has changed."""
        self._stale.set()

    async def run(self) -> None:
        """Join, and stay until cancelled."""
        self._lease = await self._kept_lease()
        self._stale.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hold_lease(), name="lease")
            tasks.create_task(self._stand(), name="presence")
            tasks.create_task(self._watch.run(), name="own presence")
            tasks.create_task(self._tell_resources(), name="resources")

    async def _kept_lease(self) -> int:
        kept = await read_record(self._local, LEASE, KeptLease)
        if kept and (kept.boot_id, kept.fingerprint) == (self._facts.boot_id, self._facts.fingerprint):
            return kept.lease
        return 0

    async def _hold_lease(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._renew.clear()
            began = loop.time()
            try:
                if not (lease := self._lease):
                    lease = await self._grant()
                await self._store.keepalive(lease, self._timings.renew_s)
            except LeaseLost as error:
                self._lose(lease, str(error))
                continue
            except StoreError as error:
                if not self.away:
                    logger.warning("could not renew the lease: %s", error)
                self.away = str(error)
                await pause(self._renew, self._retry.next())
                continue
            if lease != self._lease:
                continue  # found dead meanwhile, whatever the store answered
            self._retry.reset()
            self._renewed_at = began
            self._usable.set()
            if self.away:
                logger.info("renewed the lease again")
                self.away = ""
                self._watch.hurry()
                self._on_contact()
            await pause(self._renew, max(0.0, began + self._timings.renew_s - loop.time()))

    async def _grant(self) -> int:
        lease = await self._store.grant(self._timings.ttl_s)
        kept = KeptLease(lease=lease.id, boot_id=self._facts.boot_id, fingerprint=self._facts.fingerprint)
        try:
            await self._local.write(LEASE, codec.encode(kept))
        except OSError as error:
            logger.error("could not save the lease, a restart of the agent will be noticed: %s", error)
        self._lease = lease.id
        self._stale.set()
        return lease.id

    def _lose(self, lease: int, why: str) -> None:
        if lease != self._lease:
            return
        logger.warning("lost the lease: %s", why)
        self._lease = 0
        self._usable.clear()
        self._renew.set()
        self._stale.set()
        self._on_contact()  # our lease is not in this store: look whether it is ours

    async def _stand(self) -> None:
        complained = False
        while True:
            await self._stale.wait()
            await self._usable.wait()
            self._stale.clear()
            lease = self._lease
            try:
                stands = await self._write(lease)
            except LeaseLost as error:
                self._lose(lease, str(error))
            except StoreError as error:
                if not complained:
                    logger.warning("could not write the presence of this machine: %s", error)
                complained = True
                self._stale.set()
                await asyncio.sleep(self._write_retry.next())
            else:
                complained = False
                if stands:
                    self._write_retry.reset()
                else:
                    # read out of date, maybe by a member that lags: it would be so again at once
                    self._stale.set()
                    await asyncio.sleep(self._write_retry.next())

    async def _write(self, lease: int) -> bool:
        """Write the presence where it is not as it should be; tell whether it is now."""
        mine = self._presence()
        there = await self._store.get(self._key)
        other = self._read(there)
        if there is not None and other is not None:
            refusal = self._refusal(other, there.mod_revision)
            if refusal is not None:
                # a read may be of a time that is over, also of our own former process: a transaction is not
                if (await self._store.txn([unchanged(self._key, there.mod_revision)], [])).succeeded:
                    raise refusal
                return False
            if other == mine and there.lease == lease:
                self._stood = True
                return True
        guard = absent(self._key) if there is None else unchanged(self._key, there.mod_revision)
        result = await self._store.txn([guard], [Put(self._key, codec.encode(mine), lease)])
        if not result.succeeded:
            return False
        if there is None:
            logger.info("%s as machine %s (%s)", "was back" if self._stood else "joined", mine.id, mine.name)
        elif not self._stood:
            logger.info("took up the presence of machine %s (%s) again", mine.id, mine.name)
        self._stood = True
        self._wrote = result.revision
        self._joined.set()
        if there is None:
            self._on_contact()  # what was reported while nobody knew this machine may have been cleared
        return True

    def _refusal(self, other: Presence, revision: int) -> Refused | None:
        if other.fingerprint != self._facts.fingerprint:
            return Refused(
                f"cannot join as machine {other.id}: {other.name} at {other.address} lives under this id, and it "
                "is another host",
                hint="this host was cloned with its state: remove machine.json from one host's state directory",
            )
        # one that is older than what we wrote is of our own former process: the store was set back
        if self._stood and other.nonce != self.nonce and revision > self._wrote:
            return Refused(
                f"cannot go on as machine {other.id}: another agent process of this host took over",
                hint="run one agent a host, or give each a state directory of its own",
            )
        return None

    def _read(self, there: KeyValue | None) -> Presence | None:
        if there is None:
            return None
        try:
            return codec.decode(there.value, Presence, self._key)
        except BadRecord as error:
            logger.error("replaced the presence of this machine: %s", error)
            return None

    def _presence(self) -> Presence:
        facts = self._facts
        return Presence(
            id=facts.id,
            name=facts.name,
            nonce=self.nonce,
            boot_id=facts.boot_id,
            fingerprint=facts.fingerprint,
            address=facts.address,
            port=facts.port,
            metadata=facts.metadata,
            drivers=self._drivers(),
            versions=facts.versions,
            capacity=facts.capacity,
            started_at=self._started_at,
            ttl_s=self._timings.ttl_s,
            public_key=facts.public_key,
            warming=self.warming,
            warm=self.warm,
            policy=facts.policy,
        )

    async def _check_listing(self, listing: Listing) -> None:
        mine = [item for item in listing.items if item.key == self._key]
        if not mine:
            self._stale.set()
        for item in mine:
            self._check(Event(EventKind.PUT, item))

    async def _check_batch(self, batch: Batch) -> None:
        for event in batch.events:
            if event.kv.key == self._key:
                self._check(event)

    def _check(self, event: Event) -> None:
        if event.kind is EventKind.DELETE:
            logger.debug("saw that the presence of this machine is gone")
            self._stale.set()
        elif (there := self._read(event.kv)) is None or there.nonce != self.nonce:
            self._stale.set()

    async def _tell_resources(self) -> None:
        told: Resources | None = None
        while True:
            joined = await pause(self._joined, self._timings.resources_s)
            self._joined.clear()
            lease = self._lease
            if not lease or not self._stood:
                continue
            try:
                measured = msgspec.structs.replace(self._measure(), closed=self._closed)
                if not joined and told is not None and not differs(told, measured):
                    continue
                await self._store.put(keys.resources(self._facts.id), codec.encode(measured), lease)
                told = measured
            except LeaseLost as error:
                self._lose(lease, str(error))
            except (StoreError, OSError) as error:  # a disk that fails can't be measured, either
                logger.debug("could not tell the resources: %s", error)
                told = None


def differs(told: Resources, measured: Resources) -> bool:
    """Tell whether what is used changed by more than a tenth of the capacity, or the capacity or `closed` at all.

    Bandwidth counts where the uplink's is known. Load and pressure are not worth a write of their own.
    """
    capacity = measured.capacity
    return (told.capacity, told.closed) != (capacity, measured.closed) or any(
        abs(before - after) > CHANGE * whole
        for before, after, whole in (
            (told.cpu_used, measured.cpu_used, capacity.cpu),
            (told.memory_used, measured.memory_used, capacity.memory),
            (told.disk_used, measured.disk_used, capacity.disk),
            (told.egress_used, measured.egress_used, capacity.egress or math.inf),
            (told.ingress_used, measured.ingress_used, capacity.ingress or math.inf),
        )
    )
