"""What `EtcdStore` makes of broken connections, dead, frozen and full members, and lost answers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.etcd import Certificate, EtcdCluster, free_ports
from harness.eventually import eventually
from harness.proxy import Proxy
from harness.watching import take
from unitfleet.errors import Compacted, OutcomeUnknown, StoreError, StoreFull, StoreUnavailable
from unitfleet.etcd.endpoint import PATIENCE_S, PROBE_DEADLINE_S, Endpoint, Failure, Tls
from unitfleet.etcd.messages import WATCH, WatchRequest
from unitfleet.etcd.store import EtcdStore
from unitfleet.etcd.watches import MOST_WAITING
from unitfleet.store import Delete, Put, absent

WATCH_STREAMS = "etcd_debugging_mvcc_watch_stream_total"


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[EtcdCluster]:
    async with EtcdCluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[EtcdCluster]:
    async with EtcdCluster(tmp_path, size=3) as cluster:
        yield cluster


class Traffic:
    """A writer of numbered values, and a watch of them, each with a store of its own."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.seen: list[int] = []
        self.revisions: list[int] = []
        self._over = asyncio.Event()
        self._written = asyncio.Event()

    async def write(self, store: EtcdStore, key: str) -> None:
        """Write 0, 1, … until told to stop; a number whose write failed is never written again."""
        for number in itertools.count():
            if self._over.is_set():
                self._written.set()  # the last one was acknowledged, or never will be
                return
            with contextlib.suppress(StoreError):
                await store.put(key, str(number).encode())
                self.acknowledged.append(number)
            await asyncio.sleep(0)

    async def watch(self, store: EtcdStore, key: str) -> None:
        """Note what the watch tells, until the store is closed."""
        async for batch in store.watch(key, start_revision=1):
            self.seen.extend(int(event.kv.value) for event in batch.events)
            self.revisions.extend(event.kv.mod_revision for event in batch.events)

    async def seen_more(self, count: int, within_s: float = 15.0) -> None:
        """Wait until the watch told of so many writes more than it has now."""
        wanted = len(self.seen) + count

        async def enough() -> bool:
            return len(self.seen) >= wanted

        await eventually(enough, within_s=within_s, what=lambda: f"{len(self.seen)} of {wanted} were seen")

    async def settle(self) -> None:
        """Stop writing and wait until the watch told of the last acknowledged write."""
        self._over.set()
        async with asyncio.timeout(15):
            await self._written.wait()

        async def told() -> bool:
            return not self.acknowledged or self.acknowledged[-1] in self.seen[-3:]

        await eventually(told, within_s=15, what=lambda: f"{self.acknowledged[-1]} was never seen")

    def check(self) -> None:
        """None lost, none doubled, all in order."""
        assert self.revisions == sorted(set(self.revisions))
        assert self.seen == sorted(set(self.seen))
        assert set(self.acknowledged) <= set(self.seen)


async def test_a_watch_outlives_broken_connections(etcd: EtcdCluster) -> None:
    traffic = Traffic()
    async with Proxy(etcd.endpoints[0]) as proxy, asyncio.TaskGroup() as tasks:
        direct, through = EtcdStore(etcd.endpoints), EtcdStore([proxy.endpoint])
        tasks.create_task(traffic.write(direct, "/n"))
        watching = tasks.create_task(traffic.watch(through, "/n"))
        for _ in range(5):
            await traffic.seen_more(50)
            proxy.cut()
        proxy.refuse()
        with pytest.raises(StoreUnavailable):
            await EtcdStore([proxy.endpoint], timeout_s=0.5).get("/n")
        await proxy.accept()
        await traffic.seen_more(50)
        await traffic.settle()
        await through.close()
        await direct.close()
        await watching
    traffic.check()
    assert len(traffic.acknowledged) > 250


async def test_a_watch_cut_while_it_catches_up_loses_nothing(etcd: EtcdCluster) -> None:
    direct = EtcdStore(etcd.endpoints)
    start = await direct.put("/n", b"0")
    for _ in range(50):
        await asyncio.gather(*(direct.put("/n", bytes(1000)) for _ in range(100)))
    revisions: list[int] = []
    async with Proxy(etcd.endpoints[0]) as proxy, asyncio.timeout(15):
        through = EtcdStore([proxy.endpoint])
        watch = through.watch("/n", start_revision=start)
        while len(revisions) < 5001:
            if len(revisions) in (0, 1, 500, 2500, 4999):
                proxy.cut()  # the header of what is under way runs ahead of what was taken
            revisions.append((await anext(watch)).revision)
        await through.close()
    assert revisions == list(range(start, start + 5001))
    await direct.close()


