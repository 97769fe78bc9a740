"""The history of the store, revision by revision from the first one: who wrote what while who led."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from unitfleet import codec, keys
from unitfleet.errors import BadRecord, Compacted, StoreError
from unitfleet.etcd.store import EtcdStore
from unitfleet.model import (
    Happening,
    Leader,
    MachineStatus,
    Placement,
    Presence,
    RosterEntry,
    Unit,
    UnitState,
    Wanted,
)
from unitfleet.store import Batch, Event, EventKind

BRAKE_WINDOW_S = 60.0
BRAKE_SHARE = 1 / 3
BRAKE_EARLY_S = 8.0
"""How much sooner than the window a second loss may be told: leaders count from when they saw it."""

LATE_S = 2.0
"""Seconds between two renewals of a machine's fence, whose pace is 1.25 s: etcd answered late, or not at all."""

WRITES_WINDOW_S = 10.0
WRITES_PER_S = 120.0
"""What a cluster of eight daemons and thirty units may write, over ten seconds, while a fault heals."""


class StoreHistory:
    """Follows the store. `violations` collects what no order of events allows: (time, what).

    I6: what a leader writes, it writes while it leads; epochs rise; a `gone` order is never taken back.
    I7: machines are declared lost no faster than the brake lets them. I8: writes a second.
    """

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._endpoints = tuple(endpoints)
        self._task: asyncio.Task[None] | None = None
        self._leader: Leader | None = None
        self._epoch = 0
        self._placements: dict[tuple[str, str], Placement] = {}
        self._roster: dict[str, RosterEntry] = {}
        self._losses: dict[str, float] = {}  # machine → when it was last declared lost
        self._standing: dict[str, float] = {}  # those of them that have not come back: what the brake counts
        self._writes: deque[tuple[float, int]] = deque()
        self._forgiven = 0.0
        self._fenced: dict[str, float] = {}  # machine → when it last renewed its fence
        self._late: dict[str, float] = {}  # machine → when it last did so late
        self.units: dict[str, Unit] = {}
        self.states: dict[tuple[str, str], UnitState] = {}
        self.names: dict[str, str] = {}  # machine id → name
        self.moves: list[tuple[float, str]] = []
        self.violations: list[tuple[float, str]] = []
        self.revision = 0
        self.written = 0
        self.busiest = 0.0  # writes a second, over the window, in this round
        self.missed = ""  # why a part of the history was not seen

    def start(self, revision: int = 1) -> None:
        """Follow from this revision on."""
        self._task = asyncio.create_task(self._follow(revision), name="history")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def begin_anew(self) -> None:
        """The store was restored: its past is another one now."""
        await self.stop()
        self._placements.clear()
        self._roster.clear()
        self.units.clear()
        self.states.clear()
        self._epoch = 0
        store = EtcdStore(self._endpoints)
        try:
            listed = await store.list(keys.PREFIX)
        finally:
            await store.close()
        held = Batch(listed.revision, tuple(Event(EventKind.PUT, item) for item in listed.items))
        for event in held.events:
            self._remember(event)
        self.revision = listed.revision
        self.start(listed.revision + 1)

    def placed(self) -> set[tuple[str, str]]:
        """Return the orders that stand: (machine id, unit)."""
        return set(self._placements)

    def orders(self, unit: str) -> list[Placement]:
        """Return the orders about one unit that stand."""
        return [placement for (_, name), placement in self._placements.items() if name == unit]

    def begin_round(self) -> None:
        """Count the busiest time anew."""
        self.busiest = 0.0

    def lost_since(self, at: float) -> set[str]:
        """Return the machines that were declared lost since then, by id."""
        return {machine for machine, when in self._losses.items() if when >= at}

    def late_since(self, at: float) -> set[str]:
        """Return the machines, by id, that renewed their fence late since then: strict copies may have ended."""
        return {machine for machine, when in self._late.items() if when >= at}

    def forgive_losses(self) -> None:
        """The operator declared a machine lost: that is not the brake's."""
        self._forgiven = time.time()

    def since(self, at: float) -> list[str]:
        """Return what was violated since then."""
        return [what for when, what in self.violations if when >= at]

    async def _follow(self, revision: int) -> None:
        store = EtcdStore(self._endpoints)
        try:
            async for batch in store.watch(keys.PREFIX, start_revision=revision):
                self.take(batch)
        except (Compacted, BadRecord) as error:
            self.missed = str(error)
        finally:
            await store.close()

    async def behind(self) -> str:
        """Say what the watch has not told although the store holds it, or ""."""
        if self._task is not None and self._task.done():
            return f"the watch of the store has ended: {self._task}"
        store = EtcdStore(self._endpoints)
        try:
            listed = await store.list(keys.PREFIX)
        except StoreError as error:
            return f"and the store does not answer: {error}"
        finally:
            await store.close()
        newest = max((item.mod_revision for item in listed.items), default=0)
        if self.revision >= newest:
            return ""
        return f"the watch of the store is at {self.revision}, and {newest} is in it"

    def take(self, batch: Batch) -> None:
        """Look at what is written in one batch of the watch."""
        self.revision = batch.revision
        self._count(len(batch.events))
        self._check_writer(batch)
        for event in batch.events:
            try:
                self._check(event)
                self._remember(event)
            except BadRecord as error:
                self._violated(f"I6: {event.kv.key} can't be read: {error}")

    def _violated(self, what: str) -> None:
        self.violations.append((time.time(), what))

    def _count(self, events: int) -> None:
        now = time.time()
        self.written += events
        self._writes.append((now, events))
        while self._writes and self._writes[0][0] < now - WRITES_WINDOW_S:
            self._writes.popleft()
        rate = sum(count for _, count in self._writes) / WRITES_WINDOW_S
        self.busiest = max(self.busiest, rate)
        if rate > WRITES_PER_S:
            self._violated(f"I8: {rate:.0f} writes a second over {WRITES_WINDOW_S:g} s")
            self._writes.clear()

    def _check_writer(self, batch: Batch) -> None:
        leader = self._leader
        for event in batch.events:
            if event.kv.key == keys.LEADER and event.kind is EventKind.PUT:
                leader = codec.decode(event.kv.value, Leader, keys.LEADER)
        for event in batch.events:
            if event.kind is EventKind.PUT and keys.split(event.kv.key)[0] == "events":
                writer = codec.decode(event.kv.value, Happening).writer
                if writer.startswith("master-") and (leader is None or writer != f"master-{leader.nonce[:8]}"):
                    self._violated(f"I6: {writer} wrote {event.kv.key} at {event.kv.mod_revision} without leading")

    def _check(self, event: Event) -> None:
        kind, *names = keys.split(event.kv.key)
        if event.kind is not EventKind.PUT:
            return
        if kind == "placements":
            self._check_order(codec.decode(event.kv.value, Placement, event.kv.key), (names[0], names[1]))
        elif kind == "fence":
            now = time.time()
            if now - self._fenced.get(names[0], now) > LATE_S:
                self._late[names[0]] = now
            self._fenced[names[0]] = now
        elif kind == "roster":
            self._check_loss(codec.decode(event.kv.value, RosterEntry, event.kv.key))

    def _check_order(self, placement: Placement, place: tuple[str, str]) -> None:
        former = self._placements.get(place)
        machine, unit = place
        if former is not None and former.epoch == placement.epoch:
            if msgspec.structs.replace(placement, bandwidth=former.bandwidth) != former:
                self._violated(f"I6: {unit} was ordered otherwise at the same epoch {placement.epoch}")
        elif placement.epoch <= self._epoch:
            self._violated(f"I6: epoch {placement.epoch} of {unit} on {machine} is not above {self._epoch}")
        self._epoch = max(self._epoch, placement.epoch)
        if former is not None and former.wanted is Wanted.GONE and placement.wanted is not Wanted.GONE:
            self._violated(f"I6: the gone order of {unit} on {machine} was taken back")
        if former is None:
            self.moves.append((time.time(), unit))

    def _check_loss(self, entry: RosterEntry) -> None:
        former = self._roster.get(entry.id)
        if entry.status is not MachineStatus.LOST:
            self._standing.pop(entry.id, None)
            return
        if former and former.status is MachineStatus.LOST:
            return
        now = time.time()
        known = max(1, len(self._roster))
        self._losses[entry.id] = self._standing[entry.id] = now
        recent = sum(at > now - BRAKE_WINDOW_S + BRAKE_EARLY_S for at in self._standing.values())
        if recent > 1 and recent > BRAKE_SHARE * known and now - self._forgiven > BRAKE_WINDOW_S:
            self._violated(f"I7: {recent} of {known} machines were declared lost within {BRAKE_WINDOW_S:g} s")

    def _remember(self, event: Event) -> None:
        kind, *names = keys.split(event.kv.key)
        put = event.kind is EventKind.PUT
        raw, key = event.kv.value, event.kv.key
        if kind == "leader":
            self._leader = codec.decode(raw, Leader, key) if put else None
        elif kind == "machines" and put:
            self.names[names[0]] = codec.decode(raw, Presence, key).name
        elif kind == "placements":
            place = (names[0], names[1])
            if put:
                self._placements[place] = codec.decode(raw, Placement, key)
                self._epoch = max(self._epoch, self._placements[place].epoch)
            else:
                self._placements.pop(place, None)
        elif kind == "states":
            if put:
                self.states[names[0], names[1]] = codec.decode(raw, UnitState, key)
            else:
                self.states.pop((names[0], names[1]), None)
        elif kind == "units":
            if put:
                self.units[names[0]] = codec.decode(raw, Unit, key)
            else:
                self.units.pop(names[0], None)
        elif kind == "roster":
            if put:
                self._roster[names[0]] = codec.decode(raw, RosterEntry, key)
            else:
                self._roster.pop(names[0], None)
