"""The tree of commands: quick to start, verbs found by prefix, every help readable."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from unitctl.__main__ import run
from unitctl.cli import ALIASES, VERBS, cli


def loaded_by(*arguments: str) -> set[str]:
    """The top-level modules that a run of unitctl imported."""
    code = (
        "import sys\nfrom unitctl.__main__ import run\n"
        f"run({list(arguments)!r})\nsys.stderr.write(' '.join({{n.partition('.')[0] for n in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("version",),
        ("list-units", "--help"),
        ("cluster", "init", "--help"),
        ("--endpoint", "127.0.0.1:1", "list-units"),
        ("--endpoint", "https://127.0.0.1:1", "list-units"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_nothing_heavy_is_imported_to_start(arguments: tuple[str, ...]) -> None:
    assert not loaded_by(*arguments) & {"rich", "aiohttp", "grpc", "textual", "asyncio", "cryptography"}


def test_version_needs_no_http() -> None:
    assert "http" not in loaded_by("version")


@pytest.mark.parametrize("verb", [*VERBS, *ALIASES])
def test_every_verb_has_a_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert "Usage: unitctl" in capsys.readouterr().out


def test_every_verb_has_one_sentence_for_the_overview() -> None:
    context = click.Context(cli)
    for verb in cli.list_commands(context):
        command = cli.get_command(context, verb)
        assert command is not None
        assert command.get_short_help_str(100).endswith("."), verb


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lits-units"], "Did you mean 'list-units'?"),
        (["list-unit"], "ambiguous: list-units, list-unit-files"),
        (["start"], "missing argument 'UNIT...'"),
        (["stop"], "missing argument 'UNIT...'"),
        (["start", "--timeout", "soon", "a"], "no duration"),
        (["list-units", "-o", "xml"], "'xml'"),
        (["scale", "web@"], "missing argument 'NUMBER'"),
        (["machines", "cordno", "m1"], "no such command"),
        (["version", "--nope"], "--nope"),
        (["list-units", "--endpoint", "x"], "it goes before the verb: unitctl --endpoint … list-units"),
        (["start", "a@<4..1>"], "reversed"),
        (["--endpoint", "nonsense", "list-units"], "names no host and port"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_error_one_hint_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("error:") == 1
    assert captured.err.count("hint:") == 1


def test_a_prefix_that_fits_one_verb_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list-m", "--help"]) == 0
    assert "list-machines" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_calls_unitctl(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_UNITCTL_COMPLETE" in capsys.readouterr().out
