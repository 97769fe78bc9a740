"""Stand-ins for agents that cost next to nothing, for `bench/scale`: what is left is what masters and etcd do.

One process is all machines: their presence hangs on one lease, one watch hears all placements, and what is placed
is told as running in transactions of a hundred. No agent works so. It shows how much masters take when agents have
computers of their own. It runs until stdin ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import sys
import time
from collections import deque

from unitfleet import codec, keys
from unitfleet.etcd.store import EtcdStore
from unitfleet.model import Capacity, CopyPhase, Placement, Presence, Resources, UnitState
from unitfleet.store import EventKind, Put

GIB = 1024**3
CAPACITY = Capacity(cpu=64.0, memory=256 * GIB, disk=1024 * GIB)
TTL_S, RENEW_S = 30.0, 5.0
MACHINES_AT_ONCE = 50  # begin in one transaction
STATES_AT_ONCE = 100  # are told in one transaction


class Bulk:
    """`count` machines, numbered from `first`."""

    def __init__(self, store: EtcdStore, first: int, count: int) -> None:
        self._store = store
        self._machines = [f"{number:032x}" for number in range(first, first + count)]
        self._told: deque[Put] = deque()
        self._some = asyncio.Event()

    async def run(self) -> None:
        """Be there, and tell what is placed as running."""
        lease = (await self._store.grant(TTL_S)).id
        revision = (await self._store.list(keys.CLUSTER)).revision
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew(lease))
            tasks.create_task(self._hear(revision + 1))
            tasks.create_task(self._tell())
            for start in range(0, len(self._machines), MACHINES_AT_ONCE):
                await self._begin(self._machines[start : start + MACHINES_AT_ONCE], lease)

    async def _begin(self, machines: list[str], lease: int) -> None:
        ops = []
        for machine in machines:
            name = f"b{int(machine, 16)}"
            presence = Presence(
                id=machine,
                name=name,
                nonce=name,
                boot_id="b1",
                fingerprint=name,
                address="",
                port=0,
                drivers=("process",),
                capacity=CAPACITY,
            )
            ops.append(Put(keys.presence(machine), codec.encode(presence), lease))
            resources = Resources(id=machine, capacity=CAPACITY)
            ops.append(Put(keys.resources(machine), codec.encode(resources), lease))
        await self._store.txn((), ops)

    async def _renew(self, lease: int) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            await self._store.keepalive(lease, TTL_S - RENEW_S)

    async def _hear(self, revision: int) -> None:
        watching = self._store.watch(keys.PREFIX + "placements/", start_revision=revision)
        async with contextlib.aclosing(watching) as batches:
            async for batch in batches:
                for event in batch.events:
                    if event.kind is EventKind.PUT:
                        placement = codec.decode(event.kv.value, Placement, event.kv.key)
                        state = running(placement)
                        self._told.append(Put(keys.state(state.machine, state.unit), codec.encode(state)))
                self._some.set()

    async def _tell(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._told:
                ops = list(itertools.islice(self._told, STATES_AT_ONCE))
                for _ in ops:
                    self._told.popleft()
                await self._store.txn((), ops)


def running(placement: Placement) -> UnitState:
    """Return what an agent would tell of a copy that runs."""
    return UnitState(
        unit=placement.unit,
        machine=placement.machine,
        incarnation=placement.incarnation,
        epoch=placement.epoch,
        restart=placement.restart,
        spec=placement.spec,
        phase=CopyPhase.RUNNING,
        active="active",
        sub="running",
        driver="process",
        since=time.time(),
    )


async def serve(first: int, count: int, endpoints: list[str]) -> None:
    """Run until stdin ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    store = EtcdStore(endpoints)
    machines = asyncio.ensure_future(Bulk(store, first, count).run())
    over = asyncio.ensure_future(reader.read())
    await asyncio.wait((machines, over), return_when=asyncio.FIRST_COMPLETED)
    machines.cancel()
    await asyncio.gather(machines, return_exceptions=True)
    await store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--etcd", required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.first, options.count, options.etcd.split(",")))