async def test_a_watch_outlives_a_killed_and_restarted_etcd(etcd: EtcdCluster) -> None:
    traffic = Traffic()
    async with asyncio.TaskGroup() as tasks:
        writer, watcher = EtcdStore(etcd.endpoints, timeout_s=1.0), EtcdStore(etcd.endpoints)
        tasks.create_task(traffic.write(writer, "/n"))
        watching = tasks.create_task(traffic.watch(watcher, "/n"))
        for _ in range(2):
            await traffic.seen_more(100)
            await etcd.restart(etcd.members[0])
        await traffic.seen_more(100)
        await traffic.settle()
        await watcher.close()
        await writer.close()
        await watching
    traffic.check()


async def test_a_watch_moves_on_when_its_member_dies(three: EtcdCluster) -> None:
    traffic = Traffic()
    async with asyncio.TaskGroup() as tasks:
        writer, watcher = EtcdStore(three.endpoints, timeout_s=1.0), EtcdStore(three.endpoints)
        tasks.create_task(traffic.write(writer, "/n"))
        watching = tasks.create_task(traffic.watch(watcher, "/n"))
        await traffic.seen_more(50)
        three.members[0].kill()
        await traffic.seen_more(50)
        await traffic.settle()
        await watcher.close()
        await writer.close()
        await watching
    traffic.check()


async def test_a_dead_endpoint_first_in_the_list_costs_neither_reads_nor_writes(etcd: EtcdCluster) -> None:
    dead = f"127.0.0.1:{free_ports(1)[0]}"
    for addresses in ([dead, *etcd.endpoints], [dead, *etcd.endpoints, dead]):
        store = EtcdStore(addresses)
        started = time.monotonic()
        revision = await store.put("/a", b"1")
        assert (await store.get("/a")) is not None
        assert (await take(store, "/a", revision, 1))[0].revision == revision
        assert time.monotonic() - started < 1.0
        await store.close()


async def test_a_watch_leaves_a_frozen_member_within_three_seconds(three: EtcdCluster) -> None:
    leader = await three.leader()
    frozen = next(member for member in three.members if member is not leader)
    watcher = EtcdStore([frozen.endpoint, *(m.endpoint for m in three.members if m is not frozen)])
    writer = EtcdStore([leader.endpoint])
    start = await writer.put("/a", b"")
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def watch() -> None:
        async for batch in watcher.watch("/a", start_revision=start):
            await seen.put(batch.revision)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        assert await seen.get() == start
        frozen.pause()
        frozen_at = time.monotonic()
        written = await writer.put("/a", b"after the freeze")
        assert await seen.get() == written
        took_s = time.monotonic() - frozen_at
        await watcher.close()
        await watching
    assert took_s < 3.0 * 2, "twice the promise, for a busy machine"
    await writer.close()


async def test_a_lease_is_kept_past_a_frozen_member(three: EtcdCluster) -> None:
    leader = await three.leader()
    frozen = next(member for member in three.members if member is not leader)
    store = EtcdStore([frozen.endpoint, *(m.endpoint for m in three.members if m is not frozen)])
    lease = await store.grant(10)
    assert await store.keepalive(lease.id, 1.0) == lease.ttl_s
    frozen.pause()
    started = time.monotonic()
    assert await store.keepalive(lease.id, 2.4) == lease.ttl_s
    assert 0.7 < time.monotonic() - started < 2.4, "its share of the time for the frozen one, then the next"
    started = time.monotonic()
    assert await store.keepalive(lease.id, 2.4) == lease.ttl_s
    assert time.monotonic() - started < 0.7, "the frozen one was left for good"
    await store.close()


