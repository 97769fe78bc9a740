"""The duty `images`: holds the warm set, says when a new host is ready and what is here, removes the unused."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Collection, Sequence

from aiohttp import web

from unit_agent.backoff import pause
from unit_agent.driver import Copy
from unit_agent.drivers.docker import DockerDriver
from unit_agent.duty import Context
from unit_agent.images.collector import Collector, some
from unit_agent.images.plan import lacks, missing_text, told
from unit_agent.images.pulls import Pulls
from unit_agent.images.record import ImageRecord
from unit_agent.images.warmer import Warmer
from unitfleet import codec, keys
from unitfleet.errors import DriverError, StoreError
from unitfleet.model import Images, Wanted

logger = logging.getLogger(__name__)

TELL_S = 2.0
"""What is here is told at most so often."""

TELL_ANEW_S = 60.0
COLLECT_S = 60.0
SAVE_EVERY = 10  # collections


class ImagesDuty:
    """The images of one host. Without a Docker Engine there is nothing to do."""

    name = "images"

    def __init__(self, context: Context) -> None:
        self._agent = context.agent
        self._store = context.store
        self._config = context.config
        self._record = ImageRecord(context.state_dir)
        self._id = context.agent.facts.id
        self._unsaved = asyncio.Event()  # the record has news
        self._began: float | None = None  # when this host began to become warm (loop time)
        self.warmer = Warmer(context.store, self._id, random.SystemRandom(), self._judge, self._missed)
        self._agent.presence.warm = self._config.warm
        if self._waits_to_be_warm():
            self._agent.presence.warming = lacks(None, "", self.warmer.seen())

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        """Ignore it: the collector looks for itself which images are in use."""

    def order_changed(self, unit: str) -> None:
        """Ignore it: starts pull by themselves."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return none: masters read what is here from the store."""
        return ()

    def warm_set(self) -> dict[str, bool]:
        """Return the images that this machine is to hold, and whether it does."""
        wanted, held = self.warmer.wanted, self.warmer.seen().held
        return {image: image in held for image in (wanted.images if wanted else ())}

    async def needed(self) -> Collection[str] | None:
        """Return every reference that is wanted here, None while that is not known."""
        agent, wanted = self._agent, self.warmer.wanted
        if wanted is None or not agent.sync.synced.is_set():
            return None
        needed = set(wanted.images)
        for unit, placement in agent.sync.placements.items():
            if placement.wanted is Wanted.GONE:
                continue  # a copy that is left keeps its image by itself
            if placement.image:
                needed.add(placement.image)
            spec = agent.texts.known(unit, placement.spec)
            if spec is None and not agent.texts.unreadable(unit, placement.spec):
                return None
            if spec is not None and spec.container is not None:
                needed.add(spec.container.image)
        return needed

    async def run(self) -> None:
        """Work until cancelled; begins once the docker driver is there."""
        if self._began is None:
            self._began = self._now()
        pulls = await self._pulls()
        await self._give_up_when_late()  # also where what follows fails each time
        pulls.brought = self._brought
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.warmer.run(pulls), name="keep warm")
            tasks.create_task(self._tell(), name="tell of images")
            tasks.create_task(self._collect(self._collector(pulls)), name="collect images")
            tasks.create_task(self._stop_waiting(), name="warm timeout")
            tasks.create_task(self._save(), name="save the record")

    async def _pulls(self) -> Pulls:
        while True:
            driver = self._agent.copies.driver("docker")
            if isinstance(driver, DockerDriver):
                return driver.pulls
            await asyncio.sleep(0.2 if self._agent.presence.warming else 2.0)
            await self._give_up_when_late()

    # ------------------------------------------------------------------ being ready

    def _waits_to_be_warm(self) -> bool:
        """Tell whether this host is new to the cluster, or has booted, and is to run containers."""
        docker = "docker" in self._config.drivers or os.path.exists(self._config.docker_socket)
        if not (self._config.may_use("docker") and docker and self._config.warm_timeout_s):
            return False
        return self._record.kept.ready_boot != self._agent.facts.boot_id

    async def _judge(self) -> None:
        presence, wanted, seen = self._agent.presence, self.warmer.wanted, self.warmer.seen()
        if not presence.warming:
            return
        lacking = lacks(wanted, presence.nonce, seen)
        if not lacking:
            count, missing = len(wanted.images) if wanted else 0, missing_text(wanted, seen)
            images = f"{count} {'image' if count == 1 else 'images'}" + (f" but for {missing}" if missing else "")
            await self._ready("warm", f"holds its warm set, {images}, after {self._waited():.1f} s")
        elif lacking != presence.warming:
            presence.warming = lacking
            presence.rewrite()

    async def _stop_waiting(self) -> None:
        while self._agent.presence.warming:
            await asyncio.sleep(min(1.0, self._config.warm_timeout_s))
            await self._give_up_when_late()

    async def _give_up_when_late(self) -> None:
        if self._agent.presence.warming and self._waited() >= self._config.warm_timeout_s:
            late = f"takes containers after {self._config.warm_timeout}, not warm"
            whys = (self._agent.presence.warming, missing_text(self.warmer.wanted, self.warmer.seen()))
            await self._ready("warm-timeout", f"{late}: {'; '.join(why for why in whys if why)}")

    def _waited(self) -> float:
        return 0.0 if self._began is None else self._now() - self._began

    async def _ready(self, kind: str, message: str) -> None:
        logger.info("is ready: %s", message)
        self._agent.presence.warming = ""
        self._agent.presence.rewrite()
        self._record.ready_in(self._agent.facts.boot_id)
        self._agent.happened(kind, "", message)
        await self._record.save()  # before anybody may count on it

    # ------------------------------------------------------------------ telling

    async def _tell(self) -> None:
        last: tuple[Images, int] | None = None
        while True:
            self.warmer.changed.clear()
            wanted, seen, lease = self.warmer.wanted, self.warmer.seen(), self._agent.presence.lease
            if wanted is not None and lease and not seen.trouble:
                record = told(self._id, wanted, seen)
                if (record, lease) != last:
                    try:
                        await self._store.put(keys.images(self._id), codec.encode(record), lease)
                        last = record, lease
                    except StoreError as error:
                        logger.debug("could not tell of images: %s", error)
                        last = None
            await asyncio.sleep(TELL_S)
            await pause(self.warmer.changed, TELL_ANEW_S if last else TELL_S)

    def _missed(self, image: str, why: str) -> None:
        self._agent.happened("image-missing", "", f"{image} is not here: {why}")

    # ------------------------------------------------------------------ making room

    def _collector(self, pulls: Pulls) -> Collector:
        config = self._config
        return Collector(
            pulls.engine,
            pulls.removing,
            self._record,
            self.needed,
            time.time,
            config.image_gc,
            config.image_gc_all,
        )

    async def _collect(self, collector: Collector) -> None:
        stuck, count = "", 0
        while True:
            await asyncio.sleep(COLLECT_S)
            count += 1
            try:
                removed = await collector.collect()
            except (DriverError, OSError) as error:
                logger.warning("could not look for images to remove: %s", error)
                continue
            if removed:
                why = f"{self._config.image_gc} % of Docker's disk were used"
                self._agent.happened("images-removed", "", f"removed {some(removed)}: {why}")
            if collector.stuck and not stuck:
                self._agent.happened("images-stay", "", collector.stuck)
            stuck = collector.stuck
            if removed or count % SAVE_EVERY == 0:
                self._unsaved.set()

    def _brought(self, id: str, image: str) -> None:
        self._record.brought(id, image, time.time())
        self._unsaved.set()
        self.warmer.arrived(image)

    async def _save(self) -> None:
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            await self._record.save()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def images(context: Context) -> ImagesDuty:
    """Make the duty."""
    return ImagesDuty(context)
