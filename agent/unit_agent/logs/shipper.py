"""The duty `shipping`: brings the lines of units to the sinks of `--log-sinks`, each by a pipeline of its own."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import msgspec
from aiohttp import web

from unit_agent.backoff import Backoff, pause
from unit_agent.driver import Copy
from unit_agent.duty import Context
from unit_agent.local_copy import DirectoryCopy
from unit_agent.logs.choice import Choices
from unit_agent.logs.offsets import Offsets
from unit_agent.logs.pipeline import Pipeline
from unit_agent.logs.record import LogStore
from unit_agent.logs.sinks import opening
from unit_agent.logs.sinks.sink import Sink, Source
from unit_agent.masters import Archives
from unitfleet.errors import NotFound, StoreError, UnitfleetError

logger = logging.getLogger(__name__)

GATHER_S = 0.05
"""Pipelines are woken at most this often, however fast lines come."""

LOOK_S = 1.0
TELL_AGAIN_S = 60.0
"""The same kind of event about the same unit is not written more often."""

RESTART_S = (1.0, 60.0)

FOLDER = "shipping"
"""In the state directory: what each sink has, and which sinks units chose."""


@runtime_checkable
class HoldsLogs(Protocol):
    """The duty that keeps the lines of this machine, in `store` once it is `opened`."""

    @property
    def opened(self) -> asyncio.Event:
        """Set when the store can be read."""
        ...

    @property
    def store(self) -> LogStore:
        """What is held."""
        ...


class SinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the shipping to one sink goes."""

    name: str
    waiting: int  # lines that are held and not shipped
    sent: int  # lines since the agent began
    trouble: str  # why it does not ship now, "" when it does


class Shipper:
    """One pipeline a sink; none of them waits for another, and no unit waits for any."""

    name = "shipping"

    def __init__(self, context: Context, sinks: Sequence[Sink]) -> None:
        self._agent = context.agent
        self._folder = context.state_dir / FOLDER
        self._sinks = sinks
        self._rng = random.Random()
        self._told: dict[tuple[str, str], float] = {}
        self._choices = Choices(self._folder, [sink.name for sink in sinks], self._tell)
        self._to_read = set(context.agent.sync.placements)
        self._ordered = asyncio.Event()
        self.pipelines: tuple[Pipeline, ...] = ()

    @classmethod
    def make(cls, context: Context) -> Shipper:
        """Make it of the agent's configuration. Raises `InvalidConfig` for sinks that can't be used."""
        config, facts = context.config, context.agent.facts
        wanted = opening.check(config.log_sinks)
        key = config.cluster_key()
        tls = context.tls
        if not key and tls is None and any(address.scheme == "store" for address in wanted):
            logger.info("not shipping to the masters' archive: without --cluster-key-file they don't take it")
            wanted = tuple(address for address in wanted if address.scheme != "store")
        archives = Archives(context.store, DirectoryCopy(context.state_dir), facts.id, tls=tls is not None)
        shown = tls.client if tls is not None else None
        return cls(context, opening.open_sinks(wanted, Source(facts.id, facts.name), archives.find, key, shown))

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        """Nothing here hangs on a copy."""

    def order_changed(self, unit: str) -> None:
        """Read anew which sinks the unit names."""
        self._to_read.add(unit)
        self._ordered.set()

    def routes(self) -> Sequence[web.RouteDef]:
        """How shipping goes, for this host and for masters."""
        return (web.get("/local/log-sinks", self._answer), web.get("/v1/log-sinks", self._answer))

    def status(self) -> list[SinkStatus]:
        """Return how each sink does."""
        return [
            SinkStatus(name=each.sink.name, waiting=each.waiting, sent=each.sent, trouble=each.trouble)
            for each in self.pipelines
        ]

    async def run(self) -> None:
        """Ship until cancelled."""
        store = await self._store() if self._sinks else None
        if store is None:
            await asyncio.Event().wait()  # nothing to ship, or nowhere to: that stays so
            return
        await self._choices.load()
        self._to_read |= set(self._agent.sync.placements)
        self.pipelines = tuple(self._pipeline(sink, store) for sink in self._sinks)
        async with asyncio.TaskGroup() as tasks:
            for pipeline in self.pipelines:
                tasks.create_task(self._keep_shipping(pipeline), name=f"sink {pipeline.sink.name}")
            tasks.create_task(self._wake(store), name="wake sinks")
            tasks.create_task(self._choose(store), name="choose sinks")

    async def _store(self) -> LogStore | None:
        for duty in self._agent.duties:
            if isinstance(duty, HoldsLogs):
                await duty.opened.wait()
                return duty.store
        return None

    def _pipeline(self, sink: Sink, store: LogStore) -> Pipeline:
        return Pipeline(
            sink,
            store,
            Offsets(self._folder / f"{sink.name}.json"),
            self._wants(sink.name),
            self._tell,
            time.time,
            self._rng,
        )

    def _wants(self, sink: str) -> Callable[[str], bool]:
        """Tell of a unit whether it goes to the sink: not before its text was read, when it has one here."""
        return lambda unit: unit not in self._to_read and self._choices.wants(unit, sink)

    async def _keep_shipping(self, pipeline: Pipeline) -> None:
        """Run a pipeline, again after a fault of ours: the other sinks don't notice."""
        pace = Backoff(self._rng, *RESTART_S)
        while True:
            try:
                await pipeline.run()
            except Exception:  # the edge of a pipeline
                logger.exception("shipping to %s failed", pipeline.sink.name)
            await asyncio.sleep(pace.next())

    async def _wake(self, store: LogStore) -> None:
        """Let every pipeline look when lines came; others wait on the same event, so it is looked at anyway."""
        while True:
            store.changed.clear()
            for pipeline in self.pipelines:
                pipeline.wake.set()
            await asyncio.sleep(GATHER_S)
            await pause(store.changed, LOOK_S)

    async def _choose(self, store: LogStore) -> None:
        """Read which sinks units name, as their orders change."""
        while True:
            self._ordered.clear()
            for unit in tuple(self._to_read):
                await self._read_choice(unit)
            try:
                await self._choices.save(set(store.units()) | self._agent.sync.placements.keys())
            except OSError as error:
                logger.error("could not save which sinks units chose: %s", error)
            await pause(self._ordered, LOOK_S if self._to_read else 10 * LOOK_S)

    async def _read_choice(self, unit: str) -> None:
        try:
            order = await self._agent.order(unit)
        except StoreError as error:
            logger.debug("could not read which sinks %s names: %s", unit, error)
            return  # asked again: until then its lines wait on disk
        except (NotFound, UnitfleetError) as error:
            logger.debug("shipping %s to all sinks: %s", unit, error)
            order = None
        if order is not None:
            self._choices.put(unit, order.spec.logs.sinks)
        self._to_read.discard(unit)

    def _tell(self, kind: str, unit: str, message: str) -> None:
        """Write an event, but not the same again and again."""
        now = asyncio.get_running_loop().time()
        if now - self._told.get((kind, unit), float("-inf")) < TELL_AGAIN_S:
            return
        self._told[kind, unit] = now
        self._agent.happened(kind, unit, message)

    async def _answer(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self.status()), content_type="application/json")
