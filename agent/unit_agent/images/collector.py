"""Removes unused images when Docker's disk fills, one at a time, and looks again after each."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from unit_agent.drivers.docker_engine import CHANGE_S, INSPECT_S, LIST_S, Engine, EngineRefused
from unit_agent.drivers.docker_images import local_id
from unit_agent.images.collection import LOW_BELOW, Image, Verdict, judge, kept_text
from unit_agent.images.record import ImageRecord

logger = logging.getLogger(__name__)

Wanted = Callable[[], Awaitable[Collection[str] | None]]
"""The references that must stay, or None while they can't be told: nothing is removed then."""


def disk_used(path: str) -> float:
    """Return how many percent of the disk under `path` are used, as df has it; raises OSError."""
    usage = shutil.disk_usage(path)
    return 100.0 * usage.used / max(1, usage.used + usage.free)  # what is reserved for root is neither


@dataclass(slots=True)
class Collector:
    """Garbage collection of one Engine's images. `removing` is held while an image is being removed.

    It begins when `high` percent of the disk are used and ends `LOW_BELOW` under it.
    """

    engine: Engine
    removing: asyncio.Lock
    record: ImageRecord
    wanted: Wanted
    now: Callable[[], float]
    high: int
    everything: bool
    measure: Callable[[str], float] = disk_used
    stuck: str = ""  # why the disk stays full, when it does

    async def collect(self) -> tuple[str, ...]:
        """Note which images are in use, and make room if there is need; return the names of those removed.

        Raises `DriverError`, or OSError when Docker's disk can't be looked at.
        """
        info = await self.engine.call("ask for the Engine's disk", self.engine.docker.system.info(), INSPECT_S)
        root = str(info["DockerRootDir"])
        images, in_use = await self._images(), await self._in_use()
        self.record.keep_only({image.id for image in images})
        self.record.used(sorted(in_use), self.now())
        if not self.high or await asyncio.to_thread(self.measure, root) < self.high:
            self.stuck = ""
            return ()
        return await self._make_room(root, images)

    async def _make_room(self, root: str, images: list[Image]) -> tuple[str, ...]:
        removed: list[str] = []
        low = self.high - LOW_BELOW
        for image in [verdict.image for verdict in await self._judged(images) if not verdict.why]:
            if await asyncio.to_thread(self.measure, root) <= low:
                break
            async with self.removing:
                (verdict,) = await self._judged([image])  # an order may have come meanwhile
                if not verdict.why and await self._remove(image):
                    removed.append(image.name)
        used = await asyncio.to_thread(self.measure, root)
        self.stuck = ""
        if used >= self.high:
            why = kept_text(await self._judged(await self._images()))
            self.stuck = f"{root} is {used:.0f} % full, and no image may be removed: {why}"
        self.record.keep_only({image.id for image in await self._images()})
        return tuple(removed)

    async def _judged(self, images: list[Image]) -> tuple[Verdict, ...]:
        references = await self.wanted()
        if references is None:
            return tuple(Verdict(image, "perhaps wanted here: that is not known yet") for image in images)
        wanted = {await local_id(self.engine, reference) for reference in sorted(references)}
        return judge(images, in_use=await self._in_use(), wanted=wanted, everything=self.everything)

    async def _images(self) -> list[Image]:
        found: list[dict[str, Any]] = await self.engine.call(
            "list images", self.engine.docker.images.list(), LIST_S
        )
        kept = self.record.kept
        return [
            Image(
                id=one["Id"],
                tags=tuple(tag for tag in one.get("RepoTags") or () if not tag.startswith("<none>")),
                digests=tuple(name for name in one.get("RepoDigests") or () if not name.startswith("<none>")),
                size=int(one.get("Size") or 0),
                used=kept.used.get(one["Id"], float(one.get("Created") or 0)),
                brought=kept.brought.get(one["Id"], ()),
            )
            for one in found
        ]

    async def _in_use(self) -> set[str]:
        containers = await self.engine.call(
            "list containers", self.engine.docker.containers.list(all=True), LIST_S
        )
        return {str(container["ImageID"]) for container in containers}

    async def _remove(self, image: Image) -> bool:
        """Remove an image by all of its names, never by force; tell whether it is gone."""
        for name in (*image.tags, *image.digests, image.id):
            try:
                await self.engine.call(f"remove image {name}", self.engine.docker.images.delete(name), CHANGE_S)
            except EngineRefused as error:
                if error.status != 404:
                    logger.info("left image %s: %s", image.name, error.reason)
                    return False
        logger.info("removed image %s, %d MiB, to make room", image.name, image.size >> 20)
        return True


def some(names: Collection[str]) -> str:
    """Return some names of many for a sentence."""
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
