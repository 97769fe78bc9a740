"""Keep what the Engine's containers show up to date, and start again those whose unit says so.

One event stream, filtered by our labels; a full list when it begins, and again whenever it breaks. An event
costs at most one inspect, a unit at a time in its own task: a container whose shim hangs holds up no other.
While the stream is there, `copies` answers from what was seen. When it is not, nothing is concluded: the
Engine is asked anew, and what ended along with it is loaded, not failed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp

from unit_agent.causes import AGAIN_S, OUTLIVED_S
from unit_agent.driver import Copy
from unit_agent.drivers import docker_request as written
from unit_agent.drivers.docker_engine import INSPECT_S, Engine, EngineAway, EngineRefused
from unit_agent.drivers.docker_logs import parse_time
from unit_agent.drivers.docker_remains import scene_of
from unit_agent.drivers.docker_request import Owner
from unit_agent.drivers.docker_seen import (
    HostTimes,
    Seen,
    copy_of,
    read,
    seen_in_list,
    why_ended,
)
from unit_agent.drivers.docker_track import Track
from unit_agent.drivers.docker_verdicts import Verdicts
from unit_agent.drivers.docker_words import listened, may_tell
from unit_agent.restart import FAILED, RestartAfter
from unit_agent.strict.deadlines import Deadlines
from unitfleet.errors import DriverError

logger = logging.getLogger(__name__)

_EVENTS = ("create", "start", "die", "destroy", "health_status", "pause", "unpause", "oom")
_TRUST_S = 60.0  # a full list is asked for after this long, even while events come
_ASIDE = 16  # inspects at a time
_STOP_SLACK_S = 15.0  # what the Engine may take beyond the copy's own stop timeout
_UNCONFIRMED_S = 0.5  # how often a strict copy that ended asks whether it may start again
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.2, 5.0


class Watch:
    """The containers of one owner on one Engine. `run` keeps it going until it is cancelled."""

    def __init__(
        self,
        engine: Engine,
        owner: Owner,
        address: str,
        *,
        boot: float,
        now: Callable[[], float],
        dice: random.Random,
        deadlines: Deadlines,
        verdicts: Verdicts,
    ) -> None:
        self._engine = engine
        self._owner = owner
        self._address = address
        self._boot = boot
        self._now = now
        self._dice = dice
        self._deadlines = deadlines
        self._verdicts = verdicts
        self._host = HostTimes(boot=boot)
        self._tracks: dict[str, Track] = {}
        self._making: dict[str, set[str]] = {}  # by unit that is being created: ids that events told of meanwhile
        self._listeners: dict[asyncio.Queue[str | None], str] = {}  # with the unit that each is about, "" for all
        self._tasks: asyncio.TaskGroup | None = None
        self._live = False
        self._since = ""  # the last event's time, to go on from
        self._listed = float("-inf")  # loop time of the last full list
        self._listing = asyncio.Lock()
        self._slots = asyncio.Semaphore(_ASIDE)
        self.tried = asyncio.Event()  # the Engine was asked at least once

    # --- for the driver

    async def copies(self) -> list[Copy]:
        """Return every copy. Raises `DriverError` when the Engine can't tell."""
        stale = asyncio.get_running_loop().time() - self._listed > _TRUST_S
        if not self._live or stale:
            await self._list()
        return [self.copy(track) for track in self._tracks.values()]

    async def find(self, unit: str, *, within_s: float = 0.0) -> Track | None:
        """Return the unit's container, freshly looked at, or None.

        One that was looked at `within_s` seconds ago is not looked at again while events come.
        """
        if not self._live:
            await self._list()
        track = self._tracks.get(unit)
        if track is None or asyncio.get_running_loop().time() - track.looked < within_s:
            return track
        return await self.look(track)

    async def seek(self, unit: str) -> Track | None:
        """Look for a container that no list has shown, by the name that we give it; None when there is none.

        One with a `ContainerName=` can't be looked for so.
        """
        name = written.usual_name(self._owner, unit)
        for called in (name, name + written.STOPPED_MARK):
            try:
                inspected = await self._engine.inspect(called)
                labels = inspected["Config"].get("Labels") or {}
                if self._owner.owns(labels) and labels[written.UNIT] == unit:
                    return await self.adopt(inspected["Id"])
            except EngineRefused as error:
                if error.status != 404:
                    raise
        return None

    async def look(self, track: Track) -> Track | None:
        """Look at a container again; None when it is gone."""
        began, was_live = asyncio.get_running_loop().time(), self._live
        try:
            inspected = await self._engine.inspect(track.seen.id)
        except EngineRefused as error:
            if error.status != 404:
                raise
            self.forget(track)
            return None
        seen = read(inspected)
        if may_tell(seen) and not track.is_judged(seen) and not track.stopping:
            seen = await listened(self._engine, seen)
        # a call that outlives the events may have been answered by the next daemon: the list that follows
        # knows when that one started
        if began >= track.looked and self._live >= was_live:
            self._saw(track, seen, began)
        return track

    async def adopt(self, copy_id: str) -> Track:
        """Take up a container that was just created or listed."""
        began = asyncio.get_running_loop().time()
        seen = read(await self._engine.inspect(copy_id))
        if scene_of(seen.name):
            why = "it was set aside for a look"
            raise EngineRefused(f"cannot take up {seen.name}: {why}", 404, why)
        if not written.is_copy(seen.labels, seen.name):
            why = "somebody made it of an image of one of ours"
            raise EngineRefused(f"cannot take up {seen.name}: {why}", 404, why)
        track = self._tracks.get(seen.unit)
        if track is None or track.seen.id != seen.id:
            if may_tell(seen):
                seen = await listened(self._engine, seen)
            track = self._tracks[seen.unit] = Track(seen, was_healthy=seen.health == "unhealthy")
            told = self._verdicts.of(seen.id)
            if told is not None and max(seen.created, seen.started) >= self._boot:
                track.recall(told, self._loop_time)
        self._saw(track, seen, began)
        return track

    @contextmanager
    def making(self, unit: str) -> Iterator[None]:
        """Leave the events of a creation to whoever asked for it; what they did not take up is looked at after."""
        heard = self._making.setdefault(unit, set())
        try:
            yield
        finally:
            self._making.pop(unit, None)
            track = self._tracks.get(unit)
            for copy_id in heard:
                if track is None or track.seen.id != copy_id:
                    self._refresh(unit, copy_id)

    def made(self, copy_id: str, name: str, labels: Mapping[str, str]) -> Track:
        """Take up a container that was created this moment, without a look: its start will be followed by one."""
        entry = {"Id": copy_id, "Names": [name], "Labels": labels, "State": "created", "Created": self._now()}
        seen = seen_in_list(entry)
        track = self._tracks.get(seen.unit)
        if track is None or track.seen.id != copy_id:
            track = self._tracks[seen.unit] = Track(seen)
            self._saw(track, seen, asyncio.get_running_loop().time())
            self.tell(seen.unit)
        return track

    def holds(self, track: Track) -> bool:
        """Tell, without a look, whether a container is here as far as is known."""
        return self._tracks.get(track.seen.unit) is track

    def forget(self, track: Track) -> None:
        """Drop a container that is gone."""
        if self._tracks.get(track.seen.unit) is track:
            del self._tracks[track.seen.unit]
            self._verdicts.drop(track.seen.id)
            track.changed.set()
            self.tell(track.seen.unit)

    def copy(self, track: Track) -> Copy:
        """Return the copy that a container is, as last seen."""
        starting = track.starting or track.beginning
        state = (track.seen, track.outcome, starting, track.stopping)
        shown_by = (*state, track.restarts, track.cause, track.oom_lived, track.note)
        if track.shown is not None and track.shown[0] == shown_by:
            return track.shown[1]  # a list of all is asked for at every change of one
        copy = copy_of(
            track.seen,
            address=self._address,
            verdict=track.outcome,
            starting=starting,
            stopping=track.stopping,
            restarts=track.restarts,
            cause=track.cause,
            oom_kills=track.oom_lived,
            note=track.note,
        )
        track.shown = shown_by, copy
        return copy

    async def begin(self, track: Track, *, afresh: bool) -> None:
        """Start the container; when the Engine refuses, the track's verdict says what follows. Hold its lock."""
        unit, loop = track.seen.unit, asyncio.get_running_loop()
        track.begun(loop.time(), afresh=afresh)
        if afresh:
            self._verdicts.drop(track.seen.id)
        track.beginning = True
        looked = track.looked
        try:
            await self._engine.start(unit, track.seen.id)
        except EngineRefused as error:
            if error.status == 404:
                self.forget(track)
                raise
            if await self.look(track) is None or not track.seen.error:
                raise
            if track.outcome is None:  # the same words as at the last attempt
                self._judge(track)
        else:
            await self.look(track)
        finally:
            track.beginning = False
            if track.looked == looked:  # cancelled or unanswered: its events were left to the look above
                self._refresh(unit, track.seen.id)
            self.tell(unit)

    async def end(self, track: Track) -> None:
        """Stop the container as it was made to be stopped; the Engine kills it when its time is up.

        Hold its lock. Raises `DriverError` when the Engine can't end it.
        """
        unit, limit = track.seen.unit, track.seen.kept.stop_timeout_s
        container = self._engine.docker.containers.container(track.seen.id)
        deadline = None if limit is None else limit + _STOP_SLACK_S
        try:
            await self._engine.call(f"stop {unit}", container.stop(), deadline)
        except EngineRefused as error:
            if error.status != 404:
                raise
        if await self.look(track) is not None and track.seen.running:
            raise DriverError(f"cannot stop {unit}: the Engine could not end its container {track.seen.id[:12]}")

    async def remember(self, track: Track) -> None:
        """Write down what is known of a container, and return once it is."""
        self._note(track)
        await self._verdicts.flush()

    def _note(self, track: Track) -> None:
        loop = asyncio.get_running_loop()
        self._verdicts.note(track.seen.id, track.remembered(lambda at: self._now() - (loop.time() - at)))

    @asynccontextmanager
    async def listening(self, unit: str = "") -> AsyncIterator[asyncio.Queue[str | None]]:
        """Give a queue of the names of units that changed, or of one; "" when any may have, None at the end."""
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._listeners[queue] = unit
        try:
            yield queue
        finally:
            del self._listeners[queue]

    # --- the watch

    async def run(self) -> None:
        """Follow the Engine's events for ever, through its restarts and absences."""
        try:
            await self._verdicts.load()
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._verdicts.run(), name="docker verdicts")
                try:
                    await self._follow_for_ever()
                finally:
                    self._tasks = None  # what ends now begins nothing new
        finally:
            for queue in self._listeners:
                queue.put_nowait(None)

    async def _follow_for_ever(self) -> None:
        backoff = _FIRST_BACKOFF_S
        while True:
            try:
                await self._follow()
            except (DriverError, aiohttp.ClientError) as error:
                level = logging.WARNING if self._live else logging.DEBUG
                logger.log(level, "lost the Docker Engine's events: %s", error)
            if self._live:
                self._live, backoff = False, _FIRST_BACKOFF_S
                self._host = HostTimes(self._boot, self._host.engine, self._now())
                self.tell("")
            self.tried.set()
            await asyncio.sleep(backoff * (1 + self._dice.random() / 4))
            backoff = min(_LAST_BACKOFF_S, backoff * 2)

    async def _follow(self) -> None:
        """Take events until the stream ends. It is opened before the list, so nothing falls in between."""
        async with self._engine.stream("follow the Engine's events", "events", self._query()) as stream:
            await self._list()
            self._live = True
            self.tried.set()
            self.tell("")
            for track in self._tracks.values():
                if self._wants_restart(track):
                    self._await_restart(track)
            while line := await stream.readline():
                event = json.loads(line)
                self._since = f"{event['timeNano'] // 10**9}.{event['timeNano'] % 10**9:09}"
                self._heed(event)

    def _query(self) -> dict[str, str]:
        filters = {**self._owner.filter, "type": ["container"], "event": list(_EVENTS)}
        return {"filters": json.dumps(filters), **({"since": self._since} if self._since else {})}

    def _heed(self, event: dict[str, Any]) -> None:
        actor = event["Actor"]
        unit = actor["Attributes"].get(written.UNIT, "")
        track = self._tracks.get(unit)
        if event["Action"] == "destroy":
            if track is not None and track.seen.id == actor["ID"]:
                self.forget(track)
            return
        if event["Action"] == "create" and track is not None and track.seen.id == actor["ID"]:
            return  # our own, already taken up; one whose call was cancelled is not
        if event["Action"] == "create" and unit in self._making:
            self._making[unit].add(actor["ID"])
            return
        if event["Action"] == "start" and track is not None and track.seen.id == actor["ID"] and track.beginning:
            return  # our own: `begin` looks when the Engine has answered
        if event["Action"] == "oom":
            if track is not None and track.seen.id == actor["ID"] and self._tasks is not None:
                track.oom_kills += 1
                if not track.alarmed:
                    track.alarmed = True
                    self._tasks.create_task(self._outlive(track), name=f"see whether {unit} lives on")
            return
        self._refresh(unit, actor["ID"])

    async def _outlive(self, track: Track) -> None:
        """Say that a copy lost a process to its memory limit, if it lives on; else its end says so.

        It may lose it so soon that its start is not answered yet, and which run that is not seen.
        """
        starts = track.history
        await asyncio.sleep(AGAIN_S if track.oom_lived else OUTLIVED_S)
        async with track.lock:
            pass  # whoever starts or stops it has done so
        if track.history is not starts:
            return  # of another run: what it loses is counted anew
        track.alarmed = False
        if track.seen.running and track.oom_lived < track.oom_kills:
            track.oom_lived = track.oom_kills
            logger.warning("%s lost a process to its memory limit and runs on", track.seen.unit)
            self.tell(track.seen.unit)

    def _refresh(self, unit: str, copy_id: str) -> None:
        if self._tasks is None:
            return
        track = self._tracks.get(unit)
        if track is None or track.seen.id != copy_id:
            self._tasks.create_task(self._take_up(copy_id), name=f"take up {unit}")
        elif track.refreshing:
            track.again = True
        else:
            track.refreshing = True
            self._tasks.create_task(self._look_again(track), name=f"look at {unit}")

    async def _take_up(self, copy_id: str) -> None:
        try:
            track = await self.adopt(copy_id)
        except DriverError as error:
            logger.debug("did not take up container %s: %s", copy_id[:12], error)
        else:
            self.tell(track.seen.unit)

    async def _look_again(self, track: Track) -> None:
        try:
            while True:
                track.again = False
                try:
                    await self.look(track)
                except DriverError as error:
                    track.note = str(error)
                    logger.info("could not look at %s: %s", track.seen.unit, error)
                self.tell(track.seen.unit)
                if not track.again:
                    return
        finally:
            track.refreshing = False

    def tell(self, unit: str) -> None:
        """Tell the listeners that a unit changed; "": any may have."""
        for queue, about in self._listeners.items():
            if about in ("", unit) or not unit:
                queue.put_nowait(unit)

    # --- full lists

    async def _list(self) -> None:
        async with self._listing:
            began = asyncio.get_running_loop().time()
            listed = await self._engine.list(self._owner.filter)
            await self._read_engine_start()
            ours = [entry for entry in listed if self._owner.owns(entry["Labels"])]
            copies = [entry for entry in ours if written.is_copy(entry["Labels"], entry["Names"][0])]
            units = {entry["Labels"][written.UNIT]: entry for entry in copies if not _set_aside(entry["Names"])}
            for unit, track in list(self._tracks.items()):
                if unit in units and units[unit]["Id"] != track.seen.id:
                    self.forget(track)
            async with asyncio.TaskGroup() as tasks:
                for unit, track in self._tracks.items():
                    if unit not in units:
                        tasks.create_task(self._see_unlisted(track))
                for container in self._verdicts.containers - {entry["Id"] for entry in ours}:
                    if all(container != track.seen.id for track in self._tracks.values()):
                        tasks.create_task(self._see_remembered(container))
                for entry in units.values():
                    tasks.create_task(self._see(entry))
            self._listed = began

    async def _see(self, entry: Any) -> None:
        track = self._tracks.get(entry["Labels"][written.UNIT])
        if self._live and track is not None and not track.note and track.seen.status == entry["State"]:
            return  # its events told everything
        async with self._slots:
            try:
                if track is None:
                    await self.adopt(entry["Id"])
                else:
                    await self.look(track)
            except EngineRefused as error:
                logger.debug("left out container %s: %s", entry["Id"][:12], error)
            except EngineAway as error:  # the list was answered: this one container hangs
                self._saw_in_list(track, entry, str(error))

    async def _see_remembered(self, container: str) -> None:
        """Take up a container that only its record tells of, or let go of the record."""
        async with self._slots:
            try:
                await self.adopt(container)
            except EngineRefused as error:
                if error.status == 404:
                    self._verdicts.drop(container)
            except EngineAway as error:
                logger.warning("could not look at container %s, which was here: %s", container[:12], error)

    async def _see_unlisted(self, track: Track) -> None:
        """Look at a container by its id: that a list left it out does not tell that it is gone."""
        async with self._slots:
            try:
                await self.look(track)
                if scene_of(track.seen.name):  # the answer to its renaming was lost
                    self.forget(track)
            except DriverError as error:
                track.note = str(error)
                logger.warning("could not look at %s, which the Engine did not list: %s", track.seen.unit, error)

    def _saw_in_list(self, track: Track | None, entry: Any, why: str) -> None:
        """Go by the list's few words when one container's inspect hangs, so that the others can be told."""
        if track is None:
            seen = seen_in_list(entry)
            track = self._tracks[seen.unit] = Track(seen)
        track.note = why
        logger.warning("could not look at %s: %s", track.seen.unit, why)

    async def _read_engine_start(self) -> None:
        """Learn when the Engine started: it makes its default bridge anew then. Unknown when it has none."""
        try:
            networks = self._engine.docker.networks.list(filters={"name": "bridge", "type": "builtin"})
            found = await self._engine.call("read the Engine's networks", networks, INSPECT_S)
        except EngineRefused:
            return
        started = max((parse_time(net["Created"]) for net in found if net["Name"] == "bridge"), default=0.0)
        if started != self._host.engine:
            self._host = HostTimes(self._boot, started, self._host.heard)

    # --- what follows from what was seen

    def _saw(self, track: Track, seen: Seen, looked: float) -> None:
        track.saw(seen, looked, self._loop_time(seen.started))
        if track.awaits_judgement(self._host):
            self._judge(track)
        if track.starting:
            self._guard(track)

    def _judge(self, track: Track) -> None:
        """Decide what follows from the end that was just seen, and begin with it."""
        seen = track.seen
        verdict = track.judge(self._loop_time(self._now() if seen.error else seen.finished), self._dice)
        self._note(track)
        if isinstance(verdict, RestartAfter):
            self._await_restart(track)
            level = logging.INFO
        else:
            level = logging.WARNING if verdict.phase == FAILED else logging.INFO
        logger.log(level, "%s ended: %s", seen.unit, why_ended(seen, verdict.why))

    def _loop_time(self, wall: float) -> float:
        return asyncio.get_running_loop().time() - max(0.0, self._now() - wall)

    def _await_restart(self, track: Track) -> None:
        if self._tasks is not None and not track.waiting:
            track.waiting = True
            self._tasks.create_task(self._restart(track), name=f"restart {track.seen.unit}")

    async def _restart(self, track: Track) -> None:
        """Start it again when it is due, unless something else became of it meanwhile."""
        done = False
        try:
            while not done:
                await asyncio.sleep(max(0.0, track.due - asyncio.get_running_loop().time()))
                async with track.lock:
                    done = await self._begin_again(track)
        finally:
            track.waiting = False
        if self._live and self._wants_restart(track):  # it ended anew while this task was about to end
            self._await_restart(track)

    async def _begin_again(self, track: Track) -> bool:
        """Return whether there is nothing more to wait for."""
        try:
            if await self.look(track) is None or not self._wants_restart(track):
                return True
            if not self._deadlines.may_run(track.seen.unit):
                track.due = asyncio.get_running_loop().time() + _UNCONFIRMED_S
            if track.due > asyncio.get_running_loop().time():
                return False
            await self.begin(track, afresh=False)
        except DriverError as error:
            logger.warning("could not restart %s: %s", track.seen.unit, error)
            track.due = asyncio.get_running_loop().time() + _LAST_BACKOFF_S
            return not self._live
        self.tell(track.seen.unit)
        if self._wants_restart(track):
            return False
        logger.info("restarted %s", track.seen.unit)
        return True

    def _wants_restart(self, track: Track) -> bool:
        wanted = isinstance(track.outcome, RestartAfter) and not track.stopping
        return wanted and self._tracks.get(track.seen.unit) is track

    def _guard(self, track: Track) -> None:
        limit = track.seen.kept.start_timeout_s
        if self._tasks is None or track.guarded or limit is None:
            return
        track.guarded = True
        self._tasks.create_task(self._end_if_late(track, limit), name=f"guard the start of {track.seen.unit}")

    async def _end_if_late(self, track: Track, limit: float) -> None:
        """End a copy that did not become healthy within TimeoutStartSec=; its policy says what follows."""
        run = track.seen.run
        try:
            await asyncio.sleep(max(0.0, track.seen.started + limit - self._now()))
            if not track.starting or track.stopping or track.seen.run != run:
                return
            unit = track.seen.unit
            logger.warning("ending %s: not healthy within %g s", unit, limit)
            track.overdue = True
            await self.remember(track)
            async with track.lock:
                await self.end(track)
            self.tell(unit)
        except DriverError as error:
            logger.warning("could not end %s, which did not become healthy: %s", track.seen.unit, error)
        finally:
            track.guarded = False


def _set_aside(names: Sequence[str]) -> bool:
    return any(scene_of(name) for name in names)
