"""etcd: members killed and frozen, its leader past the lease, all of it down, full, restored from the past."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from pathlib import Path

from chaos.faults.fault import (
    MASTER_NAMES,
    MEMBER_NAMES,
    SETTLES_S,
    Fault,
    an_outage,
    around_the_ttl,
    kind,
    no_time,
    past_the_ttl,
)
from chaos.rig import Rig
from chaos.witness.processes import Copy
from chaos.witness.witness import Witness
from harness.etcd import EtcdServer
from harness.eventually import eventually
from unitfleet import keys
from unitfleet.errors import StoreError, StoreFull, UnitfleetError

MIB = 1024 * 1024
JUNK = "/chaos/junk/"
DOUBTS_S = 2 * 8.0
"""How long agents may take to see that a store went back."""


@dataclass(slots=True)
class _StoreFault(Fault):
    """A fault of etcd: nothing of ordinary units is touched."""

    def stops_strict(self, copy: Copy) -> bool:
        return True


@kind("member-killed", MEMBER_NAMES, around_the_ttl, lambda target: (target,))
@dataclass(slots=True)
class MemberKilled(_StoreFault):
    """kill -9 of a member of etcd, started again later."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        rig.member(self.target).kill()

    async def end(self, rig: Rig, witness: Witness) -> None:
        await rig.cluster.etcd.start(rig.member(self.target))


@kind("member-restarted", MEMBER_NAMES, no_time, lambda target: (target,))
@dataclass(slots=True)
class MemberRestarted(_StoreFault):
    """A member of etcd is stopped in order and started at once."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        await asyncio.to_thread(rig.member(self.target).stop)

    async def end(self, rig: Rig, witness: Witness) -> None:
        await rig.cluster.etcd.start(rig.member(self.target))


@kind("member-frozen", MEMBER_NAMES, around_the_ttl, lambda target: (target,))
@dataclass(slots=True)
class MemberFrozen(_StoreFault):
    """SIGSTOP of a member of etcd, SIGCONT later."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        await asyncio.to_thread(rig.member(self.target).pause)

    async def end(self, rig: Rig, witness: Witness) -> None:
        rig.member(self.target).resume()


@dataclass(slots=True)
class _EtcdLeader(_StoreFault):
    _member: EtcdServer | None = field(default=None, init=False)

    async def _lead(self, rig: Rig) -> EtcdServer:
        async def leading() -> EtcdServer | None:
            with contextlib.suppress(AssertionError):
                return await rig.cluster.etcd.leader()
            return None

        found = await eventually(leading, within_s=10.0, what=lambda: "a member leads")
        assert found is not None
        self._member, self.note = found, found.name
        return found


@kind("etcd-leader-killed", ["etcd's leader"], around_the_ttl, lambda target: MEMBER_NAMES)
@dataclass(slots=True)
class EtcdLeaderKilled(_EtcdLeader):
    """kill -9 of the member that leads etcd, started again later."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        (await self._lead(rig)).kill()

    async def end(self, rig: Rig, witness: Witness) -> None:
        assert self._member is not None
        await rig.cluster.etcd.start(self._member)


@kind("etcd-leader-frozen", ["etcd's leader"], past_the_ttl, lambda target: MEMBER_NAMES)
@dataclass(slots=True)
class EtcdLeaderFrozen(_EtcdLeader):
    """SIGSTOP of etcd's leader past every lease, then SIGCONT: etcd 3.4 may revoke leases that live."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        (await self._lead(rig)).pause()

    async def end(self, rig: Rig, witness: Witness) -> None:
        assert self._member is not None
        self._member.resume()


@kind("quorum-lost", MEMBER_NAMES, an_outage, lambda target: MEMBER_NAMES)
@dataclass(slots=True)
class QuorumLost(_StoreFault):
    """kill -9 of all members of etcd but one."""

    settles_s: float = field(default=2 * SETTLES_S, init=False)

    async def begin(self, rig: Rig, witness: Witness) -> None:
        for member in rig.cluster.etcd.members:
            if member.name != self.target:
                member.kill()

    async def end(self, rig: Rig, witness: Witness) -> None:
        await rig.cluster.etcd.start(*(member for member in rig.cluster.etcd.members if not member.runs))


@kind("store-down", ["etcd"], an_outage, lambda target: MEMBER_NAMES)
@dataclass(slots=True)
class StoreDown(_StoreFault):
    """kill -9 of all members of etcd at once."""

    settles_s: float = field(default=2 * SETTLES_S, init=False)

    async def begin(self, rig: Rig, witness: Witness) -> None:
        for member in rig.cluster.etcd.members:
            member.kill()

    async def end(self, rig: Rig, witness: Witness) -> None:
        await rig.cluster.etcd.start(*rig.cluster.etcd.members)


