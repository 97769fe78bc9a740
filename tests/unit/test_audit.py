"""The audit log on a disk: what stands there after `write`, how it is bounded, what is read back."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import threading
from pathlib import Path

import msgspec
import pytest

from unit_master.audit import trail as trail_module
from unit_master.audit.deeds import MOST_NAMES, deed
from unit_master.audit.reading import AuditQuery, newest
from unit_master.audit.trail import NAME, CannotAudit, Trail
from unitfleet.accessapi import AuditLine


def a_line(number: int = 1, **more: object) -> AuditLine:
    fields = {
        "at": float(number),
        "id": f"id{number}",
        "master": "one",
        "caller": "ci",
        "role": "viewer",
        "source": "10.0.0.9",
        "method": "POST",
        "route": "/v1/units",
        "action": "start a.service",
        **more,
    }
    return msgspec.convert(fields, AuditLine)


def stored(folder: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (folder / NAME).read_bytes().splitlines()]


async def test_a_line_is_on_disk_when_write_returns_and_its_owners_alone(tmp_path: Path) -> None:
    await Trail(tmp_path).write(a_line(1))
    assert stored(tmp_path) == ["id1"]
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


async def test_lines_of_the_same_moment_share_one_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def counting(descriptor: int) -> None:
        synced.append(descriptor)
        fsync(descriptor)

    trail = Trail(tmp_path)
    await trail.write(a_line(0))
    monkeypatch.setattr(os, "fsync", counting)
    await asyncio.gather(*(trail.write(a_line(number)) for number in range(1, 101)))
    assert stored(tmp_path) == [f"id{number}" for number in range(101)]
    assert len(synced) <= 2, "those who came while the first was written waited for one more"


async def test_a_full_disk_is_told_and_leaves_no_half_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / NAME
    trail = Trail(tmp_path, file_bytes=10**9)
    await trail.write(a_line(1, action="x" * 4_000_000))
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
    try:
        with pytest.raises(CannotAudit, match="file too large"):
            await trail.write(a_line(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == size
    await trail.write(a_line(3))
    assert stored(tmp_path) == ["id1", "id3"]


async def test_a_disk_that_hangs_is_told_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(trail_module, "DISK_S", 0.05)
    with monkeypatch.context() as hanging:
        hanging.setattr(os, "fsync", lambda descriptor: released.wait(10))
        trail = Trail(tmp_path)
        told = await asyncio.gather(*(trail.write(a_line(number)) for number in (1, 2)), return_exceptions=True)
        assert [str(error) for error in told] == ["the disk has not answered for 0.05 s"] * 2
        released.set()
    monkeypatch.setattr(trail_module, "DISK_S", 10.0)
    await trail.write(a_line(3))
    assert "id3" in stored(tmp_path)


async def test_a_line_torn_by_a_power_cut_spoils_no_other(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    await trail.write(a_line(1))
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"at":2.0,"id":"to')
    await trail.write(a_line(3))
    assert [line.id for line in newest(trail.files(), AuditQuery()).items] == ["id1", "id3"]


async def test_the_log_is_bounded_and_the_oldest_goes_first(tmp_path: Path) -> None:
    trail = Trail(tmp_path, file_bytes=1000, files=3)
    for number in range(40):
        await trail.write(a_line(number))
    assert sorted(os.listdir(tmp_path)) == ["audit.1.jsonl", "audit.2.jsonl", NAME]
    assert all(path.stat().st_size <= 1000 for path in trail.files())
    kept = [line.id for line in newest(trail.files(), AuditQuery()).items]
    assert kept == [f"id{number}" for number in range(40 - len(kept), 40)] and len(kept) > 10


async def test_a_cancelled_writer_loses_no_line_of_another(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    first = asyncio.create_task(trail.write(a_line(1)))
    second = asyncio.create_task(trail.write(a_line(2)))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert "id2" in stored(tmp_path) and stored(tmp_path).count("id2") == 1


async def test_a_change_is_told_once_with_its_outcome_or_as_begun(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    for number in (1, 2):
        await trail.write(a_line(number))
    await trail.write(a_line(1, status=202, rev=7))
    told = newest(trail.files(), AuditQuery()).items
    assert [(line.id, line.status, line.rev) for line in told] == [("id1", 202, 7), ("id2", 0, 0)]


async def test_lines_are_found_by_time_caller_and_unit(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    await trail.write(a_line(1, objects=["a@1.service"], count=1))
    await trail.write(a_line(2, caller="ada", objects=["b.service"], count=1))
    await trail.write(a_line(3, objects=["b.service"], count=900))
    await trail.write(a_line(4, objects=["b.service"], count=1))

    def found(**query: object) -> list[str]:
        return [line.id for line in newest(trail.files(), msgspec.convert(query, AuditQuery)).items]

    assert found(since=3.0) == ["id3", "id4"]
    assert found(caller="ada") == ["id2"]
    assert found(unit="a@*") == ["id1", "id3"], "a line that leaves names out may be about any unit"
    assert found(limit=1) == ["id4"] and found(limit=0) == []


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        pytest.param(
            [{"name": "a.service", "target": "launched", "text": "[Service]"}], "start a.service", id="start"
        ),
        pytest.param([{"name": "up.service", "target": "loaded"}], "stop up.service", id="stop"),
        pytest.param([{"name": "a.service", "target": "loaded"}], "load a.service", id="load"),
        pytest.param([{"name": "a.service", "target": "inactive"}], "unload a.service", id="unload"),
        pytest.param([{"name": "a.service", "target": "destroyed"}], "destroy a.service", id="destroy"),
        pytest.param([{"name": "a.service", "restart": True}], "restart a.service", id="restart"),
        pytest.param([{"name": "a.service", "text": "x"}], "submit a.service", id="submit"),
        pytest.param([{"name": "a.service", "bandwidth": {}}], "limit a.service", id="limit"),
        pytest.param(
            [{"name": "a.service", "restart": True}, {"name": "b.service", "target": "launched"}],
            "change a.service, b.service",
            id="several kinds",
        ),
        pytest.param(
            [{"name": "a\n\x1b[1m.service", "text": "x"}], r"submit a\n\x1b[1m.service", id="no terminal"
        ),
    ],
)
def test_a_wish_is_named_by_its_verb(changes: list[object], action: str) -> None:
    raw = json.dumps({"changes": changes}).encode()
    assert deed("change units", {}, raw, lambda name: name == "up.service").action == action


def test_of_a_thousand_wishes_the_first_names_and_their_number_are_kept() -> None:
    raw = json.dumps({"changes": [{"name": f"a@{n}.service", "target": "launched"} for n in range(1000)]}).encode()
    told = deed("change units", {}, raw, lambda name: False)
    assert told.action == "start a@0.service, a@1.service and 998 more"
    assert (len(told.objects), told.count) == (MOST_NAMES, 1000)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"changes": 1}', b'{"changes": []}'])
def test_a_body_that_nobody_can_read_names_nothing(raw: bytes) -> None:
    assert deed("change units", {}, raw, lambda name: False).action == "change units"
    assert deed("create token {name}", {}, raw, lambda name: False).action == "create token an unnamed name"


def test_nothing_of_a_body_but_names_is_kept() -> None:
    raw = b'{"changes": [{"name": "a.service", "text": "canary", "file": "canary", "target": "launched"}]}'
    assert "canary" not in repr(deed("change units", {}, raw, lambda name: False))


@pytest.mark.parametrize("token", ["uft_ab12cd_canary", "ufj1.canary", "x uft_ab12cd_can_canary"])
def test_a_token_that_is_given_for_its_name_does_not_stand_in_the_log(token: str) -> None:
    by_path = deed("remove token {token}", {"token": token}, b"", lambda name: False)
    by_body = deed("create token {name}", {}, json.dumps({"name": token}).encode(), lambda name: False)
    assert "canary" not in repr((by_path, by_body)) and "…" in by_path.action
