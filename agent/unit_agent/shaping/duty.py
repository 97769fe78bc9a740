"""The duty `shaping`: keeps the bandwidth of this host's units as wanted, and tells what is in force.

It derives everything from what is: the copies that run, their placements and texts, and what stands in the kernel.
So it takes over after a restart of the agent, of the Engine or of a container without knowing which it was. What
it can't do is an event, and stands in `GET /v1/net`; it stops no unit, and no pull waits for its cap.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
from aiohttp import web

from unit_agent.driver import Copy
from unit_agent.duty import Context
from unit_agent.settings import ShapeUplink
from unit_agent.shaping.events import TcEvents
from unit_agent.shaping.figures import counted_devices, net_limits
from unit_agent.shaping.host import Ask, Host, Outcome, Settings
from unitfleet.api import NetLimits
from unitfleet.errors import DriverError, UnitfleetError
from unitfleet.listening import split_address
from unitfleet.model import Bandwidth

logger = logging.getLogger(__name__)

T = TypeVar("T")

CHECK_S = 5.0
"""Somebody's change is heard of at once; this often it is looked for, in case it was not."""

GATHER_S = 0.02
"""Changes come in bursts, and a container's interface a moment after its process."""

PERSISTS_S = 1.0
"""A trouble that is younger may be a container that is just coming or going."""

TEXT_S = 2.0
"""So long a unit's text is waited for."""

LINGER_S = 3.0
"""So long the cap of image pulls outlives the last of them: the next may follow."""

SSH = 22


def settings(context: Context) -> Settings:
    """Return what the operator says of shaping: etcd, this agent's listener and ssh have reserved ports."""
    config = context.config
    ports = {SSH, context.agent.facts.port, *(split_address(each, "etcd")[1] for each in config.etcd)}
    return Settings(
        address=context.agent.facts.address,
        egress=config.egress_rate,
        ingress=config.ingress_rate,
        ports=tuple(sorted(ports - {0})),
        may_shape_uplink=config.shape_uplink is not ShapeUplink.NEVER,
        pull_limit=config.pull_limit_rate,
        engine_socket=config.docker_socket,
    )


