"""Carries out what `unit_agent.reconcile` plans: units side by side, the steps of one strictly in order.

A driver call that hangs or fails holds up its own unit only. A pull or start that a newer order makes
pointless is cancelled; a stop never is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

from unit_agent.backoff import Backoff, pause
from unit_agent.copies import Copies
from unit_agent.driver import Copy, Driver, Order, Progress
from unit_agent.holds import HELD, Holds, plan_held
from unit_agent.reconcile import Action, Activity, Step, amends, plan
from unit_agent.secrets.given import Given
from unit_agent.strict.keeper import STOPPED, Strict
from unit_agent.sync import Sync
from unit_agent.texts import Texts
from unitfleet.errors import DriverError, DriverUnavailable, InvalidUnit, NotFound, StoreError
from unitfleet.loop import run_out
from unitfleet.model import CopyPhase, Placement, Wanted
from unitfleet.spec import Restart

logger = logging.getLogger(__name__)

SLOW_S = 10.0
"""A start that takes longer no longer counts as one under way: eight that hang must not keep the others out."""

MOST_FAILURES = 3
"""A copy that could not be made so often is told as failed, though it is tried on."""

DONE = {
    Step.PREPARE: "prepared",
    Step.STOP: "stopped",
    Step.REMOVE: "removed",
    Step.CREATE: "created",
    Step.START: "started",
}

UNDERWAY = {
    Step.STOP: CopyPhase.STOPPING,
    Step.REMOVE: CopyPhase.STOPPING,
    Step.CREATE: CopyPhase.STARTING,
    Step.START: CopyPhase.STARTING,
}

_SETTLED = (CopyPhase.FAILED, CopyPhase.FINISHED)

MayStart = Callable[[Placement], str | None]
"""Says why a placement may not be started now, or None."""

Permit = Callable[[Order], Awaitable[str | None]]
"""Says why the host does not let a unit have what it asks for, or None."""

SetAside = Callable[[Copy], Awaitable[bool]]
"""Takes a copy that is about to be removed out of the way, and tells whether it did."""


async def everything_permitted(order: Order) -> str | None:
    """Refuse nothing."""
    return None


class _NotPermitted(Exception):
    """The host does not let the unit have what it asks for."""


class _Overtaken(Exception):
    """A newer order made the step pointless."""


@dataclass(slots=True)
class _Unit:
    """The work on one unit. `ordered` is set by whatever makes its plan outdated."""

    name: str
    backoff: Backoff
    busy: bool = False
    ordered: asyncio.Event = field(default_factory=asyncio.Event)
    activity: Activity | None = None
    step: Step | None = None
    scope: asyncio.Timeout | None = None  # of the step that may be cancelled
    doing: Placement | None = None  # what that step is for
    failures: int = 0  # in a row, to make its copy
    given_up: Placement | None = None  # it failed, and is not tried again for this placement
    again: bool = False  # `local start`: an ended copy is made anew
    sought: bool = False  # that nothing of it is here was seen by its name, or done by us; not by a list alone
    images: dict[str, str] = field(default_factory=dict)  # digest that was prepared, by spec


class Slots:
    """Room for `count` starts at once; one that takes longer than `SLOW_S` gives its room to the next."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    @property
    def full(self) -> bool:
        """Whether the next one has to wait."""
        return self._free.locked()

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Hold a place meanwhile."""
        await self._free.acquire()
        held = contextlib.ExitStack()
        held.callback(self._free.release)
        timer = asyncio.get_running_loop().call_later(SLOW_S, held.close)
        try:
            yield
        finally:
            timer.cancel()
            held.close()  # once only: a stack that was closed is empty


class Worker:
    """Works on every unit that is not as wanted. `tell` is called when there may be something to report.

    `happened(kind, unit, message)` gets what a driver does not tell by itself.
    """

    def __init__(
        self,
        sync: Sync,
        copies: Copies,
        texts: Texts,
        holds: Holds,
        backoff: Callable[[], Backoff],
        starts_at_once: int,
        may_start: MayStart,
        secrets: Given,
        strict: Strict,
        tell: Callable[[str], None],
        happened: Callable[[str, str, str], None],
        permit: Permit = everything_permitted,
    ) -> None:
        self._sync = sync
        self._copies = copies
        self._texts = texts
        self._holds = holds
        self._backoff = backoff
        self._slots = Slots(starts_at_once)
        self._may_start = may_start
        self._secrets = secrets
        self._strict = strict
        self._tell = tell
        self._happened = happened
        self._permit = permit
        self._units: dict[str, _Unit] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self.set_aside: SetAside = _nothing_kept

    async def run(self) -> None:
        """Begin with every unit that is known, then work on those that are considered, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            self.consider_all()
            await asyncio.Event().wait()

    def consider_all(self) -> None:
        """Look at every unit, also at those that wait before they try again."""
        for unit in sorted(self._sync.placements.keys() | self._copies.units() | self._units.keys()):
            self.consider(unit, ordered=True)

    def consider(self, unit: str, *, ordered: bool = False) -> None:
        """Look at one unit; `ordered` when what is wanted of it has changed."""
        one = self._units.get(unit)
        if one is None:
            one = self._units[unit] = _Unit(unit, self._backoff())
        if self._copies.find(unit) is not None:
            one.sought = False
        if ordered:
            one.backoff.reset()
            one.failures = 0
            one.ordered.set()
            self._overtake(one)
        self._tell(unit)
        if not one.busy and self._tasks is not None:
            one.busy = True
            self._tasks.create_task(self._work(one), name=f"work on {unit}")

    def try_again(self, unit: str) -> None:
        """Look at a unit that may have lacked what is here now, also at one that was given up."""
        if unit in self._units:
            self._units[unit].given_up = None
        self.consider(unit, ordered=True)

    def start_again(self, unit: str) -> None:
        """Let a unit that has ended, or was given up, be made anew."""
        self.consider(unit)
        one = self._units[unit]
        one.again, one.given_up = True, None
        one.activity = Activity(CopyPhase.STARTING, "started again on this host by its operator")
        self.consider(unit, ordered=True)

    def activity(self, unit: str) -> Activity | None:
        """Return what the unit's copy does not show."""
        one = self._units.get(unit)
        if one is not None and one.activity is not None:
            return one.activity
        wanted = self._sync.placements.get(unit)
        copy = self._copies.find(unit)
        if wanted is None or wanted.wanted is Wanted.GONE:
            return None
        if self._holds.holds(unit, wanted) and not (copy and copy.executing):
            return Activity(CopyPhase.LOADED, HELD)
        if copy is None and (why := self.unknown(unit)):
            return Activity(CopyPhase.WAITING, f"waits to be looked for: {why}")
        return None

    def image(self, unit: str, spec: str) -> str:
        """Return the digest that was prepared for the unit, or ""."""
        one = self._units.get(unit)
        return one.images.get(spec, "") if one else ""

    def unknown(self, unit: str) -> str:
        """Return why it can't be told whether there is a copy of the unit, or "".

        A list is enough to start one, which a driver that has it answers; that one is gone takes more.
        """
        if (why := self._unasked(unit)) or self._sought(unit):
            return why
        return "it was not looked for by its name yet"

    def _sought(self, unit: str) -> bool:
        wanted, one = self._sync.placements.get(unit), self._units.get(unit)
        return wanted is None or wanted.wanted is not Wanted.GONE or (one is not None and one.sought)

    def _unasked(self, unit: str) -> str:
        wanted = self._sync.placements.get(unit)
        if wanted is None:
            return self._copies.unknown()
        spec = self._texts.known(unit, wanted.spec)
        if spec is None:
            unread = not self._texts.unreadable(unit, wanted.spec)
            return "its text was not read yet" if unread else self._copies.unknown()
        drivers = spec.requirements.drivers
        if not set(drivers) & set(self._copies.drivers):
            return f"this machine has no {' or '.join(drivers)} driver now"
        return self._copies.unknown(drivers)

    def _overtake(self, one: _Unit) -> None:
        """Cancel a pull or start that what is wanted now has no use for."""
        if one.scope is None or one.doing is None:
            return
        wanted = self._sync.placements.get(one.name)
        held = self._holds.holds(one.name, wanted)
        if wanted is None and not held:
            return  # absence is no order
        identity = (one.doing.spec, one.doing.incarnation, one.doing.restart)
        if (
            held
            or wanted is None
            or wanted.wanted is not one.doing.wanted
            or (wanted.spec, wanted.incarnation, wanted.restart) != identity
        ):
            run_out(one.scope)

    async def _work(self, one: _Unit) -> None:
        done: tuple[Action, ...] = ()
        try:
            while True:
                one.ordered.clear()
                try:
                    await self._read_ahead(one)
                except StoreError as error:
                    if self._copies.find(one.name) is None:
                        await self._retry(one, CopyPhase.WAITING, str(error))
                        continue
                try:
                    await self._seek(one)
                except DriverError as error:
                    await self._retry(one, CopyPhase.WAITING, str(error))
                    continue
                actions = self._plan(one)
                if not actions:
                    break
                if actions == done:  # a driver that says it did and didn't must not be asked without rest
                    await self._retry(one, CopyPhase.WAITING, f"{actions[0].step.value} had no effect")
                    done = ()
                    continue
                done = actions if await self._attempt(one, actions) else ()
        finally:
            one.busy = False
        if one.given_up is None:
            one.activity = None
            one.backoff.reset()
        if self._sync.placements.get(one.name) is None and self._copies.find(one.name) is None:
            self._units.pop(one.name, None)
        self._tell(one.name)

    async def _read_ahead(self, one: _Unit) -> None:
        """Have the text on this host before it is needed with the store away.

        It also tells which drivers may hold a copy: without it nobody can say that nothing is left of a unit.
        """
        wanted = self._sync.placements.get(one.name)
        if wanted is None or (wanted.wanted is Wanted.GONE and self._copies.find(one.name) is not None):
            return
        if self._texts.known(one.name, wanted.spec) is None:
            with contextlib.suppress(InvalidUnit, NotFound):  # told when a step needs it
                await self._texts.order(wanted)
                self._tell(one.name)

    async def _seek(self, one: _Unit) -> None:
        """Before a copy is told gone that this agent did not remove, look for it by its name."""
        if self._copies.find(one.name) is None and not self._sought(one.name) and not self._unasked(one.name):
            await self._copies.seek(one.name)
            one.sought = self._copies.find(one.name) is None

    def _plan(self, one: _Unit) -> tuple[Action, ...]:
        wanted = self._sync.placements.get(one.name)
        copy = self._copies.find(one.name)
        if one.given_up is not None and not amends(one.given_up, wanted):
            one.given_up = None
        if one.given_up is not None or (copy is None and self.unknown(one.name)):
            return ()
        if self._holds.holds(one.name, wanted):
            one.again = False
            held = plan_held(wanted, copy)
            if held is not None:
                return held
        if self._strict.must_stop(one.name):
            return (Action(Step.STOP, STOPPED),)
        if wanted is None and not self._sync.synced.is_set():
            return ()  # not asked yet
        if one.again and wanted is not None and wanted.wanted is Wanted.LAUNCHED:
            one.again = False
            if copy is not None and copy.phase in _SETTLED:
                return (Action(Step.REMOVE, "started again on this host by its operator"),)
        actions = plan(wanted, copy)
        if self._sync.keep_everything and any(a.step in (Step.STOP, Step.REMOVE) for a in actions):
            return ()
        return actions

    async def _attempt(self, one: _Unit, actions: tuple[Action, ...]) -> bool:
        """Take the steps and tell whether all went well; if not, wait, so that the caller plans anew."""
        wanted = self._sync.placements.get(one.name)
        try:
            await self._carry_out(one, wanted, actions)
        except _Overtaken:
            logger.info("gave up on %s halfway: a newer order came", one.name)
        except InvalidUnit as error:
            self._give_up(one, wanted, "; ".join((error.message, *error.problems)))
        except _NotPermitted as error:
            self._give_up(one, wanted, str(error))
        except (DriverError, StoreError, NotFound) as error:
            if one.step in (Step.STOP, Step.REMOVE):
                await self._retry(one, CopyPhase.STOPPING, str(error))
            elif isinstance(error, DriverUnavailable) or not isinstance(error, DriverError):
                await self._retry(one, CopyPhase.WAITING, str(error))
            elif self._restarts(wanted):
                await self._retry(one, self._failing(one), str(error))
            else:
                self._give_up(one, wanted, str(error))
        except Exception as error:
            # the bulkhead between units: what a driver did not foresee for one must not end work on the others
            logger.exception("failed unforeseen at %s", one.name)
            await self._retry(one, CopyPhase.RESTARTING, f"unforeseen: {error!r}")
        else:
            one.backoff.reset()
            one.failures = 0
            return True
        return False

    def _failing(self, one: _Unit) -> CopyPhase:
        """Return what a unit is called that could not be made: FAILED in time, so that another machine may try it.

        This one goes on all the same: what it waits for, a registry or a disk, may come back.
        """
        one.failures += 1
        there = self._copies.find(one.name) is not None
        return CopyPhase.RESTARTING if there or one.failures < MOST_FAILURES else CopyPhase.FAILED

    def _restarts(self, wanted: Placement | None) -> bool:
        spec = self._texts.known(wanted.unit, wanted.spec) if wanted else None
        return spec is not None and spec.service.restart.when is not Restart.NO

    def _give_up(self, one: _Unit, wanted: Placement | None, why: str) -> None:
        logger.warning("gave up on %s until it is ordered anew: %s", one.name, why)
        one.given_up = wanted
        self._be(one, Activity(CopyPhase.FAILED, why))
        self._happened("failed", one.name, why)

    async def _retry(self, one: _Unit, phase: CopyPhase, why: str) -> None:
        delay = one.backoff.next()
        logger.warning("could not bring %s on: %s; tries again in %.1f s", one.name, why, delay)
        self._be(one, Activity(phase, f"{why}; tries again in {delay:.1f} s"))
        await pause(one.ordered, delay)

    def _be(self, one: _Unit, activity: Activity | None) -> None:
        one.activity = activity
        self._tell(one.name)

    async def _carry_out(self, one: _Unit, wanted: Placement | None, actions: tuple[Action, ...]) -> None:
        order: Order | None = None
        async with contextlib.AsyncExitStack() as room:
            for action in actions:
                if one.ordered.is_set():
                    return
                one.step = action.step
                if action.step in (Step.STOP, Step.REMOVE):
                    await self._end(one, action)
                    continue
                assert wanted is not None, "only a placement makes a copy"
                if order is None:
                    began = asyncio.get_running_loop().time()
                    order = replace(await self._texts.order(wanted), since=began)
                if (why := await self._permit(order)) is not None:  # each time: a link may lead elsewhere by now
                    raise _NotPermitted(why)
                driver = self._driver_for(order)
                if action.step is Step.PREPARE:
                    await self._secrets.verify(order)
                    async with self._cancellable(one, wanted):
                        if self._slots.full:
                            self._be(one, Activity(CopyPhase.WAITING, "waits for its turn"))
                        async with self._slots.taken():
                            await self._prepare(one, driver, order)
                    continue
                if action.step is Step.START and (why := self._may_start(wanted)):
                    raise DriverUnavailable(f"cannot start {one.name}: {why}")
                if action.step is Step.CREATE or len(actions) == 1:
                    async with self._cancellable(one, wanted):
                        await room.enter_async_context(self._slots.taken())
                if not order.credentials:
                    order = await self._secrets.deliver(order)
                if action.step is Step.START:
                    async with self._cancellable(one, wanted):
                        await self._strict.admit(wanted, driver.name)
                await self._make(one, driver, order, action)

    def _driver_for(self, order: Order) -> Driver:
        for name in order.spec.requirements.drivers:
            if (driver := self._copies.driver(name)) is not None:
                return driver
        needed = " or ".join(order.spec.requirements.drivers)
        raise DriverUnavailable(f"cannot run {order.placement.unit}: this machine has no {needed} driver")

    @contextlib.asynccontextmanager
    async def _cancellable(self, one: _Unit, wanted: Placement) -> AsyncIterator[None]:
        """Let a newer order cancel what is done meanwhile; raises `_Overtaken` then."""
        scope = asyncio.timeout(None)
        try:
            async with scope:
                one.scope, one.doing = scope, wanted
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise _Overtaken from None
        finally:
            one.scope = one.doing = None

    async def _prepare(self, one: _Unit, driver: Driver, order: Order) -> None:
        def progressed(progress: Progress) -> None:
            self._be(one, Activity(progress.phase, progress.message, progress.percent))

        self._be(one, None)
        image = await driver.prepare(order, progressed)
        one.images = {order.placement.spec: image}
        self._be(one, None)

    async def _make(self, one: _Unit, driver: Driver, order: Order, action: Action) -> None:
        """Create or start the copy. What a failed or cancelled call has left is looked up."""
        self._be(one, Activity(UNDERWAY[action.step]))
        try:
            with self._copies.stepping(one.name):
                if action.step is Step.CREATE:
                    copy = await driver.create(order)
                else:
                    async with self._cancellable(one, order.placement):
                        copy = await driver.start(order)
                self._copies.put(copy)
        except (DriverError, _Overtaken):
            await self._copies.look(driver.name)
            raise
        one.activity = None
        self._log(action, copy)
        self._tell(one.name)

    def _log(self, action: Action, copy: Copy) -> None:
        if action.step is Step.START and copy.phase in (CopyPhase.FAILED, CopyPhase.RESTARTING):
            logger.warning("started %s, but it %s: %s", copy.unit, copy.phase, copy.message)
        else:
            logger.info("%s %s: %s", DONE[action.step], copy.unit, action.reason)

    async def _end(self, one: _Unit, action: Action) -> None:
        copy = self._copies.find(one.name)
        if copy is None:
            return
        driver = self._copies.driver(copy.driver)
        if driver is None:
            raise DriverUnavailable(f"cannot end {one.name}: this machine has no {copy.driver} driver now")
        self._be(one, Activity(UNDERWAY[action.step]))
        try:
            with self._copies.stepping(one.name):
                if action.step is Step.STOP:
                    await driver.stop(one.name)
                    self._copies.put(_stopped(copy))
                else:
                    if not await self._was_set_aside(copy):
                        await driver.remove(one.name)
                    await self._secrets.withdraw(one.name)
                    one.sought = True
                    self._copies.drop(one.name, copy.driver)
        except DriverError:
            await self._copies.look(driver.name)
            raise
        one.activity = None
        logger.info("%s %s: %s", DONE[action.step], one.name, action.reason)
        if action.step is Step.STOP:
            self._happened("stopped", one.name, action.reason)

    async def _was_set_aside(self, copy: Copy) -> bool:
        try:
            return await self.set_aside(copy)
        except Exception:  # the edge of a duty: a fault in it must not keep a copy from going
            logger.exception("could not set the failed copy of %s aside, it goes", copy.unit)
            return False


async def _nothing_kept(copy: Copy) -> bool:
    return False


def _stopped(copy: Copy) -> Copy:
    """Return the copy without its process, as a driver's list would show it."""
    loaded = CopyPhase.LOADED
    return replace(copy, phase=loaded, active="inactive", sub="dead", pid=0, health="", restarts=0, message="")
