"""A cluster on an etcd that asks who writes what: agents work whole lives of units, and write nothing else.

What an agent that means harm can do all the same on this version of etcd is tried and named (docs/security.md):
the same tests hold a newer etcd on PATH to what it promises.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from harness.protected import ProtectedCluster, shown
from unit_master.doctor.etcd_faults import faults_of, roles_hold
from unit_master.etcd_roles.roles import AGENTS, role_of
from unitfleet import keys
from unitfleet.errors import StoreDenied
from unitfleet.etcd.auth import EtcdAuth
from unitfleet.etcd.endpoint import Endpoint
from unitfleet.etcd.messages import TXN, WATCH, PutRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest
from unitfleet.etcd.store import EtcdStore
from unitfleet.profiles import Profile
from unitfleet.store import Delete, Put, absent

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON_S = 20.0
TICKS = "[Service]\nExecStart=/bin/sh -c 'echo tick; exec sleep 100000'\n"
REFUSED = "etcd refuses it to this identity"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster() -> AsyncIterator[ProtectedCluster]:
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with ProtectedCluster.on_loopback(Path(logs), machines=2, masters=2) as cluster:
            cluster.write("ticker@.service", TICKS)
            said = (await cluster.must("cluster", "protect-etcd")).stdout
            assert said.startswith("etcd asks from now on who writes what:\n  2 machines, each its own keys alone")
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def thief(cluster: ProtectedCluster) -> AsyncIterator[EtcdStore]:
    """A store as m1's certificate opens it."""
    async with _closing(cluster.as_agent("m1")) as store:
        yield store


@contextlib.asynccontextmanager
async def _closing(store: EtcdStore) -> AsyncIterator[EtcdStore]:
    try:
        yield store
    finally:
        await store.close()


async def holds(cluster: ProtectedCluster) -> bool:
    """Tell whether this etcd promises to check every way to ask it."""
    known = faults_of((await cluster.store.status()).version)
    return not any("authentication can be passed by" in fault.what for fault in known)


async def refused(doing: Awaitable[object]) -> bool:
    """Tell whether etcd refused it."""
    try:
        await doing
    except StoreDenied:
        return True
    return False


def said(cluster: ProtectedCluster) -> str:
    """What every daemon logged."""
    daemons = (*cluster.masters, *(machine.agent for machine in cluster.machines))
    return "".join(daemon.log.read_text(errors="replace") for daemon in daemons)


async def place(cluster: ProtectedCluster, unit: str) -> str:
    """Return the machine that the unit runs on, "" while it does not."""
    view = await cluster.unit(unit)
    running = [copy for copy in view.copies if copy.phase == "running"] if view else []
    return running[0].machine_name if len(running) == 1 else ""


async def test_agents_that_may_write_their_own_keys_alone_work_the_whole_life_of_a_unit(
    cluster: ProtectedCluster,
) -> None:
    await cluster.must("start", "ticker@1", "ticker@2")
    await cluster.wait_until(
        lambda: cluster.runs_once("ticker@1.service", "ticker@2.service"), SOON_S, "both run, each once"
    )
    assert "tick" in (await cluster.must("logs", "ticker@1")).stdout

    first = await place(cluster, "ticker@1.service")
    await cluster.must("machines", "drain", first)

    async def moved() -> bool:
        return await place(cluster, "ticker@1.service") not in ("", first)

    await cluster.wait_until(moved, SOON_S, "the unit moved")
    await cluster.must("machines", "undrain", first)
    await cluster.must("restart", "ticker@1")

    running = await cluster.running("ticker@2.service")
    for machine in cluster.machines:
        cluster.restart_agent(machine)
    revision = (await cluster.store.list("")).revision
    await cluster.store.compact(revision)
    await cluster.must("start", "ticker@3")
    assert await cluster.running("ticker@2.service") == running, "an agent's restart is no unit's"

    since: dict[tuple[str, int], float] = {}

    async def outlived() -> bool:
        """Whether every presence has stood for twice the time of its lease: what lapses is made anew."""
        now, stand = time.monotonic(), []
        for name in ("m1", "m2"):
            there = await cluster.store.get(keys.presence(await cluster.id_of(name)))
            if there is not None:
                stand.append(now - since.setdefault((name, there.create_revision), now))
        return len(stand) == 2 and min(stand) > 2 * Profile.FAST.ttl_s

    await cluster.wait_until(outlived, 3 * SOON_S, "leases are renewed beyond their time")
    await cluster.must("stop", "ticker@1")
    await cluster.must("destroy", "ticker@1", "ticker@2", "ticker@3")
    told = {keys.split(item.key)[1] for item in (await cluster.store.list(keys.PREFIX + "events/")).items}
    assert {await cluster.id_of("m1"), await cluster.id_of("m2")} <= told, "each tells what happened under its id"
    assert REFUSED not in said(cluster), "nobody asked for what it may not have"


