"""The store as the rest of Unitfleet sees it: revisions, guarded transactions, leases, watches (etcd v3's model).

Two implementations pass one contract suite (tests/contract/test_store.py): `unitfleet.etcd.EtcdStore`
and `unitfleet.memory.MemoryStore`. The words are etcd's: every change gets the next *revision*; a key knows
the revision that created it (`create_revision`, 0 = absent) and last changed it (`mod_revision`).

What there are thousands of a second is made in C (`msgspec.Struct`), and holds nothing that could form a cycle.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """One key as it was at some revision. `lease` is 0 when the key is bound to none."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class Listing(msgspec.Struct, frozen=True, gc=False):
    """Keys in ascending order, all as of one `revision`."""

    revision: int
    items: tuple[KeyValue, ...]


class EventKind(enum.Enum):
    """What happened to a key."""

    PUT = "put"
    DELETE = "delete"


class Event(msgspec.Struct, frozen=True, gc=False):
    """A change of one key. For a DELETE, `kv.value` is empty and `kv.mod_revision` is the deletion's revision."""

    kind: EventKind
    kv: KeyValue


class Batch(msgspec.Struct, frozen=True, gc=False):
    """What a watch yields: every change of the watched keys up to `revision`, in order, none left out.

    A batch without events is progress: nothing else happened to the watched keys up to `revision`.
    A revision's events are never torn apart over two batches.
    """

    revision: int
    events: tuple[Event, ...]


class Target(enum.Enum):
    """What a comparison looks at."""

    CREATE_REVISION = "create_revision"
    MOD_REVISION = "mod_revision"
    VALUE = "value"


class Compare(msgspec.Struct, frozen=True, gc=False):
    """`key`'s `target` equals `expected` (create and mod revision of an absent key are 0)."""

    key: str
    target: Target
    expected: int | bytes


class Put(msgspec.Struct, frozen=True, gc=False):
    """Write `value` under `key`, bound to `lease` (0: none)."""

    key: str
    value: bytes
    lease: int = 0


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Delete `key`, or with `prefix` every key that begins with it."""

    key: str
    prefix: bool = False


Op = Put | Delete

MAX_OPERATIONS = 128
"""etcd's limit of compares, and of operations, in one transaction (`--max-txn-ops`)."""


@dataclass(frozen=True, slots=True)
class TxnResult:
    """Whether the compares held, and the store's revision after the transaction (its own, if it wrote)."""

    succeeded: bool
    revision: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A granted lease; `ttl_s` is what the store granted (etcd 3.4 raises anything below 2 s to 2 s)."""

    id: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What `status` tells: the server's version, the size of its database, whether it has a leader."""

    version: str
    db_size: int
    has_leader: bool
    cluster_id: str


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What one member of the store says of itself; `trouble` is why it said nothing, "" when it did.

    `complaints` are the server's own words (no leader, an alarm for space). `quota` is what its database may
    grow to, 0 where it does not tell (etcd before 3.6).
    """

    address: str
    trouble: str = ""
    version: str = ""
    db_size: int = 0
    quota: int = 0
    has_leader: bool = False
    complaints: tuple[str, ...] = ()


class Store(Protocol):
    """Linearizable reads and guarded writes over keys that are ASCII strings.

    Every call has a deadline of its own and tries every endpoint. A call that writes raises
    `StoreUnavailable` when surely nothing was written and `OutcomeUnknown` when it may have been;
    reads raise `StoreUnavailable`. `StoreFull` says that the store takes no writes, `StoreDenied` that it refuses
    this identity what it asked for; a watch raises that too.
    """

    async def get(self, key: str) -> KeyValue | None:
        """Return the key as it is now, or None."""
        ...

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        """Return every key under `prefix` as of one revision (0: now), paged inside. Raises `Compacted`."""
        ...

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        """Do `then` if every compare holds, else `otherwise`, atomically.

        A transaction whose answer was lost is sent again only if its compares make a second execution
        harmless: `OutcomeUnknown` is raised and the caller reads again.
        """
        ...

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        """Write a key and return the revision. For keys with one writer only."""
        ...

    async def delete(self, key: str) -> int:
        """Delete a key, present or not, and return the revision."""
        ...

    def watch(self, prefix: str, *, start_revision: int) -> AsyncGenerator[Batch, None]:
        """Yield every change under `prefix` (a whole key is a prefix too) from `start_revision` on.

        It outlives broken connections, restarts of the store, dead and frozen members, and loses and doubles
        nothing. Raises `Compacted` when `start_revision` is gone, `StoreDenied` where this identity may not read;
        nothing else ends it but closing it.
        """
        ...

    async def grant(self, ttl_s: float, lease_id: int = 0) -> Lease:
        """Make a lease of at least `ttl_s` seconds; `lease_id` 0 lets the store choose."""
        ...

    async def keepalive(self, lease_id: int, timeout_s: float) -> float:
        """Renew a lease and return its remaining seconds; raises `LeaseLost` if it is gone.

        An endpoint that has not answered within `timeout_s` divided among the endpoints is left for the next.
        """
        ...

    async def revoke(self, lease_id: int) -> None:
        """End a lease and delete its keys; a lease that is gone already is fine."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget what was before `revision`. Already compacted is fine."""
        ...

    async def status(self) -> StoreStatus:
        """Say how the store is."""
        ...

    async def members(self) -> tuple[MemberStatus, ...]:
        """Ask every member that is known how it is; one that does not answer in time is told as such."""
        ...

    async def close(self) -> None:
        """Give up connections; open watches end."""
        ...


def absent(key: str) -> Compare:
    """Compare: `key` does not exist."""
    return Compare(key, Target.CREATE_REVISION, 0)


def unchanged(key: str, mod_revision: int) -> Compare:
    """Compare: `key` was last written at `mod_revision` (0: it does not exist)."""
    return Compare(key, Target.MOD_REVISION, mod_revision)


def created_at(key: str, create_revision: int) -> Compare:
    """Compare: `key` is the one created at `create_revision`."""
    return Compare(key, Target.CREATE_REVISION, create_revision)


def holds(key: str, value: bytes) -> Compare:
    """Compare: `key` has exactly this value."""
    return Compare(key, Target.VALUE, value)
