"""The leader at work: plan on every change, carry it out in guarded transactions, keep the store tidy.

A thin shell around `plan_machines`, `plan_units`, `Scribe` and `garbage`. It lives for one term. It may be
killed between any two lines: the next leader plans from what stands in the store.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Sequence

from unit_master.actions import (
    Acknowledged,
    Action,
    Amend,
    DeleteUnit,
    DropState,
    Enroll,
    Evict,
    Forget,
    Gone,
    Lose,
    Pend,
    PinImage,
    Place,
    UnitAction,
    Unpend,
    Want,
)
from unit_master.agenda import Agenda
from unit_master.apply import Scribe, Transaction
from unit_master.cache import Cache, Subscription, Update
from unit_master.etcd_roles.keeper import Keeper
from unit_master.housekeeping import BATCH, COMPACT_EVERY_S, Revisions, deletions, garbage
from unit_master.machines import NOTHING, Clocks, MachinePlan, Wait, plan_machines
from unit_master.metrics import MasterMetrics
from unit_master.reconcile import plan_units
from unit_master.secrets.sealer import Sealer
from unit_master.warm_sets import WarmSets
from unitfleet import codec, keys
from unitfleet.election import RENEW_S, Term, TermOver
from unitfleet.errors import OutcomeUnknown, StoreError
from unitfleet.loop import reconcile_forever
from unitfleet.store import Put, Store, absent, unchanged

logger = logging.getLogger(__name__)

INTERVAL_S = 5.0
TIDY_EVERY_S = 30.0
RETRY_S = 1.0
CATCH_UP_S = 5.0
MOST_ACTIONS = 40  # a transaction; halved after a conflict, so that one busy key can't hold up the others
MOST_CONFLICTS = 10  # one after the other, before the next decision waits for `RETRY_S`


class Leader:
    """Decides for one term."""

    def __init__(
        self,
        store: Store,
        cache: Cache,
        term: Term,
        *,
        now: Callable[[], float],
        grace_s: float,
        tidy_every_s: float = TIDY_EVERY_S,
        metrics: MasterMetrics | None = None,
        secrets_key: str = "",
        keeper: Keeper | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._term = term
        self._now = now
        self._grace_s = grace_s
        self._tidy_every_s = tidy_every_s
        self._metrics = metrics or MasterMetrics()
        self._secrets_key = secrets_key
        self._keeper = keeper
        self._numbers = itertools.count(1)
        self._waits: dict[str, tuple[int, float]] = {}
        self._most = MOST_ACTIONS
        self._conflicts = 0  # one after the other
        self._agenda = Agenda()
        self._calm_until = -math.inf  # no machine has to be looked at until then, or until one changes

    async def run(self) -> None:
        """Lead until cancelled; raises `TermOver` when a transaction shows that another leads."""
        await self._begin()
        with self._cache.subscribe() as subscription:

            async def plan() -> float | None:
                return await self._pass(subscription)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(reconcile_forever(plan, subscription.changed, INTERVAL_S), name="plan")
                tasks.create_task(self._tidy_forever(), name="tidy")
                warm = WarmSets(self._store, self._cache, self._term, self._still_leads)
                tasks.create_task(warm.run(), name="warm sets")
                sealer = Sealer(self._store, self._cache, self._term, self._secrets_key, self._still_leads)
                tasks.create_task(sealer.run(), name="seal secrets")
                if self._keeper is not None:
                    tasks.create_task(self._keeper.run(), name="users of etcd")

    async def _begin(self) -> None:
        """See everything that the last leader wrote, and have a counter to raise."""
        while True:
            try:
                result = await self._store.txn([*self._term.guard(), absent(keys.EPOCH)], [Put(keys.EPOCH, b"0")])
                return await self._cache.wait_for(result.revision, CATCH_UP_S)
            except StoreError as error:
                logger.warning("could not begin the term: %s", error)
                await asyncio.sleep(RETRY_S)

    def _note(self, update: Update) -> None:
        """Note what a change leaves open: decide on nothing that was read before it."""
        self._agenda.note(update.keys)
        if update.keys is None:
            self._calm_until = -math.inf
        for key in update.keys or ():
            match keys.split(key):
                case "states", machine, unit:
                    self._saw(unit, machine)
                case (("machines" | "roster" | "machine-spec" | "resources" | "fence"), _) | ("brake",):
                    self._calm_until = -math.inf

    def _saw(self, unit: str, machine: str) -> None:
        state = self._cache.view.states_of(unit).get(machine)
        if state is not None:
            self._metrics.seen(unit, machine, state.value.phase, asyncio.get_running_loop().time())

    def _plan_machines(self) -> MachinePlan:
        """Decide about machines; while all are there and none changes that is nothing."""
        at = asyncio.get_running_loop().time()
        if at < self._calm_until:
            return NOTHING
        plan = plan_machines(self._cache.view, self._clocks())
        if plan == NOTHING:
            self._calm_until = at + INTERVAL_S
        return plan

    def _plan_units(self) -> list[UnitAction]:
        """Decide about units that are open, some at a time."""
        view = self._cache.view
        with self._metrics.planned.time():
            scene, names = self._agenda.turn(view, asyncio.get_running_loop().time())
            actions = plan_units(view, self._now(), names, scene)
        if actions:
            self._agenda.decided(names, actions)
        return actions

    async def _pass(self, subscription: Subscription) -> float | None:
        try:
            with self._metrics.reconciled.time():
                return await self._decide(subscription)
        except StoreError as error:
            self._metrics.errors.labels(type(error).__name__).inc()
            logger.warning("could not carry out a decision: %s", error)
            return RETRY_S

    async def _decide(self, subscription: Subscription) -> float | None:
        view = self._cache.view
        if view.leader is None or view.leader.value.nonce != self._term.nonce:
            await self._still_leads()
        if (again_s := await self._mend()) is not None:
            return again_s
        self._note(subscription.take())
        machines = self._plan_machines()
        for machine in machines.begin_wait:
            await self._begin_wait(machine)
        self._note(subscription.take())
        actions = machines.actions or self._plan_units()
        if actions:
            await self._carry_out(actions)
            return self._again_s()
        return machines.again_s if self._agenda.is_done else 0.0

    def _again_s(self) -> float:
        """Return when to decide anew: at once, but where the store refuses one decision after the other."""
        if self._conflicts < MOST_CONFLICTS:
            return 0.0
        # whatever makes every decision fail must not make the leader spin; most likely a watch lost something
        self._cache.list_soon()
        return RETRY_S

    async def _mend(self) -> float | None:
        """Write the cluster's own two keys anew where somebody broke them; say when to go on, None: at once.

        An epoch need only be higher than any that a copy was started with: agents obey no lower one. So a
        counter that can't be read, or was set back, goes on from the highest that stands anywhere.
        """
        view = self._cache.view
        values: dict[str, bytes] = {}
        if keys.EPOCH in view.bad or view.epoch < view.highest_epoch:
            values[keys.EPOCH] = b"%d" % view.highest_epoch
        if keys.CLUSTER in view.bad and view.cluster is not None:
            values[keys.CLUSTER] = codec.encode(view.cluster.value)
        for key, value in values.items():
            why = view.bad.get(key, f"it said {view.epoch}, lower than epochs that were given")
            compares = [*self._term.guard(), unchanged(key, view.revisions.get(key, 0))]
            result = await self._store.txn(compares, [Put(key, value)])
            if not result.succeeded:
                await self._still_leads()
                self._cache.list_soon()  # it is not as it was seen: an event of it never came
                return RETRY_S
            logger.error("wrote %s anew as it has to be, %s: %s", key, value.decode(), why)
            await self._cache.wait_for(result.revision, CATCH_UP_S)
        return 0.0 if values else None

    def _clocks(self) -> Clocks:
        at = asyncio.get_running_loop().time()
        absent_since = self._cache.absent_since
        self._waits = {machine: wait for machine, wait in self._waits.items() if machine in absent_since}
        return Clocks(
            now=self._now(),
            absent_for={machine: at - since for machine, since in absent_since.items()},
            waits={machine: Wait(fence, at - since) for machine, (fence, since) in self._waits.items()},
            grace_s=self._grace_s,
            lost_for=self._cache.lost_for(),
            in_doubt=at - self._term.renewed_at > 2 * RENEW_S,
        )

    async def _begin_wait(self, machine: str) -> None:
        fence = await self._store.get(keys.fence(machine))
        self._waits[machine] = (fence.mod_revision if fence else 0, asyncio.get_running_loop().time())
        logger.info("waiting for the fence of %s to run out", self._cache.view.machine_name(machine))

    async def _carry_out(self, actions: Sequence[Action]) -> None:
        view = self._cache.view
        scribe = Scribe(view, f"master-{self._term.nonce[:8]}", self._now(), lambda: next(self._numbers))
        epoch_revision = view.epoch_revision
        revision = view.revision
        for batch in scribe.batches(actions, self._most):
            revision, succeeded = await self._commit(batch, epoch_revision)
            if not succeeded:
                break
            if batch.epoch:
                epoch_revision = revision
            for action in batch.actions:
                self._log(action)
                self._metrics.decided(action, asyncio.get_running_loop().time())
        await self._cache.wait_for(revision, CATCH_UP_S)

    async def _commit(self, batch: Transaction, epoch_revision: int) -> tuple[int, bool]:
        compares = [*self._term.guard(), unchanged(keys.EPOCH, epoch_revision), *batch.compares.values()]
        ops = [*batch.ops, Put(keys.EPOCH, b"%d" % batch.epoch)] if batch.epoch else batch.ops
        try:
            result = await self._store.txn(compares, ops)
        except OutcomeUnknown:
            seen = await self._store.list(keys.EPOCH)  # a later revision than the write's, if it happened
            return seen.revision, False
        if result.succeeded:
            self._most = min(MOST_ACTIONS, self._most * 2)
            self._conflicts = 0
            return result.revision, True
        await self._still_leads()
        self._conflicts += 1
        if self._conflicts >= MOST_CONFLICTS:
            self._cache.list_soon()  # perhaps an event never came, and the view is wrong until it is listed
        self._metrics.errors.labels("Conflict").inc()
        logger.info("decided anew: the cluster changed under %d decisions", len(batch.actions))
        self._most = max(1, self._most // 2)
        return result.revision, False

    async def _still_leads(self) -> None:
        """Raise `TermOver` when a transaction failed because another leads."""
        held = await self._store.get(keys.LEADER)
        if held is None or held.create_revision != self._term.create_revision or held.value != self._term.value:
            raise TermOver("another master leads")

    def _log(self, action: Action) -> None:
        name = self._cache.view.machine_name
        match action:
            case Place(unit, machine, wanted, reason):
                logger.info("placed %s on %s (%s): %s", unit, name(machine), wanted, reason)
            case Want(unit, machine, wanted, reason):
                logger.info("ordered %s on %s %s: %s", unit, name(machine), wanted, reason)
            case Amend(unit, machine, reason):
                logger.info("amended %s on %s: %s", unit, name(machine), reason)
            case Gone(unit, machine, reason):
                logger.info("ordered %s on %s gone: %s", unit, name(machine), reason)
            case Evict(unit, machine, reason):
                logger.info("ordered %s on %s gone: %s", unit, name(machine), reason)
            case Acknowledged(unit, machine):
                logger.info("cleared %s on %s: gone", unit, name(machine))
            case DropState(unit, machine):
                logger.debug("dropped the state of %s on %s: no copy, no placement", unit, name(machine))
            case DeleteUnit(unit):
                logger.info("deleted %s: destroyed, no copy left", unit)
            case Pend(pending):
                logger.info("did not place %s: %s", pending.unit, pending.message)
            case Unpend(unit):
                logger.debug("cleared what kept %s", unit)
            case PinImage(spec, image):
                logger.info("pinned %s for spec %s: first pulled", image, spec[:12])
            case Enroll(entry, event):
                logger.log(
                    logging.INFO if event else logging.DEBUG, "enrolled %s: %s", entry.name, event or "changed"
                )
            case Lose(machine, reason):
                logger.warning("declared %s lost: %s", name(machine), reason)
            case Forget(machine):
                logger.info("cleared machine %s: removed by the operator", machine)

    async def _tidy_forever(self) -> None:
        revisions = Revisions()
        compacted_at = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(self._tidy_every_s)
            try:
                await self._tidy()
                at = asyncio.get_running_loop().time()
                old = revisions.note(at, self._cache.view.revision)
                if old and at - compacted_at >= COMPACT_EVERY_S:
                    await self._store.compact(old)
                    compacted_at = at
                    logger.debug("compacted the store up to revision %d", old)
            except StoreError as error:
                logger.warning("could not tidy the store: %s", error)

    async def _tidy(self) -> None:
        doomed = list(garbage(self._cache.view, self._now()))
        for start in range(0, len(doomed), BATCH):
            compares, ops = deletions(self._cache.view, doomed[start : start + BATCH])
            await self._store.txn([*self._term.guard(), *compares], ops)
