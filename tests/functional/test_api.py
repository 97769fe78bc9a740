"""The API's reads, orders and errors over a memory store: every route, and bad input of every kind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from harness.api import NOW, TEXT, TOKEN, Api, an_api, becomes, start, wish
from harness.builders import Built, a_machine, a_placement, a_record, a_state, a_unit
from unit_master import cache as cache_module
from unit_master.api import backend as backend_module
from unit_master.api.routes import ROUTES
from unitfleet import api as contract
from unitfleet import codec, keys
from unitfleet.api import ClusterStatus, Explanation, MachineView, UnitFile, UnitView
from unitfleet.model import (
    Brake,
    BrakeOrder,
    Happening,
    Leader,
    MachineSpec,
    MachineStatus,
)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as served:
        yield served


GARBAGE = (
    "units/no suffix",
    "units/x/y",
    "placements/m1/a.service",
    "states/m1/a.service",
    "machines/m1",
    "roster/m1",
    "machine-spec/m1",
    "resources/m1",
    "events/1/2",
    "events/zzz",
    "history/a.service/xyz",
    "specs/00",
    "epoch",
    "cluster",
    "leader",
    "brake",
    "who-knows",
    "",
)


@pytest.mark.parametrize("value", [b"\xff\xfe", b"{}", b"[]", b'{"v":1}', b""], ids=repr)
async def test_garbage_written_by_hand_breaks_no_answer(value: bytes) -> None:
    garbage = [Built(((keys.PREFIX + key, value),)) for key in GARBAGE]
    async with an_api(built=[a_machine("m2"), a_unit("fine.service"), *garbage]) as api:
        for path in (
            "units",
            "units/fine.service",
            "machines",
            "events",
            "cluster",
            "endpoints",
            "explain/fine.service",
        ):
            status, told = await api.ask("GET", f"/v1/{path}")
            assert status == 200, told
        (result,) = await api.change(wish("inactive", "fine.service"))
        assert result["changed"]


async def test_lists_are_of_one_revision_and_by_glob(api: Api) -> None:
    await api.change(start("a@1.service"), start("a@2.service"), start("b.service"))
    status, told = await api.ask("GET", "/v1/units?name=a@*")
    assert status == 200 and told["api"] == contract.API
    assert told["rev"] == (await api.outside.list(keys.PREFIX)).revision
    units = msgspec.convert(told["items"], tuple[UnitView, ...])
    assert [unit.name for unit in units] == ["a@1.service", "a@2.service"]
    assert (await api.ask("GET", "/v1/units?name=[a"))[1]["code"] == "invalid_request"


async def test_a_unit_is_shown_with_its_text_under_its_encoded_name(api: Api) -> None:
    name = r"dev-disk\x2d1.service"
    await api.change(start(name))
    status, told = await api.ask("GET", "/v1/units/dev-disk%5Cx2d1.service")
    shown = msgspec.convert(told, UnitFile)
    assert status == 200 and shown.unit.name == name and shown.text == TEXT


async def test_machines_are_shown(api: Api) -> None:
    unit = a_unit()
    await api.put(a_machine("m1"), a_machine("m2", present=False), unit, a_placement(unit, "m1"))
    _, told = await api.ask("GET", "/v1/machines")
    machines = msgspec.convert(told["items"], tuple[MachineView, ...])
    assert [(machine.name, machine.status, machine.units) for machine in machines] == [
        ("m1", "ready", 1),
        ("m2", "suspect", 0),
    ]


async def test_explain_tells_of_every_machine(api: Api) -> None:
    await api.put(a_machine("m1"), a_machine("m2", cordoned=True), a_unit())
    status, told = await api.ask("GET", "/v1/explain/a.service")
    explained = msgspec.convert(told, Explanation)
    assert status == 200 and {one.machine for one in explained.machines} == {"m1", "m2"}
    assert explained.unit is not None and explained.unit.name == "a.service"


async def test_events_are_the_latest_oldest_first(api: Api) -> None:
    happened = [
        Happening(at=float(n), kind="placed", writer="w", unit=f"{'ab'[n % 2]}.service", machine="m1")
        for n in range(150)
    ]
    await api.put(a_machine("m1"), *(a_record(keys.event(1, "w", n), one) for n, one in enumerate(happened)))
    _, told = await api.ask("GET", "/v1/events")
    assert [one["at"] for one in told["items"]] == [float(n) for n in range(50, 150)]
    _, told = await api.ask("GET", "/v1/events?unit=a.service&limit=2&machine=m1")
    assert [one["at"] for one in told["items"]] == [146.0, 148.0]
    assert (await api.ask("GET", "/v1/events?machine=nowhere"))[0] == 404


async def test_the_cluster_tells_what_is_not_as_wanted(api: Api) -> None:
    unit = a_unit("fine.service")
    await api.put(
        a_machine("m1"),
        a_machine("m2", present=False),
        a_machine("m3", status=MachineStatus.LOST),
        unit,
        a_placement(unit, "m1"),
        a_state(unit, "m1"),
        a_unit("waits.service"),
        a_record(keys.LEADER, Leader(nonce="n", name="two", since=5.0)),
    )
    await becomes(lambda: api.cache.store_status is not None, "no probe of the store came back")
    status, told = await api.ask("GET", "/v1/cluster")
    cluster = msgspec.convert(told, ClusterStatus)
    assert status == 200 and (cluster.leader, cluster.masters) == ("two", ("one", "two"))
    assert cluster.machines == {"ready": 1, "suspect": 1, "lost": 1}
    assert (cluster.suspect, cluster.lost) == (("m2",), ("m3",))
    assert [unit.name for unit in cluster.attention] == ["waits.service"]
    assert (cluster.brake, cluster.store_version) == ("off", "memory")


async def test_endpoints_are_those_of_running_copies(api: Api) -> None:
    unit = a_unit()
    await api.put(a_machine("m1"), unit, a_placement(unit, "m1"), a_state(unit, "m1"))
    _, told = await api.ask("GET", "/v1/endpoints?unit=a.service")
    assert [(one["unit"], one["address"]) for one in told["items"]] == [("a.service", "127.0.0.1")]
    assert (await api.ask("GET", "/v1/endpoints?unit=b.service"))[1]["items"] == []


async def test_a_read_waits_for_the_revision_it_is_asked_for(api: Api) -> None:
    api.store.link.slow(watch_delay_s=0.2)
    status, changed = await api.ask("POST", "/v1/units", body={"changes": [start()]})
    for path in ("units", "units/a.service", "explain/a.service", "machines", "cluster", "events", "endpoints"):
        status, told = await api.ask("GET", f"/v1/{path}?min_revision={changed['rev']}")
        assert status == 200, told
        assert told.get("rev", changed["rev"]) >= changed["rev"]
    assert (await api.ask("GET", f"/v1/units?min_revision={changed['rev']}"))[1]["items"] != []


async def test_a_revision_that_the_store_never_gave_is_refused_at_once(api: Api) -> None:
    for path in ("/v1/units?min_revision=99999", "/v1/stream?since=99999"):
        async with asyncio.timeout(1.0):
            status, told = await api.ask("GET", path)
        assert (status, told["code"]) == (409, "refused"), path
        assert "cannot wait for revision 99999: the store is at " in told["message"]


async def test_a_revision_that_can_not_be_asked_for_is_waited_for_and_then_unavailable(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "CATCH_UP_S", 0.1)
    api.store.link.cut()
    status, told = await api.ask("GET", "/v1/units?min_revision=99999")
    assert (status, told["code"]) == (503, "unavailable")


async def test_a_revision_that_was_written_elsewhere_in_the_store_is_reached(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "PATIENCE_S", 0.05)
    monkeypatch.setattr(cache_module, "LIST_AGAIN_S", 0.0)
    revision = await api.outside.put("/another/system", b"")
    status, told = await api.ask("GET", f"/v1/units?min_revision={revision}")
    assert (status, told["rev"]) == (200, revision)


async def test_version_health_and_description_are_told(api: Api) -> None:
    assert (await api.ask("GET", "/v1/version"))[1]["master"] == "one"
    assert await api.ask("GET", "/healthz") == (200, {"status": "ok"})
    await becomes(lambda: api.cache.ready, "the cache is not ready")
    assert (await api.ask("GET", "/readyz"))[0] == 200


async def test_the_description_names_every_route_and_resolves_every_reference(api: Api) -> None:
    status, told = await api.ask("GET", "/v1/openapi.json")
    assert status == 200 and told["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    operations = [told["paths"][route.path][route.method.lower()] for route in ROUTES]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    schemas = told["components"]["schemas"]
    references = {part.split('"')[0] for part in json.dumps(told).split("#/components/schemas/")[1:]}
    assert references <= set(schemas) and {"UnitView", "ErrorBody", "Changes"} <= references


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("PUT", "/v1/units", 405, "method_not_allowed"),
        ("GET", "/v1/units/never.service", 404, "not_found"),
        ("GET", "/v1/units/a%2Fb.service", 400, "invalid_name"),
        ("GET", "/v1/units/nosuffix", 400, "invalid_name"),
        ("GET", "/v1/units/%FF%00.service", 400, "invalid_name"),
        ("GET", "/v1/explain/never.service", 404, "not_found"),
        ("GET", "/v1/logs/never.service", 404, "not_found"),
        ("DELETE", "/v1/units/never.service", 404, "not_found"),
        ("DELETE", "/v1/units/%20.service", 400, "invalid_name"),
        ("GET", "/v1/units?min_revision=-1", 400, "invalid_request"),
        ("GET", "/v1/units?min_revision=99999999999999999999", 400, "invalid_request"),
        ("GET", "/v1/units?min_revision=%C2%B2", 400, "invalid_request"),
        ("GET", "/v1/events?limit=2000", 400, "invalid_request"),
        ("GET", "/v1/stream?since=now", 400, "invalid_request"),
        ("GET", "/v1/logs/a.service?lines=x", 400, "invalid_request"),
        ("GET", "/v1/logs/a.service?follow=perhaps", 400, "invalid_request"),
        ("POST", "/v1/machines/m1/reboot", 404, "not_found"),
        ("POST", "/v1/machines/nowhere/cordon", 404, "not_found"),
        ("POST", "/v1/cluster/explode", 404, "not_found"),
    ],
)
async def test_every_error_has_a_code_and_a_message(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    before = await api.contents()
    given, told = await api.ask(method, path)
    assert (given, told["code"]) == (status, code), told
    assert told["message"].startswith("cannot ") and set(told) == {"code", "message", "hint", "problems"}
    assert await api.contents() == before


@pytest.mark.parametrize(
    ("raw", "headers", "status", "code"),
    [
        pytest.param(b"{", {}, 400, "invalid_request", id="broken JSON"),
        pytest.param(b"", {}, 400, "invalid_request", id="nothing"),
        pytest.param(b"\xff\xfe", {}, 400, "invalid_request", id="no UTF-8"),
        pytest.param(b"[" * 100_000, {}, 400, "invalid_request", id="deeply nested"),
        pytest.param(b'{"changes": 1}', {}, 400, "invalid_request", id="another shape"),
        pytest.param(b'{"changes": [{}]}', {}, 400, "invalid_request", id="a change without a name"),
        pytest.param(
            b'{"changes": [{"name": "a.service", "target": "running"}]}',
            {},
            400,
            "invalid_request",
            id="no such target",
        ),
        pytest.param(b'{"changes": []}', {"Content-Type": "text/plain"}, 415, "unsupported_media", id="text"),
        pytest.param(
            b'{"changes": [%s]}' % b",".join([b'{"name":"a"}'] * 5001), {}, 413, "too_large", id="too many"
        ),
        pytest.param(b" " * (8 * 1024 * 1024 + 1), {}, 413, "too_large", id="more than 8 MiB"),
    ],
)
async def test_a_bad_body_is_refused(
    api: Api, raw: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    given, told = await api.ask("POST", "/v1/units", raw=raw, headers=headers)
    assert (given, told["code"]) == (status, code), told
    assert await api.contents() == {}


async def test_a_body_where_none_is_wanted_is_bounded(api: Api) -> None:
    status, told = await api.ask("POST", "/v1/cluster/hold", raw=b" " * (256 * 1024 + 1))
    assert (status, told["code"]) == (413, "too_large")


async def test_a_body_of_untold_length_is_bounded_too(api: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b" " * 1024

    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    async with api.client.post("/v1/tokens", data=pieces(), headers=headers) as response:
        assert response.status == 413


@pytest.mark.parametrize("header", ["", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", f"bearer {TOKEN}"])
async def test_without_the_token_nothing_is_told(api: Api, header: str) -> None:
    for method, path in (
        ("GET", "/v1/units"),
        ("POST", "/v1/units"),
        ("GET", "/v1/nothing"),
        ("GET", "/v1/stream"),
    ):
        status, told = await api.ask(method, path, headers={"Authorization": header})
        assert (status, told["code"]) == (401, "denied")
    assert (await api.ask("GET", "/healthz", headers={"Authorization": header}))[0] == 200


async def test_a_socket_that_its_mode_protects_asks_for_no_token() -> None:
    async with an_api(token=None) as api:
        assert (await api.ask("GET", "/v1/units", headers={"Authorization": ""}))[0] == 200


async def spec_of(api: Api, machine: str = "m1") -> MachineSpec:
    kv = await api.outside.get(keys.machine_spec(machine))
    assert kv is not None
    return codec.decode(kv.value, MachineSpec)


async def order(api: Api, word: str, machine: str = "m1") -> tuple[int, Any]:
    status, told = await api.ask("POST", f"/v1/machines/{machine}/{word}")
    if status == 202:
        await api.cache.wait_for(told["rev"], 5.0)
    return status, told


async def test_cordon_and_drain_are_set_and_taken_back(api: Api) -> None:
    await api.put(a_machine("m1", ordered={"zone": "x"}))
    for word, cordoned, drained in (
        ("cordon", True, False),
        ("drain", True, True),
        ("uncordon", False, True),
        ("undrain", False, False),
    ):
        assert (await order(api, word))[0] == 202
        spec = await spec_of(api)
        assert (spec.cordoned, spec.drained, spec.metadata) == (cordoned, drained, {"zone": "x"})
    before = await api.contents()
    assert (await order(api, "undrain"))[0] == 202
    assert await api.contents() == before


async def test_labels_are_set_beside_others_and_taken_away(api: Api) -> None:
    await api.put(a_machine("m1", metadata={"rack": "r1"}, ordered={"zone": "x"}))
    path = "/v1/machines/m1/labels"
    for labels, left in (
        ({"disk": "ssd"}, {"zone": "x", "disk": "ssd"}),
        ({"zone": "", "rack": ""}, {"disk": "ssd", "rack": ""}),  # the agent's own is hidden
    ):
        status, told = await api.ask("POST", path, body={"metadata": labels})
        assert status == 202
        await api.cache.wait_for(told["rev"], 5.0)
        assert (await spec_of(api)).metadata == left
    status, told = await api.ask("POST", path, body={"metadata": {"a b": "c"}})
    assert (status, told["code"]) == (409, "refused")
    assert api.cache.view.metadata("m1") == {"disk": "ssd"}


async def test_a_look_at_what_labels_would_move_changes_nothing(api: Api) -> None:
    unit = a_unit("a.service", "MachineMetadata=zone=x")
    await api.put(
        *(a_machine(name, ordered={"zone": "x"}) for name in ("m1", "m2")), unit, a_placement(unit, "m1")
    )
    before = await api.contents()
    status, told = await api.ask("GET", "/v1/machines/m1/labels?set=zone=y")
    assert (status, told["metadata"]) == (200, {"zone": "y"})
    [move] = told["moves"]
    assert (move["unit"], move["source"], move["target"]) == ("a.service", "m1", "m2")
    assert (await api.ask("GET", "/v1/machines/m1/labels?set=disk=ssd"))[1]["moves"] == []
    assert (await api.ask("GET", "/v1/machines/m1/labels?set=zone"))[0] == 400
    assert await api.contents() == before


async def test_a_machine_is_found_by_name_id_or_unique_prefix(api: Api) -> None:
    await api.put(a_machine("web1", id="aa11"), a_machine("web2", id="aa22"))
    for wanted in ("web1", "aa11", "aa1"):
        assert (await order(api, "cordon", wanted))[0] == 202
    assert (await spec_of(api, "aa11")).cordoned
    status, told = await order(api, "cordon", "web")
    assert (status, told["code"]) == (409, "refused") and "web1" in told["message"] and "web2" in told["message"]
    assert "web2" in (await order(api, "cordon", "wbe2"))[1]["hint"]


async def test_a_machine_that_is_there_is_neither_declared_lost_nor_removed(api: Api) -> None:
    await api.put(a_machine("m1", join=3))
    for word in ("lost", "rm"):
        status, told = await order(api, word)
        assert (status, told["code"]) == (409, "refused") and told["hint"]
    assert await api.outside.get(keys.machine_spec("m1")) is None


async def test_lost_and_rm_hold_for_this_join_alone(api: Api) -> None:
    await api.put(a_machine("m1", present=False, join=3))
    assert (await order(api, "rm"))[0] == 409, "it is not lost yet"
    assert (await order(api, "lost"))[0] == 202
    assert (await spec_of(api)).lost_join == 3
    await api.put(a_machine("m1", status=MachineStatus.LOST, join=3))
    assert (await order(api, "rm"))[0] == 202
    assert (await spec_of(api)).removed_join == 3


async def test_lost_is_refused_when_the_agent_came_back_unseen(api: Api) -> None:
    await api.put(a_machine("m1", present=False))
    api.store.link.slow(watch_delay_s=0.1)
    presence = next(value for key, value in a_machine("m1").pieces if "/machines/" in key)
    await api.outside.put(keys.presence("m1"), presence)
    status, told = await order(api, "lost")
    assert (status, told["code"]) == (409, "refused")


async def test_the_brake_is_held_and_released(api: Api) -> None:
    for word, expected in (("hold", BrakeOrder.HOLD), ("release", BrakeOrder.RELEASE)):
        status, told = await api.ask("POST", f"/v1/cluster/{word}")
        kv = await api.outside.get(keys.BRAKE)
        assert status == 202 and kv is not None and kv.mod_revision == told["rev"]
        assert codec.decode(kv.value, Brake) == Brake(order=expected, at=NOW)
    await api.ask("POST", "/v1/cluster/hold")
    await becomes(lambda: api.cache.view.brake is not None, "the brake is not seen")
    _, cluster = await api.ask("GET", "/v1/cluster")
    assert cluster["brake"] != "off" and cluster["brake_why"]
