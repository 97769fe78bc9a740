"""Every change leaves a line before it is answered; without a line there is no change."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web

from harness.api import CLUSTER_KEY, NOW, Api, an_api, becomes, start, wish
from harness.builders import a_machine, a_record
from harness.eventually import eventually
from unit_master.access.floods import Bounds, Rate
from unit_master.api import auditing
from unit_master.api.route import Route
from unit_master.audit.deeds import MOST_NAMES, Deed
from unit_master.audit.trail import Trail
from unit_master.changes import Changer
from unitfleet import keys
from unitfleet.accessapi import AuditLine
from unitfleet.memory import MemoryStore
from unitfleet.model import MasterRecord


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as served:
        yield served


def on_disk(api: Api) -> list[dict[str, Any]]:
    """Every line of the log, begun and ended, as it stands on the disk."""
    files = [path for path in reversed(api.trail.files()) if path.exists()]
    return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]


async def audit(api: Api, query: str = "") -> list[dict[str, Any]]:
    status, told = await api.ask("GET", f"/v1/audit{query}")
    assert status == 200 and told["unasked"] == [], told
    items: list[dict[str, Any]] = told["items"]
    return items


async def a_viewer(api: Api) -> dict[str, str]:
    _, made = await api.ask("POST", "/v1/tokens", body={"name": "ci", "role": "viewer"})
    return {"Authorization": f"Bearer {made['token']}"}


async def test_strangers_who_try_to_join_can_not_fill_the_log_and_keep_nobody_out() -> None:
    request = {"id": "made-up", "secret": "ab", "role": "agent", "name": "1" * 32, "csr": ""}
    async with an_api(identities=True) as api:
        _, made = await api.ask("POST", "/v1/join-tokens", body={})
        await becomes(lambda: made["id"] in api.cache.view.join_tokens, "the token is known")
        before = len(on_disk(api))
        codes = {(await api.ask("POST", "/v1/join", body=request))[0] for _ in range(60)}
        assert codes == {401, 429}
        assert len(on_disk(api)) - before <= 2 * 20
        status, told = await api.ask("POST", "/v1/join", body={**request, "id": made["id"]})
        assert (status, told["code"]) == (401, "denied"), "asked by TLS it is decided by the token"


async def test_a_change_is_told_with_who_what_and_how_it_ended(api: Api) -> None:
    status, told = await api.ask(
        "POST", "/v1/units", body={"changes": [start("a.service"), wish("loaded", "b.service")]}
    )
    assert status == 202
    begun, ended = on_disk(api)
    assert begun["id"] == ended["id"] and "status" not in begun
    (line,) = await audit(api)
    assert line == {**begun, **ended}
    expected = {
        "at": NOW,
        "master": "one",
        "caller": "admin",
        "role": "admin",
        "source": "127.0.0.1",
        "method": "POST",
        "route": "/v1/units",
        "action": "change a.service, b.service",
        "objects": ["a.service", "b.service"],
        "count": 2,
        "status": 202,
        "code": "not_found",
        "refused": 1,
        "rev": told["rev"],
    }
    assert {name: value for name, value in line.items() if name != "id"} == expected


async def test_every_kind_of_change_has_a_line_and_no_read_has_one(api: Api) -> None:
    await api.put(a_machine("m1"))
    for method, path, body, action in (
        ("POST", "/v1/machines/m1/cordon", None, "cordon machine m1"),
        ("POST", "/v1/machines/m1/lost", None, "declare machine m1 lost"),
        ("POST", "/v1/cluster/hold", None, "hold the brake"),
        ("POST", "/v1/images/warm", {"image": "app:1"}, "hold app:1 warm"),
        ("POST", "/v1/tokens", {"name": "ci", "role": "viewer"}, "create token ci"),
        ("DELETE", "/v1/tokens/ci", None, "remove token ci"),
        ("DELETE", "/v1/units/never.service", None, "destroy never.service"),
        ("POST", "/v1/net/never.service", {"reset": True}, "limit never.service"),
    ):
        status, _ = await api.ask(method, path, body=body)
        line = (await audit(api))[-1]
        assert (line["action"], line["status"]) == (action, status)
    before = len(on_disk(api))
    for path in ("units", "machines", "audit", "tokens", "cluster", "units/never.service"):
        await api.ask("GET", f"/v1/{path}")
    key = {"Authorization": f"Bearer {CLUSTER_KEY}"}
    await api.ask("POST", "/v1/audit/search", body={}, headers=key)
    assert len(on_disk(api)) == before


async def test_a_role_that_is_too_low_is_written_down(api: Api) -> None:
    viewer = await a_viewer(api)
    status, _ = await api.ask("POST", "/v1/units", body={"changes": [start()]}, headers=viewer)
    assert status == 403
    line = on_disk(api)[-1]
    assert (line["caller"], line["role"], line["status"], line["code"]) == ("ci", "viewer", 403, "forbidden")
    assert line["action"] == "start a.service" and line["token"]


async def test_strangers_are_written_down_and_a_flood_of_them_is_counted() -> None:
    async with an_api(bounds=Bounds(reads=Rate(999, 999), writes=Rate(999, 999), told=Rate(1, 2))) as api:
        nobody = {"Authorization": "Bearer nonsense"}
        for _ in range(12):
            assert (await api.ask("POST", "/v1/cluster/hold", headers=nobody))[0] == 401
        assert (await api.ask("GET", "/v1/cluster", headers=nobody))[0] == 401
        lines = on_disk(api)
        assert [(line["caller"], line["status"], line["action"]) for line in lines] == [
            ("nobody", 401, "hold the brake")
        ] * 2

        async def written() -> bool:
            await api.ask("POST", "/v1/cluster/hold", headers=nobody)
            return len(on_disk(api)) > 2

        await eventually(written, within_s=10, what=lambda: "the next stranger is not written down")
        assert on_disk(api)[2]["unheard"] >= 10


async def test_the_line_is_on_disk_before_anything_changes_and_the_outcome_before_the_answer(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bool]] = []
    write = Trail.write

    async def watching(trail: Trail, line: AuditLine) -> None:
        await write(trail, line)
        seen.append((line.status, await api.unit("a.service") is not None))

    monkeypatch.setattr(Trail, "write", watching)
    assert (await api.ask("POST", "/v1/units", body={"changes": [start()]}))[0] == 202
    assert seen == [(0, False), (202, True)]


async def test_what_can_not_be_written_down_is_not_done(api: Api) -> None:
    await api.change(start())
    before = await api.contents()
    folder = api.trail.folder
    aside = folder.with_name(folder.name + ".aside")
    os.rename(folder, aside)
    folder.write_text("no room for a folder")
    try:
        for method, path, body in (
            ("POST", "/v1/units", {"changes": [wish("destroyed")]}),
            ("DELETE", "/v1/units/a.service", None),
            ("POST", "/v1/cluster/hold", None),
            ("POST", "/v1/tokens", {"name": "ci", "role": "viewer"}),
        ):
            status, told = await api.ask(method, path, body=body)
            assert (status, told["code"]) == (503, "unavailable"), told
            assert "audit log of master one can't be written: file exists" in told["message"]
            assert told["message"].startswith("cannot ") and "nothing was changed" in told["hint"]
        assert await api.contents() == before
        assert (await api.ask("GET", "/v1/units"))[0] == 200, "reads go on"
    finally:
        folder.unlink()
        os.rename(aside, folder)
    assert (await api.change(wish("destroyed")))[0]["changed"]


async def test_an_outcome_that_can_not_be_written_is_answered_as_it_is(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = Changer.carry_out
    folder = api.trail.folder

    async def then_the_disk_goes(changer: Changer, changes: Any) -> Any:
        changed = await original(changer, changes)
        shutil.rmtree(folder)
        folder.write_text("no room for a folder")
        return changed

    monkeypatch.setattr(Changer, "carry_out", then_the_disk_goes)
    status, _ = await api.ask("POST", "/v1/units", body={"changes": [start()]})
    assert status == 202 and await api.unit("a.service") is not None
    assert any("not in the audit log" in record.getMessage() for record in caplog.records)
    folder.unlink()
    folder.mkdir()


async def test_many_units_of_one_call_are_one_line(api: Api) -> None:
    await api.change(*(start(f"a@{number}.service") for number in range(300)))
    begun, ended = on_disk(api)
    assert ended["count"] == 300 and len(ended["objects"]) == MOST_NAMES
    assert ended["action"] == "start a@0.service, a@1.service and 298 more"
    assert [line["id"] for line in await audit(api, "?unit=a@299.service")] == [begun["id"]]


async def test_a_thousand_starts_are_not_slowed_by_the_audit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[float] = []
    write, deed_of, outcome = Trail.write, auditing.deed_of, auditing.outcome

    @contextlib.contextmanager
    def timed() -> Iterator[None]:
        began = time.perf_counter()
        yield
        spent.append(time.perf_counter() - began)

    async def timed_write(trail: Trail, line: AuditLine) -> None:
        with timed():
            await write(trail, line)

    async def timed_deed(request: web.Request, route: Route) -> Deed:
        await request.read()
        with timed():
            return await deed_of(request, route)

    def timed_outcome(response: web.StreamResponse) -> dict[str, Any]:
        with timed():
            return outcome(response)

    monkeypatch.setattr(Trail, "write", timed_write)
    monkeypatch.setattr(auditing, "deed_of", timed_deed)
    monkeypatch.setattr(auditing, "outcome", timed_outcome)
    for _ in range(3):  # whatever else this host does at one moment
        await api.change(*(start(f"a@{number}.service") for number in range(1000)))
        await api.change(*(wish("destroyed", f"a@{number}.service") for number in range(1000)))
    per_call = [sum(spent[first : first + 4]) for first in range(0, len(spent), 4)]
    assert len(per_call) == 6 and statistics.median(per_call) < 0.05, per_call


async def test_any_master_tells_what_was_asked_of_all_and_names_those_that_are_away() -> None:
    store = MemoryStore()
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(an_api(outside=store))
        two = await stack.enter_async_context(an_api(outside=store, name="two"))
        await two.change(start("b.service"))
        await one.change(start("a.service"))
        port = two.client.server.port
        for name, address in (("two", f"http://127.0.0.1:{port}"), ("three", "http://127.0.0.1:9")):
            await one.put(a_record(keys.master(name), MasterRecord(name=name, nonce=name, api=(address,))))
        status, told = await one.ask("GET", "/v1/audit")
        assert status == 200
        assert {(line["master"], line["action"]) for line in told["items"]} == {
            ("one", "start a.service"),
            ("two", "start b.service"),
        }
        (unasked,) = told["unasked"]
        assert unasked.startswith("three: ")
        _, told = await one.ask("GET", "/v1/audit?unit=b.*&caller=admin")
        assert [line["master"] for line in told["items"]] == ["two"]


@pytest.mark.parametrize("query", ["limit=x", "limit=10001", "since=now", "unit=[a"])
async def test_a_query_that_makes_no_sense_is_refused(api: Api, query: str) -> None:
    status, told = await api.ask("GET", f"/v1/audit?{query}")
    assert (status, told["code"]) == (400, "invalid_request")


async def test_nothing_of_a_body_stands_in_the_log(api: Api) -> None:
    await api.change(start(text="[Service]\nEnvironment=PASSWORD=canary\nExecStart=/bin/true\n", file="canary"))
    await api.ask("POST", "/v1/units?secret=canary", raw=b'{"changes": "canary"}')
    assert len(on_disk(api)) == 4
    assert "canary" not in json.dumps(on_disk(api))
