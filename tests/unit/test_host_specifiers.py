"""What `%` specifiers are on a host: read from its files, its kernel, and who the agent is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unit_agent import specifiers
from unitfleet.specifiers import HOST_LETTERS

NOT_OURS = set("dyY")  # credentials and unit files on disk: there are none


def a_host(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / "etc" / name.replace("_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_host_gives_its_names_ids_and_release(tmp_path: Path) -> None:
    root = a_host(
        tmp_path,
        machine_id="4f1c\n",
        machine_info='PRETTY_HOSTNAME="Ann\'s laptop"\n',
        os_release='ID=debian\nVERSION_ID="12"\n',
    )
    found = specifiers.of_host("ours", "8d03-7a", root)
    kernel = os.uname()
    assert (found["H"], found["v"]) == (kernel.nodename, kernel.release)
    assert "." not in found["l"] and kernel.nodename.startswith(found["l"])
    assert (found["m"], found["b"]) == ("4f1c", "8d037a")
    assert (found["q"], found["o"], found["w"], found["W"]) == ("Ann's laptop", "debian", "12", "")
    assert "_" not in found["a"]


def test_a_host_without_a_machine_id_has_the_agents(tmp_path: Path) -> None:
    found = specifiers.of_host("ours", "b", tmp_path)
    assert found["m"] == "ours"
    assert found["q"] == found["H"]


def test_every_letter_that_awaits_a_host_is_known_there(tmp_path: Path) -> None:
    assert set(specifiers.of_host("ours", "b", tmp_path)) == set(HOST_LETTERS) - NOT_OURS


def test_an_agent_of_root_changes_no_letter() -> None:
    assert specifiers.of_account(0, 0, {"HOME": "/elsewhere"}) == {}


@pytest.mark.parametrize(
    ("letter", "value"),
    [
        ("h", "/home/ann"),
        ("u", "4242424"),
        ("U", "4242424"),
        ("t", "/run/user/4242424"),
        ("C", "/home/ann/.cache"),
        ("S", "/home/ann/.config"),
        ("T", "/scratch"),
    ],
)
def test_an_agent_of_a_user_gives_what_is_the_users(letter: str, value: str) -> None:
    environ = {"HOME": "/home/ann", "TMPDIR": "/scratch"}
    assert specifiers.of_account(4242424, 4242424, environ)[letter] == value
