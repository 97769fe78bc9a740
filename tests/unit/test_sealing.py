"""Sealed values open with one key, and every slip of a key is an error that does not show it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from unitfleet.sealing import CannotSeal, new_private_key, public_key, seal, unseal


@pytest.mark.parametrize(
    "value", [b"hunter2", b"", bytes(range(256)) * 256], ids=["text", "nothing", "64 KiB of bytes"]
)
def test_what_was_sealed_opens_with_its_own_key_alone(value: bytes) -> None:
    mine, other = new_private_key(), new_private_key()
    sealed = seal(value, public_key(mine))
    assert unseal(sealed, mine) == value
    with pytest.raises(CannotSeal, match="another key"):
        unseal(sealed, other)


def test_a_value_is_never_sealed_to_the_same_text_twice() -> None:
    key = public_key(new_private_key())
    assert seal(b"x", key) != seal(b"x", key)


@pytest.mark.parametrize("broken", ["", "AAAA", "no base64!", "ü"])
def test_garbage_is_an_error_and_not_a_value(broken: str) -> None:
    with pytest.raises(CannotSeal):
        unseal(broken, new_private_key())


@pytest.mark.parametrize(
    "key", ["", "secretsecret", "00" * 31, "00" * 32], ids=["none", "text", "short", "no point"]
)
def test_a_bad_key_is_an_error_that_does_not_show_it(key: str) -> None:
    with pytest.raises(CannotSeal) as told:
        seal(b"x", key)
    assert not key or key not in str(told.value)


def test_neither_the_command_line_nor_a_daemon_loads_the_library_when_it_begins() -> None:
    code = (
        "import sys, unitctl.cli, unitctl.commands.secret, unit_master.daemon, unit_agent.daemon;"
        "sys.exit('nacl' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=False, timeout=60, env={"PYTHONPATH": ":".join(sys.path)}
        ).returncode
        == 0
    )
