"""The duty `scenes`: a copy that failed for good is recorded, and kept when it would be removed (OnFailure=keep).

The record is made when the copy fails, while everything is there to be asked. Where the unit goes on (another
text, a restart, another machine), the copy is set aside instead of removed: no copy any more, never started again.
What can't be kept is removed as ever: a unit does not wait for its past.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence

import msgspec
from aiohttp import web

from unit_agent.driver import Copy, Driver
from unit_agent.duty import Context
from unit_agent.scenes.cap import over
from unit_agent.scenes.files import SceneFiles
from unitfleet.api import HealthOutput, LogLine, Scene, Scenes
from unitfleet.errors import DriverError
from unitfleet.model import CopyPhase
from unitfleet.spec import OnFailure

logger = logging.getLogger(__name__)

LINES = 200  # of its output, in the record
MOST_TEXT = 256 * 1024  # characters of them
RECORD_S = 20.0  # what asking for a record may take
SET_ASIDE_S = 60.0
LOOK_S = 30.0


class ScenesDuty:
    """Records and keeps failed copies, and clears them by order and by the host's caps."""

    def __init__(self, context: Context) -> None:
        self._agent = context.agent
        self._most = context.config.scenes_max
        self._most_bytes = context.config.scenes_mib << 20
        self._files = SceneFiles(context.state_dir / "scenes")
        self._scenes: dict[str, Scene] = {}
        self._loaded = False
        self._lock = asyncio.Lock()  # held by whoever changes them
        self._cleared: set[tuple[str, str, int]] = set()  # copies that were cleared where they stand
        self._changed = asyncio.Event()
        context.agent.worker.set_aside = self.set_aside

    @property
    def name(self) -> str:
        return "scenes"

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        if any(copy is not None and copy.phase is CopyPhase.FAILED for copy in (before, after)):
            self._changed.set()

    def order_changed(self, unit: str) -> None:
        """A scene is of a copy, whatever is ordered."""

    def routes(self) -> Sequence[web.RouteDef]:
        return (
            web.get("/v1/scenes", self._list),
            web.get("/v1/scenes/{unit}", self._show),
            web.post("/v1/scenes/{unit}/rm", self._rm),
        )

    async def run(self) -> None:
        """Record what failed, forget what runs again, keep to the caps."""
        while True:
            self._changed.clear()
            async with self._lock:
                await self._load()
                await self._forget_what_runs_again()
                for copy in self._failed():
                    await self._record_in_place(copy)
                await self._keep_to_the_caps()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()

    async def set_aside(self, copy: Copy) -> bool:
        """Keep a copy that is about to be removed, if it is to be kept; False: nothing was done."""
        driver = self._agent.copies.driver(copy.driver)
        if driver is None or not self._is_kept(copy):
            return False  # at once: it waits for nobody's scene
        try:
            async with asyncio.timeout(SET_ASIDE_S), self._lock:
                await self._load()
                if not self._is_kept(copy):
                    return False  # cleared meanwhile
                scene = self._of(copy)
                scene = scene or await self._record(copy, driver)
                directory = await asyncio.to_thread(self._files.directory, scene)
                where = await driver.keep(copy.unit, scene.id, str(directory))
                await self._put(msgspec.structs.replace(scene, in_place=False, where=where))
        except (DriverError, OSError, TimeoutError) as error:
            why = str(error) or f"not done within {SET_ASIDE_S:g} s"
            logger.warning("could not keep the failed copy of %s, it goes: %s", copy.unit, why)
            self._agent.happened("scene", copy.unit, f"could not keep its failed copy: {why}")
            return False
        logger.info("set the failed copy of %s aside as scene %s", copy.unit, scene.id)
        self._changed.set()
        return True

    # What is there.

    async def _load(self) -> None:
        if not self._loaded:
            found = await asyncio.to_thread(self._files.load)
            self._scenes = {scene.id: scene for scene in found}
            self._loaded = True

    def _of(self, copy: Copy) -> Scene | None:
        """Return the scene of a copy that stands where it failed."""
        return next((scene for scene in self._scenes.values() if scene.in_place and _is_of(scene, copy)), None)

    def _is_kept(self, copy: Copy) -> bool:
        """Whether a copy failed for good, was not cleared, and is to be kept, by its text or by its record."""
        if copy.phase is not CopyPhase.FAILED or _key(copy) in self._cleared or not self._most:
            return False
        return self._of(copy) is not None or self._to_be_kept(copy)

    def _to_be_kept(self, copy: Copy) -> bool:
        spec = self._agent.texts.known(copy.unit, copy.spec)
        return spec is not None and spec.on_failure is OnFailure.KEEP

    def _failed(self) -> list[Copy]:
        found = (self._agent.copies.find(unit) for unit in sorted(self._agent.copies.units()))
        return [copy for copy in found if copy is not None and self._is_kept(copy) and self._of(copy) is None]

    async def _forget_what_runs_again(self) -> None:
        """Drop the records of copies that no longer stand as they failed: gone, or started after a reboot."""
        for scene in list(self._scenes.values()):
            copy = self._agent.copies.find(scene.unit)
            there = copy is not None and copy.phase is CopyPhase.FAILED and _is_of(scene, copy)
            asked = scene.driver in self._agent.copies.drivers and not self._agent.copies.unknown((scene.driver,))
            if scene.in_place and not there and asked:
                await self._drop(scene)
        held = {_key(copy) for unit in self._agent.copies.units() if (copy := self._agent.copies.find(unit))}
        self._cleared &= held

    # What is made.

    async def _record_in_place(self, copy: Copy) -> None:
        driver = self._agent.copies.driver(copy.driver)
        if driver is None:
            return
        try:
            scene = await self._record(copy, driver)
        except (DriverError, OSError, TimeoutError) as error:
            logger.warning("could not record how %s failed: %s", copy.unit, error or "it took too long")
            return
        why = f"its failed copy is kept for a look: unitctl scene {copy.unit}"
        self._agent.happened("scene", copy.unit, why)
        logger.info("recorded how %s failed, as scene %s", copy.unit, scene.id)

    async def _record(self, copy: Copy, driver: Driver) -> Scene:
        """Ask for all that a failed copy shows, and write it down."""
        async with asyncio.timeout(RECORD_S):
            remains = await driver.examine(copy.unit)
            lines = await self._last_lines(copy, driver)
        commands = tuple(HealthOutput(at=at, ok=not code, text=text) for at, code, text in remains.health)
        scene = Scene(
            id=os.urandom(6).hex(),
            unit=copy.unit,
            driver=copy.driver,
            copy_id=copy.id,
            at=time.time(),
            machine=self._agent.facts.id,
            machine_name=self._agent.facts.name,
            epoch=copy.epoch,
            incarnation=copy.incarnation,
            spec=copy.spec,
            image=copy.image,
            exit_code=remains.exit_code,
            oom_killed=remains.oom_killed,
            cause=copy.cause,
            message=copy.message,
            restarts=copy.restarts,
            started=remains.started,
            finished=remains.finished,
            size=remains.size,
            health=(*commands, *self._agent.health.outputs(copy.unit)),
            lines=lines,
            inspect=dict(remains.inspect),
        )
        await self._put(scene)
        return scene

    async def _last_lines(self, copy: Copy, driver: Driver) -> tuple[LogLine, ...]:
        """Return the end of its output, the newest lines first to be counted."""
        found: list[LogLine] = []
        try:
            async with contextlib.aclosing(driver.logs(copy.unit, lines=LINES, follow=False)) as lines:
                async for line in lines:
                    found.append(LogLine(at=line.at, stream=line.stream, text=line.text[: MOST_TEXT // 8]))
        except DriverError as error:
            found.append(LogLine(at=time.time(), stream="stderr", text=f"(its output could not be read: {error})"))
        room, first = MOST_TEXT, len(found)
        while first and (room := room - len(found[first - 1].text)) >= 0:
            first -= 1
        return tuple(found[first:])

    async def _put(self, scene: Scene) -> None:
        await asyncio.to_thread(self._files.save, scene)
        self._scenes[scene.id] = scene

    # What goes.

    async def _keep_to_the_caps(self) -> None:
        for doomed in over(self._scenes.values(), most=self._most, most_bytes=self._most_bytes):
            scene = doomed.scene
            try:
                await self._discard(scene)
            except (DriverError, OSError) as error:
                logger.warning("could not remove scene %s of %s: %s", scene.id, scene.unit, error)
                continue
            self._agent.happened("scene", scene.unit, f"removed its failed copy {scene.id}: {doomed.why}")

    async def _discard(self, scene: Scene) -> None:
        """Remove a scene with what was set aside; raises `DriverError` when its driver can't do its part now."""
        if not scene.in_place:
            driver = self._agent.copies.driver(scene.driver)
            if driver is None:
                raise DriverError(f"cannot remove scene {scene.id}: this machine has no {scene.driver} driver now")
            await driver.discard(scene.copy_id, scene.id)
        await self._drop(scene)

    async def _drop(self, scene: Scene) -> None:
        await asyncio.to_thread(self._files.remove, scene)
        self._scenes.pop(scene.id, None)

    # What masters ask.

    async def _list(self, request: web.Request) -> web.Response:
        found = sorted(self._scenes.values(), key=lambda scene: scene.at)
        return self._answer([msgspec.structs.replace(scene, lines=(), inspect={}) for scene in found])

    async def _show(self, request: web.Request) -> web.Response:
        return self._answer(self._of_unit(request.match_info["unit"]))

    async def _rm(self, request: web.Request) -> web.Response:
        unit = request.match_info["unit"]
        async with self._lock:
            await self._load()
            found = self._of_unit(unit)
            for scene in found:
                if scene.in_place and (copy := self._agent.copies.find(unit)) and _is_of(scene, copy):
                    self._cleared.add(_key(copy))
                await self._discard(scene)
        return self._answer([msgspec.structs.replace(scene, lines=(), inspect={}) for scene in found])

    def _of_unit(self, unit: str) -> list[Scene]:
        return sorted((one for one in self._scenes.values() if one.unit == unit), key=lambda scene: scene.at)

    def _answer(self, found: list[Scene]) -> web.Response:
        body = msgspec.json.encode(Scenes(rev=self._agent.sync.revision, items=tuple(found)))
        return web.Response(body=body, content_type="application/json")


def _key(copy: Copy) -> tuple[str, str, int]:
    return copy.unit, copy.id, copy.epoch


def _is_of(scene: Scene, copy: Copy) -> bool:
    return (scene.unit, scene.copy_id, scene.epoch) == _key(copy)
