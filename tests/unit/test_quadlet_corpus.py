"""Real files of Quadlet's: each is linted, its assertions hold, or docs/quadlet.md says why not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from unitctl.__main__ import run
from unitfleet.quadlet_keys import UNENFORCED

ROOT = Path(__file__).parents[2]
QUADLET = ROOT.parent / "shared" / "corpus" / "quadlet"
PAGE = (ROOT / "docs" / "quadlet.md").read_text().partition("## Exceptions")[2]

pytestmark = pytest.mark.skipif(not QUADLET.exists(), reason="Quadlet's corpus is not beside the checkout")

# What of the corpus is refused, in the words of the refusals, and by what the page names it.
REFUSED = {
    r"refers to another Quadlet file, which is not beside": "Network=x.network",
    r"a \.pod file is not supported": "Pod=x.pod",
    r"Secret=: type=env is refused": "type=env",
    r"(Volume|Image)=: '[^']*\$\{": "${UPLOAD_LOCATION}",
    r"(ExecStartPre|EnvironmentFile)=.* not supported beside|ExecReload= does not go": "ExecStartPre=",
    r"PublishPort=: '": "PublishPort=",
    r"RemapUsers= is not possible|unknown key '(HostUser|HostGroup|RemapUidRanges|RemapGidRanges)'": "RemapUsers=",
    r"unknown key 'SocketActivated'": "SocketActivated",
    r"\[Container\] has no Image=": "noimage.container",
}


def test_every_file_is_linted_and_each_refusal_is_one_that_the_page_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(["lint", "-o", "json", str(QUADLET)])
    found = json.loads(capsys.readouterr().out)["items"]
    assert len(found) == 123
    errors = [
        (Path(item["file"]).name, problem["message"])
        for item in found
        for problem in item["problems"]
        if problem["severity"] == "error" and not _not_yet(problem["message"])
    ]
    unnamed = [error for error in errors if not any(re.search(reason, error[1]) for reason in REFUSED)]
    assert unnamed == []
    assert [reason for reason in REFUSED if not any(re.search(reason, said) for _, said in errors)] == []
    assert [word for word in REFUSED.values() if word not in PAGE] == []


def _not_yet(message: str) -> bool:
    """Whether it is of a key that waits for its driver."""
    name = re.match(r"(\w+)= is not supported by this version", message)
    notifies = re.match(r"Notify=: '(yes|true)' is not supported", message) is not None
    return notifies or (name is not None and name[1] in UNENFORCED)


def test_every_assertion_holds_or_its_file_is_an_exception(capsys: pytest.CaptureFixture[str]) -> None:
    run(["-q", "lint", "--assertions", str(QUADLET)])
    failing = {Path(line.partition(":")[0]).name for line in capsys.readouterr().out.splitlines()}
    named = set(re.findall(r"`([\w.-]+\.(?:container|volume))`", PAGE.partition("| file | assertion")[2]))
    named.discard("quadlet.volume")  # which is what one of them refers to
    assert failing == named


def test_most_assertions_hold() -> None:
    asserting = [
        path for path in sorted(QUADLET.rglob("*")) if path.is_file() and "\n## " in f"\n{path.read_text()}"
    ]
    holding = [path for path in asserting if run(["-q", "lint", "--assertions", str(path)]) == 0]
    assert (len(asserting), len(holding)) == (31, 14)