async def test_what_an_agent_may_not_write_is_refused_and_nothing_of_it_is_done(
    cluster: ProtectedCluster, thief: EtcdStore
) -> None:
    own, other = await cluster.id_of("m1"), await cluster.id_of("m2")
    foreign = [
        keys.presence(other),
        keys.state(other, "a.service"),
        keys.resources(other),
        keys.images(other),
        keys.fence(other),
        keys.machine_event(other, "w", 1),
        keys.event(1, "master-1", 1),
        keys.placement(other, "a.service"),
        keys.placement(own, "a.service"),
        keys.machine_spec(own),
        keys.sealed(own, "s"),
        keys.roster(other),
        keys.unit("a.service"),
        keys.spec("0" * 64),
        keys.master("evil"),
        keys.token("t"),
        keys.identity("agent", own),
        keys.secret("s"),
        keys.LEADER,
        keys.EPOCH,
        keys.CLUSTER,
        keys.BRAKE,
        keys.PROTECTION,
        "/elsewhere",
    ]
    before = (await cluster.store.list("")).items
    mine = Put(keys.state(own, "a.service"), b"{}")
    for key in foreign:
        assert await refused(thief.put(key, b"evil")), key
        assert await refused(thief.delete(key)), key
        assert await refused(thief.txn([], [mine, Put(key, b"evil")])), f"{key}, beside one of its own"
    assert await refused(thief.txn([], [Delete(keys.PREFIX, prefix=True)]))
    assert await refused(thief.txn([], [Delete(keys.PREFIX + "states/", prefix=True)]))
    after = {item.key: item.value for item in (await cluster.store.list("")).items}
    assert not any(value == b"evil" for value in after.values())
    kept = {item.key for item in before if not item.lease and keys.split(item.key)[0] != "events"}
    assert kept <= after.keys(), "nothing was deleted"


async def test_what_an_agent_may_not_read_is_refused_and_what_every_agent_reads_is_known(
    cluster: ProtectedCluster, thief: EtcdStore
) -> None:
    own, other = await cluster.id_of("m1"), await cluster.id_of("m2")
    for kind in (
        "secrets",
        "tokens",
        "token-names",
        "identities",
        "join",
        "units",
        "events",
        "roster",
        "machines",
    ):
        assert await refused(thief.list(f"{keys.PREFIX}{kind}/")), kind
    for prefix in ("", keys.PREFIX, keys.states_of(other), keys.placements_of(other), keys.sealed_of(other)):
        assert await refused(thief.list(prefix)), prefix
    assert await refused(thief.txn([absent(keys.secret("s"))], [])), "whether a key is there is not told, either"
    assert await refused(_first(thief, keys.PREFIX + "secrets/", 1))
    for prefix in (keys.spec(""), keys.MASTERS, keys.placements_of(own), keys.sealed_of(own), keys.presence(own)):
        await thief.list(prefix)
    assert await thief.get(keys.LEADER) and await thief.get(keys.CLUSTER)


async def _first(store: EtcdStore, prefix: str, revision: int) -> None:
    """Wait for the first change under the prefix."""
    async with contextlib.aclosing(store.watch(prefix, start_revision=revision)) as watch:
        async for batch in watch:
            if batch.events:
                return


async def test_an_agent_neither_ends_another_s_lease_nor_takes_part_in_it(
    cluster: ProtectedCluster, thief: EtcdStore
) -> None:
    own = await cluster.id_of("m1")
    there = await cluster.store.get(keys.presence(await cluster.id_of("m2")))
    led = await cluster.store.get(keys.LEADER)
    assert there is not None and led is not None
    for held in (there, led):
        assert await refused(thief.revoke(held.lease)), "etcd asks whether its keys may be written"
        assert await refused(thief.put(keys.state(own, "a.service"), b"{}", held.lease))
    assert await cluster.store.get(there.key) == there


