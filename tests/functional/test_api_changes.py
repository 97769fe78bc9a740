"""Wishes: what each does to the store, how it is refused, and what a store that is away or answers late does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from harness.api import NOW, TEXT, TOKEN, Api, an_api, becomes, start, wish
from harness.builders import Built, a_machine, a_placement, a_record, a_state, a_unit
from unit_master import cache as cache_module
from unit_master.api import backend as backend_module
from unitfleet import keys
from unitfleet.model import (
    CopyPhase,
    TargetState,
)

OTHER = "[Service]\nExecStart=/bin/sleep 2000\n"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as served:
        yield served


async def test_a_submitted_unit_stands_in_the_store_with_its_text(api: Api) -> None:
    (result,) = await api.change({"name": "a.service", "text": TEXT})
    assert result == {"name": "a.service", "target": "inactive", "changed": True, "created": True}
    unit = await api.present()
    assert (unit.target, unit.generation, unit.restart, unit.changed_at) == (TargetState.INACTIVE, 1, 0, NOW)
    assert (await api.contents())[keys.spec(unit.spec)].decode() == TEXT


async def test_the_same_wish_again_changes_nothing(api: Api) -> None:
    await api.change(start())
    before = await api.contents()
    (result,) = await api.change(start())
    assert result == {"name": "a.service", "target": "launched"}
    assert await api.contents() == before


async def test_another_text_needs_replace(api: Api) -> None:
    await api.change(start())
    before = await api.contents()
    (result,) = await api.change(start(text=OTHER))
    assert result["error"]["code"] == "conflict" and "--replace" in result["error"]["hint"]
    assert await api.contents() == before
    first = await api.present()
    (result,) = await api.change({"name": "a.service", "text": OTHER, "replace": True})
    second = await api.present()
    assert result["changed"] and result["target"] == "launched" and "created" not in result
    assert second.spec != first.spec and second.generation == 2 and second.incarnation == first.incarnation


async def test_target_states_change_and_each_change_counts(api: Api) -> None:
    await api.change({"name": "a.service", "text": TEXT})
    for generation, target in enumerate(("loaded", "launched", "loaded", "inactive", "destroyed"), start=2):
        (result,) = await api.change(wish(target))
        unit = await api.present()
        assert (result["target"], result["changed"]) == (target, True)
        assert (unit.target, unit.generation, unit.restart) == (target, generation, 0)


async def test_each_create_after_a_destroy_is_a_new_incarnation(api: Api) -> None:
    await api.change(start())
    first = await api.present()
    await api.change(wish("destroyed"))
    assert (await api.present()).incarnation == first.incarnation
    (result,) = await api.change(start())
    second = await api.present()
    assert result["created"] and second.target is TargetState.LAUNCHED
    assert second.incarnation != first.incarnation and second.generation > first.generation
    await api.outside.delete(keys.unit("a.service"))
    await api.change(start())
    assert (await api.present()).incarnation not in (first.incarnation, second.incarnation)


async def test_a_unit_on_its_way_out_can_only_be_destroyed_or_submitted_anew(api: Api) -> None:
    await api.change(start())
    await api.change(wish("destroyed"))
    again, started, restarted = await api.change(
        wish("destroyed"), {"name": "a.service", "restart": True}, wish("launched")
    )
    assert again == {"name": "a.service", "target": "destroyed"}
    assert started["error"]["code"] == restarted["error"]["code"] == "refused"
    assert (await api.present()).target is TargetState.DESTROYED


@pytest.mark.parametrize("phase", [CopyPhase.FAILED, CopyPhase.FINISHED])
async def test_start_of_a_unit_that_ended_tries_again(api: Api, phase: CopyPhase) -> None:
    unit = a_unit()
    await api.put(a_machine("m1"), unit, a_placement(unit, "m1"), a_state(unit, "m1", phase))
    (result,) = await api.change(wish("launched"))
    assert result["changed"] and (await api.present()).restart == 1
    (result,) = await api.change(wish("launched"))
    assert "changed" not in result and (await api.present()).restart == 1, "that start is not carried out yet"


async def test_start_of_a_running_unit_restarts_nothing(api: Api) -> None:
    unit = a_unit()
    await api.put(a_machine("m1"), unit, a_placement(unit, "m1"), a_state(unit, "m1"))
    (result,) = await api.change(wish("launched"))
    assert "changed" not in result and (await api.present()).restart == 0


async def test_restart_counts_up_for_a_launched_unit_alone(api: Api) -> None:
    await api.change(start())
    for number in (1, 2):
        (result,) = await api.change({"name": "a.service", "restart": True})
        assert result["changed"] and (await api.present()).restart == number
    await api.change(wish("loaded"))
    (result,) = await api.change({"name": "a.service", "restart": True})
    assert result["error"]["code"] == "refused" and "unitctl start a.service" in result["error"]["hint"]


@pytest.mark.parametrize("target", ["loaded", "launched"])
async def test_a_template_is_never_started_as_itself(api: Api, target: str) -> None:
    (result,) = await api.change({"name": "a@.service", "text": TEXT})
    assert result["created"]
    fresh, known, restarted = await api.change(
        wish(target, "b@.service", text=TEXT), wish(target, "a@.service"), {"name": "a@.service", "restart": True}
    )
    assert await api.unit("b@.service") is None
    for refused in (fresh, known, restarted):
        assert refused["error"]["code"] == "refused"
    assert "cannot start a template" in known["error"]["message"] and "a@1.service" in known["error"]["hint"]
    assert (await api.present("a@.service")).target is TargetState.INACTIVE


async def test_an_unknown_unit_is_not_found_with_the_nearest_name(api: Api) -> None:
    await api.change(start("adserver@1.service"))
    (result,) = await api.change(wish("launched", "adsevrer@1.service"))
    assert result["error"]["code"] == "not_found" and "adserver@1.service" in result["error"]["hint"]
    (result,) = await api.change(wish("destroyed", "never.service", if_exists=True))
    assert result == {"name": "never.service"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(start("a/b.service"), "invalid_name", id="a name with a slash"),
        pytest.param(start("a\nb.service"), "invalid_name", id="a name with a control character"),
        pytest.param(start("a" * 300 + ".service"), "invalid_name", id="a name that is too long"),
        pytest.param(start("nosuffix"), "invalid_name", id="a name without a type"),
        pytest.param(start(""), "invalid_name", id="no name"),
        pytest.param(wish("launched", "../epoch"), "invalid_name", id="a path"),
        pytest.param(start(text="#" * (65 * 1024)), "invalid_unit", id="a text of 65 KiB"),
        pytest.param(start(text="\x00\x01\x7fELF"), "invalid_unit", id="binary junk"),
        pytest.param(start(text="[X-Fleet]\nGlobl=true\n" + TEXT), "invalid_unit", id="an unknown key"),
        pytest.param(start(text=""), "invalid_unit", id="an empty text"),
        pytest.param(wish("destroyed", "b.service", text=TEXT), "refused", id="created and destroyed at once"),
        pytest.param({"name": "b.service", "text": TEXT, "restart": True}, "refused", id="created and restarted"),
    ],
)
async def test_bad_wishes_are_refused_each_for_itself(api: Api, change: dict[str, Any], code: str) -> None:
    before = await api.contents()
    refused, fine = await api.change(change, start("fine.service"))
    assert refused["error"]["code"] == code and refused["error"]["message"].startswith("cannot ")
    assert fine["created"]
    assert set(await api.contents()) - set(before) == {
        keys.unit("fine.service"),
        keys.spec((await api.present("fine.service")).spec),
    }


async def test_a_refused_text_is_told_with_file_and_line(api: Api) -> None:
    (result,) = await api.change(start(text=TEXT + "[X-Fleet]\nGlobl=true\n"))
    (problem,) = result["error"]["problems"]
    assert problem.startswith("a.service:4:") and "Global" in problem


async def test_warnings_come_with_submit_and_with_stop(api: Api) -> None:
    text = "[Service]\nNonsense=1\nExecStart=/bin/sleep 1000\n"
    (result,) = await api.change(start(text=text))
    assert len(result["warnings"]) == 1 and "Nonsense" in result["warnings"][0]
    (stopped,) = await api.change(wish("loaded"))
    assert stopped["warnings"] == result["warnings"]


async def test_wishes_about_one_unit_in_one_call_are_carried_out_in_order(api: Api) -> None:
    results = await api.change(
        {"name": "a.service", "text": TEXT}, wish("launched"), start("b.service"), wish("inactive")
    )
    assert [result["target"] for result in results] == ["inactive", "launched", "launched", "inactive"]
    assert (await api.present()).target is TargetState.INACTIVE


async def test_a_wish_right_after_another_is_never_judged_by_an_old_cache(api: Api) -> None:
    await api.change(start())
    api.store.link.slow(watch_delay_s=0.2)
    stop = {"changes": [wish("inactive")]}
    again = {"changes": [wish("launched"), start("b.service"), wish("launched", "b.service")]}
    assert (await api.ask("POST", "/v1/units", body=stop))[1]["items"][0]["changed"]
    items = (await api.ask("POST", "/v1/units", body=again))[1]["items"]
    assert items[0]["changed"] and items[1]["created"] and "error" not in items[2]
    assert (await api.present()).target is TargetState.LAUNCHED


async def test_wishes_of_two_clients_never_overwrite_each_other(api: Api) -> None:
    await api.change(*(start(f"u{n}.service") for n in range(60)))
    restart = [{"name": f"u{n}.service", "restart": True} for n in range(60)]
    await asyncio.gather(*(api.ask("POST", "/v1/units", body={"changes": restart}) for _ in range(3)))
    for number in range(60):
        unit = await api.present(f"u{number}.service")
        assert (unit.restart, unit.generation) == (3, 4)


async def test_a_thousand_units_go_in_a_few_seconds(api: Api) -> None:
    texts = [f"{TEXT}# {number % 7} {'x' * 1000}\n" for number in range(1000)]
    began = asyncio.get_running_loop().time()
    results = await api.change(*(start(f"u@{n}.service", text) for n, text in enumerate(texts)))
    assert all(result.get("created") for result in results) and len(results) == 1000
    assert asyncio.get_running_loop().time() - began < 10.0
    status, told = await api.ask("GET", "/v1/units")
    assert status == 200 and len(told["items"]) == 1000
    results = await api.change(*(wish("destroyed", f"u@{n}.service") for n in range(1000)))
    assert all(result["changed"] for result in results)


async def test_delete_destroys(api: Api) -> None:
    await api.change(start())
    status, told = await api.ask("DELETE", "/v1/units/a.service")
    assert status == 202 and told["items"][0]["target"] == "destroyed"
    assert told["rev"] == (await api.outside.list(keys.PREFIX)).revision
    assert (await api.present()).target is TargetState.DESTROYED


async def test_an_unreadable_record_is_shown_and_can_only_be_destroyed(api: Api) -> None:
    await api.put(a_unit("b.service"), Built(((keys.unit("a.service"), b"\xff\x00 not json"),)))
    status, told = await api.ask("GET", "/v1/units")
    assert status == 200
    assert {unit["name"]: unit["phase"] for unit in told["items"]} == {
        "a.service": "unreadable",
        "b.service": "pending",
    }
    for change in (wish("launched"), start(), {"name": "a.service", "restart": True}):
        (result,) = await api.change(change)
        assert result["error"]["code"] == "refused" and "destroy" in result["error"]["hint"]
    assert (await api.ask("GET", "/v1/explain/a.service"))[0] == 200
    (result,) = await api.change(wish("destroyed"))
    assert result["changed"]
    unit = await api.present()
    assert unit.target is TargetState.DESTROYED and unit.incarnation
    (result,) = await api.change(start())
    assert result["created"] and (await api.present()).incarnation != unit.incarnation


async def test_with_the_store_away_writes_are_refused_and_reads_are_answered_as_stale(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "STALE_S", 0.05)
    await api.change(start())
    before = await api.contents()
    api.store.link.cut()
    for method, path, body in (
        ("POST", "/v1/units", {"changes": [wish("inactive"), start("b.service")]}),
        ("POST", "/v1/units", {"changes": [start()]}),
        ("DELETE", "/v1/units/a.service", None),
        ("POST", "/v1/cluster/hold", None),
    ):
        status, told = await api.ask(method, path, body=body)
        assert (status, told["code"]) == (503, "unavailable") and told["hint"]
    assert await api.contents() == before
    await becomes(lambda: api.cache.stale_s() > 0.05, "the cache does not notice")
    async with api.client.get("/v1/units", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        assert response.status == 200 and "Unitfleet-Stale" in response.headers
        assert len((await response.json())["items"]) == 1
    assert (await api.ask("GET", "/readyz"))[0] == 503
    assert (await api.ask("GET", "/healthz"))[0] == 200
    api.store.link.heal()
    (result,) = await api.change(wish("inactive"))
    assert result["changed"]


async def test_what_needs_no_store_is_said_though_it_is_away(api: Api) -> None:
    api.store.link.cut()
    (result,) = await api.change(start("bad name"))
    assert result["error"]["code"] == "invalid_name"


async def test_a_master_that_never_read_the_store_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "CATCH_UP_S", 0.05)
    async with an_api(synced=False) as api:
        for path in ("/v1/units", "/readyz", "/v1/cluster"):
            assert (await api.ask("GET", path))[1]["code"] == "unavailable"
        assert (await api.ask("GET", "/healthz"))[0] == 200
        api.store.link.heal()
        await becomes(lambda: api.cache.synced, "the cache does not recover")
        assert (await api.ask("GET", "/v1/units"))[0] == 200


async def test_a_write_whose_answer_was_lost_is_found_in_the_store(api: Api) -> None:
    api.store.link.lose(answers=1)
    (result,) = await api.change(start())
    assert result["created"] and (await api.present()).generation == 1


async def test_a_write_that_may_not_have_happened_is_told_as_such(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unit_master.changes.LOOK_S", 0.05)
    api.store.link.lose(requests=1)
    status, told = await api.ask("POST", "/v1/units", body={"changes": [start()]})
    assert (status, told["code"]) == (504, "unknown_outcome") and told["hint"]


async def test_a_lost_write_that_another_overtook_is_decided_anew(api: Api) -> None:
    await api.change(start())
    held = await api.present()
    api.store.link.lose(requests=1)
    asking = asyncio.ensure_future(api.change(wish("inactive")))
    await becomes(lambda: api.store.link.lose_requests == 0, "no write was sent")
    await api.put(a_record(keys.unit("a.service"), msgspec.structs.replace(held, restart=1, generation=2)))
    (result,) = await asking
    unit = await api.present()
    assert result["changed"] and (unit.target, unit.restart, unit.generation) == (TargetState.INACTIVE, 1, 3)
