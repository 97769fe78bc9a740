"""Keeps the deadlines of this host's strict units: renews the fence, hands deadlines to the warden, stops in time.

Killed at any line it leaves deadlines that are not later than what the store has committed, and a warden that
knows them. A renewal is sent for placements as this process read them from the store, never from the local copy,
and never to a store that is not trusted.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping

from unit_agent import fence
from unit_agent.backoff import Backoff, pause
from unit_agent.copies import Copies
from unit_agent.driver import Copy
from unit_agent.strict.deadlines import Deadline, Deadlines
from unit_agent.strict.register import Register
from unit_agent.sync import Sync
from unit_agent.texts import Texts
from unit_agent.timings import Timings
from unitfleet import codec, keys
from unitfleet.errors import BadRecord, DriverError, DriverUnavailable, InvalidUnit, NotFound, StoreError
from unitfleet.model import Placement, Presence, Wanted
from unitfleet.store import Store

logger = logging.getLogger(__name__)

ADMIT_S = 5.0
"""How long a start waits for its renewal before it is tried again later."""

SOON_S = 0.02

MOST = 100
"""Placements a renewal: a transaction takes 128 compares."""

STOPPED = "the store could not confirm in time that it may run on here"


class Strict:
    """The strict units of one agent.

    `nonce` is this agent process, as its presence says. `consider(unit)` is called when a unit's case changed.
    """

    def __init__(
        self,
        store: Store,
        machine: str,
        nonce: str,
        sync: Sync,
        texts: Texts,
        copies: Copies,
        deadlines: Deadlines,
        register: Register,
        timings: Timings,
        rng: random.Random,
        consider: Callable[[str], None],
    ) -> None:
        self._store = store
        self._machine = machine
        self._nonce = nonce
        self._sync = sync
        self._texts = texts
        self._copies = copies
        self._deadlines = deadlines
        self._register = register
        self._renew_s = timings.renew_s
        self._consider = consider
        self._count = 0
        self._presence = 0  # mod revision of our presence key; 0: to be read anew
        self._kept: dict[str, Deadline] = {}  # what the warden knows
        self._hurry = asyncio.Event()
        self._round = asyncio.Event()  # set, and replaced, when a renewal was answered
        self._retry = Backoff(rng, 0.05, timings.renew_s / 4)
        self._away = ""
        self._unwatched = ""

    async def load(self) -> None:
        """Take up the deadlines that the agent before this one left."""
        self._deadlines.units = dict(await self._register.load())
        self._kept = dict(self._deadlines.units)

    def must_stop(self, unit: str) -> bool:
        """Tell whether a copy of the unit may not run on here now, although its placement says so."""
        copy = self._copies.find(unit)
        if copy is None or not copy.executing or not self._is_strict(unit, copy):
            return False
        return unit not in self._deadlines.units or not self._deadlines.may_run(unit)

    async def admit(self, placement: Placement, driver: str) -> None:
        """Return once a copy of a strict unit may start; raises `DriverError` with what it waits for.

        From then on the warden knows the copy. An ordinary unit's copy is none of ours.
        """
        unit = placement.unit
        spec = self._texts.known(unit, placement.spec)
        if spec is None or not spec.requirements.strict:
            await self._let_go(unit)
            return
        holder = self._copies.driver(driver)
        assert holder is not None, "it was just asked to create the copy"
        marks = await holder.marks(unit)
        if trouble := await self._register.watched():
            raise DriverUnavailable(f"cannot start {unit}: it is strict, and {trouble}")
        until = asyncio.get_running_loop().time() + ADMIT_S
        while not self._may_start(placement):
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                why = self._away or "its placement was written anew"
                raise DriverUnavailable(f"cannot start {unit}: it is strict, and not confirmed yet: {why}")
            self._hurry.set()
            await pause(self._round, left)
            await asyncio.sleep(SOON_S)  # a round that had nothing to renew must not be followed at once
        try:
            await self._keep({**self._deadlines.units, unit: self._deadlines.mark(unit, marks)})
        except OSError as error:
            raise DriverUnavailable(f"cannot start {unit}: its deadline can't be kept: {error}") from error
        if not self._may_start(placement):
            raise DriverUnavailable(f"cannot start {unit}: it is strict, and its confirmation ran out")

    async def _let_go(self, unit: str) -> None:
        """Forget the deadline of a unit that is strict no more: its new copy must not be taken for the old."""
        if unit in self._deadlines.units:
            try:
                await self._keep({name: d for name, d in self._deadlines.units.items() if name != unit})
            except OSError as error:
                raise DriverUnavailable(
                    f"cannot start {unit}: its old deadline can't be lifted: {error}"
                ) from error

    async def run(self) -> None:
        """Renew and watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew(), name="fence")
            tasks.create_task(self._stop_in_time(), name="deadlines")

    def _may_start(self, placement: Placement) -> bool:
        revision = self._revision(placement.unit)
        current = self._sync.placements.get(placement.unit)
        return revision > 0 and current == placement and self._deadlines.may_start(placement.unit, revision)

    def _revision(self, unit: str) -> int:
        """Return the mod revision of the unit's placement, when that is one to renew; else 0."""
        placement = self._sync.placements.get(unit)
        if placement is None or placement.wanted is not Wanted.LAUNCHED or self._sync.keep_everything:
            return 0
        return self._sync.revisions.get(unit, 0) if self._sync.synced.is_set() else 0

    def _is_strict(self, unit: str, copy: Copy) -> bool:
        spec = self._texts.known(unit, copy.spec)
        return unit in self._kept if spec is None else spec.requirements.strict

    async def _renew(self) -> None:
        """Send a renewal every quarter of a lease's time, sooner for one that is about to start."""
        loop = asyncio.get_running_loop()
        while True:
            self._hurry.clear()
            began = loop.time()
            try:
                renewed = await self._round_of(await self._to_renew())
            except StoreError as error:
                if not self._away:
                    logger.warning("could not renew the fence of strict units: %s", error)
                self._away = str(error)
                renewed = False
            else:
                if renewed:
                    self._away = ""
            self._round.set()
            self._round = asyncio.Event()
            if renewed:
                self._retry.reset()
                await pause(self._hurry, max(0.0, began + self._renew_s - loop.time()))
            else:
                await asyncio.sleep(self._retry.next())

    async def _to_renew(self) -> dict[str, int]:
        """Return the strict placements that are to stand, with their mod revisions."""
        found: dict[str, int] = {}
        for unit, placement in sorted(self._sync.placements.items()):
            revision = self._revision(unit)
            if revision and await self._asks_for_strict(placement):
                found[unit] = revision
        return found

    async def _asks_for_strict(self, placement: Placement) -> bool:
        if self._texts.unreadable(placement.unit, placement.spec):
            return False
        try:
            return (await self._texts.order(placement)).spec.requirements.strict
        except StoreError:
            return placement.unit in self._kept  # its text is not at hand: what was proved before tells
        except (InvalidUnit, NotFound):
            return False

    async def _round_of(self, wanted: Mapping[str, int]) -> bool:
        """Renew these placements and tell whether all were; raises `StoreError`."""
        await self._forget(wanted)
        units = sorted(wanted)
        for start in range(0, len(units), MOST):
            piece = {unit: wanted[unit] for unit in units[start : start + MOST]}
            if not self._presence:
                self._presence = await self._own_presence()
            sent = self._deadlines.clock()
            self._count += 1
            compares, ops = fence.renewal(self._machine, self._nonce, self._count, self._presence, piece)
            result = await self._store.txn(compares, ops)
            if not result.succeeded:
                # sentence 3: something of it has changed, so list anew and renew for the rest
                self._presence = 0
                self._away = "the fence was refused, placements are read anew"
                self._sync.relist()
                return False
            waited = [unit for unit in piece if not self._deadlines.may_start(unit, piece[unit])]
            renewed = {unit: self._deadlines.renewed(unit, piece[unit], sent) for unit in piece}
            try:
                await self._keep({**self._deadlines.units, **renewed})
            except OSError as error:
                self._away = f"deadlines can't be kept: {error}"
                logger.error("could not keep the deadlines of strict units, they stop when these end: %s", error)
                return False
            await self._mark_adopted(piece)
            await self._keep_watched()
            for unit in waited:
                copy = self._copies.find(unit)
                if copy is not None and not copy.executing:
                    self._consider(unit)
        return True

    async def _own_presence(self) -> int:
        key = keys.presence(self._machine)
        there = await self._store.get(key)
        if there is None:
            raise StoreError("this machine's presence does not stand yet")
        try:
            presence = codec.decode(there.value, Presence, key)
        except BadRecord as error:
            raise StoreError(str(error)) from error
        if presence.nonce != self._nonce:
            raise StoreError("this machine's presence is not this agent's yet")
        return there.mod_revision

    async def _keep(self, units: dict[str, Deadline]) -> None:
        """Let deadlines count once the warden can read them; raises `OSError`."""
        await self._register.write(units)
        self._kept = units
        self._deadlines.units = dict(units)

    async def _mark_adopted(self, units: Mapping[str, int]) -> None:
        """Give the warden the marks of copies that run and it does not know (its directory was emptied)."""
        for unit in units:
            copy = self._copies.find(unit)
            if copy is None or not copy.executing or self._deadlines.units[unit].marks is not None:
                continue
            driver = self._copies.driver(copy.driver)
            if driver is not None and not await self._register.watched():
                try:
                    marks = await driver.marks(unit)
                    await self._keep({**self._deadlines.units, unit: self._deadlines.mark(unit, marks)})
                except (DriverError, OSError) as error:
                    logger.warning("could not tell the warden of %s: %s", unit, error)

    async def _keep_watched(self) -> None:
        """Have a warden for the copies that run, also when the last one was killed."""
        if any(deadline.marks is not None for deadline in self._deadlines.units.values()):
            trouble = await self._register.watched()
            if trouble and trouble != self._unwatched:
                logger.error("strict units run on, but %s: end this agent only after they are gone", trouble)
            self._unwatched = trouble

    async def _forget(self, wanted: Mapping[str, int]) -> None:
        """Drop deadlines of units that are not wanted and of which nothing is left here."""
        gone = {unit for unit in self._deadlines.units.keys() - wanted.keys() if self._is_over(unit)}
        if gone:
            try:
                await self._keep({u: d for u, d in self._deadlines.units.items() if u not in gone})
            except OSError as error:
                logger.error("could not forget deadlines of strict units: %s", error)

    def _is_over(self, unit: str) -> bool:
        copy = self._copies.find(unit)
        return not self._copies.unknown() if copy is None else not self._is_strict(unit, copy)

    async def _stop_in_time(self) -> None:
        """Have each copy looked at when its deadline is near; the warden ends what is left."""
        while True:
            due = [self._deadlines.stop_at(deadline) for deadline in self._deadlines.units.values()]
            now = self._deadlines.clock()
            late = [unit for unit in sorted(self._deadlines.units) if self.must_stop(unit)]
            for unit in late:
                self._consider(unit)
            ahead = [at - now for at in due if at > now]
            await asyncio.sleep(min([self._renew_s / 4 if due else self._renew_s, *ahead]) + 0.001)
