"""`unitctl scene`: what is told of a kept copy, and how a shell is opened on it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from unitctl.cli import cli
from unitctl.commands import scene as verb
from unitctl.commands.scene import block, shell_commands
from unitctl.render import Style
from unitfleet.api import HealthOutput, LogLine, Scene, Scenes
from unitfleet.model import Cause

KEPT = Scene(
    id="0123456789ab",
    unit="web@1.service",
    driver="docker",
    copy_id="c0ffee" * 10,
    at=1000.0,
    machine="m1" * 16,
    machine_name="m1",
    where="unitfleet-m1-web.scene-0123456789ab",
    in_place=False,
    exit_code=137,
    oom_killed=True,
    cause=Cause.OOM,
    message="OOM-killed at 64 MiB",
    finished=999.0,
    size=3 << 20,
    health=(HealthOutput(at=998.0, ok=False, text="503 no\x1b[31m"),),
    lines=(LogLine(at=997.0, stream="stdout", text="out of\x07 memory"),),
)

DOCKER = """#!/bin/sh
echo "$@" >>{log}
[ "$1" = run ] && exit {code}
exit {look}
"""


class FakeApi:
    """An API that has one scene, and machines that could not be asked."""

    def __init__(self, *unasked: str) -> None:
        self.unasked = unasked

    def scenes(self, name: str = "") -> Scenes:
        assert name in ("", KEPT.unit)
        return Scenes(rev=1, items=(KEPT,), unasked=self.unasked)


def run(monkeypatch: pytest.MonkeyPatch, *words: str, api: FakeApi | None = None) -> tuple[int, str, str]:
    monkeypatch.setattr(verb, "connect", lambda invocation: api or FakeApi())
    ran = CliRunner().invoke(cli, ["scene", *words], standalone_mode=False)
    if ran.exception is not None:
        raise ran.exception
    return ran.return_value or 0, ran.stdout, ran.stderr


def docker_on_this_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, code: int = 0, look: int = 0) -> Path:
    program, log = tmp_path / "docker", tmp_path / "log"
    program.write_text(DOCKER.format(log=log, code=code, look=look))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return log


def test_a_scene_tells_why_how_it_ended_what_it_said_and_where_it_lies() -> None:
    text = "\n".join(block(KEPT, Style(io.StringIO(), no_color=True)))
    for words in (
        "OOM-killed at 64 MiB",
        "exit code 137",
        "killed for want of memory",
        "503 no",
        "3 MiB",
        KEPT.where,
    ):
        assert words in text, text
    assert "\x1b" not in text and "\x07" not in text  # a terminal obeys no unit


def test_a_unit_without_a_verb_is_shown_and_machines_that_could_not_be_asked_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, out, err = run(monkeypatch, "web@1", api=FakeApi("m3: its agent did not answer within 5 s"))
    assert "scene 0123456789ab" in out and "m3: its agent did not answer" in err
    _, out, _ = run(monkeypatch, "ls")
    assert out.splitlines()[0].split()[:3] == ["UNIT", "MACHINE", "FAILED"] and "web@1.service" in out


def test_on_its_host_a_shell_opens_in_an_image_that_is_removed_whatever_the_shell_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = docker_on_this_host(monkeypatch, tmp_path, code=3)
    code, _, _ = run(monkeypatch, "shell", "web@1")
    verbs = [line.split()[0] for line in log.read_text().splitlines()]
    assert (code, verbs) == (3, ["container", "commit", "run", "rmi"])


def test_on_another_host_the_commands_are_printed_and_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = docker_on_this_host(monkeypatch, tmp_path, look=1)
    code, out, err = run(monkeypatch, "shell", "web@1")
    assert code == 0 and "lies on m1: run this there" in err
    assert out.splitlines() == [" ".join(words) for words in shell_commands(KEPT)]
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["container"]