async def test_a_frozen_member_costs_a_waiting_write_no_more_than_a_watch(three: EtcdCluster) -> None:
    leader = await three.leader()
    frozen = next(member for member in three.members if member is not leader)
    store = EtcdStore([frozen.endpoint, *(m.endpoint for m in three.members if m is not frozen)], timeout_s=20)
    start = await store.put("/a", b"")

    async def watch() -> None:
        async for _ in store.watch("/a", start_revision=start):
            pass

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        frozen.pause()
        started = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            await store.put("/a", b"lost")
        assert time.monotonic() - started < 6.0
        await store.put("/a", b"by another member")
        await store.close()
        await watching


async def test_what_is_being_sent_on_a_stream_fails_when_the_connection_is_given_up(etcd: EtcdCluster) -> None:
    endpoint = Endpoint(etcd.endpoints[0], None)
    await endpoint.connect(5.0)
    with endpoint.stream(WATCH, WatchRequest) as stream:
        sending = asyncio.create_task(stream.write(WatchRequest()))
        await asyncio.sleep(0)
        await endpoint.drop()  # before gRPC has sent the headers
        with pytest.raises(Failure):
            async with asyncio.timeout(5):
                await sending


async def test_a_watch_that_comes_back_after_a_compaction_says_so(etcd: EtcdCluster) -> None:
    direct = EtcdStore(etcd.endpoints)
    start = await direct.put("/a", b"0")
    async with Proxy(etcd.endpoints[0]) as proxy:
        through = EtcdStore([proxy.endpoint])
        first = asyncio.Event()

        async def watch() -> None:
            async for _ in through.watch("/a", start_revision=start):
                first.set()

        async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(swallow_compacted(watch()))
            await first.wait()
            proxy.refuse()
            await direct.put("/a", b"1")
            last = await direct.put("/a", b"2")
            await direct.compact(last)
            await proxy.accept()
            assert await watching == last
        await through.close()
    await direct.close()


async def swallow_compacted(watch: object) -> int:
    """Await a watch that must end by `Compacted`; return up to where."""
    assert asyncio.iscoroutine(watch)
    with pytest.raises(Compacted) as ended:
        await watch
    return ended.value.compact_revision


async def test_without_a_quorum_every_call_fails_within_its_deadline(three: EtcdCluster) -> None:
    store = EtcdStore(three.endpoints, timeout_s=1.5)
    await store.put("/a", b"1")
    for member in three.members[1:]:
        member.kill()
    for call in (lambda: store.put("/a", b"2"), lambda: store.get("/a"), lambda: store.list("/")):
        started = time.monotonic()
        with pytest.raises((StoreUnavailable, OutcomeUnknown)):
            await call()
        assert time.monotonic() - started < 2.5

    async def surely_unwritten() -> bool:
        try:
            await store.put("/a", b"3")
        except OutcomeUnknown:
            return False  # the member has not noticed yet that it is alone
        except StoreUnavailable:
            return True
        raise AssertionError("written without a quorum")

    await eventually(surely_unwritten, within_s=15, what=lambda: "the member takes writes without a leader")
    assert (await store.status()).has_leader is False
    await three.start(three.members[1], three.members[2])
    kv = await store.get("/a")
    assert kv is not None and kv.value in (b"1", b"2")
    await store.close()


async def test_a_full_etcd_says_so_and_still_deletes_and_renews(tmp_path: Path) -> None:
    async with EtcdCluster(tmp_path, args=["--quota-backend-bytes=4194304"]) as etcd:
        store = EtcdStore(etcd.endpoints)
        lease = await store.grant(60)
        with pytest.raises(StoreFull):
            for n in range(200):  # etcd counts its space every 100 ms
                await store.put(f"/{n}", bytes(1_000_000))
        with pytest.raises(StoreFull):
            await store.txn([absent("/x")], [Put("/x", b"1")])
        with pytest.raises(StoreFull):
            await store.grant(60)
        assert await store.keepalive(lease.id, 1.0) == lease.ttl_s
        assert await store.get("/0") is not None
        await store.delete("/0")
        assert await store.get("/0") is None
        await store.txn((), [Delete("/1")])
        await store.close()


async def test_a_write_whose_answer_is_lost_has_an_unknown_outcome(etcd: EtcdCluster) -> None:
    async with Proxy(etcd.endpoints[0]) as proxy:
        store, direct = EtcdStore([proxy.endpoint], timeout_s=1.0), EtcdStore(etcd.endpoints)
        await store.put("/a", b"1")
        proxy.swallow_answers()
        with pytest.raises(OutcomeUnknown):
            await store.put("/a", b"2")
        kv = await direct.get("/a")
        assert kv is not None and (kv.value, kv.version) == (b"2", 2), "sent once and never again"
        with pytest.raises(StoreUnavailable):
            await store.get("/a")
        proxy.pass_answers()
        assert await store.get("/a") == kv
        await store.close()
        await direct.close()


