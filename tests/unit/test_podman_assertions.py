"""The lines `## assert-…` in a file of Quadlet's, held against the service made of it."""

from __future__ import annotations

import pytest

from unitfleet.podman import assertions, service, text
from unitfleet.podman.assertions import Outcome
from unitfleet.podman.files import Source
from unitfleet.podman.text import Refused

FILE = """
[Unit]
Description=one
[Container]
Image=img
ContainerName=web
Mount=type=bind,source=/a,destination=/b
Environment=A=1
GlobalArgs=--log-level=debug
ReloadCmd=nginx -s reload
[Service]
ExecStartPre=/bin/a
ExecStartPre=/bin/b "c d"
[Install]
WantedBy=multi.target
Alias=in/a/dir/other.service
"""


def outcome(data: str = FILE, filename: str = "x.container") -> Outcome:
    try:
        made = service.generate(Source(filename, "/q", text.parse(data), {})).text
    except Refused as error:
        return Outcome(None, str(error))
    return Outcome(made, "\n".join(made.warnings))


def reason(line: str, data: str = FILE, filename: str = "x.container") -> str | None:
    (assertion,) = assertions.read(f"## {line}\n")
    return assertions.failed(assertion, outcome(data, filename))


@pytest.mark.parametrize(
    "line",
    [
        "assert-podman-args --name web",
        "assert-podman-args-regex --na.e ^w",
        'assert-podman-args-key-val "--mount" "," "source=/a,type=bind,destination=/b"',
        'assert-podman-args-key-val-regex "--mount" "," "source=/.*,type=b,destination=/b$"',
        "assert-podman-global-args run --log-level=debug",
        "!assert-podman-global-args run --name",
        "assert-podman-final-args img",
        "assert-podman-final-args-regex ^im",
        'assert-podman-pre-args /bin/b "c d"',
        'assert-podman-pre-final-args "c d"',
        "assert-podman-stop-args rm -v -f",
        "assert-podman-stop-global-args rm --log-level=debug",
        "assert-podman-stop-final-args web",
        "assert-podman-stop-post-args rm -v",
        "assert-podman-stop-post-final-args-regex w.b",
        "assert-podman-reload-args exec web nginx",
        "assert-podman-reload-final-args -s reload",
        "!assert-podman-args --nothing",
        'assert-key-is Service ExecStartPre /bin/a "/bin/b \\"c d\\""',
        'assert-key-is-regex Service ExecStartPre a$ "c d"',
        "assert-key-is-empty Service Nothing",
        "assert-has-key X-Container Image",
        'assert-key-contains Service ExecStart "--name web"',
        'assert-last-key-contains Service ExecStartPre "c d"',
        "assert-key-not-contains Service ExecStart nothing",
        "assert-last-key-is-regex Service ExecStartPre ^/bin/b",
        "!assert-key-is Unit Description two",
        "assert-symlink multi.target.wants/x.service ../x.service",
        "assert-symlink in/a/dir/other.service ../../../x.service",
    ],
)
def test_an_assertion_that_is_true_holds_and_its_opposite_does_not(line: str) -> None:
    assert reason(line) is None
    assert reason(line[1:] if line.startswith("!") else f"!{line}") is not None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("assert-podman-args --name other", "it is /usr/bin/podman --log-level=debug run --name web"),
        ("assert-key-is Unit Description two", "it is one"),
        ("assert-key-is Unit Nothing two", "it is not there"),
        ("assert-symlink a b", "multi.target.wants/x.service"),
        ("assert-podman-args", "it is /usr/bin/podman"),
        ("assert-key-is", "it can't be read"),
        ("assert-podman-args-regex (", "it can't be read"),
        ("assert-miracle x", "unknown verb assert-miracle"),
        ("assert-failed", "there is a service"),
    ],
)
def test_one_that_does_not_hold_says_what_is_there(line: str, said: str) -> None:
    assert said in (reason(line) or "")


def test_a_refusal_is_what_a_file_may_assert() -> None:
    assert reason("assert-failed", "[Container]\n") is None
    assert reason('assert-stderr-contains "no Image or Rootfs"', "[Container]\n") is None
    assert "was refused" in (reason("assert-stderr-contains nothing", "[Container]\n") or "")
    assert "there is no service: no Image" in (reason("!assert-podman-args --name", "[Container]\n") or "")


def test_a_warning_is_told_on_stderr() -> None:
    assert reason('assert-stderr-contains "unsupported escape"', "[Container]\nImage=a\nExec='\\.'\n") is None


def test_a_template_is_linked_as_its_default_instance() -> None:
    data = "[Container]\nImage=a\n[Install]\nWantedBy=w.target\nDefaultInstance=one\n"
    assert reason("assert-symlink w.target.wants/x@one.service ../x@.service", data, "x@.container") is None
    assert "it is " in (
        reason("assert-symlink a b", data.replace("DefaultInstance=one\n", ""), "x@.container") or ""
    )


def test_other_comments_are_none() -> None:
    assert assertions.read("## Heading\n# assert-failed\n##\n## it's open\n") == []
    (found,) = assertions.read('\n## !assert-podman-args "a b" "c\\\\nd"\n')
    assert (found.line, found.verb, found.inverted, found.words) == (
        2,
        "assert-podman-args",
        True,
        ("a b", "c\nd"),
    )
