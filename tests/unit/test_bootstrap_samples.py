"""The files of `cloud-config/` are what the commands in its README print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from unitctl.__main__ import run
from unitctl.bootstrap.validate import validate

FOLDER = Path(__file__).parents[2] / "cloud-config"
COMMANDS = dict(
    (file, command)
    for command, file in re.findall(
        r"^unitctl (bootstrap render .*) > (\S+)$", (FOLDER / "README.md").read_text(), re.M
    )
)


def test_every_sample_has_its_command() -> None:
    assert sorted(COMMANDS) == sorted(file.name for file in FOLDER.glob("*.yaml")) != []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_sample_is_what_its_command_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(shlex.split(COMMANDS[name])) == 0
    printed = capsys.readouterr().out
    assert printed == (FOLDER / name).read_text()
    assert validate(printed.encode()) == []
