"""`unitctl bootstrap validate`: each fault of user-data at its line, and no text that it can't take."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unitctl.__main__ import run
from unitctl.bootstrap.schema import ask
from unitctl.bootstrap.validate import validate
from unitfleet.problems import Severity

GOOD = "#cloud-config\nruncmd:\n  - [ls]\n"


def faults(text: str) -> list[tuple[int, str]]:
    return [(problem.line, problem.message) for problem in validate(text.encode())]


def wrapped(path: str, content: str) -> str:
    """User-data whose file begins on line 5."""
    body = "".join(f"      {line}\n" for line in content.splitlines())
    return f"#cloud-config\nwrite_files:\n  - path: {path}\n    content: |\n{body}"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("runcmd: []\n", 1, "the first line is not #cloud-config"),
        ("#cloud-config \n\n#cloud-confg\nruncmd: {}\n", 4, "runcmd is a list"),
        ("#cloud-config\na: b: c\n", 2, "no YAML: mapping values are not allowed here"),
        ("#cloud-config\n- a\n", 2, "keys are expected here"),
        ("#cloud-config\nruncmd: [ls]\nruncmd: [ls]\n", 3, "runcmd stands twice"),
        ("#cloud-config\nwrite-files: []\n", 2, "write-files is written write_files here"),
        ("#cloud-config\ncoreos: {}\n", 2, "coreos is a key of CoreOS alone"),
        ("#cloud-config\nrumcmd: []\n", 2, "rumcmd is no key of cloud-init"),
        ("#cloud-config\nruncmd:\n  - [ls]\n  - echo a: b\n", 4, "a text, or a list of words"),
        ("#cloud-config\nwrite_files:\n  - content: a\n", 3, "named by its absolute path"),
        ("#cloud-config\nwrite_files:\n  - path: /a\n    permissions: 0644\n", 4, "0644 is a number to YAML"),
        ("#cloud-config\nwrite_files:\n  - path: /a\n    permissions: rw\n", 4, "octal digits"),
        ("#cloud-config\nwrite_files:\n  - path: /a\n    contents: a\n", 4, "contents is no key of write_files"),
        ("#cloud-config\nwrite_files:\n  - {path: /a, encoding: b32, content: a}\n", 3, "'b32' is no encoding"),
        ("#cloud-config\nwrite_files:\n  - path: /a\n    encoding: b64\n    content: '*'\n", 5, "is not b64"),
        (wrapped("/etc/unitfleet/agent.toml", 'etcd = ["a:1"]\negress = "1Z"'), 6, "'1Z' is no rate"),
        (wrapped("/etc/unitfleet/agent.toml", 'name = "a"\negres = "1G"'), 6, "no such setting"),
        (wrapped("/etc/unitfleet/agent.toml", 'name = "a"\nx = = 1'), 6, "invalid value"),
        (wrapped("/etc/unitfleet/master.toml", 'name = "a"\nlisten = "0.0.0.0:1"'), 6, "stays on loopback"),
        (wrapped("/etc/unitfleet/bootstrap.toml", 'role = "agent"\n[agent]\negress = "x"'), 7, "is no rate"),
        (wrapped("/etc/unitfleet/bootstrap.toml", 'role = "agent"\nwram = []'), 6, "wram: no such key"),
        (wrapped("/etc/unitfleet/a.service", "[X-Fleet]\n[Service]\nExecStart=/a \""), 7, "opened and not closed"),
    ],
)  # fmt: skip
def test_each_fault_is_told_at_its_line(text: str, line: int, words: str) -> None:
    found = faults(text)
    assert [at for at, message in found if words in message] == [line], found


def test_what_came_compressed_is_looked_into() -> None:
    packed = base64.b64encode(gzip.compress(b'name = "a b"\n')).decode()
    entry = f"path: /etc/unitfleet/agent.toml, encoding: gz+b64, content: '{packed}'"
    text = f"#cloud-config\nwrite_files:\n  - {{{entry}}}\n"
    assert "agent.name" in faults(text)[0][1]


def test_a_unit_elsewhere_that_would_be_refused_is_a_warning() -> None:
    [problem] = validate(wrapped("/root/a.service", '[X-Fleet]\n[Service]\nExecStart=/a "').encode())
    assert problem.severity is Severity.WARNING
    assert "unitctl submit would refuse it" in problem.message


def test_units_of_the_hosts_own_systemd_are_left_to_systemd() -> None:
    text = "[Unit]\nNonsense=1\n[Service]\nExecStart=relative\n"
    assert faults(wrapped("/etc/systemd/system/a.service", text)) == []


def test_a_byte_too_many_is_a_fault_and_the_last_that_fits_is_none() -> None:
    fits = GOOD + "#" * (16 * 1024 - len(GOOD))
    assert faults(fits) == []
    assert "EC2 takes no more" in faults(fits + "#")[0][1]


def test_aliases_that_multiply_are_refused_at_once() -> None:
    lines = ["#cloud-config", "a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    assert any("aliases multiply it" in message for _, message in faults("\n".join(lines)))


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"\x1f\x8bxx", b"", b"#cloud-config", b"#cloud-config\na: &a [*a]"])
def test_odd_bytes_are_judged(raw: bytes) -> None:
    validate(raw)


@settings(max_examples=60)
@given(st.text(max_size=120))
@example("#cloud-config\n" + "[" * 5000)
@example("#cloud-config\n? [a]\n: b\n")
@example('#cloud-config\na: "\\ud800\\U0010ffff"\n')
@example("#cloud-config\n<<: {a: 1}\nb: !!binary x\n")
@example("#cloud-config\n<<: 1\n")
def test_no_text_makes_it_fail(text: str) -> None:
    validate(text.encode("utf-8", "surrogatepass"))
    validate(b"#cloud-config\nwrite_files: " + text.encode("utf-8", "surrogatepass"))


def test_the_command_prints_findings_with_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "user-data"
    file.write_text("#cloud-config\ncoreos: {}\n")
    assert run(["bootstrap", "validate", str(file)]) == 1
    assert f"error: {file}:2: coreos is a key" in capsys.readouterr().out
    assert run(["bootstrap", "validate", str(file), "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["line"] == 2
    file.write_text(GOOD)
    assert run(["bootstrap", "validate", str(file)]) == 0
    assert "is fine" in capsys.readouterr().err
    assert run(["bootstrap", "validate", str(tmp_path / "none")]) == 4


def test_cloud_init_is_asked_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "cloud-init"
    program.write_text(
        '#!/bin/sh\ngrep -q bad "$3" || { echo "Valid cloud-config"; exit 0; }\n'
        'echo "Error: Cloud config schema errors: a.0: one, b: two" >&2; exit 1\n'
    )
    program.chmod(0o755)
    assert ask(b"good", str(program)).complaints == ()
    assert ask(b"bad", str(program)).complaints == ("a.0: one", "b: two")
    assert "its own schema was not asked" in ask(b"good", str(tmp_path / "none")).absent
