"""Small stories on the model of etcd: what each of its faults once broke."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from harness.processes import ProcessLoop
from harness.virtual_time import run_virtual
from simulation.etcd_model import EtcdModel, ModelStore
from simulation.fleet import ModelMachine
from simulation.world import now
from unitfleet import keys
from unitfleet.election import Election, Term
from unitfleet.errors import StoreFull

Story = Callable[[ModelStore, ModelMachine], Awaitable[None]]


def tell(story: Story) -> None:
    async def told() -> None:
        store = ModelStore(EtcdModel())
        machine = ModelMachine("m1", store, random.Random(1))
        async with asyncio.TaskGroup() as tasks:
            machine.start(tasks)
            await asyncio.sleep(2.0)
            await story(store, machine)
            await machine.kill()

    run_virtual(told(), limit_s=300, loop=ProcessLoop)


async def _presence_goes(store: ModelStore) -> None:
    kv = await store.get(keys.presence("m1"))
    assert kv is not None
    store.server.revoke(kv.lease)


def test_an_agent_that_reads_old_news_of_itself_rests_between_its_tries() -> None:
    async def story(store: ModelStore, machine: ModelMachine) -> None:
        machine.store.link.stale_s, machine.store.link.stale_until = 4.0, loop_now() + 4.0
        await _presence_goes(store)
        await asyncio.sleep(6.0)  # time would stand still: each try fails at once
        assert await store.get(keys.presence("m1")) is not None

    tell(story)


def test_an_agent_takes_an_old_record_of_its_former_process_for_no_other_agent() -> None:
    async def story(store: ModelStore, machine: ModelMachine) -> None:
        snapshot = store.server.snapshot()
        await machine.kill()
        async with asyncio.TaskGroup() as tasks:
            machine.start(tasks)  # the next process of the same host takes its presence over
            await asyncio.sleep(2.0)
            store.server.restore(snapshot)
            assert machine.agent is not None
            machine.agent.presence.rewrite()
            await asyncio.sleep(2.0)
            kv = await store.get(keys.presence("m1"))
            assert kv is not None
            assert machine.agent.presence.nonce.encode() in kv.value
            await machine.kill()

    tell(story)


def test_a_master_that_reads_old_news_of_a_leader_rests_between_its_tries() -> None:
    async def story() -> None:
        server = EtcdModel()
        store, rival = ModelStore(server), ModelStore(server, name="rival")
        led = asyncio.Event()

        async def lead(term: Term) -> None:
            led.set()
            await asyncio.Event().wait()

        lease = await store.grant(60.0)
        async with asyncio.TaskGroup() as tasks:
            await asyncio.sleep(1.0)
            await store.put(keys.LEADER, b"somebody", lease.id)
            rival.link.stale_s, rival.link.stale_until = 3.0, loop_now() + 8.0
            election = tasks.create_task(Election(rival, "rival", (), now=now, rng=random.Random(1)).run(lead))
            await asyncio.sleep(5.0)
            await store.revoke(lease.id)
            await asyncio.wait_for(led.wait(), 10.0)
            election.cancel()

    run_virtual(story(), limit_s=60, loop=ProcessLoop)


def test_a_full_store_takes_no_writes_and_lets_leases_live() -> None:
    async def story(store: ModelStore, machine: ModelMachine) -> None:
        store.server.is_full = True
        with pytest.raises(StoreFull):
            await store.put("/x", b"")
        await asyncio.sleep(20.0)
        assert await store.get(keys.presence("m1")) is not None
        store.server.is_full = False

    tell(story)


def loop_now() -> float:
    return asyncio.get_running_loop().time()
