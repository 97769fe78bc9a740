"""Keys with every version they had, as etcd keeps them: what the memory store reads and writes.

No clock, no leases, no waiting: a `History` is a value that changes only by `apply` and `compact`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence

from unitfleet.errors import Compacted, StoreError
from unitfleet.store import (
    MAX_OPERATIONS,
    Batch,
    Compare,
    Delete,
    Event,
    EventKind,
    KeyValue,
    Listing,
    Op,
    Put,
    Target,
)


def check_operations(compares: Sequence[Compare], operations: Sequence[Op]) -> None:
    """Raise `StoreError` for a transaction that etcd refuses: too many operations, or one key written twice."""
    if len(compares) > MAX_OPERATIONS or len(operations) > MAX_OPERATIONS:
        raise StoreError(f"cannot write: more than {MAX_OPERATIONS} operations or compares in a transaction")
    written: set[str] = set()
    for op in operations:
        if isinstance(op, Put):
            if op.key in written:
                raise StoreError(f"cannot write {op.key}: it is written twice in one transaction")
            written.add(op.key)
    for op in operations:
        if isinstance(op, Delete):
            for key in written:
                if key.startswith(op.key) if op.prefix else key == op.key:
                    raise StoreError(f"cannot write {key}: it is also deleted in the transaction")


class History:
    """Every version of every key since the last compaction.

    `revision` is that of the last change (1: nothing was ever written). A key's versions ascend by
    `mod_revision`, and `_log` ascends by revision without doubles.
    """

    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = 0
        self._live: dict[str, KeyValue] = {}
        self._versions: dict[str, list[Event]] = {}
        self._keys: list[str] = []
        self._log: list[Batch] = []

    @property
    def newest(self) -> Batch:
        """What the last change was; there must have been one since the compaction."""
        return self._log[-1]

    def get(self, key: str) -> KeyValue | None:
        """Return the key as it is now."""
        return self._live.get(key)

    def list(self, prefix: str, revision: int = 0) -> Listing:
        """Return the keys under `prefix` as of `revision` (0: now); raises `Compacted`."""
        if revision > self.revision:
            raise StoreError(f"cannot read revision {revision}: the store is at {self.revision}")
        if 0 < revision < self.compact_revision:
            raise Compacted(self.compact_revision)
        if revision in (0, self.revision):
            now = tuple(self._live[key] for key in self._under(prefix) if key in self._live)
            return Listing(self.revision, now)
        then = (self._at(key, revision) for key in self._under(prefix))
        return Listing(revision, tuple(kv for kv in then if kv is not None))

    def holds(self, compare: Compare) -> bool:
        """Whether a comparison is true now; an absent key equals no value, not even the empty one."""
        kv = self._live.get(compare.key)
        match compare.target:
            case Target.CREATE_REVISION:
                return (kv.create_revision if kv else 0) == compare.expected
            case Target.MOD_REVISION:
                return (kv.mod_revision if kv else 0) == compare.expected
            case Target.VALUE:
                return kv is not None and kv.value == compare.expected

    def apply(self, operations: Sequence[Op]) -> Batch:
        """Do the operations at the next revision; without an effect the revision stays and nothing is returned."""
        revision = self.revision + 1
        events: list[Event] = []
        for op in operations:
            match op:
                case Put(key, value, lease):
                    before = self._live.get(key)
                    created = before.create_revision if before else revision
                    version = before.version + 1 if before else 1
                    self._live[key] = kv = KeyValue(key, value, created, revision, version, lease)
                    events.append(Event(EventKind.PUT, kv))
                case Delete(key, prefix):
                    doomed = [k for k in self._under(key) if k in self._live] if prefix else [key]
                    for name in doomed:
                        if self._live.pop(name, None) is not None:
                            gone = KeyValue(name, b"", 0, revision, 0)
                            events.append(Event(EventKind.DELETE, gone))
        if not events:
            return Batch(self.revision, ())
        self.revision = revision
        for event in events:
            if event.kv.key not in self._versions:
                insort(self._keys, event.kv.key)
                self._versions[event.kv.key] = []
            self._versions[event.kv.key].append(event)
        batch = Batch(revision, tuple(events))
        self._log.append(batch)
        return batch

    def since(self, start_revision: int, prefix: str) -> Iterator[Batch]:
        """Iterate over what changed under `prefix` from `start_revision` on; raises `Compacted` at once."""
        if start_revision < self.compact_revision:
            raise Compacted(self.compact_revision)
        first = bisect_left(self._log, start_revision, key=lambda batch: batch.revision)
        return (part for batch in self._log[first:] if (part := narrowed(batch, prefix)).events)

    def compact(self, revision: int) -> None:
        """Forget every version that was overwritten or deleted at or before `revision`."""
        if revision > self.revision:
            raise StoreError(f"cannot compact at revision {revision}: the store is at {self.revision}")
        if revision <= self.compact_revision:
            return
        self.compact_revision = revision
        self._log = self._log[bisect_left(self._log, revision, key=lambda batch: batch.revision) :]
        for versions in self._versions.values():
            newest = bisect_right(versions, revision, key=lambda event: event.kv.mod_revision) - 1
            if newest >= 0:
                keep = newest if versions[newest].kind is EventKind.PUT else newest + 1
                del versions[:keep]
        self._versions = {key: versions for key, versions in self._versions.items() if versions}
        self._keys = sorted(self._versions)

    def _under(self, prefix: str) -> Iterator[str]:
        """Iterate over the known keys under `prefix`, ascending."""
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            if not self._keys[index].startswith(prefix):
                return
            yield self._keys[index]

    def _at(self, key: str, revision: int) -> KeyValue | None:
        versions = self._versions[key]
        newest = bisect_right(versions, revision, key=lambda event: event.kv.mod_revision) - 1
        if newest < 0 or versions[newest].kind is EventKind.DELETE:
            return None
        return versions[newest].kv


def narrowed(batch: Batch, prefix: str) -> Batch:
    """Leave only the events of keys under `prefix`."""
    return Batch(batch.revision, tuple(event for event in batch.events if event.kv.key.startswith(prefix)))
