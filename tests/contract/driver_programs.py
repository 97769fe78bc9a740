"""Programs of driver calls, and what an agent would see of them: for holding two drivers to the same ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import strategies as st
from msgspec import structs

from contract.driver_rig import DEADLINE_S, DriverRig, Job
from unit_agent.driver import Copy, Driver, Order
from unitfleet.errors import DriverError, DriverUnavailable
from unitfleet.model import CopyPhase
from unitfleet.spec import Restart, RestartPolicy

UNITS = ("adserver@1.service", "web_server.service")
PASSING = (CopyPhase.STARTING, CopyPhase.STOPPING, CopyPhase.RESTARTING)


@dataclass(frozen=True, slots=True)
class Text:
    """What a unit does, and when it is started again."""

    job: Job
    policy: RestartPolicy = RestartPolicy()  # noqa: RUF009
    ends: bool = False  # by itself, at once


TEXTS = {
    "runs": Text(Job.RUNS),
    "runs, restarts": Text(
        Job.RUNS, RestartPolicy(when=Restart.ALWAYS, delay_s=0.1, limit_interval_s=0.0, limit_burst=0)
    ),
    "runs, restarts on failure": Text(
        Job.RUNS, RestartPolicy(when=Restart.ON_FAILURE, delay_s=0.1, limit_interval_s=0.0, limit_burst=0)
    ),
    "dies": Text(Job.DIES, ends=True),
    "dies, restarts": Text(
        Job.DIES,
        RestartPolicy(when=Restart.ALWAYS, delay_s=0.05, limit_interval_s=600.0, limit_burst=2),
        ends=True,
    ),
    "succeeds": Text(Job.SUCCEEDS, ends=True),
    "cannot start": Text(Job.CANNOT_START, ends=True),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that an agent, or the world, does to a unit. `variant` makes another identity of the text."""

    verb: str
    unit: str = ""
    text: str = "runs"
    variant: int = 0


units = st.sampled_from(UNITS)
texts = st.sampled_from(sorted(TEXTS))
variants = st.sampled_from((0, 0, 0, 1, 2, 3))
made = st.builds(Step, st.just("run"), units, texts, variants)
steps = st.one_of(
    made,
    st.builds(Step, st.sampled_from(("prepare", "create")), units, texts, variants),
    st.builds(Step, st.sampled_from(("start", "stop", "remove", "crash", "execute")), units),
    st.builds(Step, st.sampled_from(("fail", "fail for good", "stop", "start", "remove")), units),
    st.just(Step("new agent")),
)
programs = st.builds(lambda first, more: [first, *more], made, st.lists(steps, min_size=3, max_size=7))


