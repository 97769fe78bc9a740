"""Who may ask the API what: roles route by route, tokens, refusals, floods, names."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from harness.api import CLUSTER_KEY, NOW, TOKEN, Api, an_api, becomes, start, wish
from harness.builders import a_machine
from unit_master.access.floods import Bounds, Rate
from unit_master.api import machines
from unit_master.api.backend import ApiError
from unit_master.api.route import Route
from unit_master.api.routes import ROUTES
from unitfleet import keys
from unitfleet.accessapi import TokenMade, TokenView
from unitfleet.api import AGENT_HEADER
from unitfleet.memory import MemoryStore
from unitfleet.model import Role

BY_TLS = frozenset({"/v1/join", "/v1/renew"})
"""What no token opens: a host asks by TLS, with a join token or its certificate."""


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as served:
        yield served


async def a_token(api: Api, role: Role | str = Role.VIEWER, name: str = "ci", **more: object) -> TokenMade:
    status, told = await api.ask("POST", "/v1/tokens", body={"name": name, "role": role, **more})
    assert status == 201, told
    return msgspec.convert(told, TokenMade)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def status_of(api: Api, route: Route, headers: dict[str, str]) -> int:
    """Ask a route something that changes nothing, whoever may ask; a stream is left at once."""
    path = re.sub(r"\{\w+\}", "x", route.path)
    async with api.client.request(route.method, path, headers=headers) as response:
        return response.status


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_route_is_open_to_the_role_it_needs_and_those_above(api: Api, route: Route) -> None:
    for role in Role:
        token = await a_token(api, role, name=f"a-{role}")
        status = await status_of(api, route, bearer(token.token))
        if route.path in BY_TLS and (route.public or role.covers(route.needs)):
            assert status == 401, f"{role}: {status}"
        elif route.public or role.covers(route.needs):
            assert status not in (401, 403), f"{role}: {status}"
        else:
            assert status == 403, f"{role}: {status}"
    assert (await status_of(api, route, {}) == 401) is not opened_by_anybody(route)


def opened_by_anybody(route: Route) -> bool:
    return route.public and route.path not in BY_TLS


def test_whatever_changes_something_or_shows_texts_or_output_needs_more_than_a_viewer() -> None:
    open_to_viewers = {
        (route.method, route.path) for route in ROUTES if route.needs is Role.VIEWER and not route.public
    }
    assert {method for method, _ in open_to_viewers} == {"GET"}
    assert not {path for _, path in open_to_viewers} & {
        "/v1/units/{name}",
        "/v1/logs",
        "/v1/logs/{name}",
        "/v1/scenes/{name}",
        "/v1/tokens",
        "/v1/audit",
        "/fleet/v1/units",
        "/fleet/v1/units/{name}",
    }
    assert all(route.does for route in ROUTES if route.needs is not Role.VIEWER)


@pytest.mark.parametrize("spelled", ["lost", "l%6Fst", "LOST", "lost/", "%72m", "./lost"])
async def test_no_spelling_of_an_order_for_admins_passes_as_one_for_operators(api: Api, spelled: str) -> None:
    operator = await a_token(api, Role.OPERATOR)
    status, told = await api.ask("POST", f"/v1/machines/m1/{spelled}", headers=bearer(operator.token))
    assert (status, told["code"]) in ((403, "forbidden"), (404, "not_found")), told
    assert "no such order" in told["message"] or "admin" in told["message"] or "not found" in told["message"]


@pytest.mark.parametrize("word", ["lost", "rm"])
async def test_the_route_for_operators_carries_out_no_order_for_admins(word: str) -> None:
    request = make_mocked_request("POST", "/", match_info={"machine": "m1", "order": word})
    with pytest.raises(ApiError, match="no such order"):
        await machines.order(request)


async def test_a_viewer_who_stops_a_unit_is_told_why_not(api: Api) -> None:
    await api.change(start("adserver@1.service"))
    viewer = await a_token(api)
    before = await api.contents()
    body = {"changes": [wish("loaded", "adserver@1.service")]}
    status, told = await api.ask("POST", "/v1/units", body=body, headers=bearer(viewer.token))
    assert (status, told["code"]) == (403, "forbidden")
    assert told["message"] == 'cannot stop adserver@1.service: your token "ci" is a viewer, this needs operator'
    assert await api.contents() == before


async def test_no_environment_of_a_unit_reaches_a_viewer(api: Api) -> None:
    await api.change(start(text="[Service]\nEnvironment=PASSWORD=canary\nExecStart=/bin/sleep 1000 canary\n"))
    viewer = await a_token(api)
    for route in ROUTES:
        if route.method == "GET" and not route.streams and route.path != "/metrics":
            path = re.sub(r"\{\w+\}", "a.service", route.path)
            async with api.client.get(path, headers=bearer(viewer.token)) as response:
                assert b"canary" not in await response.read(), route.path
    async with api.stream("/v1/stream", bearer(viewer.token)) as stream:
        assert "canary" not in json.dumps(await stream.next())


async def test_a_token_is_told_once_and_its_secret_stands_nowhere(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    made = await a_token(api, Role.OPERATOR)
    secret = made.token.split("_", 2)[2]
    assert len(secret) >= 43, "256 bits"
    status, _ = await api.ask("POST", "/v1/units", body={"changes": [start()]}, headers=bearer(made.token))
    assert status == 202
    await api.ask("POST", "/v1/cluster/hold", headers=bearer(made.token))
    status, told = await api.ask("GET", "/v1/tokens")
    (listed,) = msgspec.convert(told["items"], tuple[TokenView, ...])
    assert listed == made.view
    assert (listed.name, listed.role, listed.created_by, listed.created_at) == ("ci", Role.OPERATOR, "admin", NOW)
    _, audit = await api.ask("GET", "/v1/audit")
    logged = "\n".join(record.getMessage() for record in caplog.records)
    contents = b"\n".join((await api.contents()).values()).decode(errors="replace")
    trail = "".join(path.read_text() for path in api.trail.files() if path.exists())
    for place in (json.dumps(told), json.dumps(audit), logged, contents, trail):
        assert "ci" in place and secret not in place


async def test_a_name_is_one_tokens_alone_on_every_master() -> None:
    store = MemoryStore()
    async with an_api(outside=store) as one, an_api(outside=store, name="two") as two:
        body = {"name": "ci", "role": "viewer"}
        told = await asyncio.gather(*(each.ask("POST", "/v1/tokens", body=body) for each in (one, two) * 3))
        assert sorted(status for status, _ in told) == [201, 409, 409, 409, 409, 409]
        assert "ci" in next(body["message"] for status, body in told if status == 409)
        assert len((await store.list(keys.token(""))).items) == 1


@pytest.mark.parametrize("by", ["name", "id"])
async def test_a_removed_token_is_refused_at_once_on_a_second_master_and_its_streams_end(by: str) -> None:
    store = MemoryStore()
    async with an_api(outside=store) as one, an_api(outside=store, name="two") as two:
        made = await a_token(one, Role.VIEWER)
        await two.cache.wait_for(made.rev, 5.0)
        async with two.stream("/v1/stream", bearer(made.token)) as stream:
            await stream.next()
            assert (await two.ask("GET", "/v1/units", headers=bearer(made.token)))[0] == 200
            wanted = made.view.name if by == "name" else made.view.id
            status, told = await one.ask("DELETE", f"/v1/tokens/{wanted}")
            assert status == 200
            assert (await one.ask("GET", "/v1/units", headers=bearer(made.token)))[0] == 401
            await two.cache.wait_for(told["rev"], 5.0)
            assert (await two.ask("GET", "/v1/units", headers=bearer(made.token)))[0] == 401
            async with asyncio.timeout(5):
                with contextlib.suppress(aiohttp.ClientPayloadError):  # it breaks off
                    while await stream.response.content.readline():
                        pass
        assert not (await store.list(keys.PREFIX + "token")).items
        assert (await one.ask("DELETE", f"/v1/tokens/{wanted}"))[0] == 404
        await a_token(one, Role.VIEWER)


async def test_a_token_ends_at_its_time() -> None:
    now = [NOW]
    async with an_api(now=lambda: now[0]) as api:
        made = await a_token(api, ttl_s=60.0)
        assert made.view.expires_at == NOW + 60
        assert (await api.ask("GET", "/v1/units", headers=bearer(made.token)))[0] == 200
        now[0] += 60
        status, told = await api.ask("GET", "/v1/units", headers=bearer(made.token))
        assert (status, told["code"]) == (401, "expired") and '"ci" has expired' in told["message"]
        _, wrong = await api.ask("GET", "/v1/units", headers=bearer(made.token + "x"))
        assert "expired" not in wrong["message"], "that is for who has the secret"
        _, told = await api.ask("GET", "/v1/tokens")
        assert told["items"][0]["expired"]


async def test_refusals_of_strangers_do_not_tell_one_kind_from_another(api: Api) -> None:
    removed = await a_token(api)
    kept = await a_token(api, name="kept")
    await api.ask("DELETE", "/v1/tokens/ci")
    wrong = [
        removed.token,
        kept.token[:-1],
        f"uft_{kept.view.id}_x",
        "uft_000000000000_x",
        "nonsense",
        TOKEN + "x",
        CLUSTER_KEY,
    ]
    told = [await api.ask("GET", "/v1/units", headers=bearer(text)) for text in wrong]
    assert told == [told[0]] * len(wrong) and told[0][0] == 401


async def test_the_clusters_key_opens_what_agents_and_masters_ask_and_nothing_else(api: Api) -> None:
    for route in ROUTES:
        status = await status_of(api, route, bearer(CLUSTER_KEY))
        refused = status == 401 or (status == 429 and route.path == "/v1/join")  # so many strangers at once
        assert refused is not (route.keyed or opened_by_anybody(route)), f"{route.path}: {status}"


async def test_an_agent_without_an_identity_drains_its_own_machine_and_no_other() -> None:
    own, other = "1" * 32, "2" * 32
    built = [a_machine("m1", id=own, nonce="of-m1"), a_machine("m2", id=other, nonce="of-m2")]

    def shown(key: str, agent: str) -> dict[str, str]:
        return {**bearer(key), AGENT_HEADER: agent}

    async with an_api(built=built) as api:
        for headers, wanted, expected in (
            (bearer(CLUSTER_KEY), own, 401),
            (shown(CLUSTER_KEY, f"{own}/wrong"), own, 401),
            (shown(CLUSTER_KEY, f"{own}/"), own, 401),
            (shown(CLUSTER_KEY, f"{other}/of-m1"), other, 401),
            (shown("another-key", f"{own}/of-m1"), own, 401),
            (shown(CLUSTER_KEY, f"{own}/of-m1"), other, 403),
            (shown(CLUSTER_KEY, f"{own}/of-m1"), "m1", 403),
        ):
            status, told = await api.ask("POST", f"/v1/machines/{wanted}/drain", headers=headers)
            assert status == expected, told
        right = shown(CLUSTER_KEY, f"{own}/of-m1")
        for word in ("undrain", "cordon", "lost"):
            assert (await api.ask("POST", f"/v1/machines/{own}/{word}", headers=right))[0] == 401, word
        assert not [key for key in await api.contents() if "machine-spec" in key], "nothing has changed"
        assert (await api.ask("POST", f"/v1/machines/{own}/drain", headers=right))[0] == 202
        assert [key for key in await api.contents() if "machine-spec" in key] == [keys.machine_spec(own)]
        _, audit = await api.ask("GET", f"/v1/audit?caller=agent%20{own}")
        assert [(line["action"], line["status"]) for line in audit["items"]] == [
            (f"drain machine {other}", 403),
            ("drain machine m1", 403),
            (f"drain machine {own}", 202),
        ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "a b", "role": "viewer"}, "invalid_name"),
        ({"name": "admin", "role": "admin"}, "invalid_name"),
        ({"name": "ci", "role": "root"}, "invalid_request"),
        ({"name": "ci"}, "invalid_request"),
        ({"name": "ci", "role": "viewer", "ttl_s": -1}, "refused"),
        ({"name": "ci", "role": "viewer", "ttl_s": 1e12}, "refused"),
        ({"name": "ci", "role": "viewer", "secret": "mine"}, "invalid_request"),
    ],
)
async def test_a_token_that_can_not_be_is_refused(api: Api, body: dict[str, object], code: str) -> None:
    _, told = await api.ask("POST", "/v1/tokens", body=body)
    assert told["code"] == code and await api.contents() == {}


FEW = Bounds(reads=Rate(1, 4), writes=Rate(1, 2), requests=4, streams=2, agents=2)


async def test_a_flood_of_one_token_does_not_starve_another() -> None:
    async with an_api(bounds=FEW) as api:
        one, two = await a_token(api, Role.OPERATOR, "one"), await a_token(api, Role.OPERATOR, "two")
        flood = [api.ask("POST", "/v1/units", body={"changes": []}, headers=bearer(one.token)) for _ in range(30)]
        statuses = [status for status, _ in await asyncio.gather(*flood)]
        assert statuses.count(202) <= 3 and set(statuses) == {202, 429}
        assert (await api.ask("POST", "/v1/units", body={"changes": []}, headers=bearer(two.token)))[0] == 202
        assert (await api.ask("GET", "/v1/units", headers=bearer(one.token)))[0] == 200, "reads have their own"
        async with api.client.post("/v1/units", json={"changes": []}, headers=bearer(one.token)) as response:
            told = await response.json()
            assert response.status == 429 and 1 <= int(response.headers["Retry-After"]) <= 2
            assert told["code"] == "too_many" and "a second" in told["message"] and told["hint"]


async def test_a_bulk_call_counts_as_one() -> None:
    async with an_api(bounds=FEW) as api:
        changes = [start(f"a@{number}.service") for number in range(50)]
        status, told = await api.ask("POST", "/v1/units", body={"changes": changes})
        assert status == 202 and len(told["items"]) == 50


async def test_strangers_flood_neither_callers_nor_agents_nor_health() -> None:
    async with an_api(bounds=FEW) as api:
        asked = [api.ask("GET", "/v1/units", headers=bearer("nonsense")) for _ in range(30)]
        assert {status for status, _ in await asyncio.gather(*asked)} == {401, 429}
        assert (await api.ask("GET", "/v1/units"))[0] == 200
        assert (await api.ask("GET", "/healthz"))[0] == 200
        for _ in range(10):
            status, _ = await api.ask("POST", "/v1/ingest/logs", headers=bearer(CLUSTER_KEY))
            assert status == 409, "this master keeps no output; no rate is counted"


async def test_streams_of_one_caller_leave_room_for_another() -> None:
    async with an_api(bounds=FEW) as api, contextlib.AsyncExitStack() as open_streams:
        one, two = await a_token(api, name="one"), await a_token(api, name="two")
        await (await open_streams.enter_async_context(api.stream("/v1/stream", bearer(one.token)))).next()
        status, told = await api.ask("GET", "/v1/stream", headers=bearer(one.token))
        assert (status, told["code"]) == (429, "too_many")
        await (await open_streams.enter_async_context(api.stream("/v1/stream", bearer(two.token)))).next()


async def test_the_unix_socket_has_no_bounds_and_no_names() -> None:
    async with an_api(token=None, bounds=FEW) as api:
        for _ in range(20):
            assert (await api.ask("GET", "/v1/units", headers={"Host": "x"}))[0] == 200


async def test_a_name_that_is_not_this_masters_is_answered_nothing(api: Api) -> None:
    for host, expected in (("evil.example", 421), ("one:4001", 200), ("localhost", 200), ("127.0.0.1:1", 200)):
        status, told = await api.ask("GET", "/v1/units", headers={"Host": host})
        assert status == expected, host
    before = await api.contents()
    status, told = await api.ask(
        "POST", "/v1/units", body={"changes": [start()]}, headers={"Host": "evil.example:4001"}
    )
    assert (status, told["code"]) == (421, "misdirected") and "evil.example" in told["message"]
    assert "--host-names" in told["hint"] and await api.contents() == before
    assert (await api.ask("GET", "/healthz", headers={"Host": "balancer"}))[0] == 200


async def test_a_token_that_is_there_works_while_the_store_is_away(api: Api) -> None:
    made = await a_token(api)
    api.store.link.cut()
    assert (await api.ask("GET", "/v1/units", headers=bearer(made.token)))[0] == 200
    status, _ = await api.ask("POST", "/v1/tokens", body={"name": "new", "role": "viewer"})
    assert status == 503


async def test_garbage_in_place_of_a_token_opens_nothing_and_hinders_none(api: Api) -> None:
    made = await a_token(api)
    await api.outside.put(keys.token("abc"), b'{"v":1}')
    await api.outside.put(keys.token("abd"), b"\xff")
    await becomes(lambda: keys.token("abd") in api.cache.view.bad, "the garbage is not seen")
    assert (await api.ask("GET", "/v1/units", headers=bearer("uft_abc_")))[0] == 401
    assert (await api.ask("GET", "/v1/units", headers=bearer(made.token)))[0] == 200
    assert len((await api.ask("GET", "/v1/tokens"))[1]["items"]) == 1


def test_the_documented_roles_are_those_of_the_routes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    told = dict(re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE) [^`]+)` \| ([a-z, ]+) \|$", page, re.MULTILINE))
    assert told == {
        f"{route.method} {route.path}": ("none" if route.public else route.needs)
        + (", key" if route.keyed else ", own" if route.own else "")
        for route in ROUTES
    }


async def test_whose_role_is_too_low_is_told_so_whatever_the_body_is(api: Api) -> None:
    made = await a_token(api)
    for raw in (b" " * (9 * 1024 * 1024), b"[" * 100_000, b"\xff"):
        status, told = await api.ask("POST", "/v1/units", raw=raw, headers=bearer(made.token))
        assert (status, told["code"]) == (403, "forbidden")
