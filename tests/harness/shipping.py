"""A pipeline to one sink over lines in memory, begun and ended as an agent would."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.eventually import eventually
from harness.log_store import AT, MemoryLogStore
from unit_agent.logs.offsets import Offsets
from unit_agent.logs.pipeline import Pipeline
from unit_agent.logs.sinks.sink import Sink, Source

SOURCE = Source("0123456789abcdef", "node-a")


@dataclass(slots=True)
class Shipping:
    """What a test sees of it: the events that were told, and the pipeline while it runs."""

    store: MemoryLogStore
    events: list[tuple[str, str, str]] = field(default_factory=list)
    pipeline: Pipeline | None = None
    shipping: asyncio.Task[None] | None = None

    def kinds(self) -> list[str]:
        """Return the kinds of events so far."""
        return [kind for kind, _, _ in self.events]

    async def told(self, kind: str, within_s: float = 10.0) -> str:
        """Wait for an event and return its words."""

        async def look() -> str:
            assert self.shipping is None or not self.shipping.done(), f"shipping has ended: {self.shipping}"
            return next((message for each, _, message in self.events if each == kind), "")

        return await eventually(look, within_s=within_s, what=lambda: f"an event {kind} in {self.events}")

    async def shipped(self, sink: str, *units: str, within_s: float = 15.0) -> None:
        """Wait until the store knows that the sink has everything of these units."""

        async def look() -> bool:
            return all(self.store.acknowledged.get((sink, unit)) == self.store.span(unit).last for unit in units)

        def what() -> str:
            trouble = self.pipeline.trouble if self.pipeline else "it does not run"
            return f"{sink} has {units}: {self.store.acknowledged}, trouble {trouble!r}"

        await eventually(look, within_s=within_s, what=what)


@contextlib.asynccontextmanager
async def shipping(
    sink: Sink,
    store: MemoryLogStore,
    folder: Path,
    *,
    wants: Callable[[str], bool] = lambda unit: True,
    retry_s: tuple[float, float] = (0.05, 0.2),
    held_s: tuple[float, float] = (0.1, 0.2),
) -> AsyncIterator[Shipping]:
    """Ship to `sink` meanwhile; offsets are kept in `folder` over several of these, as over agents."""
    seen = Shipping(store)
    pipeline = Pipeline(
        sink,
        store,
        Offsets(folder / f"{sink.name}.json"),
        wants,
        lambda kind, unit, message: seen.events.append((kind, unit, message)),
        lambda: AT,
        random.Random(1),
        retry_s=retry_s,
        held_s=held_s,
    )
    seen.pipeline = pipeline

    async def wake() -> None:
        while True:
            store.changed.clear()
            pipeline.wake.set()
            await store.changed.wait()

    tasks = [asyncio.create_task(pipeline.run()), asyncio.create_task(wake())]
    seen.shipping = tasks[0]
    try:
        yield seen
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
