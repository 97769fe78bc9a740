"""An agent's presence, lease, identity and resources, in virtual time."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from functional.agent_world import M, World, story, until
from unitfleet import keys
from unitfleet.errors import Refused
from unitfleet.model import (
    Capacity,
    CopyPhase,
    Resources,
)


def test_a_revoked_lease_is_answered_by_a_new_presence_at_once() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.stands()
            before = await world.admin.get(keys.presence(M))
            assert before is not None
            world.server.revoke(before.lease)
            assert await world.presence() is None
            await world.stands(within_s=0.5)
            after = await world.admin.get(keys.presence(M))
            assert after is not None and after.lease != before.lease
            await asyncio.sleep(30)
            assert await world.presence() is not None

    story(tell)


def test_a_deleted_presence_key_is_written_again_at_once() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.stands()
            await world.admin.delete(keys.presence(M))
            await world.stands(within_s=0.5)

    story(tell)


def test_a_restart_within_the_ttl_keeps_the_lease_and_is_never_absent() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.stands()
            before = await world.admin.get(keys.presence(M))
        await asyncio.sleep(6)
        async with world.agent(seed=2):
            await asyncio.sleep(20)
            after = await world.admin.get(keys.presence(M))
        assert before is not None and after is not None
        assert after.lease == before.lease
        assert after.create_revision == before.create_revision, "it was never deleted"
        assert after.value != before.value, "another nonce: another process"

    story(tell)


def test_a_reboot_does_not_take_up_the_old_lease() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.stands()
            before = await world.admin.get(keys.presence(M))
        rebooted = dataclasses.replace(world.facts, boot_id="b2")
        async with world.agent(seed=2, facts=rebooted):
            await asyncio.sleep(2)
            after = await world.admin.get(keys.presence(M))
        assert before is not None and after is not None and after.lease != before.lease

    story(tell)


def test_a_machine_cut_off_for_longer_than_its_lease_is_back_after_it() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.place("a.service")
            await world.becomes("a.service", CopyPhase.RUNNING)
            pid = world.host.copies["a.service"].pid
            world.store.link.cut()
            await asyncio.sleep(60)
            assert await world.presence() is None
            world.store.link.heal()
            await world.stands(within_s=4)
            assert world.host.copies["a.service"].pid == pid

    story(tell)


def test_another_host_under_our_identity_is_refused() -> None:
    async def tell(world: World) -> None:
        async with world.agent():
            await world.stands()
            clone = World()
            clone.admin = world.admin
            clone.store = world.admin.client("clone")
            with pytest.raises(Refused, match="another host") as refused:
                async with clone.agent(facts=dataclasses.replace(world.facts, fingerprint="f2")) as agent:
                    await agent.run()
            assert refused.value.hint

    story(tell)


def test_the_resources_are_told_at_the_join_and_then_on_change_alone() -> None:
    async def tell(world: World) -> None:
        used = 100

        def measure() -> Resources:
            return Resources(id=M, capacity=Capacity(cpu=1, memory=1000, disk=1000), memory_used=used)

        async def told(expected: int) -> bool:
            found = await world.read(keys.resources(M), Resources)
            return found is not None and found.memory_used == expected

        async with world.agent(measure=measure):
            await until(lambda: told(100), 2, "told at the join")
            used = 150
            await asyncio.sleep(100)
            assert await told(100)
            used = 250
            await until(lambda: told(250), 31, "told on change")
            found = await world.admin.get(keys.presence(M))
            assert found is not None
            world.server.revoke(found.lease)
            await until(lambda: told(250), 2, "told again with the new lease")

    story(tell)
