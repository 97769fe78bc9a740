"""Letting a real etcd ask who writes what: made whole, never half, and nobody is locked out by it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.etcd import Certificate, EtcdCluster
from harness.eventually import eventually
from harness.protected import agent_identity, founded, shown
from unit_master.cache import Cache
from unit_master.doctor.etcd_faults import faults_of
from unit_master.etcd_roles.keeper import Keeper
from unit_master.etcd_roles.protecting import UNDO, UNDO_FILE, Protecting
from unit_master.etcd_roles.roles import AGENTS, ROOT, own, role_of, shared
from unitfleet import certificates, codec, identity, keys, wholefile
from unitfleet.errors import Refused, StoreDenied, StoreError, StoreFull, StoreUnavailable
from unitfleet.etcd.auth import EtcdAuth
from unitfleet.etcd.store import EtcdStore
from unitfleet.model import IdentityRecord, MasterRecord, Protection
from unitfleet.permissions import Access, exactly

M1, M2 = "1" * 32, "2" * 32


@dataclass(frozen=True, slots=True)
class Rig:
    """A master's view of an etcd, and what protects it. `folder` has its identity."""

    etcd: EtcdCluster
    store: EtcdStore
    auth: EtcdAuth
    cache: Cache
    keeper: Keeper
    protecting: Protecting
    folder: Path
    user: str

    async def knows(self, machine: str, *, denied: bool = False) -> None:
        """Let a machine have joined, or be shut out."""
        record = IdentityRecord(name=machine, role="agent", key="k", expires_at=2e9, denied=denied)
        revision = await self.store.put(keys.identity("agent", machine), codec.encode(record))
        await self.cache.wait_for(revision, 5.0)

    async def has_master(self, name: str, user: str) -> None:
        """Let a master say by which certificate etcd knows it."""
        record = MasterRecord(name=name, nonce="n", etcd_user=user)
        await self.cache.wait_for(await self.store.put(keys.master(name), codec.encode(record)), 5.0)


@contextlib.asynccontextmanager
async def a_rig(
    tmp_path: Path, *, by_name: bool = True, anybody: bool = False, size: int = 1, args: Sequence[str] = ()
) -> AsyncIterator[Rig]:
    folder, ca = founded(tmp_path)
    agent_identity(ca, tmp_path / "m1", M1)
    certificate = Certificate.signed(ca, tmp_path)
    async with EtcdCluster(
        tmp_path, certificate=certificate, by_name=by_name, anybody=anybody, size=size, args=args
    ) as etcd:
        user = certificates.read(identity.read_file(folder / identity.CERTIFICATE)).name
        store = EtcdStore(etcd.endpoints, tls=shown(folder))
        auth = EtcdAuth(etcd.endpoints, shown(folder))
        cache = Cache(store)
        keeper = Keeper(auth, cache)
        protecting = Protecting(
            store, cache, auth, keeper, user=user, by_identity=True, state_dir=tmp_path / "state", now=lambda: 1.0
        )
        following = asyncio.create_task(cache.run(), name="cache")
        try:
            rig = Rig(etcd, store, auth, cache, keeper, protecting, folder, user)
            await rig.has_master("one", user)
            yield rig
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await store.close()
            await auth.close()


async def everybody_writes(rig: Rig, who: Path) -> bool:
    store = EtcdStore(rig.etcd.endpoints, tls=shown(who), timeout_s=3.0)
    try:
        await store.put("/anything", b"")
        return True
    except StoreDenied:
        return False
    finally:
        await store.close()


async def test_protecting_makes_everybody_known_lets_etcd_ask_and_is_safe_to_do_again(tmp_path: Path) -> None:
    async with a_rig(tmp_path, size=3) as rig:
        await rig.knows(M1)
        await rig.knows(M2, denied=True)
        assert await everybody_writes(rig, tmp_path / "m1")
        made = await rig.protecting.on()
        assert (made.on, made.changed, made.machines, made.masters, made.others) == (
            True,
            True,
            1,
            (rig.user,),
            (),
        )
        assert not await everybody_writes(rig, tmp_path / "m1")
        assert await everybody_writes(rig, rig.folder)
        assert await rig.auth.users() == frozenset({ROOT, rig.user, M1})
        assert await rig.auth.user(M1) == frozenset({AGENTS, role_of(M1)})
        assert await rig.auth.role(role_of(M1)) == own(M1)
        assert await rig.auth.role(AGENTS) == shared()
        assert not (tmp_path / "state" / UNDO_FILE).exists()

        await rig.auth.permit(AGENTS, exactly(Access.BOTH, keys.LEADER))
        await rig.auth.forbid(role_of(M1), exactly(Access.WRITE, keys.presence(M1)))
        await rig.auth.give(M1, ROOT)
        again = await rig.protecting.on()
        assert (again.on, again.changed) == (True, False)
        assert await rig.auth.role(AGENTS) == shared(), "what was permitted by hand is forbidden again"
        assert await rig.auth.role(role_of(M1)) == own(M1), "what was forbidden by hand is permitted again"
        assert await rig.auth.user(M1) == frozenset({AGENTS, role_of(M1)})

        ended = await rig.protecting.off()
        assert (ended.on, ended.changed) == (False, True)
        assert await everybody_writes(rig, tmp_path / "m1")
        assert not (await rig.protecting.off()).changed
        assert (await rig.protecting.on()).changed


