"""Secrets over the API: who may, what comes back, and that a value is nowhere but where it is sealed."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness.api import SECRETS_KEY, Api, an_api
from unitfleet import codec, keys
from unitfleet.accessapi import SecretOrder
from unitfleet.memory import MemoryStore
from unitfleet.model import Secret
from unitfleet.sealing import unseal
from unitfleet.secretkey import MOST_BYTES

VALUE = b"canary-\x00\xff-4711"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as served:
        yield served


async def put(api: Api, name: str = "db", value: bytes = VALUE, **more: Any) -> tuple[int, Any]:
    body = {"name": name, "value": base64.b64encode(value).decode()}
    return await api.ask("POST", "/v1/secrets", body=body, **more)


async def stored(api: Api, name: str = "db") -> Secret:
    kv = await api.outside.get(keys.secret(name))
    assert kv is not None
    return codec.decode(kv.value, Secret)


async def bearer(api: Api, role: str) -> dict[str, str]:
    _, made = await api.ask("POST", "/v1/tokens", body={"name": role, "role": role})
    return {"Authorization": f"Bearer {made['token']}"}


async def test_a_value_is_stored_sealed_and_comes_back_byte_for_byte_to_the_key_alone(api: Api) -> None:
    status, told = await put(api)
    assert (status, told["version"], told["changed"]) == (201, 1, True)
    assert unseal((await stored(api)).sealed, SECRETS_KEY) == VALUE
    assert "canary" not in repr(SecretOrder(name="db", value=VALUE))
    _, listed = await api.ask("GET", "/v1/secrets")
    assert [(one["name"], one["version"], one["set_by"]) for one in listed["items"]] == [("db", 1, "admin")]


async def test_a_new_value_is_a_new_version_and_the_same_one_changes_nothing(api: Api) -> None:
    await put(api)
    assert (await put(api))[1]["changed"] is False
    assert (await put(api, value=b"other"))[1]["version"] == 2


async def test_equal_values_can_not_be_told_in_the_store(api: Api) -> None:
    await put(api, "a")
    await put(api, "b")
    assert (await stored(api, "a")).sealed != (await stored(api, "b")).sealed


async def test_a_removed_secret_is_gone(api: Api) -> None:
    await put(api)
    assert (await api.ask("DELETE", "/v1/secrets/db"))[0] == 200
    assert (await api.ask("GET", "/v1/secrets"))[1]["items"] == []
    status, told = await api.ask("DELETE", "/v1/secrets/db")
    assert status == 404 and "cannot find secret" in told["message"]


@pytest.mark.parametrize(
    ("name", "value", "status", "said"),
    [
        ("../etc", b"x", 400, "letters, digits"),
        ("db", b"", 409, "0 bytes"),
        ("db", b"x" * (MOST_BYTES + 1), 409, "65537 bytes"),
    ],
    ids=["a bad name", "nothing", "too much"],
)
async def test_what_can_not_be_a_secret_is_refused(
    api: Api, name: str, value: bytes, status: int, said: str
) -> None:
    got, told = await put(api, name, value)
    assert got == status and said in told["message"], told
    assert not [key for key in await api.contents() if "/secrets/" in key]


async def test_the_longest_value_is_taken(api: Api) -> None:
    assert (await put(api, value=b"\xff" * MOST_BYTES))[0] == 201


async def test_an_operator_lists_and_an_admin_alone_sets_and_removes(api: Api) -> None:
    operator, viewer = await bearer(api, "operator"), await bearer(api, "viewer")
    await put(api)
    assert (await api.ask("GET", "/v1/secrets", headers=operator))[0] == 200
    assert (await api.ask("GET", "/v1/secrets", headers=viewer))[0] == 403
    status, told = await put(api, headers=operator)
    assert status == 403 and told["message"].startswith("cannot set secret db:")
    assert (await api.ask("DELETE", "/v1/secrets/db", headers=operator))[0] == 403


async def test_a_master_with_another_key_refuses_to_mix_its_own_in() -> None:
    outside = MemoryStore()
    async with an_api(outside=outside) as first:
        await put(first)
    async with an_api(outside=outside, name="two", secrets_key="77" * 32) as second:
        status, told = await put(second, "other")
        assert status == 409 and "does not have the key that db is sealed to" in told["message"]
        assert "--secrets-key-file" in told["hint"]
        await second.ask("DELETE", "/v1/secrets/db")
        assert (await put(second, "other"))[0] == 201, "a lost key can be left behind"


async def test_no_value_is_in_the_audit_log_in_the_store_or_in_a_log_line(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await put(api)
    await put(api, value=VALUE + b"2")
    await api.ask(
        "POST", "/v1/secrets", raw=b'{"name": "db", "value": "' + base64.b64encode(VALUE) + b'", "x": 1}'
    )
    await api.ask("POST", "/v1/secrets", raw=b'{"name": "db", "value": 4711' + VALUE[:6])
    audit = b"".join(path.read_bytes() for path in api.trail.files() if path.exists())
    assert b"set secret db" in audit
    everything = audit + b"".join((await api.contents()).values()) + caplog.text.encode()
    for form in (VALUE, b"canary", base64.b64encode(VALUE).rstrip(b"="), VALUE.hex().encode()):
        assert form not in everything