async def test_a_write_cut_off_under_way_has_an_unknown_outcome_and_is_sent_once(etcd: EtcdCluster) -> None:
    async with Proxy(etcd.endpoints[0]) as proxy:
        store, direct = EtcdStore([proxy.endpoint, *etcd.endpoints]), EtcdStore(etcd.endpoints)
        await store.put("/a", b"1")
        proxy.swallow_answers()

        async def arrived() -> bool:
            kv = await direct.get("/a")
            return kv is not None and kv.version == 2

        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(outcome_unknown(store))
            await eventually(arrived, within_s=5, what=lambda: "the write never arrived")
            proxy.refuse()
            assert await writing
        kv = await store.get("/a")
        assert kv is not None and kv.version == 2
        await store.close()
        await direct.close()


async def outcome_unknown(store: EtcdStore) -> bool:
    try:
        await store.put("/a", b"2")
    except OutcomeUnknown:
        return True
    return False


async def test_closing_while_calls_wait_fails_them_and_cancels_nobody(etcd: EtcdCluster) -> None:
    async with Proxy(etcd.endpoints[0]) as proxy:
        store, direct = EtcdStore([proxy.endpoint], timeout_s=30), EtcdStore(etcd.endpoints)
        await store.put("/a", b"1")
        proxy.swallow_answers()

        async def arrived() -> bool:
            kv = await direct.get("/a")
            return kv is not None and kv.version == 2

        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(outcome_unknown(store))
            reading = tasks.create_task(unavailable(store))
            await eventually(arrived, within_s=5, what=lambda: "the write never arrived")
            await store.close()
        await direct.close()
        assert writing.result() and reading.result()


async def unavailable(store: EtcdStore) -> bool:
    try:
        await store.get("/a")
    except StoreUnavailable:
        return True
    return False


async def test_tls_lets_in_who_shows_a_certificate_and_nobody_else(tmp_path: Path) -> None:
    certificate = Certificate.make(tmp_path)
    async with EtcdCluster(tmp_path, certificate=certificate) as etcd:
        store = EtcdStore(etcd.endpoints, tls=certificate.tls())
        revision = await store.put("/a", b"1")
        assert (await take(store, "/a", revision, 1))[0].revision == revision
        await store.close()
        for stranger in (None, Tls(), Tls(certificate.pem.read_bytes())):
            store = EtcdStore(etcd.endpoints, tls=stranger, timeout_s=0.5)
            with pytest.raises(StoreError):
                await store.put("/a", b"2")
            await store.close()


async def test_a_message_of_a_watch_costs_no_task_however_many_watches_are_guarded(etcd: EtcdCluster) -> None:
    store = EtcdStore(etcd.endpoints)
    loop, made = asyncio.get_running_loop(), 0
    try:
        revision = (await store.list("/")).revision
        watches = [store.watch(f"/{number}", start_revision=revision + 1) for number in range(4)]

        async def seen(count: int) -> None:
            for _ in range(count):
                for number, watch in enumerate(watches):
                    await store.put(f"/{number}", b"")
                    assert len((await anext(watch)).events) == 1

        await seen(1)
        assert sum("_keep_guard" in repr(task) for task in asyncio.all_tasks()) == 1

        def count(loop: asyncio.AbstractEventLoop, coro: Any, **rest: Any) -> asyncio.Task[Any]:
            nonlocal made
            made += "guard" in repr(coro)
            return asyncio.Task(coro, loop=loop, **rest)

        loop.set_task_factory(count)
        await seen(5)
        assert made == 0
        for watch in watches:
            await watch.aclose()
        assert not any("_keep_guard" in repr(task) for task in asyncio.all_tasks() if not task.cancelling())
    finally:
        loop.set_task_factory(None)
        await store.close()


