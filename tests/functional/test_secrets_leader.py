"""The leader seals secrets for machines: over a store in memory, in virtual time."""

from __future__ import annotations

import asyncio

from functional.test_leader import a_master, write
from harness.builders import a_machine, a_record, a_unit
from harness.eventually import eventually
from harness.virtual_time import run_virtual
from unitfleet import codec, keys
from unitfleet.memory import MemoryStore
from unitfleet.model import Sealed, Secret, TargetState
from unitfleet.sealing import new_private_key, public_key, seal, unseal

MASTERS = "5e" * 32


def a_secret(value: bytes, *, name: str = "db", id: str = "i1", key: str = MASTERS) -> Secret:
    public = public_key(key)
    return Secret(name=name, version=1, id=id, key=public, sealed=seal(value, public))


async def given(store: MemoryStore, machine: str, name: str = "db") -> Sealed | None:
    kv = await store.get(keys.sealed(machine, name))
    return codec.decode(kv.value, Sealed, kv.key) if kv else None


def test_a_unit_that_fails_over_finds_its_secret_there_and_the_lost_machine_can_not_open_it() -> None:
    async def story() -> None:
        store = MemoryStore()
        m1, m2 = new_private_key(), new_private_key()
        async with a_master(store.client("master1"), secrets_key=MASTERS):
            await write(store, a_machine("m1", public_key=public_key(m1)))
            await write(store, a_record(keys.secret("db"), a_secret(b"hunter2")), a_unit(fleet="Secret=db"))

            async def on_m1() -> bool:
                one = await given(store, "m1")
                return one is not None and unseal(one.sealed, m1) == b"hunter2"

            await eventually(on_m1, within_s=20.0, what=lambda: "m1 can open it")
            await write(store, a_machine("m2", public_key=public_key(m2)))
            await store.delete(keys.presence("m1"))

            async def on_m2() -> bool:
                one = await given(store, "m2")
                return one is not None and unseal(one.sealed, m2) == b"hunter2"

            await eventually(on_m2, within_s=60.0, what=lambda: "m2 can open it")

    run_virtual(story(), limit_s=120)


def test_what_nothing_needs_any_more_is_taken_back_and_a_new_value_is_given() -> None:
    async def story() -> None:
        store = MemoryStore()
        m1 = new_private_key()
        async with a_master(store.client("master1"), secrets_key=MASTERS):
            await write(store, a_machine("m1", public_key=public_key(m1)))
            await write(store, a_record(keys.secret("db"), a_secret(b"old")), a_unit(fleet="Secret=db"))

            async def is_old() -> bool:
                one = await given(store, "m1")
                return one is not None and unseal(one.sealed, m1) == b"old"

            await eventually(is_old, within_s=20.0, what=lambda: "the first value")
            await write(store, a_record(keys.secret("db"), a_secret(b"new", id="i2")))

            async def is_new() -> bool:
                one = await given(store, "m1")
                return one is not None and unseal(one.sealed, m1) == b"new"

            await eventually(is_new, within_s=20.0, what=lambda: "the new value")
            await write(store, a_unit(fleet="Secret=db", target=TargetState.DESTROYED, generation=2))

            async def is_gone() -> bool:
                return await given(store, "m1") is None

            await eventually(is_gone, within_s=20.0, what=lambda: "it is taken back")

    run_virtual(story(), limit_s=120)


def test_a_leader_without_the_key_says_so_to_the_machine() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with a_master(store.client("master1"), secrets_key="77" * 32):
            await write(store, a_machine("m1", public_key=public_key(new_private_key())))
            await write(store, a_record(keys.secret("db"), a_secret(b"x")), a_unit(fleet="Secret=db"))

            async def said() -> bool:
                one = await given(store, "m1")
                return one is not None and not one.sealed and "does not have the key" in one.why

            await eventually(said, within_s=20.0, what=lambda: "the reason")

    run_virtual(story(), limit_s=60)


def test_a_machine_whose_key_is_none_is_told_so_once_and_hinders_no_other() -> None:
    async def story() -> None:
        store = MemoryStore()
        m2 = new_private_key()
        async with a_master(store.client("master1"), secrets_key=MASTERS):
            await write(store, a_machine("m1", public_key="00" * 32), a_machine("m2", public_key=public_key(m2)))
            await write(store, a_record(keys.secret("db"), a_secret(b"x")))
            await write(store, a_unit(fleet="Secret=db\nGlobal=true"))

            async def both() -> bool:
                bad, good = await given(store, "m1"), await given(store, "m2")
                return bool(bad and "cannot seal" in bad.why and good and unseal(good.sealed, m2) == b"x")

            await eventually(both, within_s=20.0, what=lambda: "one is told why, the other has it")
            before = await store.get(keys.sealed("m1", "db"))
            await asyncio.sleep(60.0)
            assert await store.get(keys.sealed("m1", "db")) == before

    run_virtual(story(), limit_s=120)


def test_large_values_for_many_machines_fit_the_bounds_of_a_transaction() -> None:
    async def story() -> None:
        store = MemoryStore()
        keys_of = {f"m{number}": new_private_key() for number in range(3)}
        names = [f"s{number}" for number in range(12)]
        fleet = "Global=true\n" + "\n".join(f"Secret={name}" for name in names)
        async with a_master(store.client("master1"), secrets_key=MASTERS):
            for name, key in keys_of.items():
                await write(store, a_machine(name, public_key=public_key(key)))
            for name in names:
                await write(store, a_record(keys.secret(name), a_secret(b"\xff" * 65536, name=name)))
            await write(store, a_unit(fleet=fleet))

            async def all_given() -> bool:
                held = [await given(store, machine, name) for machine in keys_of for name in names]
                return all(one is not None and one.sealed for one in held)

            await eventually(all_given, within_s=30.0, what=lambda: "each machine has all")

    run_virtual(story(), limit_s=60)
