"""`unitctl token` and `unitctl audit` against a master's API, and what a caller whose role is too low is told."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.api import TOKEN, Api, an_api, start
from unit_master.access.floods import Bounds, Rate
from unitctl.__main__ import run
from unitctl.commands.audit import result
from unitfleet.accessapi import AuditLine

DENIED, NOT_FOUND, UNREACHABLE = 6, 4, 7


@dataclass
class Unitctl:
    """Runs unitctl as the holder of one token after another."""

    api: Api
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def holds(self, token: str) -> None:
        """Use this token from now on."""
        path = self.folder / "token"
        path.write_text(token)
        path.chmod(0o600)
        self.monkeypatch.setenv("UNITCTL_TOKEN_FILE", str(path))

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        self.monkeypatch.setenv("UNITCTL_ENDPOINT", str(self.api.client.make_url("")).rstrip("/"))
        code = await asyncio.to_thread(run, list(arguments))
        told = self.capsys.readouterr()
        return code, told.out, told.err


@pytest.fixture
async def unitctl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Unitctl]:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with an_api(now=time.time) as api:
        made = Unitctl(api, tmp_path, monkeypatch, capsys)
        made.holds(TOKEN)
        yield made


async def test_a_token_is_printed_alone_and_opens_the_api_until_it_is_removed(unitctl: Unitctl) -> None:
    code, out, err = await unitctl("token", "create", "ci", "--role", "operator", "--ttl", "30d")
    assert code == 0 and out.startswith("uft_") and out.count("\n") == 1
    assert "shown this once" in err and out.strip() not in err
    code, listed, _ = await unitctl("token", "ls")
    assert code == 0 and out.strip() not in listed
    assert listed.splitlines()[1].split()[:2] == ["ci", "operator"] and "in 29d" in listed
    unitctl.holds(out.strip())
    assert (await unitctl("list-units"))[0] == 0
    unitctl.holds(TOKEN)
    assert (await unitctl("token", "rm", "ci"))[0] == 0
    code, _, err = await unitctl("token", "rm", "ci")
    assert code == NOT_FOUND and "cannot find token 'ci'" in err
    unitctl.holds(out.strip())
    code, _, err = await unitctl("list-units")
    assert code == DENIED and "not one of this cluster" in err


async def test_a_viewer_sees_and_is_told_why_it_may_do_no_more(unitctl: Unitctl) -> None:
    await unitctl.api.change(start())
    _, token, err = await unitctl("-q", "token", "create", "ci", "--role", "viewer")
    assert err == ""
    unitctl.holds(token.strip())
    code, out, _ = await unitctl("status", "a")
    assert code == 3 and "a.service" in out
    for command, said in (
        (("stop", "a", "--no-block"), 'cannot stop a.service: your token "ci" is a viewer, this needs operator'),
        (("cat", "a"), "cannot read the file of a.service"),
        (("logs", "a"), "cannot read the output of a.service"),
        (("machines", "lost", "m1"), "cannot declare machine m1 lost"),
        (("token", "ls"), "cannot list tokens"),
        (("audit",), "cannot read the audit log"),
    ):
        code, out, err = await unitctl(*command)
        assert (code, out) == (DENIED, ""), command
        assert err.count(said) == 1 and "ask an admin" in err, err


async def test_the_audit_tells_who_did_what_and_how_it_ended(unitctl: Unitctl) -> None:
    await unitctl.api.change(start("ad@1.service"), start("ad@2.service"))
    assert (await unitctl("stop", "ad@1", "--no-block"))[0] == 0
    code, out, _ = await unitctl("audit", "--unit", "ad@1")
    assert code == 0
    lines = [re.split(" {2,}", line) for line in out.splitlines()[1:]]
    assert [(line[1], line[-2], line[-1]) for line in lines] == [
        ("admin", "start ad@1.service, ad@2.service", "done"),
        ("admin", "stop ad@1.service", "done"),
    ]
    _, out, _ = await unitctl("audit", "-n", "1", "-o", "jsonl")
    assert json.loads(out)["action"] == "stop ad@1.service"
    _, out, _ = await unitctl("audit", "--caller", "nobody", "-o", "json")
    assert json.loads(out)["items"] == [] and json.loads(out)["unasked"] == []


def test_every_way_to_end_has_words() -> None:
    def told(**fields: object) -> str:
        about = {"at": 0.0, "id": "x", "master": "", "caller": "", "role": "", "source": "", "method": ""}
        return result(AuditLine(**{**about, "route": "", "action": "", **fields}))  # type: ignore[arg-type]

    assert told() == "outcome not known"
    assert told(status=202) == "done"
    assert told(status=202, refused=2, count=5, code="conflict") == "2 of 5 refused: conflict"
    assert told(status=403, code="forbidden") == "refused: forbidden"
    assert told(status=401, code="denied", unheard=9) == "refused: denied, and 9 more like it"
    assert told(status=503, code="unavailable") == "failed: unavailable"


async def test_a_command_that_comes_too_early_waits_and_is_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with an_api(bounds=Bounds(writes=Rate(1, 1))) as api:
        unitctl = Unitctl(api, tmp_path, monkeypatch, capsys)
        unitctl.holds(TOKEN)
        assert (await unitctl("cluster", "hold"))[0] == 0
        code, _, err = await unitctl("cluster", "release")
        assert code == 0 and err.count("waiting for") == 1
        monkeypatch.setattr("unitctl.client.PATIENCE_S", 0.0)
        code, _, err = await unitctl("cluster", "hold")
        assert code == UNREACHABLE and "1 changes a second" in err
