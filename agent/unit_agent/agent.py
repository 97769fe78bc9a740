"""The agent: presence, wanted side, drivers, work and reports of one machine, tied together.

It runs unchanged under a virtual clock with a store in memory and a fake driver. Cancelling `run` leaves
units, the lease and the presence alone: what the next agent needs is in the local copy and on the copies.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from unit_agent.backoff import Backoff, pause
from unit_agent.checks.source import HealthSource, NoChecks
from unit_agent.copies import Copies
from unit_agent.driver import Copy, Driver, Order
from unit_agent.duty import Duty, keep_running
from unit_agent.happenings import happening
from unit_agent.holds import Holds
from unit_agent.local_copy import LocalCopy
from unit_agent.machine import Facts
from unit_agent.presence import PresenceKeeper
from unit_agent.reconcile import report
from unit_agent.reports import Reports
from unit_agent.secrets.delivery import Delivery, NoDelivery
from unit_agent.secrets.given import Given
from unit_agent.status import AgentStatus, UnitStatus
from unit_agent.strict.deadlines import Deadlines
from unit_agent.strict.keeper import Strict
from unit_agent.strict.register import NoRegister, Register
from unit_agent.sync import Sync
from unit_agent.texts import Texts
from unit_agent.timings import Timings
from unit_agent.worker import MayStart, Permit, Worker, everything_permitted
from unitfleet.errors import NotFound, Refused
from unitfleet.model import CopyPhase, Resources, UnitState, Wanted
from unitfleet.store import Store

logger = logging.getLogger(__name__)

STARTS_AT_ONCE = 8

SAVE_AGAIN_S = 5.0
"""How often what could not be written to the local copy is tried again."""


class Agent:
    """One machine's agent. `now` is wall time, for display only; `measure` gives the machine's resources.

    `run` raises `Refused` when this machine's identity is in use elsewhere; it ends with nothing else.
    """

    def __init__(
        self,
        store: Store,
        drivers: Sequence[Driver],
        facts: Facts,
        local: LocalCopy,
        *,
        now: Callable[[], float],
        rng: random.Random,
        timings: Timings,
        measure: Callable[[], Resources] | None = None,
        starts_at_once: int = STARTS_AT_ONCE,
        may_start: MayStart = lambda placement: None,
        permit: Permit = everything_permitted,
        private_key: str = "",
        delivery: Delivery | None = None,
        deadlines: Deadlines | None = None,
        register: Register | None = None,
    ) -> None:
        self.facts = facts
        self._timings = timings
        self._rng = rng
        self._tasks: asyncio.TaskGroup | None = None
        self.duties: list[Duty] = []
        self.health: HealthSource = NoChecks()
        self.copies = Copies(timings, rng, self._copy_changed, self._driver_known)
        for driver in drivers:
            self.copies.add(driver)
        self.sync = Sync(store, local, facts.id, timings, rng, self._placements_changed, self._placements_listed)
        self.texts = Texts(store, local, facts.specifiers)
        self.holds = Holds(local, facts.id)
        self.secrets = Given(
            store,
            local,
            facts.id,
            private_key,
            delivery or NoDelivery(),
            self.sync,
            timings,
            rng,
            self._secrets_changed,
        )
        self.presence = PresenceKeeper(
            store,
            local,
            facts,
            timings,
            rng,
            now,
            measure or (lambda: Resources(id=facts.id, capacity=facts.capacity)),
            lambda: self.copies.drivers,
            self._store_is_back,
        )
        self.reports = Reports(
            store,
            facts.id,
            f"{facts.id[:8]}-{self.presence.nonce[:6]}",
            now,
            timings.report_s,
            Backoff(rng, *timings.store_retry_s),
            Backoff(rng, *timings.store_retry_s),
        )
        self.strict = Strict(
            store,
            facts.id,
            self.presence.nonce,
            self.sync,
            self.texts,
            self.copies,
            deadlines or Deadlines(timings.ttl_s),
            register or NoRegister(),
            timings,
            rng,
            lambda unit: self.worker.consider(unit, ordered=True),
        )
        self.worker = Worker(
            self.sync,
            self.copies,
            self.texts,
            self.holds,
            lambda: Backoff(rng, *timings.unit_retry_s),
            starts_at_once,
            may_start,
            self.secrets,
            self.strict,
            self._tell,
            self.happened,
            permit,
        )
        self._tidy = asyncio.Event()

    async def run(self) -> None:
        """Serve this machine until cancelled."""
        await self.sync.load()
        await self.holds.load()
        await self.secrets.load()
        await self.strict.load()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for name in self.copies.drivers:
                    self._tasks.create_task(self.copies.watch(name), name=f"driver {name}")
                self._tasks.create_task(self.presence.run(), name="presence")
                self._tasks.create_task(self.sync.run(), name="sync")
                self._tasks.create_task(self.secrets.run(), name="secrets")
                self._tasks.create_task(self.strict.run(), name="strict")
                self._tasks.create_task(self.reports.run(), name="reports")
                self._tasks.create_task(self._work(), name="work")
                self._tasks.create_task(self._tidy_up(), name="tidy up")
                self._tasks.create_task(self._save_again(), name="local copy")
                for duty in self.duties:
                    pace = Backoff(self._rng, *self._timings.unit_retry_s)
                    self._tasks.create_task(keep_running(duty, pace), name=duty.name)
        except BaseExceptionGroup as group:
            raise_refusal(group)
            raise

    def add_driver(self, driver: Driver) -> None:
        """Take in a driver that came up later, and tell the cluster."""
        self.copies.add(driver)
        if self._tasks is not None:
            self._tasks.create_task(self.copies.watch(driver.name), name=f"driver {driver.name}")
        self.presence.rewrite()

    async def order(self, unit: str) -> Order | None:
        """Return the unit's placement here with its text read, or None when it has none.

        Raises `StoreError`, `NotFound` or `InvalidUnit` when its text can't be had (`Texts.order`).
        """
        wanted = self.sync.placements.get(unit)
        return None if wanted is None else await self.texts.order(wanted)

    def states(self) -> list[UnitState]:
        """Return the state of every unit that this machine has to do with, as it is told to the store."""
        units = self.sync.placements.keys() | self.copies.units()
        found = (self._state(unit) for unit in sorted(units))
        return [state for state in found if state is not None]

    def status(self) -> AgentStatus:
        """Return how this agent is, for its listener and for `unit-agent local ps`."""
        return AgentStatus(
            machine=self.facts.id,
            name=self.facts.name,
            standing=self.presence.standing,
            synced=self.sync.synced.is_set(),
            store=self.presence.away,
            keep_everything=self.sync.keep_everything,
            unsaved=self.sync.unsaved,
            drivers=self.copies.troubles,
            units=tuple(self._unit_status(unit) for unit in sorted(self._known_units())),
        )

    def happened(self, kind: str, unit: str, message: str) -> None:
        """Write an event about a unit, or with `unit` "" about this machine."""
        copy, wanted = self.copies.find(unit), self.sync.placements.get(unit)
        epoch = copy.epoch if copy else wanted.epoch if wanted else 0
        self.reports.happened(kind, unit, epoch, message)

    async def local_stop(self, unit: str) -> None:
        """Stop the unit on this host until `local_start` or an order of a higher epoch."""
        wanted, copy = self.sync.placements.get(unit), self.copies.find(unit)
        if wanted is None and copy is None:
            raise NotFound(f"cannot stop {unit}: it is not on {self.facts.name}", hint="unit-agent local ps")
        logger.info("held %s on this host, by its operator", unit)
        await self.holds.hold(unit, max(wanted.epoch if wanted else 0, copy.epoch if copy else 0))
        self.worker.consider(unit, ordered=True)

    async def local_start(self, unit: str) -> None:
        """Let the unit run here again: end its hold, and try again what has failed or ended."""
        wanted = self.sync.placements.get(unit)
        if wanted is None:
            raise Refused(
                f"cannot start {unit}: it is not placed on {self.facts.name}", hint=f"unitctl start {unit}"
            )
        logger.info("let %s run on this host, by its operator", unit)
        await self.holds.release(unit)
        self.worker.start_again(unit)

    async def accept_store(self) -> None:
        """End keep-everything mode: the store as it is now is the right one."""
        await self.sync.accept_store()
        self.secrets.relist()
        self.worker.consider_all()

    async def _work(self) -> None:
        """Act once the store was read, or was away for long enough to go by the local copy."""
        if not await pause(self.sync.synced, self._timings.first_sync_s):
            logger.warning(
                "acted from the local copy, %d placements: the store could not be read within %g s",
                len(self.sync.placements),
                self._timings.first_sync_s,
            )
        await self.worker.run()

    def _placements_changed(self, units: set[str], amended: set[str]) -> None:
        for unit in sorted(units):
            if unit not in amended:
                self.worker.consider(unit, ordered=True)
            self._each_duty(partial(_order_changed, unit))

    def _placements_listed(self) -> None:
        self.reports.reread()
        self._tidy.set()
        for unit in sorted(self._known_units()):
            self._tell(unit)

    def _secrets_changed(self, names: set[str]) -> None:
        """Try units anew that may have waited for one of these; copies that run keep what they have."""
        for unit, wanted in self.sync.placements.items():
            spec = self.texts.known(unit, wanted.spec)
            if spec is not None and names.intersection(spec.requirements.secrets):
                self.worker.try_again(unit)

    def _copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        if (told := happening(before, after)) is not None:
            self.happened(told.kind, unit, told.message)
        self.worker.consider(unit)
        self._each_duty(lambda duty: duty.copy_changed(unit, before, after))

    def _each_duty(self, tell: Callable[[Duty], None]) -> None:
        for duty in self.duties:
            try:
                tell(duty)
            except Exception:  # the edge of a duty: a fault in it must not end the agent
                logger.exception("%s failed", duty.name)

    def _driver_known(self) -> None:
        self.worker.consider_all()

    def _store_is_back(self) -> None:
        self.sync.hurry()
        self.secrets.hurry()
        self.sync.relist()
        self.reports.hurry()

    def _known_units(self) -> set[str]:
        return self.sync.placements.keys() | self.copies.units() | self.reports.units()

    def _state(self, unit: str) -> UnitState | None:
        wanted = self.sync.placements.get(unit)
        copy = self.copies.find(unit)
        state = report(self.facts.id, unit, wanted, copy, self.worker.activity(unit))
        if state is not None and copy is not None and state.phase is CopyPhase.RUNNING:
            state = self._with_health(state, copy)
        if state is not None and not state.image and (image := self.worker.image(unit, state.spec)):
            state = msgspec.structs.replace(state, image=image)
        return state

    def _with_health(self, state: UnitState, copy: Copy) -> UnitState:
        told = self.health.health(copy)
        if told is None:
            return state
        health, why = told
        return msgspec.structs.replace(state, health=health, message=why or state.message)

    def tell(self, unit: str) -> None:
        """Report the unit anew: what a duty knows of it has changed."""
        self._tell(unit)

    def _tell(self, unit: str) -> None:
        """Hand the unit's state to the reports, unless it would claim more than is known."""
        if self.copies.find(unit) is None and self.worker.unknown(unit) and not self._awaited(unit):
            return
        state = self._state(unit)
        if state is None and (not self.sync.synced.is_set() or self.sync.keep_everything):
            return
        self.reports.put(unit, state)

    def _awaited(self, unit: str) -> bool:
        """Tell whether a copy is wanted: that it waits may be told without knowing what is there."""
        wanted = self.sync.placements.get(unit)
        return wanted is not None and wanted.wanted is not Wanted.GONE

    def _unit_status(self, unit: str) -> UnitStatus:
        wanted = self.sync.placements.get(unit)
        return UnitStatus(
            unit=unit,
            wanted=wanted.wanted.value if wanted else "",
            held=self.holds.holds(unit, wanted),
            state=self._state(unit),
        )

    async def _save_again(self) -> None:
        while True:
            await asyncio.sleep(SAVE_AGAIN_S)
            await self.sync.save_again()
            await self.texts.save_again()

    async def _tidy_up(self) -> None:
        """Forget texts and holds that no placement and no copy needs, after each list."""
        while True:
            await self._tidy.wait()
            self._tidy.clear()
            needed = {placement.spec for placement in self.sync.placements.values()}
            try:
                await self.texts.keep_only(needed)
                for unit in self.holds.units() - self.sync.placements.keys() - self.copies.units():
                    await self.holds.release(unit)
                if not self.copies.unknown():
                    await self.secrets.sweep(self.sync.placements.keys() | self.copies.units())
            except OSError as error:
                logger.error("could not tidy up the local copy: %s", error)


def _order_changed(unit: str, duty: Duty) -> None:
    duty.order_changed(unit)


def raise_refusal(group: BaseExceptionGroup[BaseException]) -> None:
    """Raise the `Refused` that is in a task group's failure, if there is one: it is for a person."""
    found: BaseException | None = group.subgroup(Refused)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    if found is not None:
        raise found from None
