"""The API about images: what is shown of warm sets, orders, and what is refused with the right form."""

from __future__ import annotations

from typing import Any

import pytest

from harness.api import Api, an_api
from harness.builders import Built, a_machine, a_record, a_unit
from unit_master.warming import reference_digest
from unitfleet import keys
from unitfleet.model import Images, WarmImage, WarmSet

APP = "registry:5000/app:1"


def a_warm_machine(name: str, wanted: tuple[str, ...], **told: object) -> tuple[Built, ...]:
    """Build a machine that was told its warm set and tells what it holds."""
    return (
        a_machine(name),
        a_record(keys.warm_set(name), WarmSet(id=name, nonce="n1", images=wanted)),
        a_record(keys.images(name), Images(id=name, **told)),  # type: ignore[arg-type]
    )


async def images(api: Api) -> list[dict[str, Any]]:
    status, told = await api.ask("GET", "/v1/images")
    assert status == 200, told
    items: list[dict[str, Any]] = told["items"]
    return items


async def test_an_image_is_shown_with_its_units_and_where_it_is() -> None:
    built = (
        a_unit("ad@1.service", text=f"[Container]\nImage={APP}\n"),
        *a_warm_machine("m1", (APP,), held=(APP,)),
        *a_warm_machine("m2", (APP,), pulling={APP: 40}, layers={APP: "3 of 7 layers"}),
        *a_warm_machine("m3", (APP,), missing={APP: "connection refused"}),
        *a_warm_machine("m4", (APP,), missing={APP: ""}),
    )
    async with an_api(built=built) as api:
        shown = await images(api)
    assert [(image["image"], image["units"], image["ordered"]) for image in shown] == [
        (APP, ["ad@1.service"], False)
    ]
    states = {machine["machine_name"]: (machine["state"], machine["why"]) for machine in shown[0]["machines"]}
    assert states == {
        "m1": ("held", ""),
        "m2": ("pulling", "3 of 7 layers"),
        "m3": ("missing", "connection refused"),
        "m4": ("waiting", "waits for its turn to pull"),
    }


async def order(api: Api, verb: str, **wish: object) -> tuple[int, dict[str, Any]]:
    status, told = await api.ask("POST", f"/v1/images/{verb}", body=wish)
    if status == 202:
        await api.cache.wait_for(told["rev"], 5.0)
    return status, told


async def test_an_image_is_ordered_and_taken_back() -> None:
    async with an_api(built=(a_machine("m1"),)) as api:
        status, first = await order(api, "warm", image=APP, where={"pool": "web"})
        assert status == 202
        (shown,) = await images(api)
        assert (shown["image"], shown["ordered"], shown["where"]) == (APP, True, {"pool": "web"})
        assert await order(api, "warm", image=APP, where={"pool": "web"}) == (202, first)  # it stands so already
        status, _ = await order(api, "warm", image=APP)
        assert (status, (await images(api))[0]["where"]) == (202, {})
        status, _ = await order(api, "unwarm", image=APP)
        assert (status, await images(api)) == (202, [])


async def test_what_was_never_ordered_can_t_be_taken_back() -> None:
    async with an_api(built=(a_record(keys.warm(reference_digest(APP)), WarmImage(image=APP)),)) as api:
        status, told = await order(api, "unwarm", image="registry:5000/ap:1")
        assert (status, told["code"]) == (404, "not_found")
        assert told["hint"] == f"did you mean {APP}?"


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"image": "Registry/App:1 "}, "is no image reference"),
        ({"image": ""}, "is no image reference"),
        ({"image": "sha256:" + "a" * 64}, "says nothing of where the image is pulled from"),
        ({"image": APP, "where": {"zone": ""}}, "a pair is empty"),
        ({"image": APP, "were": {}}, "unknown field"),
    ],
)
async def test_a_wrong_order_is_refused_with_the_right_form(wish: dict[str, object], said: str) -> None:
    async with an_api() as api:
        status, told = await order(api, "warm", **wish)
        assert status == 400
        assert said in f"{told['message']} {told['hint']}"
