"""The store in memory and a real etcd, given the same random programs, answer the same."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.effort import examples
from harness.etcd import EtcdCluster
from harness.watching import take_until
from unitfleet.errors import LeaseLost, StoreError
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
    st.tuples(st.just("watch"), st.sampled_from(("", "a", "a/", "a/1", "b", "c")), ages),
    st.just("another client"),
)


class Player:
    """Plays a program on a store under a prefix, and tells what it saw as if the store had been new.

    Revisions are told from `base`, the store's revision at the start; leases 1 and 2 are the program's. Several
    clients take turns, and each watch is of the client that was at work when it began.
    """

    def __init__(self, clients: Sequence[Store], prefix: str, ttl_s: float = 600) -> None:
        self._clients = itertools.cycle(clients)
        self._store = next(self._clients)
        self._prefix = prefix
        self._ttl_s = ttl_s
        self._watches: list[tuple[Store, str, int]] = []
        self._base = 0
        self._leases: dict[int, int] = {0: 0}

    async def play(self, program: list[object]) -> list[object]:
        """Return what every step answered, and then what a watch from the start tells."""
        self._base = (await self._store.list(self._prefix)).revision
        for name in (1, 2):
            self._leases[name] = (await self._store.grant(self._ttl_s)).id
        told: list[object] = []
        for step in program:
            try:
                told.append(await self._step(step))
            except StoreError as error:
                told.append(type(error).__name__)
        last = await self._store.put(self._prefix + "last", b"")
        told.append(last - self._base)
        starts = (self._base + 1, min(self._base + 3, last))
        watches = [(self._store, self._prefix, start, last) for start in starts]
        for store, under, start in self._watches[:4]:
            # a key of its own ends each watch: the prefix itself, or that is the key
            end = await store.put(self._prefix + under, b"")
            watches.append((store, self._prefix + under, min(start, end), end))
        return told + await asyncio.gather(*(self._watched(*watch) for watch in watches))

    async def outlive_leases(self) -> object:
        """Return which keys are left once the program's leases have run out, and which went at one revision."""
        for name in (1, 2):
            with contextlib.suppress(LeaseLost):
                await self._store.put(f"{self._prefix}leased/{name}", b"", self._leases[name])
        async with asyncio.timeout(20):
            while (await self._store.list(self._prefix + "leased/")).items:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        last = await self._store.put(self._prefix + "over", b"")
        left = [kv.key.removeprefix(self._prefix) for kv in (await self._store.list(self._prefix)).items]
        batches = await take_until(self._store, self._prefix, self._base + 1, last)
        went = {
            frozenset(e.kv.key.removeprefix(self._prefix) for e in batch.events if not e.kv.value)
            for batch in batches
        }
        return left, went

    async def _step(self, step: object) -> object:
        match step:
            case Put(key, value, lease):
                return await self._store.put(self._prefix + key, value, self._leases[lease]) - self._base
            case Delete(key):
                return await self._store.delete(self._prefix + key) - self._base
            case ("watch", str(under), int(age)):
                self._watches.append((self._store, under, self._base + age if age else self._base + 1))
            case "another client":
                self._store = next(self._clients)
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

    async def _watched(self, store: Store, prefix: str, start: int, last: int) -> object:
        try:
            batches = await take_until(store, prefix, start, last)
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
        return msgspec.structs.replace(
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
def etcd(
    tmp_path_factory: pytest.TempPathFactory, runner: asyncio.Runner
) -> Iterator[tuple[EtcdStore, EtcdStore]]:
    path: Path = tmp_path_factory.mktemp("etcd")
    cluster = EtcdCluster(path)
    runner.run(cluster.__aenter__())
    try:
        clients = (EtcdStore(cluster.endpoints, page_size=2), EtcdStore(cluster.endpoints))
        yield clients
        for client in clients:
            runner.run(client.close())
    finally:
        runner.run(cluster.__aexit__(None, None, None))


@settings(max_examples=examples(200, 15), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=st.lists(steps, max_size=15))
def test_memory_and_etcd_answer_every_program_alike(
    program: list[object], etcd: tuple[EtcdStore, EtcdStore], runner: asyncio.Runner
) -> None:
    async def play_both() -> tuple[list[object], list[object]]:
        memory = MemoryStore()
        prefix = f"/{next(_numbers)}/"
        in_memory = await Player((memory, memory.client("other")), prefix).play(program)
        return in_memory, await Player(etcd, prefix).play(program)

    in_memory, in_etcd = runner.run(play_both())
    assert in_memory == in_etcd


leased = st.lists(
    st.one_of(
        st.builds(Put, keys, st.just(b"x"), leases),
        st.builds(Delete, keys),
        st.tuples(st.sampled_from(("revoke", "renew")), st.integers(1, 2)),
    ),
    max_size=8,
)


@settings(max_examples=examples(5, 1), deadline=None, phases=(Phase.generate,))
@given(programs=st.lists(leased, min_size=8, max_size=8))
def test_leases_run_out_in_memory_as_in_etcd(
    programs: list[list[object]], etcd: tuple[EtcdStore, EtcdStore], runner: asyncio.Runner
) -> None:
    """Eight programs side by side, for leases take their time: revisions are not compared."""

    async def outlived(clients: Sequence[Store], prefix: str, program: list[object]) -> object:
        player = Player(clients, prefix, ttl_s=2)
        await player.play(program)
        return await player.outlive_leases()

    async def play_all() -> list[tuple[object, object]]:
        memory, number = MemoryStore(), next(_numbers)
        both = [
            asyncio.gather(
                outlived((memory,), f"/{number}/{place}/", program),
                outlived(etcd, f"/{number}/{place}/", program),
            )
            for place, program in enumerate(programs)
        ]
        return [(mine, theirs) for mine, theirs in await asyncio.gather(*both)]

    for program, (in_memory, in_etcd) in zip(programs, runner.run(play_all()), strict=True):
        assert in_memory == in_etcd, program
