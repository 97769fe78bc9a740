"""Carry out wishes of users: decide on the unit as it stands, write by compare-and-set, say what became of each.

The cache may be a moment behind, so nothing is decided on it alone: every outcome, a refusal and a "stands so
already" too, holds only if a transaction finds the unit's record unchanged. Wishes of one call share
transactions; where a compare fails, each unit of that transaction is read anew and dealt with for itself.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from unit_master.answers import error_body
from unit_master.cache import Cache
from unit_master.lagging import read_on
from unit_master.wishes import Conflict, Moment, Standing, Write, decide, digest_of, standing
from unitfleet import codec, keys
from unitfleet.api import Change, Changed, Result
from unitfleet.errors import (
    BadRecord,
    InvalidName,
    InvalidUnit,
    OutcomeUnknown,
    StoreError,
    StoreUnavailable,
    UnitfleetError,
)
from unitfleet.model import Happening, TargetState, Unit
from unitfleet.store import KeyValue, Op, Put, Store, unchanged

logger = logging.getLogger(__name__)

MOST_UNITS = 40
MOST_BYTES = 512 * 1024
"""Of texts in one transaction: etcd refuses requests over 1.5 MiB."""

MOST_AT_ONCE = 4
TRIES = 5
LOOK_S = 5.0
"""How long a write whose answer was lost is asked for again."""

ANSWER_S = 2.0
"""How long one transaction may take before it is asked again: an election of etcd takes up to three seconds."""

KNOCK_S = 1.0
"""How long a store that has been silent may take to show that it is back."""

_TURN = 20
"""Wishes that are read before others get a turn on the loop."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """What was decided about one wish, if the unit's record is still of `revision`."""

    index: int
    name: str
    revision: int
    write: Write | None
    result: Result

    @property
    def size(self) -> int:
        return len(self.write.text) if self.write and self.write.text else 0


