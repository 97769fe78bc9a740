"""Tells the store what the agent sees: unit states on transition, and what happened.

One writer per key, so states are plain puts, repeated until the store takes them. What the leader acts on
(running, failed, finished, gone) goes at once, the rest at most once a second a unit. Every write wakes every
master, so what can wait a moment does, and goes along with what can't.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from unit_agent.backoff import Backoff, pause
from unitfleet import codec, keys
from unitfleet.errors import StoreError
from unitfleet.model import CopyPhase, Happening, UnitState
from unitfleet.store import Delete, Op, Put, Store

logger = logging.getLogger(__name__)

MAX_STATE = 4096  # bytes of a state in the store
MAX_BATCH = 100  # operations a transaction; etcd's limit is 128
MAX_EVENTS = 1000  # kept while the store is away
PROGRESS_STEP = 10  # percent
LINGER_S = 0.2  # what nobody acts on waits so long for other writes to go along with
SOON_S = 0.001  # what is due so soon is due: a wait that is lost in rounding never ends

_AT_ONCE = (CopyPhase.RUNNING, CopyPhase.FAILED, CopyPhase.FINISHED, CopyPhase.GONE)


@dataclass(slots=True)
class _Told:
    """One unit's state: what should stand in the store (None: nothing), what does, when it was written.

    Until it is `decided` what should stand, what stands is left alone.
    """

    decided: bool = False
    wanted: bytes | None = None
    phase: CopyPhase | None = None
    stands: bytes | None = None
    stood_phase: CopyPhase | None = None
    written_at: float = float("-inf")
    at_once: float = float("-inf")  # when a state last went out of turn
    changed_at: float = float("-inf")  # when what should stand last became other than what does


class Reports:
    """Writes `states/<machine>/…` and `events/…`. `writer` names this agent process in the events' keys."""

    def __init__(
        self,
        store: Store,
        machine: str,
        writer: str,
        now: Callable[[], float],
        report_s: float,
        state_backoff: Backoff,
        event_backoff: Backoff,
    ) -> None:
        self._store = store
        self._machine = machine
        self._writer = writer
        self._now = now
        self._report_s = report_s
        self._state_backoff = state_backoff
        self._event_backoff = event_backoff
        self._told: dict[str, _Told] = {}
        self._changed = asyncio.Event()
        self._list_wanted = True
        self._events: deque[tuple[str, Happening]] = deque(maxlen=MAX_EVENTS)
        self._event_came = asyncio.Event()
        self._telling = asyncio.Lock()  # held by whoever writes events
        self._count = 0

    def put(self, unit: str, state: UnitState | None) -> None:
        """Let this be the unit's state; None: no key should speak of it."""
        told = self._told.setdefault(unit, _Told())
        wanted = None if state is None else fitted(coarse(state))
        if not told.decided or told.wanted != wanted:
            if not told.decided or told.wanted == told.stands:
                told.changed_at = asyncio.get_running_loop().time()
            told.decided = True
            told.wanted = wanted
            told.phase = state.phase if state else None
            self._changed.set()

    def units(self) -> set[str]:
        """Return the units that a state is kept or known of."""
        return set(self._told)

    def happened(self, kind: str, unit: str, epoch: int, message: str) -> None:
        """Note what happened to a unit; the oldest notes go when the store is away for long."""
        happening = Happening(
            at=self._now(),
            kind=kind,
            writer=self._writer,
            unit=unit,
            machine=self._machine,
            epoch=epoch,
            message=message[:500],
        )
        self._count += 1
        # the key is made here: written again after a lost answer, it is the same event
        self._events.append((keys.machine_event(self._machine, self._writer, self._count), happening))
        self._event_came.set()

    def reread(self) -> None:
        """Read our own states anew before the next write: a late write of old may have landed."""
        self._list_wanted = True
        self._changed.set()

    def hurry(self) -> None:
        """Cut back-offs short: the store answers again."""
        self._changed.set()
        self._event_came.set()

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write_states(), name="states")
            tasks.create_task(self._write_events(), name="events")

    async def _write_states(self) -> None:
        while True:
            self._changed.clear()
            try:
                if self._list_wanted:
                    await self._read_own()
                wait = await self._write_due()
                self._state_backoff.reset()
            except StoreError as error:
                wait = self._state_backoff.next()
                logger.debug("could not write states: %s; tries again in %.1f s", error, wait)
            if wait is None:
                await self._changed.wait()
            else:
                await pause(self._changed, wait)

    async def _read_own(self) -> None:
        listing = await self._store.list(keys.states_of(self._machine))
        self._list_wanted = False
        standing = {keys.split(item.key)[-1]: item.value for item in listing.items}
        for unit in standing:
            self._told.setdefault(unit, _Told())
        for unit, told in self._told.items():
            told.stands = standing.get(unit)

    async def _write_due(self) -> float | None:
        """Write what is due; return how long until more is, None for no more."""
        while True:
            now = asyncio.get_running_loop().time()
            due, later = self._sort_out(now)
            if not due:
                return max(0.0, later - now) if later is not None else None
            batch = due[:MAX_BATCH]
            sent = {unit: (self._told[unit].wanted, self._told[unit].phase) for unit in batch}
            operations = [self._operation(unit, value) for unit, (value, _) in sent.items()]
            await self._write_with_events(operations)
            for unit, (value, phase) in sent.items():
                self._wrote(unit, value, phase, now)

    def _sort_out(self, now: float) -> tuple[list[str], float | None]:
        """Return the units to write now, and when the next one is due; what may go along with others does."""
        due: list[str] = []
        along: list[str] = []
        later: float | None = None
        for unit, told in self._told.items():
            if not told.decided or told.wanted == told.stands:
                continue
            may = at = told.written_at + self._report_s
            if told.wanted is None or (told.phase in _AT_ONCE and told.phase is not told.stood_phase):
                at = min(at, told.at_once + self._report_s)
            else:
                at = max(at, told.changed_at + LINGER_S)
            if at <= now + SOON_S:
                due.append(unit)
                continue
            if may <= now:
                along.append(unit)
            later = at if later is None else min(later, at)
        return (due + along, later) if due else (due, later)

    def _operation(self, unit: str, value: bytes | None) -> Op:
        key = keys.state(self._machine, unit)
        return Delete(key) if value is None else Put(key, value)

    def _wrote(self, unit: str, value: bytes | None, phase: CopyPhase | None, now: float) -> None:
        told = self._told[unit]
        if now + SOON_S < told.written_at + self._report_s:
            told.at_once = now
        told.stands = value
        told.stood_phase = phase
        told.written_at = now
        if phase is CopyPhase.GONE:  # a stay has ended: the next one has a pace of its own
            told.written_at = told.at_once = float("-inf")
        if value is None and told.wanted is None:
            del self._told[unit]

    async def _write_events(self) -> None:
        """Write the events that no state took along."""
        while True:
            await self._event_came.wait()
            await asyncio.sleep(LINGER_S)
            self._event_came.clear()
            try:
                while self._events:
                    await self._write_with_events([])
                self._event_backoff.reset()
            except StoreError as error:
                logger.debug("could not write events: %s", error)
                await pause(self._event_came, self._event_backoff.next())
                self._event_came.set()

    async def _write_with_events(self, operations: Sequence[Op]) -> None:
        """Write these and the oldest events in one transaction."""
        async with self._telling:
            events = list(itertools.islice(self._events, MAX_BATCH - len(operations)))
            puts = [Put(key, codec.encode(happening)) for key, happening in events]
            if not operations and not puts:
                return  # a state took them along meanwhile
            await self._store.txn((), [*operations, *puts])
            for one in events:
                if self._events and self._events[0] is one:
                    self._events.popleft()


def coarse(state: UnitState) -> UnitState:
    """Return the state with its progress in steps of 10 %: less is not worth a write."""
    if state.progress < 0:
        return state
    return msgspec.structs.replace(state, progress=state.progress // PROGRESS_STEP * PROGRESS_STEP)


def fitted(state: UnitState) -> bytes:
    """Write a state in at most 4 KiB, by cutting its message, then its ports."""
    raw = codec.encode(state)
    while len(raw) > MAX_STATE and (state.message or state.ports):
        if state.message:
            kept = max(0, len(state.message) - (len(raw) - MAX_STATE) - 1)
            message = state.message[:kept] + "…" if kept else ""
            if len(message) >= len(state.message):
                message = ""
            state = msgspec.structs.replace(state, message=message)
        else:
            state = msgspec.structs.replace(state, ports=state.ports[: len(state.ports) // 2])
        raw = codec.encode(state)
    return raw