async def test_an_agent_changes_no_users_or_roles_and_does_not_end_the_asking(cluster: ProtectedCluster) -> None:
    own = await cluster.id_of("m1")
    auth = cluster.auth_as(cluster.agent_tls(cluster.machine("m1")))
    attempts: list[Callable[[EtcdAuth], Awaitable[object]]] = [
        lambda auth: auth.disable(),
        lambda auth: auth.add_user("evil", "evil"),
        lambda auth: auth.give(own, "root"),
        lambda auth: auth.add_role("evil"),
        lambda auth: auth.delete_user("root"),
        lambda auth: auth.delete_role(AGENTS),
        lambda auth: auth.users(),
        lambda auth: auth.user("root"),
    ]
    try:
        for attempt in attempts:
            assert await refused(attempt(auth))
    finally:
        await auth.close()


class Nested(bytes):
    """A transaction inside a transaction, which no client of ours sends: a put of a foreign key."""

    @classmethod
    def put(cls, key: str) -> Nested:
        put = RequestOp(request_put=PutRequest(key=key.encode(), value=b"evil"))
        inner = TxnRequest(success=[put]).SerializeToString()
        operation = b"\x22" + bytes([len(inner)]) + inner  # RequestOp.request_txn = 4
        return cls(b"\x12" + bytes([len(operation)]) + operation)  # TxnRequest.success = 2

    def SerializeToString(self) -> bytes:  # protobuf's name
        return bytes(self)


async def test_a_transaction_in_a_transaction_passes_the_roles_by_where_the_version_does_not_hold(
    cluster: ProtectedCluster,
) -> None:
    """CVE-2026-33343: why roles are no boundary before 3.5.33, 3.6.14 and 3.7.1."""
    endpoint = Endpoint(cluster.etcd.endpoints[0], shown(cluster.agent_tls(cluster.machine("m1"))))
    try:
        await endpoint.connect(3.0)
        assert await refused(endpoint.call(TXN, Nested.put("/elsewhere"), 3.0)) is await holds(cluster)
    finally:
        await endpoint.drop()
    written = await cluster.store.get("/elsewhere")
    assert (written is None) is await holds(cluster)
    await cluster.store.delete("/elsewhere")


async def test_a_watch_without_an_end_reads_everything_where_the_version_does_not_hold(
    cluster: ProtectedCluster,
) -> None:
    """CVE-2026-73499: who may read one key may watch all that come after it."""
    await cluster.store.put("/unitfleet/v1/zzz", b"not for agents")
    endpoint = Endpoint(cluster.etcd.endpoints[0], shown(cluster.agent_tls(cluster.machine("m1"))))
    create = WatchCreateRequest(key=keys.CLUSTER.encode(), range_end=b"\0", start_revision=1)
    revision = (await cluster.store.list(keys.EPOCH)).revision
    create.start_revision = revision
    try:
        await endpoint.connect(3.0)
        with endpoint.stream(WATCH, WatchRequest) as stream:
            async with asyncio.timeout(5.0):
                await stream.write(WatchRequest(create_request=create))
                answer = await stream.read()
            assert answer.canceled is await holds(cluster)
    finally:
        await endpoint.drop()
    await cluster.store.delete("/unitfleet/v1/zzz")


async def test_compacting_and_a_lease_in_a_transaction_are_asked_of_nobody_where_the_version_does_not_hold(
    cluster: ProtectedCluster, thief: EtcdStore
) -> None:
    """CVE-2026-33413 and CVE-2026-44283: both harm the time that keys last, neither says what stands in them."""
    own = await cluster.id_of("m1")
    there = await cluster.store.get(keys.presence(await cluster.id_of("m2")))
    assert there is not None
    mine = Put(keys.state(own, "a.service"), b"{}", there.lease)
    assert await refused(thief.txn([], [mine])) is await holds(cluster)
    assert await refused(thief.keepalive(there.lease, 3.0)) is await holds(cluster)
    revision = (await cluster.store.list(keys.EPOCH)).revision
    assert await refused(thief.compact(revision)) is await holds(cluster)
    await cluster.store.delete(keys.state(own, "a.service"))


