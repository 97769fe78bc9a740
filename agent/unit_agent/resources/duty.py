"""The duty `figures`: what this machine and its copies use, and the guard over its disks.

Samples are taken in a thread: seldom while nobody looks, as often as they ask for while somebody does. No
sample is taken twice for readers at the same pace.

GET /v1/figures                       one line of JSON MachineFigures, as of now
GET /v1/figures?follow=true&every=2   one every 2 seconds (1 to 60) until the reader goes
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
from aiohttp import web

from unit_agent.cgroups.choose import reader
from unit_agent.driver import Copy
from unit_agent.duty import Context
from unit_agent.resources.copies import CopyMeter
from unit_agent.resources.disk_guard import DiskGuard
from unit_agent.resources.guard import Marks
from unit_agent.resources.kills import OomKills
from unit_agent.resources.meter import Meter
from unit_agent.shaping.duty import Shaping
from unitfleet.api import ErrorBody, MachineFigures, UnitFigures
from unitfleet.model import Capacity, Resources

UNSEEN_S = 15.0
"""How old figures become while nobody looks: what a scrape of the usual interval finds."""

FRESH_S = 0.5
"""Figures of this age are as good as new: rates over less time than this are noise."""

SEVERAL_S = (1.0, 60.0)
MOST_READERS = 64
WRITE_S = 30.0
"""A reader that takes nothing for so long is gone."""


class FiguresDuty:
    """Samples, holds and serves figures. `latest` is for other duties; it costs nothing."""

    def __init__(self, context: Context, *, now: Callable[[], float] = time.time) -> None:
        config = context.config
        self._agent = context.agent
        self._facts = context.agent.facts
        self._now = now
        self._meter = Meter(
            self._facts.id,
            config.state_dir,
            egress=config.egress_rate,
            ingress=config.ingress_rate,
            address=self._facts.address,
        )
        self._copies = CopyMeter(reader(cgroupspy=config.cgroupspy), now=now)
        self._kills = OomKills()
        self._sampling = asyncio.Lock()
        self._sampled = -1e9
        self._latest = MachineFigures(
            machine=self._facts.id,
            name=self._facts.name,
            at=now(),
            capacity=self._facts.capacity,
            used=Capacity(),
        )
        self._readers = 0
        self._guard = DiskGuard(
            context.agent, config.state_dir, config.docker_socket, Marks(config.disk_full, config.inodes_full)
        )

    @property
    def name(self) -> str:
        return "figures"

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        self._kills.note(unit, before, after)

    def order_changed(self, unit: str) -> None:
        """Nothing hangs on orders: figures are of copies."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_sampling(), name="samples")
            tasks.create_task(self._guard.run(), name="disk guard")

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.get("/v1/figures", self._serve)]

    # ------------------------------------------------------------------ figures

    def latest(self) -> MachineFigures:
        """Return the figures last sampled, at most about `UNSEEN_S` old."""
        return self._latest

    async def figures(self, older_s: float = FRESH_S) -> MachineFigures:
        """Return figures that are at most `older_s` seconds old, sampled now where there are none."""
        loop = asyncio.get_running_loop()
        async with self._sampling:
            if loop.time() - self._sampled >= older_s:
                copies = [copy for unit in self._agent.copies.units() if (copy := self._agent.copies.find(unit))]
                sampled = await asyncio.to_thread(self._sample, copies, self._kills.ended())
                self._latest = msgspec.structs.replace(sampled, units=self._limited(sampled.units))
                self._sampled = loop.time()
                self._kills.saw(self._latest.units)
                self._kills.keep(copy.unit for copy in copies)
        return self._latest

    def _sample(self, copies: list[Copy], oom_kills: Mapping[str, int]) -> MachineFigures:
        measured = self._meter.measure()
        units = self._copies.sample(copies, oom_kills)
        return MachineFigures(
            machine=self._facts.id,
            name=self._facts.name,
            at=self._now(),
            capacity=measured.capacity,
            used=used(measured),
            load=measured.load,
            pressure=measured.pressure,
            units=units,
        )

    def _limited(self, units: Sequence[UnitFigures]) -> tuple[UnitFigures, ...]:
        """Add the bandwidth limits that are in force, where this agent shapes."""
        shaping = next((duty for duty in self._agent.duties if isinstance(duty, Shaping)), None)
        if shaping is None:
            return tuple(units)
        limits = [shaping.limits_of(each.unit) for each in units]
        return tuple(
            msgspec.structs.replace(each, egress_limit=egress, ingress_limit=ingress)
            if egress or ingress
            else each
            for each, (egress, ingress) in zip(units, limits, strict=True)
        )

    async def _keep_sampling(self) -> None:
        while True:
            await self.figures(UNSEEN_S / 2)
            await asyncio.sleep(UNSEEN_S)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("follow", "") not in ("1", "true"):
            return web.Response(body=_line(await self.figures()), content_type="application/x-ndjson")
        every_s = _seconds(request.query.get("every", "2"))
        if every_s is None:
            low, high = SEVERAL_S
            return _refusal(f"cannot use every={request.query['every'][:40]!a}: {low:g} to {high:g} seconds", 400)
        if self._readers >= MOST_READERS:
            return _refusal(f"cannot show figures to more than {MOST_READERS} readers at a time", 503)
        with self._reading():
            return await self._follow(request, every_s)

    async def _follow(self, request: web.Request, every_s: float) -> web.StreamResponse:
        headers = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            figures = await self.figures(max(FRESH_S, every_s * 0.75))
            try:
                async with asyncio.timeout(WRITE_S):
                    await response.write(_line(figures))
            except TimeoutError as error:
                raise ConnectionResetError("the reader takes nothing") from error
            await asyncio.sleep(max(0.0, began + every_s - loop.time()))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1


def used(measured: Resources) -> Capacity:
    """Return what is used of a machine beside what it offers."""
    return Capacity(
        cpu=measured.cpu_used,
        memory=measured.memory_used,
        disk=measured.disk_used,
        egress=measured.egress_used,
        ingress=measured.ingress_used,
    )


def _line(figures: MachineFigures) -> bytes:
    return msgspec.json.encode(figures) + b"\n"


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    low, high = SEVERAL_S
    return value if low <= value <= high else None


def _refusal(message: str, status: int) -> web.Response:
    body = ErrorBody(code="invalid_request" if status == 400 else "unavailable", message=message)
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
