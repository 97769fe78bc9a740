"""Texts on a host: instances of a template share one, and each is its own unit all the same."""

from __future__ import annotations

import hashlib

import pytest

from unit_agent.local_copy import MemoryCopy
from unit_agent.texts import FOLDER, Texts
from unitfleet import keys
from unitfleet.errors import NotFound
from unitfleet.memory import MemoryStore
from unitfleet.model import Placement, Wanted

PLAIN = "[Service]\nExecStart=/bin/sleep 1000\n"
OF_THE_INSTANCE = "[Service]\nExecStart=/bin/sleep %i\n"


class CountedCopy(MemoryCopy):
    """A local copy that counts how often it is read."""

    reads = 0

    async def read(self, name: str) -> bytes | None:
        self.reads += 1
        return await super().read(name)


def placed(unit: str, text: str) -> Placement:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Placement(
        unit=unit,
        machine="m1",
        spec=digest,
        incarnation="i",
        epoch=1,
        wanted=Wanted.LAUNCHED,
        restart=0,
        reason="",
    )


async def texts_of(*held: str) -> tuple[Texts, CountedCopy]:
    store, local = MemoryStore(), CountedCopy()
    for text in held:
        await store.put(keys.spec(hashlib.sha256(text.encode()).hexdigest()), text.encode())
    return Texts(store, local, {"H": "m1"}), local


async def test_a_text_is_read_once_for_all_instances_and_each_has_its_own_name() -> None:
    texts, local = await texts_of(PLAIN)
    orders = [await texts.order(placed(f"a@{number}.service", PLAIN)) for number in (1, 2, 3)]
    assert [order.spec.name for order in orders] == ["a@1.service", "a@2.service", "a@3.service"]
    assert [order.spec.requirements.unit for order in orders] == ["a@1.service", "a@2.service", "a@3.service"]
    assert local.reads == 1


async def test_a_text_with_specifiers_says_to_each_instance_its_own() -> None:
    texts, _ = await texts_of(OF_THE_INSTANCE)
    orders = [await texts.order(placed(f"a@{number}.service", OF_THE_INSTANCE)) for number in (1, 2)]
    assert [order.spec.service.start[0].words[-1] for order in orders] == ["1", "2"]


async def test_a_text_that_was_forgotten_is_kept_on_disk_anew_when_it_is_placed_again() -> None:
    texts, local = await texts_of(PLAIN)
    order = placed("a@1.service", PLAIN)
    await texts.order(order)
    await texts.keep_only(set())
    assert await local.names(FOLDER) == []
    await texts.order(order)
    assert await local.names(FOLDER) == [order.spec]


async def test_a_text_that_a_lagging_member_did_not_have_is_readable_once_it_was_read() -> None:
    store = MemoryStore()
    texts, placement = Texts(store, MemoryCopy(), {}), placed("a.service", PLAIN)
    with pytest.raises(NotFound):
        await texts.order(placement)
    assert texts.unreadable("a.service", placement.spec)
    await store.put(keys.spec(placement.spec), PLAIN.encode())
    await texts.order(placement)
    assert not texts.unreadable("a.service", placement.spec)
