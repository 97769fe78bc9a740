"""The files of secrets: their owners, modes, and that they are in memory or not written at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from unit_agent.driver import Order
from unit_agent.drivers.docker_request import Owner, create_body
from unit_agent.local_copy import DirectoryCopy
from unit_agent.secrets.delivery import SecretFiles, filesystem_of
from unit_agent.secrets.files import account, file_names, files
from unit_agent.secrets.machine_key import KEY, machine_key
from unitfleet.accept import read
from unitfleet.errors import DriverError
from unitfleet.model import Placement, Wanted
from unitfleet.spec import UnitSpec

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
CONTAINER = "[Container]\nImage=app:1\nUser=7:8\nSecret=db\nSecret=db,target=/etc/db,uid=9,mode=0440\n"
SERVICE = "[Service]\nExecStart=/bin/true\nUser=nobody\n[X-Fleet]\nSecret=db\nSecret=tls,target=key\n"


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="uf-secrets-") as folder:
        yield Path(folder) / "secrets"


def an_order(text: str, credentials: str = "") -> Order:
    placement = Placement(
        unit="a.service",
        machine="m1",
        spec="s",
        incarnation="i",
        epoch=1,
        wanted=Wanted.LAUNCHED,
        restart=0,
        reason="",
    )
    return Order(placement, read("a.service", text), credentials)


def value(name: str) -> bytes:
    return f"value of {name}".encode()


def refused_account(user: str, group: str) -> tuple[int, int]:
    raise AssertionError("a container's user is no account of the host")


def whose(spec: UnitSpec) -> list[tuple[str, int, int, int]]:
    return [
        (file.name, file.uid, file.gid, file.secret.mode)
        for file in files(spec, account(spec, (1, 2), refused_account))
    ]


def test_a_file_belongs_to_the_containers_user_unless_the_unit_says_whose_it_is() -> None:
    spec = an_order(CONTAINER).spec
    assert whose(spec) == [("0.db", 7, 8, 0o400), ("1.db", 9, 8, 0o440)]
    assert account(read("a.service", "[Container]\nImage=app:1\n"), (1, 2), refused_account) == (0, 0)
    assert account(read("a.service", "[Service]\nExecStart=/bin/x\n"), (1, 2), refused_account) == (1, 2)


@as_root
def test_a_service_finds_its_files_as_its_user_and_nobody_else_does(memory: Path) -> None:
    folder = SecretFiles(memory, "m1").put(an_order(SERVICE), value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "db": b"value of db",
        "key": b"value of tls",
    }
    for path in (folder, *folder.iterdir()):
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode) & 0o077) == (65534, 0)


def test_a_value_that_can_not_be_had_leaves_no_file_of_the_others(memory: Path) -> None:
    def half(name: str) -> bytes:
        if name == "tls":
            raise DriverError("cannot open tls")
        return value(name)

    delivery = SecretFiles(memory, "m1")
    with pytest.raises(DriverError, match="cannot open tls"):
        delivery.put(an_order(SERVICE.replace("User=nobody\n", "")), half)
    assert not delivery.directory("a.service").exists()


def test_what_is_not_in_memory_is_not_written(memory: Path) -> None:
    delivery = SecretFiles(memory, "m1", filesystem=lambda path: "ext4")
    with pytest.raises(DriverError, match=r"is on a disk \(ext4\), not in memory"):
        delivery.put(an_order(SERVICE.replace("User=nobody\n", "")), value)
    assert not delivery.directory("a.service").exists()


def test_a_directory_that_others_can_write_to_is_not_used(memory: Path) -> None:
    memory.mkdir()
    memory.chmod(0o777)
    with pytest.raises(DriverError, match="others can write to"):
        SecretFiles(memory, "m1").put(an_order(SERVICE.replace("User=nobody\n", "")), value)
    memory.rmdir()
    memory.symlink_to("/dev/shm")
    with pytest.raises(DriverError, match="others can write to"):
        SecretFiles(memory, "m1").put(an_order(SERVICE.replace("User=nobody\n", "")), value)


def test_the_kernel_says_which_file_system_holds_a_path() -> None:
    assert filesystem_of(Path("/dev/shm")) == "tmpfs"
    assert filesystem_of(Path("/proc")) == "proc"


def test_an_agent_that_is_not_root_refuses_to_give_files_away(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    with pytest.raises(DriverError, match="db is to belong to 7:8, and the agent is not root"):
        SecretFiles(memory, "m1").put(an_order(CONTAINER), value)


def test_a_container_gets_read_only_mounts_and_no_word_of_a_value() -> None:
    body = create_body(
        Owner(cluster="c", machine="m1", machine_name="m"), an_order(CONTAINER, "/run/x"), image="i"
    )
    assert body["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": "/run/x/0.db", "Target": "/run/secrets/db", "ReadOnly": True},
        {"Type": "bind", "Source": "/run/x/1.db", "Target": "/etc/db", "ReadOnly": True},
    ]


def test_no_driver_makes_a_copy_whose_secrets_were_not_written() -> None:
    with pytest.raises(DriverError, match="its secrets are not here"):
        create_body(Owner(cluster="c", machine="m1", machine_name="m"), an_order(CONTAINER), image="i")


async def test_a_machine_makes_its_key_once_for_its_owner_alone_and_a_copied_one_does_not_count(
    tmp_path: Path,
) -> None:
    local = DirectoryCopy(tmp_path)
    made = await machine_key(local, "m1")
    assert await machine_key(local, "m1") == made
    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o600
    assert made.private not in repr(made)
    assert (await machine_key(local, "m2")).public != made.public


def test_files_of_a_container_may_hold_one_secret_twice() -> None:
    assert file_names(an_order(CONTAINER).spec) == ("0.db", "1.db")
