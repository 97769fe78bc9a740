"""The leader tells machines what to hold: over a store in memory, in virtual time."""

from __future__ import annotations

from functional.test_leader import a_master, write
from harness.builders import a_machine, a_record, a_unit
from harness.eventually import eventually
from harness.virtual_time import run_virtual
from unit_master.warming import reference_digest
from unitfleet import codec, keys
from unitfleet.memory import MemoryStore
from unitfleet.model import Images, MachineStatus, WarmImage, WarmSet

APP = "registry:5000/app:1"


async def told(store: MemoryStore, machine: str) -> WarmSet | None:
    """Return what a machine was told to hold."""
    kv = await store.get(keys.warm_set(machine))
    return codec.decode(kv.value, WarmSet, kv.key) if kv else None


def test_machines_are_told_what_to_hold_and_whose_turn_it_is() -> None:
    async def story() -> None:
        store = MemoryStore()
        machines = [f"m{number}" for number in range(4)]
        async with a_master(store.client("master1")):
            await write(store, *(a_machine(name) for name in machines))
            await write(store, a_unit(text=f"[Container]\nImage={APP}\n"))

            async def turns() -> list[str]:
                sets = [await told(store, name) for name in machines]
                if not all(one is not None and one.images == (APP,) and one.nonce == "n1" for one in sets):
                    return []
                return [one.id for one in sets if one is not None and one.turns]

            async def first_two() -> bool:
                return await turns() == ["m0", "m1"]

            await eventually(first_two, within_s=20.0, what=lambda: "two machines pull")
            await write(store, a_record(keys.images("m0"), Images(id="m0", held=(APP,))))

            async def next_one() -> bool:
                return await turns() == ["m1", "m2"]

            await eventually(next_one, within_s=20.0, what=lambda: "the next one pulls once one holds it")

    run_virtual(story(), limit_s=60)


def test_an_order_is_told_within_a_moment_and_written_once() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with a_master(store.client("master1")):
            await write(store, a_machine("m1"))
            await write(store, a_record(keys.warm(reference_digest(APP)), WarmImage(image=APP)))

            async def so() -> bool:
                one = await told(store, "m1")
                return one is not None and one.images == (APP,)

            await eventually(so, within_s=5.0, what=lambda: "m1 is told")
            kv = await store.get(keys.warm_set("m1"))
            await write(store, a_unit())  # concerns no image

            async def placed() -> bool:
                return bool((await store.list(keys.PREFIX + "placements/")).items)

            await eventually(placed, within_s=20.0, what=lambda: "the unit is placed")
            assert await store.get(keys.warm_set("m1")) == kv

    run_virtual(story(), limit_s=60)


def test_a_lost_machine_is_told_nothing_and_a_removed_one_leaves_nothing() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with a_master(store.client("master1"), tidy_every_s=2.0):
            await write(store, a_machine("m1"), a_machine("m2", status=MachineStatus.LOST))
            await write(store, a_record(keys.warm_set("m3"), WarmSet(id="m3")))
            await write(store, a_record(keys.warm(reference_digest(APP)), WarmImage(image=APP)))

            async def so() -> bool:
                one = await told(store, "m1")
                gone = await told(store, "m2") is None and await told(store, "m3") is None
                return one is not None and one.images == (APP,) and gone

            await eventually(so, within_s=20.0, what=lambda: "m1 alone has a warm set")

    run_virtual(story(), limit_s=60)
