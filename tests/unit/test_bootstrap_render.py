"""`unitctl bootstrap render`: user-data says what was asked, and what can't work is refused before any boot."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml

from unitctl.__main__ import run
from unitctl.bootstrap import hostplan
from unitctl.bootstrap.hostplan import HostPlan, NameFrom, Role
from unitctl.bootstrap.validate import validate

AGENT = ("--role", "agent", "--etcd", "10.0.0.1:2379,10.0.0.2:2379")
CLUSTER = ("--role", "cluster", "--members", "10.0.0.1,10.0.0.2,10.0.0.3")

Capture = pytest.CaptureFixture[str]


def rendered(capsys: Capture, *arguments: str) -> dict[str, Any]:
    """Render, have it validated, and return its YAML."""
    assert run(["bootstrap", "render", *arguments]) == 0
    text = capsys.readouterr().out
    assert text.startswith("#cloud-config\n")
    assert validate(text.encode()) == []
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def file_of(user_data: dict[str, Any], path: str) -> str:
    [content] = [entry["content"] for entry in user_data["write_files"] if entry["path"] == path]
    assert isinstance(content, str)
    return content


def test_an_agent_gets_its_settings_and_its_service(capsys: Capture) -> None:
    asked = (*AGENT, "--metadata", "role=adserver,region=us-east", "--egress", "1G", "--set", "agent.disk_full=80")
    user_data = rendered(capsys, *asked)
    assert tomllib.loads(file_of(user_data, "/etc/unitfleet/agent.toml")) == {
        "etcd": ["10.0.0.1:2379", "10.0.0.2:2379"],
        "metadata": {"role": "adserver", "region": "us-east"},
        "egress": "1G",
        "disk-full": 80,
    }
    assert user_data["runcmd"] == [["sh", "/etc/unitfleet/first-boot.sh"]]
    script = file_of(user_data, "/etc/unitfleet/first-boot.sh")
    assert "systemctl enable --now unit-agent.service" in script
    assert "unit-master" not in script


def test_a_master_gets_its_own(capsys: Capture) -> None:
    user_data = rendered(capsys, "--role", "master", "--etcd", "10.0.0.1:2379", "--set", "master.log-store-max=9G")
    wanted = {"etcd": ["10.0.0.1:2379"], "log-store-max": "9G"}
    assert tomllib.loads(file_of(user_data, "/etc/unitfleet/master.toml")) == wanted
    assert "systemctl enable --now unit-master.service" in file_of(user_data, "/etc/unitfleet/first-boot.sh")


def test_a_master_whose_files_come_by_other_means_has_the_host_give_them_to_it(capsys: Capture) -> None:
    asked = ("--role", "master", "--etcd", "10.0.0.1:2379", "--set", "master.cluster-key-file=/etc/unitfleet/key")
    user_data = rendered(capsys, *asked)
    assert "exec unitctl bootstrap apply" in file_of(user_data, "/etc/unitfleet/first-boot.sh")
    plan = hostplan.read(file_of(user_data, hostplan.PATH))
    assert (plan.role, plan.masters_files) == (Role.MASTER, ("/etc/unitfleet/key",))


def test_a_cluster_is_one_text_that_each_host_reads_for_itself(capsys: Capture) -> None:
    asked = (
        *CLUSTER,
        "--ec2-metadata",
        "--warm",
        "registry:5000/adserver:4",
        "--set",
        "etcd.heartbeat-interval=600",
    )
    user_data = rendered(capsys, *asked)
    plan = hostplan.read(file_of(user_data, hostplan.PATH))
    assert plan.role is Role.CLUSTER
    assert plan.members == ("10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert plan.ec2_metadata
    assert plan.warm == ("registry:5000/adserver:4",)
    assert plan.etcd == {"heartbeat-interval": "600"}
    for path in ("/etc/unitfleet/first-boot.sh", "/var/lib/cloud/scripts/per-boot/unitfleet"):
        assert "unitctl bootstrap apply /etc/unitfleet/bootstrap.toml" in file_of(user_data, path)


def test_an_agent_is_told_itself_which_images_it_is_to_hold(capsys: Capture) -> None:
    warm = ("--warm", "registry:5000/adserver:4", "--warm", "registry:5000/base:1")
    user_data = rendered(capsys, *AGENT, *warm)
    told = tomllib.loads(file_of(user_data, "/etc/unitfleet/agent.toml"))
    assert told["warm"] == ["registry:5000/adserver:4", "registry:5000/base:1"]


@pytest.mark.parametrize("more", [("--ec2-metadata",), ("--name-from", "instance-id")], ids=" ".join)
def test_what_only_the_host_can_know_is_left_to_the_host(capsys: Capture, more: tuple[str, ...]) -> None:
    user_data = rendered(capsys, *AGENT, *more)
    assert hostplan.read(file_of(user_data, hostplan.PATH)).agent["etcd"] == ("10.0.0.1:2379", "10.0.0.2:2379")
    assert "/etc/unitfleet/agent.toml" not in [entry["path"] for entry in user_data["write_files"]]


def test_on_ec2_a_host_is_drained_when_it_is_to_end_unless_somebody_says_otherwise(capsys: Capture) -> None:
    def drains(*more: str) -> object:
        return hostplan.read(file_of(rendered(capsys, *CLUSTER, *more), hostplan.PATH)).agent.get(
            "drain-on-notice"
        )

    assert drains("--ec2-metadata") is True
    assert drains("--ec2-metadata", "--set", "agent.drain-on-notice=false") is False
    assert drains() is None
    assert drains("--set", "agent.drain-on-notice=true") is True


def test_a_package_is_fetched_checked_and_installed_once(capsys: Capture) -> None:
    url = "https://example.com/unitfleet.deb"
    script = file_of(
        rendered(capsys, *AGENT, "--package", f"{url}#sha256={'a' * 64}"), "/etc/unitfleet/first-boot.sh"
    )
    lines = script.splitlines()
    order = [
        next(number for number, line in enumerate(lines) if word in line)
        for word in ("if ! command -v unitctl", f" {url} ", "sha256sum -c", "apt-get install", "systemctl enable")
    ]
    assert order == sorted(order)


def test_a_package_on_the_image_is_installed_from_there(capsys: Capture) -> None:
    script = file_of(rendered(capsys, *AGENT, "--package", "/opt/unitfleet.deb"), "/etc/unitfleet/first-boot.sh")
    assert "apt-get install -q -y -o Dpkg::Options::=--force-confold /opt/unitfleet.deb" in script
    assert "urllib" not in script


def test_the_size_is_told_beside_the_data(capsys: Capture) -> None:
    assert run(["bootstrap", "render", *AGENT]) == 0
    captured = capsys.readouterr()
    assert f"{len(captured.out):,} of 16,384 bytes" in captured.err


def test_json_carries_the_text_its_size_and_the_notes(capsys: Capture) -> None:
    assert run(["bootstrap", "render", *AGENT, "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["user_data"].startswith("#cloud-config\n")
    assert answer["bytes"] == len(answer["user_data"])
    assert answer["notes"] == ["no --package: unitfleet must be in the image"]


def test_more_than_ec2_takes_is_refused_with_its_size(capsys: Capture) -> None:
    many = ",".join(f"key{number}={'v' * 60}" for number in range(300))
    assert run(["bootstrap", "render", *AGENT, "--metadata", many]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "of 16,384 bytes" in captured.err
    assert captured.err.count("hint:") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no role is named"),
        (("--role", "agent"), "no member of etcd is named"),
        ((*AGENT, "--set", "agent.egres=1G"), "did you mean egress?"),
        ((*AGENT, "--set", "agent.egress=1Z"), "'1Z' is no rate"),
        ((*AGENT, "--set", "agnt.egress=1G"), "it is not agent.key=value"),
        ((*AGENT, "--set", "master.name=a"), "in the role agent"),
        ((*AGENT, "--set", "etcd.max-wals=3"), "settings of etcd in the role agent"),
        ((*AGENT, "--metadata", "role"), "'role' is not key=value"),
        ((*AGENT, "--metadata", "a=1,a=2"), "a has two values"),
        ((*AGENT, "--warm", "No Image"), "is no image reference"),
        ((*AGENT, "--set", "agent.join=ufj1.x", "--set", "agent.join-file=/etc/unitfleet/join"), "it is a secret"),
        ((*AGENT, "--package", "./unitfleet.deb"), "neither an absolute path on the host nor"),
        ((*AGENT, "--package", "https://u:p@h/x.deb"), "it carries credentials"),
        ((*AGENT, "--package", "https://h/x.deb#sha256=1"), "is no checksum"),
        ((*AGENT, "--members", "10.0.0.1"), "only the role cluster has them"),
        (("--role", "agent", "--etcd", "10.0.0.1"), "is not HOST:PORT"),
        (("--role", "cluster"), "exactly one of members and srv"),
        ((*CLUSTER, "--srv", "_etcd-server._tcp.a.b"), "exactly one of members and srv"),
        ((*CLUSTER, "--etcd", "10.0.0.1:2379"), "its members have it"),
        ((*CLUSTER, "--warm", "No Image"), "is no image reference"),
        ((*CLUSTER, "--set", "etcd.heartbeat=1"), "did you mean heartbeat-interval?"),
        ((*CLUSTER, "--set", "master.listen=0.0.0.0:4001"), "without TLS the API stays on loopback"),
        (("--role", "cluster", "--members", "n1,n2"), "'n1' is no address"),
        (("--role", "cluster", "--members", "10.0.0.1,10.0.0.1"), "named twice"),
        (("--role", "cluster", "--srv", "example.com"), "names no service"),
        (("--role", "master", "--etcd", "a:1", "--egress", "1G"), "such a host runs no units"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_work_is_one_error_with_one_hint(
    arguments: tuple[str, ...], words: str, capsys: Capture
) -> None:
    assert run(["bootstrap", "render", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("error:") == 1
    assert captured.err.count("hint:") <= 1


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = HostPlan(
        role=Role.CLUSTER,
        srv="_etcd-server._tcp.example.com",
        name_from=NameFrom.ADDRESS,
        warm=("a/b:1",),
        fill_in=("/etc/x",),
        coreos_environment=True,
        agent={"metadata": {"a": "b"}, "disk-full": 80},
        master={"log-store": ""},
        etcd={"max-wals": "3"},
    )
    assert hostplan.read(plan.write()) == plan


def test_libraries_of_the_extras_are_loaded_when_they_are_used() -> None:
    code = "import sys\nfrom unitctl.__main__ import run\nrun(['bootstrap', 'launch', '--help'])\n"
    code += "print({'yaml', 'boto3', 'dns', 'http', 'psutil'} & {name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_a_missing_library_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert run(["bootstrap", "render", *AGENT]) == 1
    assert capsys.readouterr().err == (
        "error: cannot write YAML: yaml is not installed\nhint: pip install 'unitfleet[bootstrap]'\n"
    )
