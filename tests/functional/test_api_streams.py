"""What the API sends as it happens: units, endpoints, output."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from harness.api import CLUSTER_KEY, TOKEN, Api, an_api, start, wish
from harness.builders import a_machine, a_placement, a_record, a_state, a_unit
from unit_master import cache as cache_module
from unit_master.api import backend as backend_module
from unit_master.api import sse
from unitfleet import codec, keys
from unitfleet.model import (
    Happening,
    Port,
    Presence,
    UnitState,
)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as served:
        yield served


async def test_a_stream_begins_with_a_snapshot_and_tells_each_change(api: Api) -> None:
    unit = a_unit()
    await api.put(a_machine("m1"), unit, a_unit("b.service"))
    async with api.stream("/v1/stream") as stream:
        first = await stream.next()
        assert first["snapshot"] and {one["name"] for one in first["units"]} == {"a.service", "b.service"}
        assert [one["name"] for one in first["machines"]] == ["m1"]
        await api.put(a_placement(unit, "m1"))
        placed = await stream.until(lambda message: bool(message["units"]))
        assert not placed["snapshot"] and [one["phase"] for one in placed["units"]] == ["placed"]
        assert placed["rev"] > first["rev"]
        await api.put(a_state(unit, "m1"))
        running = await stream.until(lambda message: bool(message["units"]))
        assert (running["units"][0]["phase"], running["units"][0]["ok"]) == ("running", True)
        await api.outside.delete(keys.unit("b.service"))
        assert (await stream.until(lambda message: bool(message["gone"])))["gone"] == ["b.service"]


async def test_a_stream_of_named_units_tells_of_no_other(api: Api) -> None:
    await api.put(a_machine("m1"), a_unit())
    async with api.stream("/v1/stream?units=a.service,c.service") as stream:
        first = await stream.next()
        assert [one["name"] for one in first["units"]] == ["a.service"]
        assert first["gone"] == ["c.service"] and first["machines"] == []
        happened = Happening(at=1.0, kind="placed", writer="w", unit="a.service")
        other = Happening(at=1.0, kind="placed", writer="w", unit="b.service")
        await api.put(
            a_unit("b.service"), a_record(keys.event(1, "w", 1), other), a_record(keys.event(1, "w", 2), happened)
        )
        told = await stream.next()
        assert (told["units"], [one["unit"] for one in told["events"]]) == ([], ["a.service"])


async def test_a_machine_that_goes_away_touches_its_units(api: Api) -> None:
    unit = a_unit()
    await api.put(a_machine("m1"), unit, a_placement(unit, "m1"), a_state(unit, "m1"))
    async with api.stream("/v1/stream?units=a.service") as stream:
        assert (await stream.next())["units"][0]["phase"] == "running"
        await api.outside.delete(keys.presence("m1"))
        assert (await stream.next())["units"][0]["phase"] == "waiting-for-machine"


@pytest.mark.parametrize("by", ["since", "Last-Event-ID"])
async def test_a_stream_resumes_at_a_revision_it_has_not_seen_less_than(api: Api, by: str) -> None:
    await api.change(start())
    async with api.stream("/v1/stream?units=a.service,b.service") as stream:
        await stream.next()
    api.store.link.slow(watch_delay_s=0.2)
    await api.ask("DELETE", "/v1/units/a.service")
    _, changed = await api.ask("POST", "/v1/units", body={"changes": [start("b.service")]})
    path, headers = "/v1/stream?units=a.service,b.service", {}
    if by == "since":
        path += f"&since={changed['rev']}"
    else:
        headers = {"Last-Event-ID": str(changed["rev"])}
    async with api.stream(path, headers) as stream:
        message = await stream.next()
        assert message["snapshot"] and message["rev"] >= changed["rev"]
        assert {one["name"]: one["target"] for one in message["units"]} == {
            "a.service": "destroyed",
            "b.service": "launched",
        }


async def test_a_silent_stream_beats(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.02)
    async with api.stream("/v1/stream") as stream:
        await stream.next()
        async with asyncio.timeout(5.0):
            assert (await stream.response.content.readline()).startswith(b":")


async def test_a_slow_reader_gets_what_it_missed_in_one_message(api: Api) -> None:
    with api.cache.subscribe() as subscription:
        await api.change(start("a.service"))
        await api.change(start("b.service"), wish("inactive"))
        update = subscription.take()
        assert update.revision == api.cache.view.revision
        assert update.keys is not None and {keys.unit("a.service"), keys.unit("b.service")} <= update.keys
        assert not subscription.changed.is_set()


async def test_a_reader_that_missed_too_much_gets_a_new_snapshot(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "MAX_KEYS", 1)
    await api.put(a_unit("old.service"))
    async with api.stream("/v1/stream") as stream:
        await stream.next()
        await api.change(start("a.service"), start("b.service"))
        message = await stream.next()
        assert message["snapshot"] and {one["name"] for one in message["units"]} == {
            "old.service",
            "a.service",
            "b.service",
        }


async def test_streams_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "MOST_STREAMS", 1)
    async with api.stream("/v1/stream") as stream:
        await stream.next()
        status, told = await api.ask("GET", "/v1/stream")
        assert (status, told["code"]) == (503, "busy")


async def test_endpoints_stream_each_change_once(api: Api) -> None:
    unit = a_unit()
    await api.put(a_machine("m1"), unit, a_placement(unit, "m1"))
    async with api.stream("/v1/endpoints?unit=a.service") as stream:
        assert (await stream.next())["items"] == []
        await api.put(a_unit("b.service"))
        state = codec.decode(a_state(unit, "m1").pieces[0][1], UnitState)
        state = msgspec.structs.replace(state, address="10.0.0.9", ports=(Port(host=8081, container=80),))
        await api.put(a_record(keys.state("m1", "a.service"), state))
        (found,) = (await stream.next())["items"]
        assert (found["address"], found["ports"][0]["host"]) == ("10.0.0.9", 8081)


async def an_agent(api: Api, answer: web.StreamResponse, asked: list[web.Request]) -> TestServer:
    async def logs(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return answer

    app = web.Application()
    app.router.add_get("/v1/logs/{name}", logs)
    server = TestServer(app)
    await server.start_server()
    unit = a_unit()
    pieces = dict(a_machine("m1").pieces)
    presence = msgspec.structs.replace(codec.decode(pieces[keys.presence("m1")], Presence), port=server.port or 0)
    await api.put(
        a_machine("m1"),
        a_record(keys.presence("m1"), presence),
        unit,
        a_placement(unit, "m1"),
        a_state(unit, "m1"),
    )
    return server


async def test_output_is_read_from_the_agent_with_the_clusters_key(api: Api) -> None:
    asked: list[web.Request] = []
    lines = b'{"at":1.5,"stream":"stdout","text":"one"}\nnot json\n{"at":2,"stream":"stderr","text":"\xc3\xbc"}\n'
    server = await an_agent(api, web.Response(body=lines), asked)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with api.client.get("/v1/logs/a.service?lines=7", headers=headers) as response:
        assert response.status == 200 and response.content_type == "application/x-ndjson"
        read = [json.loads(line) for line in (await response.read()).splitlines()]
    assert [(line["text"], line["machine"]) for line in read] == [("one", "m1"), ("not json", "m1"), ("ü", "m1")]
    (request,) = asked
    assert request.headers["Authorization"] == f"Bearer {CLUSTER_KEY}"
    assert request.path_qs == "/v1/logs/a.service?lines=7"
    await server.close()


async def test_what_an_agent_refuses_is_passed_on(api: Api) -> None:
    refusal = web.json_response({"code": "not_found", "message": "cannot read", "hint": ""}, status=404)
    server = await an_agent(api, refusal, [])
    assert (await api.ask("GET", "/v1/logs/a.service"))[1]["code"] == "not_found"
    await server.close()
    status, told = await api.ask("GET", "/v1/logs/a.service")
    assert (status, told["code"]) == (502, "agent") and "m1" in told["message"]


async def test_output_of_a_unit_without_a_copy_is_refused_with_where_to_look(api: Api) -> None:
    await api.put(a_machine("m1"), a_machine("m2"), a_unit())
    status, told = await api.ask("GET", "/v1/logs/a.service")
    assert (status, told["code"]) == (409, "refused")
    unit = a_unit("b.service")
    await api.put(unit, a_placement(unit, "m1"))
    status, told = await api.ask("GET", "/v1/logs/b.service?machine=m2")
    assert (status, told["code"]) == (409, "refused") and "m1" in told["hint"]