async def told_by(etcd: EtcdCluster, figure: str) -> float:
    """Return one of etcd's own figures."""

    def ask() -> str:
        with urllib.request.urlopen(f"http://{etcd.endpoints[0]}/metrics", timeout=10) as answer:
            told: str = answer.read().decode()
            return told

    told = await asyncio.to_thread(ask)
    [row] = [row for row in told.splitlines() if row.startswith(f"{figure} ")]
    return float(row.split()[1])


async def test_renewals_share_a_stream_until_one_is_not_answered(etcd: EtcdCluster) -> None:
    streams = 'grpc_server_started_total{grpc_method="LeaseKeepAlive",grpc_service="etcdserverpb.Lease",'
    streams += 'grpc_type="bidi_stream"}'
    async with Proxy(etcd.endpoints[0]) as proxy:
        store = EtcdStore([proxy.endpoint])
        long, short = await store.grant(60), await store.grant(30)
        for _ in range(3):
            assert await store.keepalive(long.id, 5.0) == long.ttl_s
            assert await store.keepalive(short.id, 5.0) == short.ttl_s
        assert await told_by(etcd, streams) == 1
        proxy.swallow_answers()
        with pytest.raises(StoreUnavailable):
            await store.keepalive(long.id, 0.3)
        proxy.pass_answers()
        assert await store.keepalive(short.id, 5.0) == short.ttl_s, "not what was left of the other's answer"
        assert await told_by(etcd, streams) >= 2
        at_once = await asyncio.gather(store.keepalive(long.id, 5.0), store.keepalive(short.id, 5.0))
        assert tuple(at_once) == (long.ttl_s, short.ttl_s)
        proxy.cut()
        assert await store.keepalive(long.id, 5.0) == long.ttl_s
        await store.close()


async def test_all_watches_of_a_client_share_one_stream_which_ends_with_the_last(etcd: EtcdCluster) -> None:
    store = EtcdStore(etcd.endpoints)
    revision = (await store.list("/")).revision
    watches = [store.watch(f"/{number}/", start_revision=revision + 1) for number in range(20)]
    coming = [asyncio.ensure_future(anext(watch)) for watch in watches]

    async def one() -> bool:
        return await told_by(etcd, WATCH_STREAMS) == 1

    await eventually(one, within_s=10, what=lambda: "there is not one stream")
    for number, watch in enumerate(watches[:10]):
        written = await store.put(f"/{number}/x", b"")
        assert (await coming[number]).revision == written
        await watch.aclose()
    for number, watch in enumerate(watches[10:], 10):  # those that were closed took no other along
        written = await store.put(f"/{number}/x", b"")
        assert (await coming[number]).revision == written
        assert await one()
        await watch.aclose()

    async def none() -> bool:
        return await told_by(etcd, WATCH_STREAMS) == 0

    await eventually(none, within_s=10, what=lambda: "the stream of no watch is open")
    await store.close()


async def test_a_reader_that_takes_nothing_holds_up_no_other_watch_and_misses_nothing(etcd: EtcdCluster) -> None:
    store = EtcdStore(etcd.endpoints)
    start = (await store.list("/")).revision + 1
    slow, quick = (store.watch("/n", start_revision=start) for _ in range(2))
    count = 2 * MOST_WAITING
    async with asyncio.timeout(30):
        await store.put("/n", b"")
        assert (await anext(slow)).revision == start
        for number in range(count):
            await store.put("/n", b"")
            while (await anext(quick)).revision < start + number:
                pass
        taken = [(await anext(slow)).revision for _ in range(count)]
    assert taken == list(range(start + 1, start + 1 + count))
    await slow.aclose()
    await quick.aclose()
    await store.close()


async def test_a_member_that_did_not_answer_in_time_is_given_longer_after_that(etcd: EtcdCluster) -> None:
    drops: list[float] = []
    async with Proxy(etcd.endpoints[0]) as proxy:
        endpoint = Endpoint(proxy.endpoint, None, probe_s=0.05)
        loop = asyncio.get_running_loop()
        with endpoint.guarded():
            while len(drops) < 2:
                proxy.pass_answers()
                await endpoint.connect(5.0)
                proxy.swallow_answers()
                began = loop.time()
                with endpoint.stream(WATCH, WatchRequest) as stream, pytest.raises(Failure):
                    await stream.read()
                drops.append(loop.time() - began)
        await endpoint.drop()
    assert drops[0] < drops[1] < PATIENCE_S
    assert drops[1] > 2 * PROBE_DEADLINE_S
