"""The driver `docker`: runs `[Container]` units through the Docker Engine of this host.

What a copy is stands in its container's labels; what is remembered beside them is in `docker_watch`. Only
containers with our cluster's and machine's labels are ever touched. A copy that was stopped on order carries
a mark in its container's name, so that neither this agent nor the next one takes it for one that ended by
itself and starts it again; starting takes the mark off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from pathlib import Path

import psutil

from unit_agent.driver import Copy, LogLine, Marks, Order, OutputUnreadable, Remains, Report
from unit_agent.drivers import docker_request as written
from unit_agent.drivers.block_device import disk_node
from unit_agent.drivers.docker_engine import CHANGE_S, INSPECT_S, LIST_S, Engine, EngineRefused
from unit_agent.drivers.docker_exec import run_inside
from unit_agent.drivers.docker_follow import FileWatch, follow
from unit_agent.drivers.docker_images import local_digest, prepare_image
from unit_agent.drivers.docker_logs import read_logs
from unit_agent.drivers.docker_output import Frames, read_output
from unit_agent.drivers.docker_remains import discard, examine, scene_name
from unit_agent.drivers.docker_request import Owner, container_name, create_body, read_environment
from unit_agent.drivers.docker_resources import Resources
from unit_agent.drivers.docker_seen import log_files
from unit_agent.drivers.docker_tail import FileTail
from unit_agent.drivers.docker_track import Track
from unit_agent.drivers.docker_verdicts import Verdicts
from unit_agent.drivers.docker_watch import Watch
from unit_agent.drivers.open_outputs import OpenOutputs
from unit_agent.images.credentials import Credentials
from unit_agent.images.pulls import Pulls
from unit_agent.images.underway import Underway
from unit_agent.metrics.instruments import Instruments
from unit_agent.output import Limit, OutputBatch, OutputLine
from unit_agent.strict.deadlines import Deadlines
from unitfleet.errors import DriverError, DriverUnavailable, ImageNotFound
from unitfleet.limits import on_machine
from unitfleet.model import CopyPhase
from unitfleet.spec import ResourceLimits

logger = logging.getLogger(__name__)

SOCKET = "/var/run/docker.sock"

_LOOK_AGAIN_S = 1.0  # while waiting for an event that should come
_TRUST_S = 30.0  # what was looked at so lately, and has events, runs as it was seen
_JUST_MADE_S = 1.0  # what was created so lately is started without another look


class DockerDriver:
    """The `Driver` of a Docker Engine. Between the first call and `close` it follows the Engine's events.

    In the folder `memory` it keeps how copies ended, for the next agent.
    """

    def __init__(
        self,
        machine_id: str,
        machine_name: str,
        cluster_id: str,
        address: str,
        *,
        socket: str = SOCKET,
        now: Callable[[], float] = time.time,
        dice: random.Random | None = None,
        boot: float | None = None,
        pulls_at_once: int = 2,
        registry_auth: str = "",
        instruments: Instruments | None = None,
        underway: Underway | None = None,
        deadlines: Deadlines | None = None,
        memory: Path | None = None,
    ) -> None:
        self._owner = Owner(cluster=cluster_id, machine=machine_id, machine_name=machine_name)
        self._deadlines = deadlines or Deadlines(math.inf)
        self._engine = Engine(socket, instruments.called if instruments else None)
        self._resources = Resources(self._engine, self._owner)
        self.pulls = Pulls(self._engine, pulls_at_once, Credentials(registry_auth), instruments, underway)
        self._verdicts = Verdicts(memory)
        self._watch = Watch(
            self._engine,
            self._owner,
            address,
            boot=psutil.boot_time() if boot is None else boot,
            now=now,
            dice=dice or random.Random(),
            deadlines=self._deadlines,
            verdicts=self._verdicts,
        )
        self._socket = socket
        self._watching: asyncio.Task[None] | None = None
        self._outputs = OpenOutputs()
        self._files = FileWatch()
        self._prepared: dict[str, tuple[str, str]] = {}  # by unit: spec, digest

    @property
    def name(self) -> str:
        return "docker"

    async def list(self) -> Sequence[Copy]:
        await self._awake()
        return await self._watch.copies()

    async def find(self, unit: str) -> Copy | None:
        await self._awake()
        track = await self._watch.find(unit) or await self._watch.seek(unit)
        return None if track is None else self._watch.copy(track)

    async def prepare(self, order: Order, report: Report) -> str:
        await self._awake()
        unit, container = order.placement.unit, order.spec.container
        if container is None:
            raise DriverError(f"cannot run {unit} in Docker: it has no [Container] section")
        async with self.pulls.removing:
            pass  # an image that is being removed at this moment is not here
        digest = await prepare_image(
            self._engine,
            unit,
            container.image,
            order.placement.image,
            container.pull,
            report,
            self.pulls.for_start,
            lambda image: self.pulls.lookups.digest(image, order.since),
        )
        self._prepared[unit] = (order.placement.spec, digest)
        return digest

    async def create(self, order: Order) -> Copy:
        await self._awake()
        unit = order.placement.unit
        track = await self._watch.find(unit)
        if track is not None:
            return self._same(order, track)
        name = container_name(self._owner, order)
        body = create_body(
            self._owner,
            order,
            image=await self._image(order),
            file_environment=await asyncio.to_thread(_file_environment, order) if _has_files(order) else [],
            present=os.path.exists,
            limits=_limits(order),
            node=disk_node,
        )
        if order.spec.container is not None:
            await self._resources.make(unit, order.spec.container)
        with self._watch.making(unit):
            try:
                made = await self._engine.create(unit, name, body)
            except EngineRefused as error:
                if error.status == 404 and "no such image" in error.reason.lower():
                    self.pulls.lookups.forget()
                    if self._prepared.pop(unit, None) is not None:  # it was here: a new attempt prepares it anew
                        raise DriverUnavailable(f"cannot create {unit}: {error.reason}, it went") from error
                    raise ImageNotFound(f"cannot create {unit}: {error.reason}") from error
                if error.status == 409:
                    return await self._clash(order, name, error)
                raise
            try:
                await self._join_networks(order, made)
            except DriverError:
                container = self._engine.docker.containers.container(made)
                await self._engine.call(f"remove {unit}", container.delete(force=True, v=True), CHANGE_S)
                raise
            return self._watch.copy(self._watch.made(made, name, body["Labels"]))

    async def start(self, order: Order) -> Copy:
        await self._awake()
        unit = order.placement.unit
        track = await self._watch.find(unit, within_s=_JUST_MADE_S)
        if track is None:
            raise DriverError(f"cannot start {unit}: no copy of it is here")
        async with track.lock:
            if not track.seen.running:
                if not self._deadlines.may_run(unit):
                    raise DriverUnavailable(f"cannot start {unit}: it is strict, and its confirmation ran out")
                await self._unmark(track)
                await self._watch.begin(track, afresh=True)
        while True:
            changed, copy = track.changed, self._watch.copy(track)
            if copy.phase is not CopyPhase.STARTING:
                return copy
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await changed.wait()
            except TimeoutError:
                if await self._watch.look(track) is None:
                    raise DriverError(f"cannot start {unit}: its container was removed") from None

    async def marks(self, unit: str) -> Marks:
        track = await self._watch.find(unit, within_s=_JUST_MADE_S)
        if track is None:
            raise DriverError(f"cannot tell the processes of {unit}: no copy of it is here")
        return Marks(groups=(track.seen.id,), container=track.seen.id, engine=self._socket)

    async def stop(self, unit: str) -> None:
        await self._awake()
        track = await self._watch.find(unit)
        if track is None:
            return
        track.stopping = True
        try:
            async with track.lock:
                if await self._watch.look(track) is None:
                    return
                if track.seen.running or track.seen.ended:
                    await self._mark(track)
                if track.seen.running:
                    self._watch.tell(unit)
                    await self._watch.end(track)
        finally:
            track.stopping = False
            self._watch.tell(unit)

    async def remove(self, unit: str) -> None:
        await self._awake()
        track = await self._watch.find(unit)
        if track is None:
            return
        if track.seen.running:
            raise DriverError(f"cannot remove {unit}: it runs, stop it first")
        await self._outputs.read_out(unit)
        container = self._engine.docker.containers.container(track.seen.id)
        async with track.lock:
            try:
                await self._engine.call(f"remove {unit}", container.delete(v=True), CHANGE_S)
            except EngineRefused as error:
                if error.status == 409:  # somebody else removes it at this moment
                    await self._until_gone(track)
                elif error.status != 404:
                    raise
        self._watch.forget(track)
        self._prepared.pop(unit, None)

    async def execute(self, unit: str, words: Sequence[str], timeout_s: float) -> tuple[int, str]:
        await self._awake()
        track = await self._watch.find(unit, within_s=_TRUST_S)
        if track is None or not track.seen.running:
            raise DriverError(f"cannot run {words[0]} for {unit}: its container does not run")
        return await run_inside(self._engine, unit, track.seen.id, words, timeout_s)

    async def fail(self, unit: str, why: str, *, again: bool) -> None:
        await self._awake()
        track = await self._watch.find(unit)
        if track is None:
            return
        async with track.lock:
            if track.stopping or not track.seen.running:
                return
            track.broken, track.for_good = why, not again
            await self._watch.remember(track)
            try:
                await self._watch.end(track)
            except DriverError:
                track.broken, track.for_good = "", False
                await self._watch.remember(track)
                raise
        self._watch.tell(unit)

    async def examine(self, unit: str) -> Remains:
        return await examine(self._engine, unit, (await self._ended(unit, "look at")).seen.id)

    async def keep(self, unit: str, scene: str, directory: str) -> str:
        track = await self._ended(unit, "keep")
        name = scene_name(track.seen.name.removesuffix(written.STOPPED_MARK), scene)
        async with track.lock:
            container = self._engine.docker.containers.container(track.seen.id)
            await self._engine.call(f"rename the container of {unit}", container.rename(name), INSPECT_S)
        self._watch.forget(track)
        self._prepared.pop(unit, None)
        return name

    async def discard(self, copy_id: str, scene: str) -> None:
        await discard(self._engine, self._owner, copy_id, scene)

    async def _ended(self, unit: str, doing: str) -> Track:
        """Return the container of a unit, which must not run; raises `DriverError`."""
        await self._awake()
        track = await self._watch.find(unit)
        if track is None:
            raise DriverError(f"cannot {doing} {unit}: no copy of it is here")
        if track.seen.running:
            raise DriverError(f"cannot {doing} {unit}: it runs")
        return track

    async def events(self) -> AsyncGenerator[str, None]:
        watching = await self._awake()
        async with self._watch.listening() as queue:
            yield ""
            while (unit := await queue.get()) is not None:
                yield unit
            await asyncio.wait({watching})
            if not watching.cancelled():
                watching.result()

    async def logs(self, unit: str, *, lines: int, follow: bool) -> AsyncGenerator[LogLine, None]:
        await self._awake()
        track = await self._watch.find(unit)
        if track is None:
            raise DriverError(f"cannot read the output of {unit}: no copy of it is here")
        if not lines and not follow:
            return
        last_ns = 0  # where to go on when the container runs again
        while True:
            started = track.seen.started
            reading = read_logs(self._engine, unit, track.seen.id, lines=lines, follow=follow, since_ns=last_ns)
            async for at_ns, line in reading:
                last_ns = at_ns + 1
                yield line
            if not follow or not await self._started_again(track, started):
                return
            lines = -1

    async def output(self, unit: str, mark: str, limit: Limit | None = None) -> AsyncGenerator[OutputBatch, None]:
        await self._awake()
        track = await self._watch.find(unit, within_s=_TRUST_S)
        if track is None:
            raise DriverError(f"cannot read the output of {unit}: no copy of it is here")
        whose, _, at = mark.partition("@")
        at = at if whose == track.seen.id else ""
        frames = Frames(at.partition("@")[0])
        asked = asyncio.Event()
        with self._outputs.reading(unit, asked.set) as all_read:
            while True:
                started = track.seen.started
                tail = self._tail(track, at)
                if tail is not None:
                    here = partial(self._watch.holds, track)
                    try:
                        async for lines in follow(self._files, tail, asked, all_read, here, limit):
                            yield lines, f"{track.seen.id}@{tail.mark}"
                    except OSError as error:
                        raise DriverError(f"cannot read the output of {unit}: {error}") from error
                    finally:
                        tail.close()
                    return
                if started:  # else it has no files yet, and soon may have
                    async for told in self._stream(unit, track, frames):
                        yield told, f"{track.seen.id}@{frames.mark}"
                async with self._watch.listening(unit) as queue:
                    while not await self._runs_again(track, started):
                        if not self._watch.holds(track):
                            return
                        all_read.set()
                        await self._told_of(unit, queue, asked)
                frames.again()
                at = frames.mark

    def _tail(self, track: Track, at: str) -> FileTail | None:
        """Return what reads the Engine's own files; None when they are none that can be read here."""
        found = log_files(track.seen)
        try:
            return FileTail(*found, at) if found is not None else None
        except OSError as error:
            logger.info("the output of %s is read by the Engine, its files can't be: %s", track.seen.unit, error)
            return None

    async def _told_of(self, unit: str, queue: asyncio.Queue[str | None], asked: asyncio.Event) -> None:
        """Wait until something may have happened to the unit, or `asked` is set; raises `DriverError`."""
        asking = asyncio.ensure_future(asked.wait())
        telling = asyncio.ensure_future(queue.get())
        try:
            await asyncio.wait({asking, telling}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done() and telling.result() is None:
                raise DriverError(f"cannot read the output of {unit}: the Engine is not followed")
            asked.clear()
        finally:
            asking.cancel()
            telling.cancel()

    async def _stream(self, unit: str, track: Track, frames: Frames) -> AsyncGenerator[Sequence[OutputLine], None]:
        """Yield what the container's streams have behind the frames' mark, until it ends or is gone."""
        reading = read_output(self._engine.socket, unit, track.seen.id, frames)
        try:
            async with contextlib.aclosing(reading) as batches:
                async for lines in batches:
                    if lines:
                        yield lines
        except EngineRefused as error:
            if "support reading" in error.reason:
                raise OutputUnreadable(f"cannot read the output of {unit}: its log driver keeps none") from error
            if error.status not in (404, 409):  # gone, or about to go
                raise

    async def close(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait({watching})
        await self._verdicts.flush()
        await self._engine.close()

    async def _awake(self) -> asyncio.Task[None]:
        """Begin to follow the Engine, if that has not begun; the task is owned here and ends with `close`."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch.run(), name="docker watch")
        if self._watching.done():
            self._watching.result()
        if not self._watch.tried.is_set():
            with contextlib.suppress(TimeoutError):  # an Engine that hangs is told by the call that follows
                async with asyncio.timeout(LIST_S):
                    await self._watch.tried.wait()
        return self._watching

    def _same(self, order: Order, track: Track) -> Copy:
        """Return the copy that is there already, if it is the one that is ordered."""
        placement, copy = order.placement, self._watch.copy(track)
        if (copy.spec, copy.incarnation, copy.restart) == (
            placement.spec,
            placement.incarnation,
            placement.restart,
        ):
            return copy
        raise DriverError(f"cannot create {placement.unit}: another copy of it is here, remove it first")

    async def _image(self, order: Order) -> str:
        """Return the digest to run: the pinned one, the prepared one, or what the tag means here now."""
        placement, container = order.placement, order.spec.container
        assert container is not None  # container_name refused it
        if placement.image:
            return placement.image
        spec, digest = self._prepared.get(placement.unit, ("", ""))
        if spec == placement.spec:
            return digest
        found = await local_digest(self._engine, container.image)
        if not found:
            raise ImageNotFound(f"cannot create {placement.unit}: image {container.image} is not here")
        return found

    async def _clash(self, order: Order, name: str, error: EngineRefused) -> Copy:
        """Take up the container that has the name, if an earlier call made it; else say whose it is."""
        unit = order.placement.unit
        try:
            found = await self._engine.inspect(name)
        except EngineRefused:
            raise error from None
        labels = found["Config"].get("Labels") or {}
        if self._owner.owns(labels) and labels[written.UNIT] == unit:
            return self._same(order, await self._watch.adopt(found["Id"]))
        whose = f"belongs to unit {labels[written.UNIT]}" if written.UNIT in labels else "is not one of ours"
        raise DriverError(
            f"cannot create {unit}: a container named {name} is already there, and it {whose}",
            hint=f"look at it with `docker inspect {name}`; we never touch what we did not make",
        ) from error

    async def _join_networks(self, order: Order, copy_id: str) -> None:
        container = order.spec.container
        for name in container.networks[1:] if container else ():
            doing = f"connect {order.placement.unit} to network {name}"
            network = await self._engine.call(doing, self._engine.docker.networks.get(name), INSPECT_S)
            await self._engine.call(doing, network.connect({"Container": copy_id}), CHANGE_S)

    async def _mark(self, track: Track) -> None:
        """Write on the container that it was stopped on order."""
        if not track.seen.stopped_on_order:
            await self._rename(track, track.seen.name + written.STOPPED_MARK)

    async def _unmark(self, track: Track) -> None:
        if track.seen.stopped_on_order:
            await self._rename(track, track.seen.name.removesuffix(written.STOPPED_MARK))

    async def _rename(self, track: Track, name: str) -> None:
        container = self._engine.docker.containers.container(track.seen.id)
        await self._engine.call(f"rename the container of {track.seen.unit}", container.rename(name), INSPECT_S)
        await self._watch.look(track)

    async def _until_gone(self, track: Track) -> None:
        try:
            async with asyncio.timeout(CHANGE_S), self._watch.listening(track.seen.unit) as queue:
                while await self._watch.look(track) is not None:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_AGAIN_S):
                            await queue.get()
        except TimeoutError:
            unit = track.seen.unit
            raise DriverError(f"cannot remove {unit}: the Engine still removes it after {CHANGE_S:g} s") from None

    async def _runs_again(self, track: Track, started: float) -> bool:
        """Tell whether the container runs, or has run since it was started at this time; 0.0: never before."""
        if not started:  # nothing that it wrote can be ahead of what is known of it
            found = await self._watch.find(track.seen.unit, within_s=_TRUST_S)
            return found is track and found.seen.started > 0
        for pause_s in (0.0, _LOOK_AGAIN_S / 10):  # its end is seen a little later than that of its output
            await asyncio.sleep(pause_s)
            found = await self._watch.find(track.seen.unit)
            if found is not track or not found.seen.running:
                return found is track and found.seen.started != started
        return True

    async def _started_again(self, track: Track, started: float) -> bool:
        """Wait until the container was started anew; False when it is gone."""
        async with self._watch.listening(track.seen.unit) as queue:
            while await self._watch.find(track.seen.unit) is track:
                if track.seen.started != started:
                    return True
                if await queue.get() is None:
                    return False
            return False


def _limits(order: Order) -> ResourceLimits:
    """Return the unit's limits on this machine, whose memory is looked at only where a limit is a share of it."""
    limits = order.spec.limits
    return on_machine(limits, psutil.virtual_memory().total) if limits.memory_max_percent else limits


def _has_files(order: Order) -> bool:
    return order.spec.container is not None and bool(order.spec.container.environment_files)


def _file_environment(order: Order) -> list[tuple[str, str]]:
    """Read every EnvironmentFile= on this host; a missing one is an error unless the unit says `-`."""
    container = order.spec.container
    found: list[tuple[str, str]] = []
    for path, optional in container.environment_files if container else ():
        try:
            found += read_environment(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            if not optional:
                raise DriverError(
                    f"cannot create {order.placement.unit}: EnvironmentFile {path} is missing"
                ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise DriverError(f"cannot create {order.placement.unit}: can't read {path}: {error}") from error
    return found
