"""Bandwidth and live figures through a master: stub agents on loopback, a store in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from harness.api import TOKEN, Api, an_api, becomes
from harness.builders import a_placement, a_state, a_unit
from harness.stub_agent import StubAgent, stub_agent
from unitfleet.api import MachineFigures, NetView, UnitFigures, UnitNet
from unitfleet.model import Bandwidth

TEXT = "[Container]\nImage=ad:1\n[X-Fleet]\nEgress=10M\n"


@pytest.fixture
async def agents() -> AsyncIterator[tuple[StubAgent, StubAgent]]:
    async with stub_agent("m1") as one, stub_agent("m2") as two:
        yield one, two


@pytest.fixture
async def api(agents: tuple[StubAgent, StubAgent]) -> AsyncIterator[Api]:
    async with an_api(built=[agent.built() for agent in agents]) as served:
        yield served


@contextlib.asynccontextmanager
async def looking(api: Api) -> AsyncIterator[AsyncIterator[MachineFigures]]:
    """Open `/v1/figures` and give its lines."""
    async with api.client.get("/v1/figures", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        assert response.status == 200

        async def lines() -> AsyncIterator[MachineFigures]:
            async for raw in response.content:
                if raw.strip():
                    yield msgspec.json.decode(raw, type=MachineFigures)

        yield lines()


async def until_told(lines: AsyncIterator[MachineFigures], name: str, *, well: bool = True) -> MachineFigures:
    async with asyncio.timeout(10):
        async for line in lines:
            if line.name == name and well == (not line.why):
                return line
    raise AssertionError("the stream ended")


# ------------------------------------------------------------------ figures


async def test_nobody_is_asked_while_nobody_looks(api: Api, agents: tuple[StubAgent, StubAgent]) -> None:
    await asyncio.sleep(0.2)  # time in which it would have asked
    assert [agent.asked for agent in agents] == [0, 0]


async def test_all_readers_share_one_subscription_of_each_agent_and_the_last_one_closes_it(
    api: Api, agents: tuple[StubAgent, StubAgent]
) -> None:
    async with looking(api) as first, looking(api) as second, looking(api) as third:
        for lines in (first, second, third):
            for agent in agents:
                told = await until_told(lines, agent.name)
                assert told.used.cpu == 1.5
        assert [agent.readers for agent in agents] == [1, 1]
    await becomes(lambda: [agent.readers for agent in agents] == [0, 0], "the agents are still followed")
    assert [agent.most_readers for agent in agents] == [1, 1]
    async with looking(api) as again:
        await until_told(again, "m1")
    assert [agent.asked for agent in agents] == [2, 2]


async def test_one_frame_has_a_line_of_every_machine(api: Api, agents: tuple[StubAgent, StubAgent]) -> None:
    agents[0].units = (UnitFigures(unit="a.service", at=1.0, driver="docker", cpu=0.25),)
    lines = await _frame(api)
    assert [(line.name, line.why, len(line.units)) for line in lines] == [("m1", "", 1), ("m2", "", 0)]
    await becomes(lambda: agents[0].readers == 0, "one frame leaves its subscription open")


async def test_a_machine_that_tells_nothing_says_why_and_holds_up_no_other(
    api: Api, agents: tuple[StubAgent, StubAgent]
) -> None:
    agents[1].refuses = True
    fine, refused = await _frame(api)
    assert fine.why == "" and refused.why == "cannot answer this"
    async with looking(api) as lines:
        await until_told(lines, "m2", well=False)
        agents[1].refuses = False
        await until_told(lines, "m2")


async def test_an_address_that_is_none_is_told_and_breaks_nothing(api: Api) -> None:
    for number, address in enumerate(("", "no host", "127.0.0.1/x", "[::", "a:b:c")):
        broken = StubAgent(f"x{number}", port=70000 if address else 1, address=address)
        await api.put(broken.built())
    lines = {line.name: line.why for line in await _frame(api)}
    assert (lines["m1"], lines["m2"]) == ("", "")
    assert all(lines[f"x{number}"].startswith("cannot reach its agent") for number in range(5)), lines


async def test_an_agent_that_joins_or_comes_back_elsewhere_is_followed(api: Api) -> None:
    async with stub_agent("m3") as late, stub_agent("m3") as elsewhere, looking(api) as lines:
        await api.put(late.built())
        await until_told(lines, "m3")
        await api.put(elsewhere.built(nonce="n2"))
        await becomes(lambda: elsewhere.readers == 1 and late.readers == 0, "it is followed where it was")


async def test_a_line_of_a_thousand_units_comes_through(api: Api, agents: tuple[StubAgent, StubAgent]) -> None:
    agents[0].pace_s = 0.5
    agents[0].units = tuple(
        UnitFigures(unit=f"a-rather-long-name@{number}.service", at=1.0, driver="docker", image="x" * 300)
        for number in range(1000)
    )
    line, _ = await _frame(api)
    assert len(line.units) == 1000


async def _frame(api: Api) -> list[MachineFigures]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with api.client.get("/v1/figures?once=true", headers=headers) as response:
        raw = await response.read()
    return [msgspec.json.decode(line, type=MachineFigures) for line in raw.splitlines()]


# ------------------------------------------------------------------ bandwidth


async def net(api: Api, query: str = "") -> list[NetView]:
    status, told = await api.ask("GET", f"/v1/net{query}")
    assert status == 200, told
    return list(msgspec.convert(told["items"], tuple[NetView, ...]))


async def limit(api: Api, name: str = "a.service", **wish: Any) -> tuple[int, Any]:
    status, told = await api.ask("POST", f"/v1/net/{name}", body=wish)
    if status == 202:
        await api.cache.wait_for(told["rev"], 5.0)
    return status, told


async def test_a_live_change_is_written_and_restarts_nothing(api: Api) -> None:
    unit = a_unit(text=TEXT)
    await api.put(unit, a_placement(unit, "m1"))
    status, told = await limit(api, egress=20_000_000, egress_limit=50_000_000)
    assert status == 202 and told["items"][0]["changed"]
    held = await api.present()
    assert held.bandwidth == Bandwidth(egress=20_000_000, egress_limit=50_000_000)
    assert (held.generation, held.restart, held.target) == (2, unit.unit.restart, unit.unit.target)
    status, told = await limit(api, egress=20_000_000)
    assert status == 202 and not told["items"][0].get("changed")
    status, _ = await limit(api, reset=True)
    assert status == 202 and (await api.present()).bandwidth is None


async def test_what_does_not_fit_or_makes_no_sense_is_refused_and_changes_nothing(api: Api) -> None:
    unit = a_unit(text=TEXT)
    await api.put(unit, a_placement(unit, "m2"))
    before = await api.contents()
    status, told = await limit(api, egress=2 * 10**9)
    assert status == 409 and told["code"] == "refused"
    assert told["message"] == "cannot limit a.service: egress: 1G of 1G left on m2, needs 2G"
    for wish in ({}, {"egress": -1}, {"egress": "20M"}, {"speed": 1}, {"reset": True, "egress": 1}):
        status, told = await limit(api, **wish)
        assert 400 <= status < 500, told
    status, told = await limit(api, "b.service", egress=1)
    assert status == 404 and "never submitted" in told["message"]
    assert await api.contents() == before


async def test_two_changes_at_once_are_both_kept(api: Api) -> None:
    unit = a_unit(text=TEXT)
    await api.put(unit)
    answers = await asyncio.gather(limit(api, egress=20_000_000), limit(api, ingress_limit=5_000_000))
    assert [status for status, _ in answers] == [202, 202]
    held = await api.present()
    assert held.bandwidth == Bandwidth(egress=20_000_000, ingress_limit=5_000_000)


async def test_what_is_wanted_stands_beside_what_is_in_force(
    api: Api, agents: tuple[StubAgent, StubAgent]
) -> None:
    unit, plain = a_unit(text=TEXT, bandwidth=Bandwidth(egress=20_000_000)), a_unit("plain.service")
    agents[0].net = (UnitNet(unit="a.service", machine="m1", egress=10_000_000, in_force=True, how="veth+ifb"),)
    await api.put(unit, a_placement(unit, "m1"), a_state(unit, "m1"), plain, a_placement(plain, "m2"))
    (shown,) = await net(api)
    assert shown.set_live and shown.wanted.egress == 20_000_000 and shown.ordered.egress == 10_000_000
    assert shown.in_force is not None and shown.in_force.egress == 10_000_000
    (named,) = await net(api, "?unit=plain.service")
    assert named.in_force is None and named.why == "its agent has no copy of it to shape"
    assert agents[1].asked == 2, "only the agents that have the units are asked"


async def test_an_agent_out_of_reach_is_named_and_the_rest_is_shown(api: Api) -> None:
    unit = a_unit(text=TEXT)
    gone = StubAgent("m9", port=1)
    await api.put(gone.built(), unit, a_placement(unit, "m9"))
    (shown,) = await net(api)
    assert shown.in_force is None and "cannot reach its agent" in shown.why


async def test_the_routes_stand_in_the_description(api: Api) -> None:
    _, told = await api.ask("GET", "/v1/openapi.json")
    assert {"/v1/net", "/v1/net/{name}", "/v1/figures"} <= told["paths"].keys()
    assert json.dumps(told["components"]["schemas"]["NetLimit"])
