"""What an agent does with secrets: store in memory, fake driver, virtual time; the files are real."""

from __future__ import annotations

import dataclasses
import os
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from functional.agent_world import RESTARTING, M, World, story, until
from unit_agent.driver import Copy, Order
from unit_agent.drivers.fake import FakeDriver
from unit_agent.secrets.delivery import SecretFiles
from unitfleet import codec, keys
from unitfleet.model import CopyPhase, Sealed, Wanted
from unitfleet.sealing import new_private_key, public_key, seal

PRIVATE = "5e" * 32
TEXT = "[Service]\nExecStart=/bin/sleep 1000\n[X-Fleet]\nSecret=db\n"


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="uf-secrets-") as folder:
        yield Path(folder) / "secrets"


class Direct:
    """A host's files without its threads, which a virtual clock can't wait for."""

    def __init__(self, root: Path, filesystem: str = "") -> None:
        self.files = SecretFiles(root, M, filesystem=(lambda path: filesystem) if filesystem else None)

    async def put(self, order: Order, values: Callable[[str], bytes]) -> Path:
        return self.files.put(order, values)

    async def remove(self, unit: str) -> None:
        self.files.remove(unit)

    async def sweep(self, known: Collection[str]) -> None:
        self.files.sweep(known)


def read_all(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


class Seeing(FakeDriver):
    """Notes what a unit finds when it is started."""

    found: ClassVar[list[dict[str, bytes]]] = []

    async def start(self, order: Order) -> Copy:
        self.found.append(read_all(order.credentials))
        return await super().start(order)


async def give(world: World, value: bytes, *, id: str = "i1", key: str = PRIVATE, why: str = "") -> None:
    public = public_key(key)
    sealed = Sealed(
        machine=M, name="db", version=1, id=id, key=public, sealed="" if why else seal(value, public), why=why
    )
    await world.admin.put(keys.sealed(M, "db"), codec.encode(sealed))


def a_world(world: World) -> None:
    Seeing.found = []
    world.driver_type = Seeing
    world.facts = dataclasses.replace(world.facts, public_key=public_key(PRIVATE))


async def says(world: World, words: str, unit: str = "a.service") -> None:
    async def so() -> bool:
        state = await world.state(unit)
        return state is not None and words in state.message

    await until(so, 30.0, words)


def test_a_unit_waits_for_its_secret_and_starts_with_it_as_soon_as_it_is_there(memory: Path) -> None:
    async def tell(world: World) -> None:
        a_world(world)
        async with world.agent(private_key=PRIVATE, delivery=Direct(memory)):
            await world.stands()
            presence = await world.presence()
            assert presence is not None and presence.public_key == public_key(PRIVATE)
            await world.place("a.service", text=TEXT)
            await says(world, "secret db is not here: it was removed, or not sealed yet")
            assert await world.phase("a.service") is CopyPhase.WAITING and not Seeing.found
            await give(world, b"hunter2")
            await world.becomes("a.service", CopyPhase.RUNNING, 1.0)
            assert Seeing.found == [{"db": b"hunter2"}]
            (folder,) = (memory / M).iterdir()
            assert stat.S_IMODE((folder / "db").stat().st_mode) == 0o400
            await world.place("a.service", Wanted.GONE, text=TEXT)
            await world.becomes("a.service", CopyPhase.GONE)
            assert os.listdir(memory / M) == [], "the files go with the copy"

    story(tell)


@pytest.mark.parametrize("text", [TEXT, RESTARTING + "[X-Fleet]\nSecret=db\n"], ids=["once", "restarting"])
def test_a_unit_whose_secret_can_not_be_opened_fails_and_is_never_started(memory: Path, text: str) -> None:
    async def tell(world: World) -> None:
        a_world(world)
        await give(world, b"hunter2", key=new_private_key())
        async with world.agent(private_key=PRIVATE, delivery=Direct(memory)):
            await world.place("a.service", text=text)
            await world.becomes("a.service", CopyPhase.FAILED, 60.0)
            await says(world, "secret db can't be read here")
            assert not Seeing.found
            await give(world, b"hunter2", id="i2")
            await world.becomes("a.service", CopyPhase.RUNNING, 5.0)

    story(tell)


def test_why_a_master_could_not_seal_it_is_told(memory: Path) -> None:
    async def tell(world: World) -> None:
        a_world(world)
        await give(world, b"", why="the leading master does not have the key that it was sealed to")
        async with world.agent(private_key=PRIVATE, delivery=Direct(memory)):
            await world.place("a.service", text=TEXT)
            await says(world, "could not be sealed: the leading master")

    story(tell)


def test_a_running_copy_keeps_its_value_until_it_is_restarted(memory: Path) -> None:
    async def tell(world: World) -> None:
        a_world(world)
        await give(world, b"old")
        async with world.agent(private_key=PRIVATE, delivery=Direct(memory)):
            await world.place("a.service", text=TEXT)
            await world.becomes("a.service", CopyPhase.RUNNING)
            await give(world, b"new", id="i2")

            async def kept() -> bool:
                raw = world.local.documents.get("sealed/db.json", b"")
                return b'"i2"' in raw

            await until(kept, 5.0, "the new value is here")
            (folder,) = (memory / M).iterdir()
            assert (folder / "db").read_bytes() == b"old"
            await world.place("a.service", text=TEXT, restart=1)
            await until(lambda: _is(len(Seeing.found) == 2), 10.0, "it is restarted")
            assert Seeing.found[1] == {"db": b"new"}

    story(tell)


async def _is(condition: bool) -> bool:
    return condition


def test_a_host_that_boots_without_the_store_starts_its_units_with_their_secrets(memory: Path) -> None:
    async def tell(world: World) -> None:
        a_world(world)
        await give(world, b"hunter2")
        async with world.agent(private_key=PRIVATE, delivery=Direct(memory)):
            await world.place("a.service", text=TEXT)
            await world.becomes("a.service", CopyPhase.RUNNING)
        assert b"hunter2" not in b"".join(world.local.documents.values())
        world.host.power_off()
        for folder in (memory / M).iterdir():
            (folder / "db").unlink()
            folder.rmdir()
        world.store.link.cut()
        facts = dataclasses.replace(world.facts, boot_id="b2")
        async with world.agent(private_key=PRIVATE, delivery=Direct(memory), facts=facts):
            await until(lambda: _is(len(Seeing.found) == 2), 60.0, "it is started again")
            assert Seeing.found[1] == {"db": b"hunter2"}

    story(tell)


def test_a_name_that_leads_out_of_its_folder_is_ignored(memory: Path) -> None:
    async def tell(world: World) -> None:
        a_world(world)
        name = "../machine"
        bad = Sealed(machine=M, name=name, version=1, id="i", key="", sealed="x")
        await world.admin.put(keys.sealed(M, name), codec.encode(bad))
        await give(world, b"hunter2")
        async with world.agent(private_key=PRIVATE, delivery=Direct(memory)):
            await world.place("a.service", text=TEXT)
            await world.becomes("a.service", CopyPhase.RUNNING)
        assert not [document for document in world.local.documents if ".." in document]

    story(tell)


def test_files_that_a_killed_agent_left_of_a_unit_are_swept(memory: Path) -> None:
    async def tell(world: World) -> None:
        a_world(world)
        (memory / M / "gone.service").mkdir(parents=True)
        async with world.agent(private_key=PRIVATE, delivery=Direct(memory)):
            await until(lambda: _is(os.listdir(memory / M) == []), 10.0, "swept")

    story(tell)


def test_a_host_without_a_place_in_memory_fails_the_unit_and_says_so(memory: Path) -> None:
    async def tell(world: World) -> None:
        a_world(world)
        await give(world, b"hunter2")
        async with world.agent(private_key=PRIVATE, delivery=Direct(memory, "ext4")):
            await world.place("a.service", text=TEXT)
            await world.becomes("a.service", CopyPhase.FAILED)
            await says(world, "is on a disk (ext4), not in memory")
        assert not Seeing.found

    story(tell)