async def test_what_was_made_while_etcd_asked_nobody_gives_nobody_more(tmp_path: Path) -> None:
    async with a_rig(tmp_path) as rig:
        await rig.knows(M1)
        await rig.auth.add_user(M1, "known to a thief")
        await rig.auth.add_role(ROOT)
        await rig.auth.give(M1, ROOT)
        await rig.auth.add_role(role_of(M1))
        await rig.auth.permit(role_of(M1), exactly(Access.BOTH, keys.LEADER))
        await rig.auth.add_user("evil", "known to a thief, too")
        await rig.auth.give("evil", ROOT)
        await rig.auth.add_user(ROOT, "the operator's, or the thief's")
        made = await rig.protecting.on()
        assert made.others == ("evil", "root"), "who may do everything and was made by nobody here is named"
        assert await rig.auth.user(M1) == frozenset({AGENTS, role_of(M1)})
        assert await rig.auth.role(role_of(M1)) == own(M1)
        with pytest.raises(StoreError) as told:
            await rig.auth.disable(M1, "known to a thief")
        assert not isinstance(told.value, StoreDenied), (
            "the password opens nothing: the user was made anew without"
        )
        assert await rig.auth.enabled()


async def test_an_etcd_that_does_not_know_who_we_are_serves_on_as_before_and_says_what_it_lacks(
    tmp_path: Path,
) -> None:
    async with a_rig(tmp_path, by_name=False) as rig:
        with pytest.raises(Refused, match=r"members do not know us by our certificate.*--client-cert-auth"):
            await rig.protecting.on()
        assert not await rig.auth.enabled()
        assert await everybody_writes(rig, rig.folder)
        assert UNDO not in await rig.auth.users()
        assert not (tmp_path / "state" / UNDO_FILE).exists()
        assert not rig.cache.view.is_protected


async def test_a_master_that_was_killed_when_etcd_had_begun_to_ask_is_no_way_to_be_locked_out(
    tmp_path: Path,
) -> None:
    async with a_rig(tmp_path, by_name=False) as rig:
        await rig.store.put(keys.PROTECTION, codec.encode(Protection(on=True)))
        await rig.auth.add_user(ROOT)
        await rig.auth.add_role(ROOT)
        await rig.auth.give(ROOT, ROOT)
        await rig.auth.add_user(UNDO, "secret")
        await rig.auth.give(UNDO, ROOT)
        wholefile.replace(tmp_path / "state" / UNDO_FILE, b"secret")
        await rig.auth.enable()
        assert await rig.auth.enabled()
        with pytest.raises(StoreUnavailable, match="takes no identity"):
            await rig.store.get("/anything")
        with pytest.raises(Refused, match="members do not know us"):
            await rig.protecting.on()
        assert not await rig.auth.enabled()
        assert await everybody_writes(rig, rig.folder)


async def test_it_is_refused_while_a_master_would_be_locked_out(tmp_path: Path) -> None:
    async with a_rig(tmp_path) as rig:
        await rig.has_master("old", "")
        with pytest.raises(Refused, match="master old would be locked out: it tells of no certificate"):
            await rig.protecting.on()
        await rig.has_master("old", M1)
        with pytest.raises(Refused, match="master old would be locked out: it shows etcd an agent's"):
            await rig.protecting.on()
        assert not await rig.auth.enabled()