@kind("no-space", ["etcd"], past_the_ttl, lambda target: MEMBER_NAMES)
@dataclass(slots=True)
class NoSpace(_StoreFault):
    """etcd's database is full (NOSPACE), until the operator compacts, defragments and disarms."""

    settles_s: float = field(default=2 * SETTLES_S, init=False)

    async def begin(self, rig: Rig, witness: Witness) -> None:
        rng = random.Random(self.lasts_s)
        for number in range(100):
            try:
                await rig.cluster.store.put(f"{JUNK}{number}", rng.randbytes(MIB))
            except StoreFull:
                self.note = f"after {number} MiB"
                return
            except StoreError:
                await asyncio.sleep(0.5)  # a member is away, by another fault
        raise AssertionError("etcd was not to be filled")

    async def end(self, rig: Rig, witness: Witness) -> None:
        await rig.etcdctl("del", "--prefix", JUNK)
        listed = await rig.cluster.store.list(JUNK)
        await rig.etcdctl("compact", str(listed.revision))
        for member in rig.cluster.etcd.members:
            await rig.etcdctl("defrag", members=[member])
        await rig.etcdctl("alarm", "disarm")


@kind("old-snapshot", ["etcd"], past_the_ttl, lambda target: (*MEMBER_NAMES, *MASTER_NAMES), single=True)
@dataclass(slots=True)
class OldSnapshot(_StoreFault):
    """etcd is restored from a snapshot that is older than the last commands, as docs/operations.md says."""

    settles_s: float = field(default=3 * SETTLES_S, init=False)

    async def begin(self, rig: Rig, witness: Witness) -> None:
        cluster = rig.cluster
        snapshot = Path(cluster.logs) / "snapshot.db"
        await rig.etcdctl("snapshot", "save", str(snapshot), members=cluster.etcd.members[:1])
        rng = random.Random(self.lasts_s)
        for _ in range(3):
            await rig.workload.command(rng)
        rig.down.update(MASTER_NAMES)
        for master in cluster.masters:
            await asyncio.to_thread(master.stop)
        for member in cluster.etcd.members:
            member.kill()
        await witness.history.stop()
        await asyncio.to_thread(cluster.etcd.restore, snapshot)
        await cluster.etcd.start(*cluster.etcd.members)
        held = await cluster.store.get(keys.EPOCH)
        assert held is not None
        await cluster.store.put(keys.EPOCH, str(int(held.value) + 1_000_000).encode())
        await witness.history.begin_anew()

    async def end(self, rig: Rig, witness: Witness) -> None:
        cluster = rig.cluster
        keeping = await self._keeping(rig)
        self.note = f"{len(keeping)} hosts keep everything"
        for master in cluster.masters:
            master.start()
        rig.down.difference_update(MASTER_NAMES)

        async def serves() -> bool:
            with contextlib.suppress(UnitfleetError):
                return bool((await cluster.status()).leader)
            return False

        await eventually(serves, within_s=SETTLES_S, what=lambda: "a master leads the restored store", every_s=0.2)
        rig.workload.renewed.clear()  # a restart that the store has forgotten is not made up for
        await rig.workload.repeat(set(rig.workload.given))
        for machine in cluster.machines:
            await rig.accept_store(machine)
        placed = await self._placed(rig)
        for name in placed:  # step 7
            await rig.workload.restart(name)
        if placed:
            self.note += f", {len(placed)} units restarted by the operator"

    async def _keeping(self, rig: Rig) -> list[str]:
        """Return the hosts that say so, once as many do as will."""

        async def told() -> list[str]:
            found = []
            for machine in rig.cluster.machines:
                status = await asyncio.to_thread(rig.cluster.local, machine, "/local/ps")
                found += [machine.name] if status["keep_everything"] else []
            return found

        async def all_keep() -> bool:
            with contextlib.suppress(OSError):
                return len(await told()) == len(rig.cluster.machines)
            return False

        with contextlib.suppress(AssertionError):  # a host that had no order since says nothing
            await eventually(all_keep, within_s=DOUBTS_S, what=lambda: "", every_s=0.3)
        return await told()

    async def _placed(self, rig: Rig) -> list[str]:
        """Return the units that were commanded since and get no answer, after what the others need."""
        waiting: list[str] = []

        async def none() -> bool:
            with contextlib.suppress(UnitfleetError):
                views = await rig.cluster.units()
                waiting[:] = [name for name in rig.workload.given if name in views and not views[name].ok]
                return not waiting
            return False

        with contextlib.suppress(AssertionError):
            await eventually(none, within_s=10.0, what=lambda: "", every_s=0.3)
        return waiting