class Player:
    """Plays programs on a rig and tells what an agent would see, without what no two drivers share: times, ids.

    Several may play side by side, each with a `driver` of its own that sees its own copies alone, and with a
    `place` that its units' names begin with.
    """

    def __init__(self, rig: DriverRig, driver: Callable[[], Driver] | None = None, place: str = "") -> None:
        self._rig = rig
        self._make = driver or rig.driver
        self._place = place
        self._driver: Driver = self._make()
        self._orders: dict[str, tuple[Order, Text]] = {}  # of the copies that are there

    async def play(self, program: list[Step]) -> list[object]:
        """Return what each step came to, and what was there after it; nothing is left at the end."""
        told: list[object] = []
        for each in [*program, *(Step(verb, unit) for unit in UNITS for verb in ("stop", "remove"))]:
            step = replace(each, unit=self._place + each.unit) if each.unit else each
            async with asyncio.timeout(DEADLINE_S):
                outcome = await self._outcome(step)
                told.append((step, outcome, await self._settled()))
        await self._driver.close()
        return told

    async def _outcome(self, step: Step) -> str:
        try:
            return await self._do(step)
        except DriverUnavailable:
            return "unavailable"
        except DriverError as error:
            assert step.unit in str(error), f"it does not name the unit: {error}"
            return "refused"

    async def _do(self, step: Step) -> str:
        unit, driver = step.unit, self._driver
        match step.verb:
            case "run":
                await self._create(step)
                await self._start(unit)
            case "prepare":
                await driver.prepare(self._order(step), lambda progress: None)
                self._as_it_is(unit)
            case "create":
                copy = await self._create(step)
                return copy.phase.value if copy.phase is CopyPhase.LOADED else "there"
            case "start":
                await self._start(unit)
            case "stop":
                copies = {copy.unit: copy for copy in await driver.list()}
                if unit in copies and not copies[unit].executing:
                    return "does not run"  # what an ended copy becomes by it, nobody asks: agents remove it
                await driver.stop(unit)
            case "remove":
                await driver.remove(unit)
                self._orders.pop(unit, None)
            case "fail" | "fail for good":
                await driver.fail(unit, "its check failed", again=step.verb == "fail")
            case "execute":
                code, _ = await driver.execute(unit, ("/bin/sh", "-c", "echo here; exit 4"), 5.0)
                return f"{code}"
            case "crash":
                if not await self._rig.processes(unit):
                    return "does not run"
                await self._rig.kill(unit)
                await self._noticed(unit)
            case "new agent":
                await driver.close()
                self._driver = self._make()
        return "ok"

    async def _create(self, step: Step) -> Copy:
        order = self._order(step)
        try:
            copy = await self._driver.create(order)
        except DriverError:
            self._as_it_is(step.unit)
            raise
        self._orders.setdefault(step.unit, (order, TEXTS[step.text]))
        self._as_it_is(step.unit)
        return copy

    async def _start(self, unit: str) -> None:
        held = self._orders.get(unit)
        await self._driver.start(held[0] if held else self._order(Step("start", unit)))

    def _order(self, step: Step) -> Order:
        """Return an order; its identity is that of its text and `variant`: an epoch, a restart, an incarnation."""
        text = TEXTS[step.text]
        order = self._rig.order(step.unit, text.job, text.policy, epoch=1 + step.variant)
        placement = structs.replace(
            order.placement,
            spec=f"{step.text}: spec-of-{step.unit}",
            restart=3 if step.variant == 2 else 2,
            incarnation="incarnation-2" if step.variant == 3 else "incarnation-1",
        )
        return replace(order, placement=placement)

    def _as_it_is(self, unit: str) -> None:
        """Have a unit behave as the text of its copy says, whatever text was last made an order of."""
        if held := self._orders.get(unit):
            self._rig.order(unit, held[1].job, held[1].policy)

    async def _noticed(self, unit: str) -> None:
        """Wait until no process of the moment of a crash is left, or another one is there."""
        before = await self._rig.processes(unit)
        for _ in range(500):
            if not before or before != await self._rig.processes(unit):
                return
            await asyncio.sleep(0.02)

    async def _settled(self) -> list[object]:
        """Return what is there once nothing is on its way."""
        seen: list[object] = []
        while True:
            copies = sorted(await self._driver.list(), key=lambda copy: copy.unit)
            now = [await self._told(copy) for copy in copies]
            if now == seen and not any(self._passes(copy) for copy in copies):
                return now
            seen = now
            await asyncio.sleep(0.15 if copies else 0.0)

    def _passes(self, copy: Copy) -> bool:
        text = self._orders[copy.unit][1]
        return copy.phase in PASSING or (text.ends and copy.phase is CopyPhase.RUNNING)

    async def _told(self, copy: Copy) -> object:
        identity = (copy.unit, copy.spec, copy.incarnation, copy.epoch, copy.restart)
        processes = len(await self._rig.processes(copy.unit))
        return (*identity, copy.phase, copy.active, copy.sub, copy.restarts, copy.cause, bool(copy.pid), processes)


def difference(one: list[object], other: list[object]) -> str:
    """Return the first step at which two drivers differ, with what each of them showed, or ""."""
    for mine, theirs in zip(one, other, strict=True):
        if mine != theirs:
            return f"{mine}\n{theirs}"
    return ""
