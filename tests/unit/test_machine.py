"""Identity, fingerprint and facts of a host, read from trees made for it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from unit_agent import machine
from unit_agent.local_copy import DirectoryCopy, MemoryCopy
from unit_agent.machine import IDENTITY, Fingerprint, identify
from unit_agent.presence import differs
from unit_agent.resources import meter
from unitfleet.errors import InvalidConfig
from unitfleet.model import Capacity, Resources

HOST = Fingerprint("machine", "product", ("card1",))


async def test_the_identity_is_made_once_and_is_random() -> None:
    local = MemoryCopy()
    first = await identify(local, HOST, random.Random(1))
    again = await identify(local, HOST, random.Random(2))
    elsewhere = await identify(MemoryCopy(), HOST, random.Random(3))
    assert first.id == again.id
    assert elsewhere.id != first.id, "two agents of one host are two machines"
    assert len(first.id) == 32


@pytest.mark.parametrize(
    "other",
    [replace(HOST, machine_id="x"), replace(HOST, product="x"), replace(HOST, nics=("card2",))],
    ids=["another machine-id", "another board", "other cards altogether"],
)
async def test_a_state_directory_that_was_cloned_gives_a_new_identity(
    other: Fingerprint, caplog: pytest.LogCaptureFixture
) -> None:
    local = MemoryCopy()
    first = await identify(local, HOST, random.Random(1))
    clone = await identify(local, other, random.Random(2))
    assert clone.id != first.id
    assert first.id in caplog.text and clone.id in caplog.text
    assert (await identify(local, other, random.Random(3))).id == clone.id


@pytest.mark.parametrize("nics", [(), ("card1", "card2"), ("card0", "card1")])
async def test_a_card_more_or_a_network_that_is_not_up_is_the_same_host(nics: tuple[str, ...]) -> None:
    local = MemoryCopy()
    first = await identify(local, HOST, random.Random(1))
    again = await identify(local, replace(HOST, nics=nics), random.Random(2))
    assert again.id == first.id
    back = await identify(local, HOST, random.Random(3))
    assert back.id == first.id


async def test_a_network_that_is_not_up_does_not_change_the_fingerprint() -> None:
    local = MemoryCopy()
    first = await identify(local, HOST, random.Random(1))
    again = await identify(local, replace(HOST, nics=()), random.Random(2))
    assert again.fingerprint.digest == first.fingerprint.digest


async def test_a_damaged_identity_is_refused_and_kept() -> None:
    local = MemoryCopy()
    await local.write(IDENTITY, b"{")
    with pytest.raises(InvalidConfig, match="which machine") as refused:
        await identify(local, HOST, random.Random(1))
    assert refused.value.hint and await local.read(IDENTITY) == b"{"


def tree(root: Path, *, physical: bool) -> Path:
    """Make what the kernel shows of a host with one card, a bridge and a container's veth."""
    for name, address in (
        ("eth0", "02:00:00:00:00:01"),
        ("docker0", "02:42:aa:aa:aa:aa"),
        ("veth1", "06:00:00:01"),
    ):
        folder = root / "sys/class/net" / name
        folder.mkdir(parents=True)
        (folder / "address").write_text(address + "\n")
    if physical:
        (root / "sys/class/net/eth0/device").mkdir()
    (root / "etc").mkdir()
    (root / "etc/machine-id").write_text("abc\n")
    (root / "proc/net").mkdir(parents=True)
    routes = "Iface Destination Gateway Flags RefCnt Use Metric Mask\neth0 00000000 0101 3 0 0 0 00000000\n"
    (root / "proc/net/route").write_text(routes + "docker0 000011AC 0 1 0 0 0 0000FFFF\n")
    return root


@pytest.mark.parametrize("physical", [True, False], ids=["a physical card", "the uplink of a container"])
def test_the_fingerprint_looks_at_the_hosts_own_card_alone(tmp_path: Path, physical: bool) -> None:
    root = tree(tmp_path, physical=physical)
    before = machine.fingerprint(root)
    assert len(before.nics) == 1
    (root / "sys/class/net/veth1/address").write_text("06:00:00:02\n")
    assert machine.fingerprint(root) == before
    (root / "sys/class/net/eth0/address").write_text("02:00:00:00:00:02\n")
    assert not machine.fingerprint(root).same_host(before)


def test_the_fingerprint_holds_no_number_of_the_host_in_the_clear(tmp_path: Path) -> None:
    found = machine.fingerprint(tree(tmp_path, physical=True))
    assert "abc" not in repr(found) and "02:00" not in repr(found)


def test_the_facts_of_this_host(tmp_path: Path) -> None:
    capacity = meter.capacity(tmp_path)
    assert capacity.cpu >= 1 and capacity.memory > 2**20 and capacity.disk > 2**20
    assert machine.boot_id() == machine.boot_id() != ""
    assert machine.source_address().count(".") == 3
    measured = meter.Meter("m", tmp_path).measure()
    assert 0 < measured.memory_used < capacity.memory


def test_resources_are_worth_a_write_when_a_tenth_of_the_capacity_changed() -> None:
    told = Resources(id="m", capacity=Capacity(cpu=4, memory=1000, disk=1000), memory_used=500)

    def used(memory: int) -> Resources:
        return Resources(id="m", capacity=told.capacity, memory_used=memory)

    assert not differs(told, used(600))
    assert differs(told, used(601))
    assert differs(told, used(399))
    assert differs(told, Resources(id="m", capacity=Capacity(cpu=8, memory=1000, disk=1000), memory_used=500))


async def test_the_local_copy_on_disk_replaces_whole_documents(tmp_path: Path) -> None:
    local = DirectoryCopy(tmp_path / "state")
    assert await local.read("a.json") is None and await local.names("specs") == []
    await local.write("a.json", b"1")
    await local.write("a.json", b"22")
    await local.write("specs/x", b"text")
    assert await local.read("a.json") == b"22"
    assert await local.names("specs") == ["x"]
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert (tmp_path / "state/a.json").stat().st_mode & 0o077 == 0
    await local.delete("specs/x")
    await local.delete("specs/x")
    assert await local.names("specs") == []
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["a.json", "specs"]