class Shaping:
    """The duty. `limits_of` is for figures of units."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._agent = context.agent
        self._host: Host | None = None
        self._wake = asyncio.Event()
        self._known: dict[str, Bandwidth] = {}
        self._events: TcEvents | None = None
        self._dirty: set[int] | None = None  # None: everything
        self._troubles: dict[str, tuple[str, float, bool]] = {}  # what, since when, told
        self._outcome = Outcome()
        self._thread: ThreadPoolExecutor | None = None
        self._rested = False  # the latest round found nothing asked for and nothing standing
        self._pull_trouble = ""  # why the latest pull was not capped

    @property
    def name(self) -> str:
        return "shaping"

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        if _process(before) != _process(after) and self._matters(unit):
            self._wake.set()

    def order_changed(self, unit: str) -> None:
        if self._matters(unit):
            self._wake.set()

    def routes(self) -> Sequence[web.RouteDef]:
        return (web.get("/v1/net", self._answer), web.get("/local/net", self._answer))

    def limits_of(self, unit: str) -> tuple[int, int]:
        """Return the ceilings in force of what a unit sends and of what comes to it, bit/s; 0: none."""
        return self._outcome.limits_of(unit)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._host = Host(settings(self._context))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shaping")
        self._dirty = None
        self._context.underway.changed = self._pulls_changed
        self._listen(loop)
        try:
            while True:
                await self._wait()
                await self._round()
        finally:
            if self._events is not None:
                loop.remove_reader(self._events.fileno())
                self._events.close()
                self._events = None
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._host.close()

    async def limits(self) -> NetLimits:
        """Return what is in force, with counters as of now. Raises `DriverError` when they can't be read."""
        outcome, host, counted = self._outcome, self._host, {}
        devices = counted_devices(outcome)
        if host is not None and devices:
            try:
                counted = await asyncio.to_thread(host.count, devices)
            except OSError as error:
                raise DriverError(f"cannot read the counters of traffic control: {error}") from error
        facts = self._agent.facts
        return net_limits(facts.id, facts.name, time.time(), outcome, counted, self._pull_trouble)

    async def _answer(self, request: web.Request) -> web.Response:
        body = msgspec.json.encode(await self.limits())
        return web.Response(body=body, content_type="application/json")

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._events = TcEvents()
        except OSError as error:
            logger.debug("could not listen for changes of traffic control: %s", error)
            return
        loop.add_reader(self._events.fileno(), self._heard)

    def _heard(self) -> None:
        assert self._events is not None
        changed = self._events.take()
        if changed is None:
            self._dirty = None
        elif self._dirty is not None:
            self._dirty |= changed
        if self._host is not None and not self._host.idle:
            self._wake.set()

    def _pulls_changed(self) -> None:
        self._wake.set()
        asyncio.get_running_loop().call_later(LINGER_S, self._wake.set)  # the cap may have to go

    async def _wait(self) -> None:
        """Wait for a change, a trouble that may have lasted, or the next check."""
        young = any(not told for _, _, told in self._troubles.values())
        try:
            async with asyncio.timeout(PERSISTS_S if young else CHECK_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        await asyncio.sleep(max(GATHER_S, 2 * self._outcome.took_s))
        self._wake.clear()

    async def _round(self) -> None:
        host = self._host
        assert host is not None
        asks, keep = await self._asks()
        # what nobody listens for may have changed unheard
        dirty, self._dirty = self._dirty, (None if self._events is None else set())
        seen = None if dirty is None else frozenset(dirty)
        pulling = self._context.underway.within(LINGER_S)
        try:
            self._rested = host.rests(asks, pulling=pulling)
            if self._rested:  # most hosts, most of the time: nothing is read, nothing blocks
                outcome = host.round(asks, seen, keep=keep, pulling=pulling)
            else:
                outcome = await self._in_thread(lambda: host.round(asks, seen, keep=keep, pulling=pulling))
        except PermissionError as error:
            raise DriverError(f"cannot shape on this host: {error}") from error
        except OSError as error:  # an interface went while it was read: what is known of the host stays known
            logger.info("could not read traffic control, looks again: %s", error)
            self._dirty = None
            return
        self._took(outcome, pulling=pulling)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        assert self._thread is not None
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _asks(self) -> tuple[list[Ask], bool]:
        """Return the units that run here, those placed first before others, and whether that may not be all."""
        found: list[tuple[int, Ask]] = []
        keep = bool(self._agent.copies.unknown())
        for unit in sorted(self._agent.copies.units()):
            copy = self._agent.copies.find(unit)
            if copy is None or not _process(copy):
                continue
            bandwidth = await self._bandwidth(unit)
            if bandwidth is None:
                keep = True
            else:
                found.append((copy.epoch, Ask(unit, copy.pid, bandwidth)))
        for unit in self._known.keys() - self._agent.copies.units() - self._agent.sync.placements.keys():
            del self._known[unit]
        return [ask for _, ask in sorted(found, key=lambda each: (each[0], each[1].unit))], keep

    async def _bandwidth(self, unit: str) -> Bandwidth | None:
        """Return what is wanted of a unit, as last known when it can't be read now; None when it never could."""
        wanted = self._agent.sync.placements.get(unit)
        if wanted is not None and wanted.bandwidth is not None:
            self._known[unit] = wanted.bandwidth
        elif wanted is not None and (spec := self._agent.texts.known(unit, wanted.spec)) is not None:
            self._known[unit] = spec.bandwidth
        elif wanted is not None:
            try:
                async with asyncio.timeout(TEXT_S):
                    order = await self._agent.order(unit)
                if order is not None:
                    self._known[unit] = order.spec.bandwidth
            except (UnitfleetError, OSError, TimeoutError) as error:
                logger.debug("could not read the bandwidth of %s: %s", unit, error)
        return self._known.get(unit)

    def _matters(self, unit: str) -> bool:
        """Tell whether a round may have to do with the unit: not where nothing stands and it asks for nothing."""
        if not self._rested:
            return True
        wanted = self._agent.sync.placements.get(unit)
        if wanted is None:
            return bool(self._known.get(unit))
        if wanted.bandwidth is not None:
            return bool(wanted.bandwidth)
        spec = self._agent.texts.known(unit, wanted.spec)
        return spec is None or bool(spec.bandwidth)

    def _took(self, outcome: Outcome, *, pulling: bool) -> None:
        """Keep what a round came to, and why pulls are not capped until one is; tell what is new."""
        self._outcome = outcome
        if pulling:
            why, before, self._pull_trouble = outcome.pull_trouble, self._pull_trouble, outcome.pull_trouble
            if why and why != before and self._context.config.pull_limit_rate is None:
                logger.info("%s", why)  # nobody asked for a cap: no event
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        """Say what was done, what was repaired, and what can't be had once it has lasted."""
        for op in outcome.done:
            logger.debug("%s", op.reason)
        repaired: dict[str, list[str]] = {}
        for unit, what in outcome.repaired:
            repaired.setdefault(unit, []).append(what)
        for unit, whats in repaired.items():
            more = f" and {len(whats) - 1} more" if len(whats) > 1 else ""
            message = f"set again what somebody had changed: {whats[0]}{more}"
            logger.warning("%s%s", f"{unit}: " if unit else "", message)
            self._agent.happened("shaping-repaired", unit, message)
        now = time.monotonic()
        troubles = {each.unit: outcome.trouble_of(each.unit) for each in outcome.shape.units if each.bandwidth}
        pulls = "" if self._context.config.pull_limit_rate is None else self._pull_trouble
        troubles[""] = "; ".join(filter(None, [outcome.layout.trouble, pulls]))
        for unit in self._troubles.keys() - {unit for unit, why in troubles.items() if why}:
            del self._troubles[unit]
        for unit, why in troubles.items():
            if not why:
                continue
            said, since, told = self._troubles.get(unit, ("", now, False))
            if said != why:
                since, told = now, False
            if not told and now - since >= PERSISTS_S:
                logger.warning("could not shape%s: %s", f" {unit}" if unit else "", why)
                self._agent.happened("shaping-failed", unit, why)
                told = True
            self._troubles[unit] = (why, since, told)


def _process(copy: Copy | None) -> int:
    """Return the process of a copy, which its interfaces are found by; 0: none."""
    return copy.pid if copy is not None and copy.executing else 0
