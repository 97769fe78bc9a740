"""The store in memory and a real etcd, given the same random programs, answer the same."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.effort import examples
from harness.etcd import EtcdCluster
from harness.watching import take_until
from unitfleet.errors import StoreError
from unitfleet.etcd.store import EtcdStore
from unitfleet.memory import MemoryStore
from unitfleet.store import Compare, Delete, Event, KeyValue, Op, Put, Store, Target

KEYS = ("a", "a/1", "a/2", "a0", "b")
_numbers = itertools.count()


@dataclass(frozen=True)
class Txn:
    compares: list[Compare]
    then: list[Op]
    otherwise: list[Op]


keys = st.sampled_from(KEYS)
values = st.sampled_from((b"", b"x", b"\x00y"))
leases = st.integers(0, 2)
ages = st.integers(0, 12)
puts = st.builds(Put, keys, values, leases)
deletes = st.builds(Delete, keys, st.booleans())
compares = st.one_of(
    st.builds(Compare, keys, st.just(Target.VALUE), values),
    st.builds(Compare, keys, st.sampled_from((Target.MOD_REVISION, Target.CREATE_REVISION)), ages),
)
operations = st.lists(st.one_of(puts, deletes), max_size=3)
steps = st.one_of(
    puts,
    st.builds(Delete, keys),
    st.builds(Txn, st.lists(compares, max_size=2), operations, operations),
    st.tuples(st.just("list"), st.sampled_from(("", "a", "a/", "b", "c")), ages),
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("compact"), ages),
    st.tuples(st.just("revoke"), st.integers(1, 2)),
    st.tuples(st.just("renew"), st.integers(1, 2)),
)


class Player:
    """Plays a program on a store under a prefix, and tells what it saw as if the store had been new.

    Revisions are told from `base`, the store's revision at the start; leases 1 and 2 are the program's.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._base = 0
        self._leases: dict[int, int] = {0: 0}

    async def play(self, program: list[object]) -> list[object]:
        """Return what every step answered, and then what a watch from the start tells."""
        self._base = (await self._store.list(self._prefix)).revision
        for name in (1, 2):
            self._leases[name] = (await self._store.grant(600)).id
        told: list[object] = []
        for step in program:
            try:
                told.append(await self._step(step))
            except StoreError as error:
                told.append(type(error).__name__)
        last = await self._store.put(self._prefix + "last", b"")
        told.append(last - self._base)
        starts = (self._base + 1, min(self._base + 3, last))
        return told + await asyncio.gather(*(self._watched(start, last) for start in starts))

    async def _step(self, step: object) -> object:
        match step:
            case Put(key, value, lease):
                return await self._store.put(self._prefix + key, value, self._leases[lease]) - self._base
            case Delete(key):
                return await self._store.delete(self._prefix + key) - self._base
            case ("list", str(under), int(age)):
                revision = self._base + age if age else 0
                listing = await self._store.list(self._prefix + under, revision=revision)
                return listing.revision - self._base, tuple(map(self._from_start, listing.items))
            case ("get", str(key)):
                kv = await self._store.get(self._prefix + key)
                return kv and self._from_start(kv)
            case ("compact", int(age)):
                await self._store.compact(self._base + age)
            case ("revoke", int(lease)):
                await self._store.revoke(self._leases[lease])
            case ("renew", int(lease)):
                return await self._store.keepalive(self._leases[lease], 5.0)
            case Txn(compares, then, otherwise):
                result = await self._store.txn(
                    [self._placed(compare) for compare in compares],
                    [self._put_here(op) for op in then],
                    [self._put_here(op) for op in otherwise],
                )
                return result.succeeded, result.revision - self._base
        return None

    async def _watched(self, start: int, last: int) -> object:
        try:
            batches = await take_until(self._store, self._prefix, start, last)
        except StoreError as error:
            return type(error).__name__
        return [
            (batch.revision - self._base, [Event(e.kind, self._from_start(e.kv)) for e in batch.events])
            for batch in batches
        ]

    def _placed(self, compare: Compare) -> Compare:
        expected = compare.expected
        if isinstance(expected, int) and expected:
            expected += self._base
        return Compare(self._prefix + compare.key, compare.target, expected)

    def _put_here(self, op: Op) -> Op:
        if isinstance(op, Put):
            return Put(self._prefix + op.key, op.value, self._leases[op.lease])
        return Delete(self._prefix + op.key, op.prefix)

    def _from_start(self, kv: KeyValue) -> KeyValue:
        names = {lease: name for name, lease in self._leases.items()}
        return replace(
            kv,
            key=kv.key.removeprefix(self._prefix),
            create_revision=kv.create_revision - self._base if kv.create_revision else 0,
            mod_revision=kv.mod_revision - self._base,
            lease=names[kv.lease],
        )


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory, runner: asyncio.Runner) -> Iterator[EtcdStore]:
    path: Path = tmp_path_factory.mktemp("etcd")
    cluster = EtcdCluster(path)
    runner.run(cluster.__aenter__())
    try:
        store = EtcdStore(cluster.endpoints, page_size=2)
        yield store
        runner.run(store.close())
    finally:
        runner.run(cluster.__aexit__(None, None, None))


@settings(max_examples=examples(70, 30), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=st.lists(steps, max_size=15))
def test_memory_and_etcd_answer_every_program_alike(
    program: list[object], etcd: EtcdStore, runner: asyncio.Runner
) -> None:
    async def play_both() -> tuple[list[object], list[object]]:
        memory = MemoryStore()
        prefix = f"/{next(_numbers)}/"
        return await Player(memory, prefix).play(program), await Player(etcd, prefix).play(program)

    in_memory, in_etcd = runner.run(play_both())
    assert in_memory == in_etcd