async def test_it_is_refused_while_a_member_is_away(tmp_path: Path) -> None:
    async with a_rig(tmp_path, size=3) as rig:
        leader = await rig.etcd.leader()
        gone = next(member for member in rig.etcd.members if member is not leader)
        gone.kill()
        with pytest.raises(Refused, match=f"not every member answers: {gone.endpoint}"):
            await rig.protecting.on()
        assert not await rig.auth.enabled()
        assert not rig.cache.view.is_protected


async def test_an_etcd_of_somebody_else_s_users_is_left_as_it_is(tmp_path: Path) -> None:
    async with a_rig(tmp_path) as rig:
        await rig.auth.add_user(ROOT, "the operator's")
        await rig.auth.add_role(ROOT)
        await rig.auth.give(ROOT, ROOT)
        await rig.auth.enable()
        with pytest.raises(Refused, match=f"{rig.user} is none of its administrators"):
            await rig.protecting.on()
        await rig.auth.disable(ROOT, "the operator's")


async def test_an_etcd_that_answers_anybody_is_refused(tmp_path: Path) -> None:
    async with a_rig(tmp_path, anybody=True) as rig:
        with pytest.raises(Refused, match=f"{rig.etcd.endpoints[0]} answers callers without a certificate"):
            await rig.protecting.on()
        assert not await rig.auth.users()


async def test_the_leader_lets_in_and_shuts_out_as_machines_do(tmp_path: Path) -> None:
    async with a_rig(tmp_path) as rig:
        await rig.knows(M1)
        await rig.protecting.on()
        keeping = asyncio.create_task(rig.keeper.run(), name="keeper")

        async def has(machine: str, roles: frozenset[str] | None) -> None:
            async def so() -> bool:
                role = await rig.auth.role(role_of(machine))
                return await rig.auth.user(machine) == roles and (role is None) is (roles is None)

            await eventually(so, within_s=10.0, what=lambda: f"{machine} is not known as {roles}", every_s=0.05)

        try:
            await rig.knows(M2)
            await has(M2, frozenset({AGENTS, role_of(M2)}))
            await rig.knows(M1, denied=True)
            await has(M1, None)
            await rig.knows(M1)
            await has(M1, frozenset({AGENTS, role_of(M1)}))
            await rig.auth.delete_user(M2)  # by hand: what nobody told of is found all the same
            await rig.has_master("two", "two")
            await has(M2, frozenset({AGENTS, role_of(M2)}))
            assert await rig.auth.user("two") == frozenset({ROOT})
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


async def test_what_is_asked_while_users_and_roles_change_is_answered_all_the_same(tmp_path: Path) -> None:
    async with a_rig(tmp_path) as rig:
        await rig.knows(M1)
        await rig.protecting.on()
        changing = True

        async def change() -> None:
            nonlocal changing
            for number in range(20):
                await rig.keeper.add_machine(f"{number:032x}")
            changing = False

        async def write(agent: EtcdStore) -> int:
            count = 0
            while changing:
                await agent.put(keys.fence(M1), b"%d" % count)  # raises what is refused, and what may be lost
                await agent.list(keys.placements_of(M1))
                count += 1
            return count

        agent = EtcdStore(rig.etcd.endpoints, tls=shown(tmp_path / "m1"))
        try:
            async with asyncio.TaskGroup() as tasks:
                writers = [tasks.create_task(write(agent)) for _ in range(4)]
                tasks.create_task(change())
            assert all(writer.result() > 20 for writer in writers)
        finally:
            await agent.close()


async def test_an_etcd_that_is_out_of_space_forgets_to_ask_where_the_version_is_older_than_3_6(
    tmp_path: Path,
) -> None:
    """etcd's pull request 22386: why 3.5 is called a boundary nowhere, of whatever patch."""
    async with a_rig(tmp_path, args=["--quota-backend-bytes=4000000"]) as rig:
        await rig.knows(M1)
        await rig.protecting.on()
        agent = EtcdStore(rig.etcd.endpoints, tls=shown(tmp_path / "m1"))
        auth = EtcdAuth(rig.etcd.endpoints, shown(tmp_path / "m1"))
        try:
            with pytest.raises(StoreDenied):
                await auth.disable()
            with pytest.raises(StoreFull):
                for number in range(100):
                    await agent.put(keys.fence(M1), bytes([number]) * 500_000)
            forgets = any("out of space" in fault.what for fault in faults_of((await rig.store.status()).version))
            with contextlib.nullcontext() if forgets else pytest.raises(StoreDenied):
                await auth.disable()
            assert await rig.auth.enabled() is not forgets
        finally:
            await agent.close()
            await auth.close()
