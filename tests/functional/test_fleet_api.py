"""fleet's API over a memory store: its exchanges, its words, and its own defects done right."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness.api import NOW, TOKEN, Api, an_api, becomes, start, wish
from harness.builders import SERVICE, Built, a_machine, a_placement, a_record, a_state, a_unit
from unit_master.api.routes import ALIASES
from unitfleet import accept, keys, unitfile
from unitfleet.model import CopyPhase, Happening, MachineSpec, TargetState

M1, M2 = "0a1b2c3d" + "0" * 23 + "1", "1b2c3d4e" + "0" * 23 + "2"
SLEEP = [{"section": "Service", "name": "ExecStart", "value": "/bin/sleep 3000"}]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as served:
        yield served


async def ask(api: Api, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """Return status and body of an answer of fleet's API, None when it has none."""
    raw = None if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    sent = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **headers}
    async with api.client.request(method, f"/fleet/v1/{path}", data=raw, headers=sent) as response:
        told = await response.read()
        return response.status, json.loads(told) if told else None


async def put(api: Api, name: str = "a.service", state: str = "", options: object = None) -> tuple[int, Any]:
    body = {key: value for key, value in (("desiredState", state), ("options", options)) if value}
    return await ask(api, "PUT", f"units/{name}", body)


async def message(api: Api, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str]:
    """Return status and message of an error, which has nothing else."""
    status, told = await ask(api, method, path, body, **headers)
    assert told == {"error": {"code": status, "message": told["error"]["message"]}}
    return status, told["error"]["message"]


async def events(api: Api) -> list[Happening]:
    return [entry.value for entry in api.cache.view.events.values()]


# Units


async def test_a_unit_is_submitted_started_stopped_and_destroyed(api: Api) -> None:
    assert await put(api, options=SLEEP) == (201, None)
    shown = {"currentState": "inactive", "desiredState": "inactive", "name": "a.service", "options": SLEEP}
    assert await ask(api, "GET", "units/a.service") == (200, shown)
    for state in ("launched", "loaded", "inactive"):
        assert await put(api, state=state) == (204, None)
        assert (await ask(api, "GET", "units"))[1]["units"] == [{**shown, "desiredState": state}]
    assert await ask(api, "DELETE", "units/a.service") == (204, None)
    assert await message(api, "GET", "units/a.service") == (404, "unit does not exist")
    assert await message(api, "DELETE", "units/a.service") == (404, "unit does not exist")
    assert await ask(api, "GET", "units") == (200, {})
    assert (await api.present()).target is TargetState.DESTROYED  # till its copies are gone


async def test_what_was_written_is_read_at_once_from_the_same_master(api: Api) -> None:
    await a_fleet(api)
    api.store.link.watch_delay_s = 0.2
    await put(api, options=SLEEP)
    assert (await ask(api, "GET", "units/a.service"))[0] == 200
    await ask(api, "PATCH", "machines", [{"op": "add", "path": f"/{M2}/metadata/foo", "value": "bar"}])
    assert (await ask(api, "GET", "machines"))[1]["machines"][1]["metadata"] == {"foo": "bar"}
    await ask(api, "DELETE", "units/a.service")
    assert (await ask(api, "GET", "units/a.service"))[0] == 404


async def test_a_unit_keeps_fleets_hash_and_form_of_its_options(api: Api) -> None:
    options = [
        {"section": "Unit", "name": "Description", "value": "Hello"},
        {"section": "Service", "name": "ExecStart", "value": '/bin/sh -c "a \\\n  b"'},
        {"section": "X-Fleet", "name": "MachineMetadata", "value": '"zone=a" "zone=b"'},
        {"section": "X-Fleet", "name": "Global", "value": "true"},
    ]
    await put(api, state="launched", options=options)
    assert (await ask(api, "GET", "units/a.service"))[1]["options"] == options
    text = api.cache.view.texts[(await api.present()).spec]
    sent = unitfile.UnitFile(tuple(unitfile.Option(o["section"], o["name"], o["value"], 0) for o in options))
    assert unitfile.parse(text).fleet_hash() == sent.fleet_hash()