async def test_a_machine_that_joins_later_works_at_once_and_one_shut_out_is_refused_at_once_while_its_units_run(
    cluster: ProtectedCluster,
) -> None:
    late = await cluster.newcomer("--join", await cluster.token("--metadata", "late=yes"))
    late.agent.start()

    async def ready() -> bool:
        views = await cluster.machine_views()
        return late.name in views and views[late.name].status == "ready"

    await cluster.wait_until(ready, SOON_S, "the machine is ready")
    assert REFUSED not in late.agent.log.read_text(), "it was known to etcd when it came"
    cluster.write("late.service", TICKS + "[X-Fleet]\nMachineMetadata=late=yes\nOnMachineLoss=wait\n")
    await cluster.must("start", "late")
    running = await cluster.running("late.service")
    assert len(running) == 1
    own = await cluster.id_of(late.name)
    async with _closing(cluster.as_agent(late.name)) as stolen:
        seen = (await stolen.list(keys.machine_spec(own))).revision
        watching = asyncio.create_task(_first(stolen, keys.machine_spec(own), seen + 1), name="an open watch")
        await cluster.must("machines", "deny", late.name)

        async def is_refused() -> bool:
            return await refused(stolen.list(keys.placements_of(own)))

        await cluster.wait_until(is_refused, SOON_S, "its certificate opens nothing in etcd any more")
        assert await refused(stolen.put(keys.state(own, "late.service"), b"{}"))
        beside = keys.machine_spec(own) + "0"  # under what it watches, and nobody's record
        await cluster.store.put(beside, b"{}")
        async with asyncio.timeout(SOON_S):
            await watching  # etcd asks when a watch begins, and not again
        await cluster.store.delete(beside)

        before = late.agent.log.stat().st_size
        cluster.restart_agent(late)

        def told() -> str:
            return late.agent.log.read_bytes()[before:].decode(errors="replace")

        async def is_refused_again_and_again() -> bool:
            return told().count("lost sight of") >= 3

        await cluster.wait_until(is_refused_again_and_again, SOON_S, "the agent sees nothing of etcd")
        assert await cluster.running("late.service") == running, "what it runs goes on, over a restart too"
        assert told().count("unitctl machines allow") == 1, "what to do is said once"
        await cluster.must("machines", "allow", late.name)

        async def is_let_in() -> bool:
            return not await is_refused()

        await cluster.wait_until(is_let_in, SOON_S, "it is let in again")
    assert await cluster.running("late.service") == running
    await cluster.must("destroy", "late")

    late.agent.kill()
    await cluster.wait_until(lambda: _is(cluster, late.name, "suspect", "lost"), SOON_S, "it is missed")
    await cluster.unitctl("machines", "lost", late.name)
    await cluster.wait_until(lambda: _is(cluster, late.name, "lost"), SOON_S, "it is lost")
    await cluster.must("machines", "rm", late.name)
    auth = cluster.auth_as(cluster.root_folder)
    try:

        async def forgotten() -> bool:
            return await auth.user(own) is None and await auth.role(role_of(own)) is None

        await cluster.wait_until(forgotten, SOON_S, "etcd knows it no more")
    finally:
        await auth.close()
    cluster.machines.remove(late)


async def _is(cluster: ProtectedCluster, name: str, *statuses: str) -> bool:
    return (await cluster.machine_views())[name].status in statuses


async def test_the_doctor_says_whether_this_version_of_etcd_holds_and_a_second_run_changes_nothing(
    cluster: ProtectedCluster,
) -> None:
    again = (await cluster.must("cluster", "protect-etcd")).stdout
    assert again.startswith("etcd asks who writes what:")
    warned = "can be talked out of its roles" in (await cluster.unitctl("doctor")).stdout
    boundary = roles_hold((await cluster.store.status()).version)
    assert warned is not boundary
    assert ("can be talked out of it" in again) is not boundary


async def test_turned_off_every_certificate_writes_every_key_again_and_turned_on_none(
    cluster: ProtectedCluster, thief: EtcdStore
) -> None:
    off = (await cluster.must("cluster", "protect-etcd", "--off")).stdout
    assert off.startswith("etcd asks nobody any more")
    assert not await refused(thief.put("/elsewhere", b""))
    await cluster.store.delete("/elsewhere")
    assert "roles" in (await cluster.unitctl("doctor")).stdout
    await cluster.must("cluster", "protect-etcd")
    assert await refused(thief.put("/elsewhere", b""))
    audited = (await cluster.must("audit")).stdout
    assert "protect etcd" in audited and "take the protection from etcd" in audited
