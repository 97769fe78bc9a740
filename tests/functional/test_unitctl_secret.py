"""`unitctl secret` against a master's API."""

from __future__ import annotations

import io
import json
import sys

import pytest

from functional.test_unitctl_access import NOT_FOUND, Unitctl, unitctl
from harness.api import SECRETS_KEY
from harness.builders import a_unit
from unitfleet import codec, keys
from unitfleet.model import Secret
from unitfleet.sealing import unseal
from unitfleet.secretkey import MOST_BYTES

__all__ = ["unitctl"]  # the fixture

VALUE = b"hunter2\x00\xff\n"


def pipe(monkeypatch: pytest.MonkeyPatch, value: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(value)))


async def stored(unitctl: Unitctl) -> bytes:
    kv = await unitctl.api.outside.get(keys.secret("db"))
    assert kv is not None
    return unseal(codec.decode(kv.value, Secret).sealed, SECRETS_KEY)


async def test_bytes_are_taken_as_they_are_from_a_pipe_or_a_file(
    unitctl: Unitctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, VALUE)
    code, out, err = await unitctl("secret", "set", "db")
    assert (code, out, err) == (0, "db  set, version 1\n", "")
    assert await stored(unitctl) == VALUE
    (unitctl.folder / "value").write_bytes(VALUE * 2)
    code, out, err = await unitctl("secret", "set", "db", "--from-file", str(unitctl.folder / "value"))
    assert (code, out) == (0, "db  set, version 2\n") and "until they are restarted" in err
    assert await stored(unitctl) == VALUE * 2
    assert (
        "this value already"
        in (await unitctl("secret", "set", "db", "--from-file", str(unitctl.folder / "value")))[1]
    )


async def test_a_list_shows_who_names_a_secret_and_no_value(
    unitctl: Unitctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, VALUE)
    await unitctl("secret", "set", "db")
    await unitctl.api.put(a_unit(fleet="Secret=db"))
    code, out, _ = await unitctl("secret", "ls")
    assert code == 0 and out.splitlines()[1].split()[:2] == ["db", "1"] and "a.service" in out
    (one,) = json.loads((await unitctl("secret", "ls", "-o", "json"))[1])["items"]
    assert set(one) == {"name", "version", "set_by", "set_at", "units", "machines"}


async def test_a_secret_that_is_removed_is_gone_and_a_second_time_not_found(
    unitctl: Unitctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, VALUE)
    await unitctl("secret", "set", "db")
    assert (await unitctl("secret", "rm", "db"))[0] == 0
    code, _, err = await unitctl("secret", "rm", "db")
    assert code == NOT_FOUND and "cannot find secret 'db'" in err


async def test_what_is_too_long_or_can_not_be_read_is_not_sent(
    unitctl: Unitctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, b"x" * (MOST_BYTES + 1))
    code, _, err = await unitctl("secret", "set", "db")
    assert code != 0 and "more than 65536 bytes" in err
    code, _, err = await unitctl("secret", "set", "db", "--from-file", "/no/such/file")
    assert code != 0 and "can't read /no/such/file" in err
    assert await unitctl.api.outside.get(keys.secret("db")) is None
