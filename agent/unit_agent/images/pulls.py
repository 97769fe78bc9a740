"""Every pull of this host goes through here: its slot, its credentials, and the record of what it brought."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from unit_agent.driver import Progress, Report
from unit_agent.drivers.docker_engine import INSPECT_S, LIST_S, Engine, EngineRefused
from unit_agent.drivers.docker_images import Lookups, local_id, pull_image
from unit_agent.images.credentials import Credentials, registry_of
from unit_agent.images.slots import MadeWay, Slots
from unit_agent.images.underway import Underway
from unit_agent.metrics.instruments import Instruments
from unitfleet.errors import DriverError, ImageNotFound
from unitfleet.model import CopyPhase

logger = logging.getLogger(__name__)

_DENIED = ("no basic auth credentials", "unauthorized", "authentication required", "access denied", "denied:")


class Pulls:
    """The pulls of one Engine. `brought(id, image)` hears of every image that a pull brought here.

    `removing` is held while an image is removed: who is about to use one waits for that.
    """

    def __init__(
        self,
        engine: Engine,
        at_once: int,
        credentials: Credentials,
        instruments: Instruments | None = None,
        underway: Underway | None = None,
    ) -> None:
        self.engine = engine
        self._instruments = instruments or Instruments()
        self._underway = underway or Underway()
        self.slots = Slots(at_once)
        self.lookups = Lookups(engine)
        self.removing = asyncio.Lock()
        self.brought: Callable[[str, str], None] = lambda id, image: None
        self._credentials = credentials

    async def for_start(self, unit: str, image: str, report: Report) -> None:
        """Pull what a start needs, before all that is pulled for warming. Raises `DriverError`."""
        if not self.slots.free(image):
            busy = ", ".join(sorted(self.slots.pulling))
            report(Progress(CopyPhase.PULLING, 0, f"waits to pull {image}: {busy} is being pulled"))
        async with self.slots.taken(image, start=True):
            await self._pull(f"pull {image} for {unit}", image, report)

    async def for_warming(self, image: str, report: Report) -> None:
        """Pull what this machine is to hold, when no start needs the room. Raises `DriverError`."""
        while True:
            try:
                async with self.slots.taken(image, start=False):
                    return await self._pull(f"pull {image} to hold it warm", image, report)
            except MadeWay:
                logger.info("put off the pull of %s: a start goes first", image)
                report(Progress(CopyPhase.WAITING, -1, "a start goes first"))

    async def held(self, images: Collection[str]) -> frozenset[str]:
        """Return those of `images` that are here. Raises `DriverError` when the Engine can't be asked."""
        await self.engine.call("ask the Engine", self.engine.docker.version(), INSPECT_S)
        return frozenset([image for image in sorted(images) if await local_id(self.engine, image)])

    async def _pull(self, doing: str, image: str, report: Report) -> None:
        auth = await asyncio.to_thread(self._credentials.find, registry_of(image))
        before = await self._ids()
        began = asyncio.get_running_loop().time()
        try:
            with self._underway.one():
                size = await pull_image(self.engine, doing, image, report, auth)
        except DriverError as error:
            self._instruments.pull_failed()
            raise self._explained(error, image, auth is not None) from error
        finally:
            self.lookups.forget()
        self._instruments.pulled(asyncio.get_running_loop().time() - began, size)
        id = await local_id(self.engine, image)
        if id and id not in before:
            self.brought(id, image)

    async def _ids(self) -> set[str]:
        found = await self.engine.call("list images", self.engine.docker.images.list(), LIST_S)
        return {str(image["Id"]) for image in found}

    def _explained(self, error: DriverError, image: str, known: bool) -> DriverError:
        """Say beside a registry's denial whether credentials were shown."""
        if not any(words in error.message.lower() for words in _DENIED):
            return error
        registry, path = registry_of(image), self._credentials.file
        if known:
            more = f"the credentials for {registry} in {path} were shown"
        elif path is not None:
            more = f"{path} has no credentials for {registry}"
        else:
            more = f"there are no credentials for {registry} on this host (--registry-auth)"
        message = f"{error.message} ({more})"
        if isinstance(error, EngineRefused):
            return EngineRefused(message, error.status, error.reason)
        kind = ImageNotFound if isinstance(error, ImageNotFound) else DriverError
        return kind(message, hint=error.hint)