async def test_new_options_replace_a_unit_and_the_same_ones_do_not(api: Api) -> None:
    await put(api, state="launched", options=SLEEP)
    before = await api.present()
    assert await put(api, state="launched", options=SLEEP) == (204, None)
    assert await api.present() == before
    other = [{**SLEEP[0], "value": "/bin/sleep 4000"}]
    assert await put(api, options=other) == (201, None)
    after = await api.present()
    assert (after.target, after.incarnation) == (TargetState.INACTIVE, before.incarnation)
    assert after.spec != before.spec


async def test_a_text_with_comments_is_the_same_as_its_options(api: Api) -> None:
    await api.change(start(text=f"# why it is here\n{SERVICE}"))
    before = await api.present()
    options = (await ask(api, "GET", "units/a.service"))[1]["options"]
    assert await put(api, state="launched", options=options) == (204, None)
    assert await api.present() == before


@pytest.mark.parametrize(
    ("name", "body", "status", "said"),
    [
        ("a.service", {"desiredState": "launched"}, 409, "unit does not exist and options field empty"),
        ("a.service", "garbage", 400, "unable to decode body: "),
        ("a.service", {"options": {"a": 1}}, 400, "unable to decode body: "),
        (
            "a.service",
            {"name": "x.service"},
            400,
            'name in URL "a.service" differs from unit name in request body',
        ),
        ("noext", {"options": SLEEP}, 400, 'unit name must contain "."'),
        (
            "a.service",
            {"options": SLEEP, "desiredState": "zzz"},
            400,
            'invalid desiredState "zzz": expect inactive',
        ),
        ("a.service", {"options": SLEEP, "desiredState": "destroyed"}, 400, "invalid desiredState"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_makes_no_unit_is_refused_in_fleets_words(
    api: Api, name: str, body: object, status: int, said: str
) -> None:
    before = await api.contents()
    told = await message(api, "PUT", f"units/{name}", body)
    assert told[0] == status and told[1].startswith(said), told
    assert await api.contents() == before


async def test_fleets_contradictions_are_refused_in_its_words_for_a_replacement_too(api: Api) -> None:
    lines = [("MachineID", "a"), ("Global", "true")]
    options = [*SLEEP, *({"section": "X-Fleet", "name": name, "value": value} for name, value in lines)]
    body = {"desiredState": "launched", "options": options}
    said = (400, "MachineID cannot be used with Global")
    assert await message(api, "PUT", "units/a.service", body) == said
    await put(api, options=SLEEP)
    assert await message(api, "PUT", "units/a.service", body) == said


async def test_a_unit_that_stands_needs_a_state_to_be_set(api: Api) -> None:
    await put(api, options=SLEEP)
    for body in ({}, {"options": SLEEP}):
        said = await message(api, "PUT", "units/a.service", body)
        assert said == (409, "must provide DesiredState to update existing unit")


async def test_a_body_of_another_type_is_refused(api: Api) -> None:
    sent = {"Content-Type": "application/x-www-form-urlencoded"}
    said = await message(api, "PUT", "units/a.service", {"desiredState": "launched"}, **sent)
    assert said == (415, "only acceptable Content-Type is application/json")


async def test_a_template_is_submitted_and_not_activated(api: Api) -> None:
    assert await put(api, "t@.service", "launched", SLEEP) == (201, None)
    assert (await ask(api, "GET", "units/t@.service"))[1]["desiredState"] == "inactive"
    said = await message(api, "PUT", "units/t@.service", {"desiredState": "loaded"})
    assert said == (400, 'cannot activate template "t@.service"')


async def test_a_value_brings_in_no_line_of_its_own(api: Api) -> None:
    for option in (
        {"section": "Service", "name": "ExecStart", "value": "/bin/true\n[X-Fleet]\nGlobal=true"},
        {"section": "Service]\n[X-Fleet", "name": "ExecStart", "value": "/bin/true"},
        {"section": "Service", "name": "User=root\nExecStart", "value": "/bin/true"},
    ):
        status, said = await message(api, "PUT", "units/a.service", {"options": [*SLEEP, option]})
        assert status == 400 and "line of its own" in said


async def test_what_fleet_ignored_is_ignored_and_an_event_names_it(api: Api) -> None:
    lines = [("Bogus", "1"), ("MachineMetadata", "a=b c=d")]
    options = [*SLEEP, *({"section": "X-Fleet", "name": name, "value": value} for name, value in lines)]
    assert await put(api, state="launched", options=options) == (201, None)
    assert (await ask(api, "GET", "units/a.service"))[1]["options"] == options
    unit = await api.present()
    spec = api.cache.view.spec("a.service", unit.spec)
    assert spec is not None and spec.requirements.metadata == ()
    (told,) = await events(api)
    assert (told.unit, told.at, told.kind) == ("a.service", NOW, "ignored")
    assert "unknown key 'Bogus' in [X-Fleet]" in told.message and "a=b c=d" in told.message
    await put(api, state="loaded")
    assert len(await events(api)) == 1  # once, of the text
    await put(api, options=[*options, {"section": "X-Fleet", "name": "Odd", "value": "1"}])
    assert "'Odd'" in (await events(api))[-1].message
    (result,) = await api.change(start(text=f"{SERVICE}[X-Fleet]\nBogus=1\n", replace=True))
    assert result["error"]["code"] == "invalid_unit"  # through our own door it is refused


async def test_what_no_driver_could_run_is_refused_with_every_problem_named(api: Api) -> None:
    options = [{"section": "Service", "name": "ExecStrat", "value": "/bin/true"}]
    status, said = await message(api, "PUT", "units/a.service", {"options": options})
    assert status == 400 and "ExecStart" in said


# States


async def a_fleet(api: Api) -> None:
    """Two machines; web runs on the first, glob on both, gone was there."""
    web, everywhere = a_unit("web.service"), a_unit("glob.service", "Global=true")
    gone = a_unit("gone.service", target=TargetState.INACTIVE)
    await api.put(
        a_machine("one", id=M1, metadata={"az": "a", "role": "web"}),
        a_machine("two", id=M2),
        *(web, a_placement(web, M1), a_state(web, M1)),
        *(everywhere, a_placement(everywhere, M1), a_state(everywhere, M1)),
        *(a_placement(everywhere, M2), a_state(everywhere, M2)),
        *(gone, a_state(gone, M1, CopyPhase.GONE)),
    )


async def test_states_are_told_of_each_unit_and_machine_by_fleets_hash(api: Api) -> None:
    await a_fleet(api)
    found = (await ask(api, "GET", "state"))[1]["states"]
    assert [(state["name"], state["machineID"]) for state in found] == [
        ("glob.service", M1),
        ("glob.service", M2),
        ("web.service", M1),
    ]
    assert found[2] == {
        "hash": unitfile.parse(SERVICE).fleet_hash(),
        "machineID": M1,
        "name": "web.service",
        "systemdActiveState": "active",
        "systemdLoadState": "loaded",
        "systemdSubState": "running",
    }
    assert (await ask(api, "GET", f"state?machineID={M2}"))[1]["states"] == found[1:2]
    assert (await ask(api, "GET", "state?unitName=glob.service"))[1]["states"] == found[:2]
    assert await ask(api, "GET", "state/glob.service") == (200, found[0])


async def test_the_state_of_an_unknown_unit_is_not_found_where_fleet_broke_down(api: Api) -> None:
    assert await message(api, "GET", "state/none.service") == (404, "unit does not exist")
    await put(api, options=SLEEP)
    said = await message(api, "GET", "state/a.service")
    assert said == (404, "no machine reports a state of this unit")


async def test_a_global_unit_has_the_same_state_in_the_list_and_alone(api: Api) -> None:
    await a_fleet(api)
    units = {unit["name"]: unit for unit in (await ask(api, "GET", "units"))[1]["units"]}
    shown = units["glob.service"]
    assert shown["currentState"] == "launched" and "machineID" not in shown
    assert (await ask(api, "GET", "units/glob.service"))[1] == shown
    assert units["web.service"]["machineID"] == M1 and units["web.service"]["currentState"] == "launched"


# Machines


async def test_machines_are_told_with_address_and_metadata(api: Api) -> None:
    await a_fleet(api)
    await api.put(a_machine("three", id="2" * 32, present=False))
    assert (await ask(api, "GET", "machines"))[1] == {
        "machines": [
            {"id": M1, "metadata": {"az": "a", "role": "web"}, "primaryIP": "127.0.0.1"},
            {"id": M2, "primaryIP": "127.0.0.1"},
        ]
    }


async def test_metadata_is_changed_by_either_form_of_a_value(api: Api) -> None:
    await a_fleet(api)
    ops = [
        {"op": "add", "path": f"/{M1}/metadata/foo", "value": {"value": "bar"}},
        {"op": "add", "path": f"/{M1}/metadata/disk", "value": "ssd"},
        {"op": "replace", "path": f"/{M1}/metadata/role", "value": "db"},
        {"op": "remove", "path": f"/{M1}/metadata/az"},
        {"op": "add", "path": f"/{M2}/metadata/az", "value": "b"},
    ]
    assert await ask(api, "PATCH", "machines", ops) == (204, None)
    one, two = (await ask(api, "GET", "machines"))[1]["machines"]
    assert one["metadata"] == {"disk": "ssd", "foo": "bar", "role": "db"} and two["metadata"] == {"az": "b"}
    ops = [{"op": "remove", "path": f"/{M1}/metadata/{key}"} for key in ("foo", "disk")]
    assert await ask(api, "PATCH", "machines", ops) == (204, None)
    held = api.cache.view.machine_specs[M1].value
    assert held == MachineSpec(id=M1, metadata={"role": "db", "az": ""})  # az is hidden: the machine says it


async def test_changes_of_a_machine_under_two_of_its_names_add_up_and_none_is_no_change(api: Api) -> None:
    await a_fleet(api)
    ops = [
        {"op": "add", "path": f"/{machine}/metadata/{key}", "value": "x"}
        for machine, key in ((M2, "a"), ("two", "b"))
    ]
    assert await ask(api, "PATCH", "machines", ops) == (204, None)
    assert (await ask(api, "GET", "machines"))[1]["machines"][1]["metadata"] == {"a": "x", "b": "x"}
    before = await api.contents()
    assert await ask(api, "PATCH", "machines", []) == (204, None)
    assert await ask(api, "PATCH", "machines", ops) == (204, None)
    assert await api.contents() == before


@pytest.mark.parametrize(
    ("op", "status", "said"),
    [
        ({"op": "noop", "path": f"/{M1}/metadata/a"}, 400, "invalid op: expect add, remove, or replace"),
        ({"op": "add", "path": f"/{M1}/a", "value": "b"}, 400, "machine metadata path invalid"),
        ({"op": "add", "path": f"/{M1}/metadata/a/b", "value": "b"}, 400, "machine metadata path invalid"),
        ({"op": "add", "path": f"/{M1}/metadata/a"}, 400, "invalid value: add and replace require a value"),
        ({"op": "add", "path": f"/{M1}/metadata/a", "value": {"value": ""}}, 400, "invalid value: add and"),
        (
            {"op": "add", "path": f"/{M1}/metadata/a", "value": "x" * 300},
            400,
            "invalid value: 256 characters at most",
        ),
        (
            {"op": "add", "path": f"/{M1}/metadata/a", "value": "\x1b[0m"},
            400,
            "invalid value: 256 characters at most",
        ),
        ({"op": "add", "path": "/nowhere/metadata/a", "value": "b"}, 404, "cannot find machine nowhere"),
        ({"op": "add", "path": f"/{M1}/metadata/a", "value": 1}, 400, "unable to decode body: "),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_one_wrong_change_of_metadata_refuses_all(api: Api, op: object, status: int, said: str) -> None:
    await a_fleet(api)
    before = await api.contents()
    fine = {"op": "add", "path": f"/{M1}/metadata/fine", "value": "yes"}
    told = await message(api, "PATCH", "machines", [fine, op])
    assert told[0] == status and told[1].startswith(said), told
    assert await api.contents() == before


# Pages


async def test_lists_are_told_page_by_page_and_no_page_is_empty(api: Api) -> None:
    await api.put(*(a_unit(f"u{number:03}.service", target=TargetState.INACTIVE) for number in range(200)))
    first = (await ask(api, "GET", "units"))[1]
    assert len(first["units"]) == 100 and first["nextPageToken"] == "ZAACAA=="
    second = (await ask(api, "GET", "units?nextPageToken=ZAACAA=="))[1]
    assert [unit["name"] for unit in second["units"]] == [f"u{number:03}.service" for number in range(100, 200)]
    assert "nextPageToken" not in second
    assert await ask(api, "GET", "units?nextPageToken=ZAADAA==") == (200, {})


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("nextPageToken=EwBMLg==", "token limit must be 100"),
        ("nextPageToken=AABkAA==", "token limit must be 100"),
        ("nextPageToken=ZAAAAA==", "token page must be greater than zero"),
        ("nextPageToken=zz&nextPageToken=yy", "too many values for page token"),
        ("nextPageToken=!!", "illegal base64 data at input byte 0"),
        ("nextPageToken=", "EOF"),
    ],
)
@pytest.mark.parametrize("path", ["units", "state", "machines"])
async def test_a_bad_page_token_is_refused_in_fleets_words(api: Api, path: str, query: str, said: str) -> None:
    assert await message(api, "GET", f"{path}?{query}") == (400, said)


# The rest


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("POST", "units", 405, "only GET supported against this resource"),
        ("POST", "units/a.service", 405, "only GET, PUT and DELETE supported against this resource"),
        ("DELETE", "machines", 405, "only GET and PATCH supported against this resource"),
        ("GET", "units/", 404, ""),
        ("GET", "units/a/b", 404, ""),
        ("GET", "machines/x", 404, ""),
        ("GET", "", 404, ""),
    ],
)
async def test_what_is_no_resource_is_said_to_be_none(
    api: Api, method: str, path: str, status: int, said: str
) -> None:
    assert await message(api, method, path) == (status, said)
    async with api.client.get("/fleet/v1", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        assert (response.status, await response.json()) == (405, {"error": {"code": 405, "message": ""}})


async def test_every_resource_stands_at_its_older_place_with_the_same_roles(api: Api) -> None:
    status, made = await api.ask("POST", "/v1/tokens", body={"name": "v", "role": "viewer"})
    assert status == 201
    for route, path in ALIASES:
        asked = path.replace("{name}", "a.service")
        for token, allowed in ((made["token"], route.needs == "viewer"), (TOKEN, True)):
            sent = {"Authorization": f"Bearer {token}"}
            async with api.client.request(route.method, asked, headers=sent) as response:
                assert (response.status != 403) is allowed, f"{route.method} {asked}: {response.status}"
        async with api.client.request(route.method, asked) as response:
            told = await response.json()
            assert (response.status, told["error"]["code"]) == (401, 401)


async def test_discovery_describes_the_resources(api: Api) -> None:
    status, told = await ask(api, "GET", "discovery")
    assert status == 200 and told["basePath"] == "/fleet/v1/"
    assert set(told["resources"]["Units"]["methods"]) == {"List", "Get", "Set", "Delete"}
    named = {part.split('"')[0] for part in json.dumps(told).split('"$ref": "')[1:]}
    assert named <= set(told["schemas"])


async def test_a_token_is_taken_as_a_password_here_and_nowhere_else(api: Api) -> None:
    status, made = await api.ask("POST", "/v1/tokens", body={"name": "ci", "role": "operator"})
    assert status == 201
    for secret, expected in ((made["token"], 200), (TOKEN, 200), ("wrong", 401), ("", 401)):
        sent = {"Authorization": "Basic " + base64.b64encode(f"fleetctl:{secret}".encode()).decode()}
        assert (await ask(api, "GET", "units", **sent))[0] == expected
        assert (await api.ask("GET", "/v1/units", headers=sent))[0] == 401
    for odd in ("Basic", "Basic !!", "Basic ¿", "Basic Og=="):
        assert (await ask(api, "GET", "units", Authorization=odd))[0] == 401


async def test_a_change_is_in_the_audit_log_with_its_outcome(api: Api) -> None:
    await put(api, options=SLEEP)
    await put(api, state="zzz")
    told = [json.loads(line) for line in (api.trail.folder / "audit.jsonl").read_text().splitlines()]
    assert {line["action"] for line in told} == {"set a.service"}
    assert [(line["route"], line.get("status", 0)) for line in told] == [
        ("/fleet/v1/units/{name}", status) for status in (0, 201, 0, 400)
    ]


async def test_without_a_store_every_call_is_answered_unavailable() -> None:
    async with an_api(synced=False) as api:
        units_module_catch_up = "unit_master.api.fleet.units.CATCH_UP_S"
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(units_module_catch_up, 0.1)
            for path in ("units", "units/a.service", "state", "machines"):
                assert (await message(api, "GET", path))[0] == 503


# Records that can't be read


POISON = {
    "no JSON": b"{",
    "no record": b"[]",
    "another state": b'{"v":1,"name":"bad.service","spec":"x","target":"zzz","generation":1,"incarnation":"i"}',
    "no text": b"\xff\xfe",
}


@pytest.mark.parametrize("value", POISON.values(), ids=POISON)
async def test_a_poisoned_unit_is_shown_as_such_can_be_destroyed_and_hinders_no_other(value: bytes) -> None:
    poison = Built(((keys.unit("bad.service"), value),))
    async with an_api(built=[a_machine("m1"), a_unit("fine.service"), poison]) as api:
        units = (await ask(api, "GET", "units"))[1]["units"]
        assert [unit["name"] for unit in units] == ["bad.service", "fine.service"]
        assert (await ask(api, "GET", "units/bad.service"))[1] == units[0]
        assert units[0]["options"][0]["value"].startswith(
            "unreadable: cannot read /unitfleet/v1/units/bad.service"
        )
        status, said = await message(api, "PUT", "units/bad.service", {"desiredState": "launched"})
        assert status == 409 and "unreadable" in said
        assert await put(api, "fine.service", "loaded") == (204, None)
        assert await ask(api, "DELETE", "units/bad.service") == (204, None)
        assert (await api.present("bad.service")).target is TargetState.DESTROYED
        assert await put(api, "bad.service", "launched", SLEEP) == (201, None)


async def test_a_poisoned_state_hides_no_other_state(api: Api) -> None:
    await a_fleet(api)
    await api.outside.put(keys.state(M1, "glob.service"), b"{")
    await becomes(lambda: bool(api.cache.view.bad), "the poison is not seen")
    found = (await ask(api, "GET", "state"))[1]["states"]
    assert [(state["name"], state["machineID"]) for state in found] == [("glob.service", M2), ("web.service", M1)]


async def test_a_text_that_is_not_in_the_store_is_told_in_the_units_description(api: Api) -> None:
    unit = a_unit("web.service")
    await api.put(Built(unit.pieces[1:]))
    options = (await ask(api, "GET", "units/web.service"))[1]["options"]
    assert "its text is not in the store" in options[0]["value"]
    assert (await api.change(wish("destroyed", "web.service")))[0]["changed"]


async def test_a_machine_whose_record_was_written_by_hand_is_none(api: Api) -> None:
    await api.put(a_record(keys.machine_spec(M1), MachineSpec(id=M1, metadata={"a": "b"})))
    assert await ask(api, "GET", "machines") == (200, {})
    assert accept.AS_FLEET.startswith("#")
