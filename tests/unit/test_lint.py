"""`unitctl lint`: every problem with its place, fleet's own reading, what podman would run; without a cluster."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from unitctl.__main__ import run
from unitctl.unitfiles import submitted
from unitfleet.dropins import Merged, chosen
from unitfleet.lint import lint
from unitfleet.positions import place
from unitfleet.problems import Problem, Severity

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
FLEET, QUADLET = CORPUS / "fleet", CORPUS / "quadlet"
needs_corpus = pytest.mark.skipif(not FLEET.exists(), reason="the corpus is not beside the checkout")

GOOD = "[Service]\nExecStart=/bin/true\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def items(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["items"]
    return found


# places


@pytest.mark.parametrize(
    ("line", "message", "wanted"),
    [
        (3, "unknown key 'Machineof' in [X-Fleet]", (3, 1)),
        (4, "CPU=: 'lots' is no number", (4, 7)),
        (5, "Exec=: 'b' is bad", (6, 3)),  # on the line that continues it
        (4, "CPU=0 is not right", (4, 7)),  # nothing is quoted: where the value begins
        (4, "something is wrong", (4, 3)),
        (0, "there is no section", (1, 1)),
        (9, "beyond the end", (1, 1)),
    ],
)
def test_a_problem_is_placed_at_what_it_names(line: int, message: str, wanted: tuple[int, int]) -> None:
    text = "[Unit]\n[X-Fleet]\nMachineof=a\n  CPU=lots\nExec=a \\\n  b\n"
    assert place(text.split("\n"), Problem(line, Severity.ERROR, message)) == wanted


# texts


def test_every_problem_has_its_file_line_column_and_hint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, {"a.service": "[Service]\nExecStart=/bin/x\n[X-Fleet]\nMachinOf=b.service\n  CPU=lots\n"})
    assert run(["lint", "a.service"]) == 1
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "a.service:4:1: error: unknown key 'MachinOf' in [X-Fleet] (did you mean MachineOf?)",
        "a.service:5:7: error: CPU=: 'lots' is no number of cores from 0.001 to 4096: write 0.5 or 2",
    ]
    assert told.err == "1 file: 2 errors, 0 warnings\n"


def test_a_warning_does_not_keep_a_file_from_loading(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, {"a.service": "[Service]\nExecStart=/bin/x\nExecStrat=/bin/y\n"})
    assert run(["verify", "a.service"]) == 0
    assert "a.service:3:1: warning: unknown key 'ExecStrat'" in capsys.readouterr().out


def test_of_a_folder_every_unit_file_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(
        folder,
        {"a.service": GOOD, "services.d/b.timer": "[Timer]\nOnBootSec=1\n", "README.md": "x", "c.network": ""},
    )
    assert run(["lint", "-o", "json", "."]) == 1
    found = {item["file"]: item for item in items(capsys)}
    assert set(found) == {"./a.service", "./services.d/b.timer", "./c.network"}
    assert found["./c.network"]["problems"][0]["message"] == "there is no [Network] section"


def test_the_record_of_a_file_is_fleets_reading_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "[Service]\nExecStart=/bin/x %i\n[X-Fleet]\nMachineOf=db@%i.service\nConflicts=a.service b.service\n"
        'MachineMetadata="k=v" "k=w"\n'
    )
    put(folder, {"web@.service": text})
    assert run(["lint", "--instance", "7", "-o", "json", "web@.service"]) == 0
    assert items(capsys) == [
        {
            "file": "web@.service",
            "name": "web@7.service",
            "options": {
                "Service": {"ExecStart": ["/bin/x %i"]},
                "X-Fleet": {
                    "MachineOf": ["db@%i.service"],
                    "Conflicts": ["a.service b.service"],
                    "MachineMetadata": ["k=v", "k=w"],
                },
            },
            "fleet": {
                "machine_id": "",
                "machine_of": ["db@7.service"],
                "conflicts": ["a.service", "b.service"],
                "replaces": [],
                "metadata": {"k": ["v", "w"]},
                "global": False,
            },
            "hash": "3ac82022ef8d0e8e75b3e7dc738b4557c27b837e",
            "problems": [],
        }
    ]


def test_standard_input_is_read_and_may_be_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    give(GOOD)
    assert run(["lint", "-o", "json", "-"]) == 0
    assert [(item["file"], item["name"]) for item in items(capsys)] == [("stdin", "stdin.service")]
    give("[Container]\nImage=Bad Image\n")
    assert run(["lint", "--name", "web.container", "-"]) == 1
    assert capsys.readouterr().out.startswith("stdin:2:7: error: Image=: 'Bad Image' is no image reference")


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("a.service", None, "a.service:1:1: error: cannot read a.service: no such file or directory"),
        ("a.service", b"\xff", "cannot read a.service: it is not UTF-8 text (byte 0)"),
        ("a.service", b"#" * 65537, "cannot read a.service: it is larger than 64 KiB"),
        ("a.service", b"[Service]\nExecStart=/bin/x \x07\n", "a.service:2:18: error: control character"),
        ("a b.service", GOOD.encode(), "invalid character"),
        ("x.container.service", b"", "neither a [Service] nor a [Container] section"),
    ],
)
def test_what_is_no_unit_file_is_told_like_any_problem(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, raw: bytes | None, said: str
) -> None:
    if raw is not None:
        (folder / name).write_bytes(raw)
    assert run(["lint", name]) == 1
    assert said in capsys.readouterr().out


def test_a_file_of_quadlets_that_is_no_unit_has_its_keys_judged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(
        folder,
        {
            "a.volume": "[Volume]\nVolumName=x\nImage=y\nGlobalArgs=--z\n",
            "b.network": "[Network]\nSubnet=10.0.0.0/24\n[Container]\nImage=x\n",
            "c.pod": "[Pod]\n",
        },
    )
    assert run(["lint", "a.volume", "b.network", "c.pod"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "a.volume:2:1: error: unknown key 'VolumName' in [Volume] (did you mean VolumeName?)"
    assert "a.volume:3:7: error: Image= is not possible here: the Docker Engine makes no volume" in told[1]
    assert told[2].startswith("a.volume:4:12: warning: GlobalArgs=: it has no effect")
    assert told[3].startswith("b.network:4:1: error: [Container] does not go into a .network file")
    assert told[4].startswith("c.pod:1:1: error: a .pod file is not supported by this version")


def test_lint_needs_neither_a_cluster_nor_a_heavy_import() -> None:
    code = (
        "import sys\nfrom unitctl.__main__ import run\nassert run(['-q', 'lint', '/dev/null']) == 1\n"
        "sys.stderr.write(' '.join({n.partition('.')[0] for n in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not set(done.stderr.split()) & {"aiohttp", "rich", "grpc", "asyncio", "http", "cryptography"}


# drop-ins


def test_a_drop_in_adds_to_its_file_and_its_problems_are_told_with_its_own_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(
        folder,
        {
            "web.container": "[Container]\nImage=busybox:1\nExec=sleep \\",
            "web.container.d/10-a.conf": "[Container]\nHostNam=x\n",
            "container.d/20-b.conf": "[Container]\nExec=sleep 5\n",
        },
    )
    assert run(["lint", "web.container"]) == 1
    told = capsys.readouterr().out.splitlines()
    (line,) = told
    assert line.startswith("web.container.d/10-a.conf:2:1: error: unknown key 'HostNam' in [Container] (did you")
    (folder / "web.container.d/10-a.conf").write_text("[Container]\nHostName=x\n")
    capsys.readouterr()
    assert run(["lint", "--show=podman", "web.container"]) == 0
    assert capsys.readouterr().out.endswith("--hostname x --sdnotify=conmon -d busybox:1 sleep 5\n")


def test_of_drop_ins_of_one_name_the_nearest_counts_and_names_give_the_order() -> None:
    found = chosen([("a@1.container.d", ["20.conf", "x.txt"]), ("a@.container.d", ["20.conf", "10.conf"])])
    assert found == ["a@.container.d/10.conf", "a@1.container.d/20.conf"]


def test_an_instance_has_its_own_drop_ins_and_its_templates(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(
        folder,
        {
            "a-b@.container": "[Container]\nImage=busybox:1\n",
            "a-b@.container.d/10.conf": "[Container]\nHostName=template\n",
            "a-b@1.container.d/10.conf": "[Container]\nHostName=instance\n",
            "a-.container.d/05.conf": "[Container]\nEnvironment=A=1\n",
        },
    )
    assert run(["lint", "--show=podman", "--instance", "1", "a-b@.container"]) == 0
    told = capsys.readouterr().out
    assert "--hostname instance" in told and "--env A=1" in told
    assert run(["lint", "--show=podman", "a-b@.container"]) == 0
    assert "--hostname template" in capsys.readouterr().out
    text = submitted(folder / "a-b@.container", "a-b@1.service")
    assert "HostName=instance" in text and "HostName=template" not in text


def test_a_drop_in_without_a_section_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, {"a.container": "[Container]\nImage=b\n", "a.container.d/1.conf": "# x\nExec=y\n"})
    assert run(["lint", "a.container"]) == 1
    assert "cannot read a.container.d/1.conf: 'Exec=y' stands before any section" in capsys.readouterr().out


# podman


def test_show_prints_the_command_quoted_on_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(
        folder,
        {"a.container": "[Container]\nImage=b\nNetwork=n.network\nExec='x y' $z\n", "n.network": "[Network]\n"},
    )
    assert run(["lint", "--show=podman", "a.container", "n.network"]) == 0
    one, two = capsys.readouterr().out.splitlines()
    assert shlex.split(one)[:2] == ["podman", "run"]
    assert shlex.split(one)[-3:] == ["b", "x y", "$z"]
    assert "--network systemd-n" in one
    assert two == "podman network create --ignore systemd-n"


def test_what_quadlet_would_refuse_goes_to_stderr_and_fails(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder, {"a.container": "[Container]\n", "b.container": "[Container]\nImage=b\n", "c.service": GOOD})
    assert run(["lint", "--show=podman", "a.container", "b.container", "c.service"]) == 1
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 1
    assert "cannot show a.container: no Image or Rootfs key specified" in told.err
    assert "cannot show c.service: it is no .container" in told.err


def test_assertions_alone_are_judged_with_their_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(
        folder,
        {
            "good.container": "## assert-podman-args --uidmap 0:1:2\n[Container]\nImage=b\nUIDMap=0:1:2\n",
            "bad.container": "[Container]\nImage=b\n## assert-podman-final-args c\n",
            "none.container": "## assert-failed\n[Container]\n",
        },
    )
    assert run(["lint", "--assertions", "good.container", "none.container"]) == 0
    capsys.readouterr()
    assert run(["lint", "--assertions", "."]) == 1
    told = capsys.readouterr().out
    assert told.startswith(
        "./bad.container:3:1: error: assert-podman-final-args c does not hold: it is /usr/bin/podman"
    )
    assert len(told.splitlines()) == 1


# the corpus


@needs_corpus
def test_every_file_of_fleets_corpus_is_read_as_fleet_reads_it_or_refused_where_fleet_refuses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CORPUS)
    began = time.process_time()
    assert run(["lint", "--instance", "7", "-o", "json", "fleet"]) == 1
    took = time.process_time() - began
    found = {item["file"]: item for item in items(capsys)}
    oracle = [json.loads(line) for line in (CORPUS / "fleet-oracle.jsonl").read_text().splitlines()]
    assert set(found) == {wanted["path"] for wanted in oracle}
    wrong = []
    for wanted in oracle:
        item = found[wanted["path"]]
        refused = any(problem["severity"] == "error" for problem in item["problems"])
        if refused != ("error" in wanted):
            wrong.append((wanted["path"], item["problems"]))
        elif not refused:
            fleet = {key: wanted[key] for key in ("conflicts", "global", "machine_of", "replaces", "metadata")}
            fleet["machine_id"] = wanted.get("machine_id", "")
            asked = (wanted["name"], wanted["options"], fleet, wanted["hash"])
            if (item["name"], item["options"], item["fleet"], item["hash"]) != asked:
                wrong.append((wanted["path"], item))
    assert wrong == []
    assert took < 1.0, "all of it is to take a second at most"


def test_what_of_a_text_is_quadlets_may_be_what_fleet_cannot_read() -> None:
    report = lint(
        Merged("[Container]\nImage=a\nExec=b \\\n# c\n d\n", (("x", 1),)), name="x.service", filename="x.container"
    )
    assert report.loads