class Changer:
    """Carries out wishes. Several masters may: each write compares what it was decided on."""

    def __init__(self, store: Store, cache: Cache, *, now: Callable[[], float], rng: random.Random) -> None:
        self._store = store
        self._cache = cache
        self._now = now
        self._rng = rng
        self._at_once = asyncio.Semaphore(MOST_AT_ONCE)
        self._writer = ""  # of events, once there is one
        self._told = itertools.count(1)

    async def carry_out(self, changes: Sequence[Change]) -> Changed:
        """Return what became of each wish, in their order.

        Raises a `StoreError` when the store failed and not one wish was carried out.
        """
        call = _Call(self._store, self._cache, self._at_once, self._draft, self._event, changes)
        await self._cache.wait_for(0, LOOK_S)
        await self._ask_if_silent()
        for turn in _turns(changes):
            await call.carry_out(turn)
        if call.failure is not None and not call.wrote:
            raise call.failure
        results = tuple(call.results[index] for index in range(len(changes)))
        return Changed(rev=call.revision or self._cache.view.revision, items=results)

    async def _ask_if_silent(self) -> None:
        """Raise `StoreUnavailable` for a store that was silent and still is: surely nothing was written then."""
        if not (silent := self._cache.stale_s()):
            return
        try:
            async with asyncio.timeout(KNOCK_S):
                await self._store.status()
        except (StoreError, TimeoutError):
            raise StoreUnavailable(f"cannot write: the store has been silent for {silent:.0f} s") from None

    def _draft(self, index: int, change: Change, held: Standing | None) -> _Draft | Result:
        """Decide about a wish on `held`, or on what the cache has; a `Result` holds whatever stands."""
        view = self._cache.view
        held = held or standing(view, change.name)
        moment = Moment(self._now(), f"{self._rng.getrandbits(64):016x}")
        try:
            decided = decide(view, held, change, moment)
        except (InvalidName, InvalidUnit) as error:
            return Result(name=change.name, error=error_body(error))
        except UnitfleetError as error:
            decided = Result(name=change.name, error=error_body(error))
        if isinstance(decided, Write):
            return _Draft(index, change.name, held.revision, decided, decided.result)
        return _Draft(index, change.name, held.revision, None, decided)

    def _event(self, unit: str, message: str) -> Put:
        """Return the event that tells of what was ignored; it is written with the unit, or not at all."""
        now = self._now()
        self._writer = self._writer or f"api-{self._rng.getrandbits(48):012x}"
        told = Happening(at=now, kind="ignored", writer=self._writer, unit=unit, message=message)
        return Put(keys.event(int(now // 3600), self._writer, next(self._told)), codec.encode(told))


class _Call:
    """One call's wishes and what became of them."""

    def __init__(
        self,
        store: Store,
        cache: Cache,
        at_once: asyncio.Semaphore,
        draft: Callable[[int, Change, Standing | None], _Draft | Result],
        event: Callable[[str, str], Put],
        changes: Sequence[Change],
    ) -> None:
        self._event = event
        self._store = store
        self._cache = cache
        self._at_once = at_once
        self._draft = draft
        self._changes = changes
        self.results: dict[int, Result] = {}
        self.revision = 0  # of the last write
        self.wrote = False
        self.failure: StoreError | None = None

    async def carry_out(self, turn: Sequence[int]) -> None:
        """Carry out the wishes of these indices, no two about one unit."""
        drafts = []
        for count, index in enumerate(turn):
            drafted = self._draft(index, self._changes[index], None)
            if isinstance(drafted, Result):
                self.results[index] = drafted
            else:
                drafts.append(drafted)
            if count % _TURN == _TURN - 1:
                await asyncio.sleep(0)
        async with asyncio.TaskGroup() as tasks:
            for batch in _batches(drafts):
                tasks.create_task(self._together(batch))

    async def _together(self, batch: Sequence[_Draft]) -> None:
        async with self._at_once:
            try:
                done = await self._commit(batch)
                for draft in batch:
                    if done:
                        self._note(draft)
                    else:
                        await self._alone(draft.index, draft.revision if len(batch) == 1 else None)
            except StoreError as error:
                self._fail(batch, error)

    async def _alone(self, index: int, refuted: int | None) -> None:
        """Carry out one wish on what stands in the store at this moment: not what stood at revision `refuted`."""
        change = self._changes[index]
        for _ in range(TRIES):
            (kv,) = await read_on(self._store, [keys.unit(change.name)], [refuted])
            drafted = self._draft(index, change, _standing(change.name, kv))
            if isinstance(drafted, Result):
                self.results[index] = drafted
                return
            if drafted.write is None or await self._commit([drafted]):
                self._note(drafted)
                return
            refuted = drafted.revision
        busy = Conflict(f"cannot change {change.name}: others change it all the time", hint="try again")
        self.results[index] = Result(name=change.name, error=error_body(busy))

    async def _commit(self, batch: Sequence[_Draft]) -> bool:
        """Write a batch if all of its records are as they were; say whether they were."""
        if self.failure is not None:
            raise self.failure  # the store is away: the rest of the call need not wait for that again
        ops = _operations(batch)
        ops += [
            self._event(draft.name, draft.write.notice) for draft in batch if draft.write and draft.write.notice
        ]
        revision = await self._write(batch, ops)
        if revision and ops:
            self.wrote = True
            self.revision = max(self.revision, revision)
        return revision > 0

    async def _write(self, batch: Sequence[_Draft], ops: Sequence[Op]) -> int:
        """Return the revision of a guarded write, 0 if a record was not as it was.

        Asked again while its answer is lost (a member drops writes while it has no leader): the compares let it
        happen once. Raises `OutcomeUnknown` when no answer came in time.
        """
        compares = [unchanged(keys.unit(draft.name), draft.revision) for draft in batch]
        loop = asyncio.get_running_loop()
        until = loop.time() + LOOK_S
        in_doubt = False
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    result = await self._store.txn(compares, ops)
            except (OutcomeUnknown, TimeoutError):
                in_doubt = True
                if loop.time() >= until:
                    raise OutcomeUnknown(
                        f"cannot know whether {_some(batch)} changed: the store's answer was lost"
                    ) from None
            else:
                if result.succeeded:
                    return result.revision
                return await self._wrote_before(batch) if in_doubt else 0

    async def _wrote_before(self, batch: Sequence[_Draft]) -> int:
        """Return the revision at which a write whose answer was lost stands, 0 if another was quicker."""
        names = [keys.unit(draft.name) for draft in batch]
        records = await read_on(self._store, names, [draft.revision for draft in batch])
        for draft, kv in zip(batch, records, strict=True):
            # one of a transaction's writes tells: all of them happened, or none
            if draft.write is None or (kv is None and draft.write.unit.target is TargetState.DESTROYED):
                continue  # destroyed, and gone already
            return kv.mod_revision if kv and kv.value == codec.encode(draft.write.unit) else 0
        return (await self._store.list(names[0])).revision if any(draft.write for draft in batch) else 0

    def _note(self, draft: _Draft) -> None:
        self.results[draft.index] = draft.result
        if draft.write is not None:
            unit = draft.write.unit
            logger.info("%s %s: %s, generation %d", _verb(draft.result), unit.name, unit.target, unit.generation)

    def _fail(self, batch: Sequence[_Draft], error: StoreError) -> None:
        self.failure = error
        for draft in batch:
            self.results.setdefault(draft.index, Result(name=draft.name, error=error_body(error)))


def _standing(name: str, kv: KeyValue | None) -> Standing:
    if kv is None:
        return Standing(None, 0)
    try:
        unit = codec.decode(kv.value, Unit, kv.key)
        if unit.name != name:
            raise BadRecord(f"cannot read {kv.key}: its content is that of {unit.name}")
        return Standing(unit, kv.mod_revision)
    except BadRecord as error:
        return Standing(None, kv.mod_revision, error.message)


def _turns(changes: Sequence[Change]) -> Iterator[list[int]]:
    """Split wishes so that those about one unit come one after the other."""
    left = list(range(len(changes)))
    while left:
        seen: set[str] = set()
        turn = []
        for index in left:
            if changes[index].name not in seen:
                seen.add(changes[index].name)
                turn.append(index)
        yield turn
        done = set(turn)
        left = [index for index in left if index not in done]


def _batches(drafts: Sequence[_Draft]) -> Iterator[list[_Draft]]:
    batch: list[_Draft] = []
    size = 0
    for draft in drafts:
        if batch and (len(batch) == MOST_UNITS or size + draft.size > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(draft)
        size += draft.size
    if batch:
        yield batch


def _operations(batch: Sequence[_Draft]) -> list[Op]:
    """Return a batch's writes. A text is written though it stands there: the leader may be about to clear it."""
    writes = [draft.write for draft in batch if draft.write is not None]
    texts = {digest_of(write.text): write.text for write in writes if write.text is not None}
    ops: list[Op] = [Put(keys.spec(digest), text.encode()) for digest, text in texts.items()]
    ops += [Put(keys.unit(write.unit.name), codec.encode(write.unit)) for write in writes]
    return ops


def _verb(result: Result) -> str:
    return "created" if result.created else "changed"


def _some(batch: Sequence[_Draft]) -> str:
    return batch[0].name if len(batch) == 1 else f"{batch[0].name} and {len(batch) - 1} other units"
