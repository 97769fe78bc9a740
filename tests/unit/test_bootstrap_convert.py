"""`unitctl bootstrap convert`: every key of a CoreOS cloud-config is used or named, and the result is sound."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unitctl.__main__ import run
from unitctl.bootstrap import hostplan, yamltree
from unitctl.bootstrap.coreos.convert import Choice, Converted
from unitctl.bootstrap.coreos.convert import convert as convert_bytes
from unitctl.bootstrap.hostplan import HostPlan, Role
from unitctl.bootstrap.validate import validate
from unitctl.failures import Failure
from unitfleet.problems import Severity

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "cloud-config"
FILES = sorted(file for file in CORPUS.rglob("*") if file.is_file())

QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

with_corpus = pytest.mark.skipif(not FILES, reason="the corpus of cloud-configs is not beside the checkout")


def loaded(text: str | bytes) -> Any:
    return yaml.load(text, QUICK)


def convert(text: str, choice: Choice | None = None) -> Converted:
    return convert_bytes(text.encode(), "old.yaml", choice or Choice())


def result(converted: Converted) -> dict[str, Any]:
    """The user-data, validated and read as cloud-init reads it."""
    text = converted.user_data.text()
    assert [problem for problem in validate(text.encode()) if problem.severity is Severity.ERROR] == []
    found = loaded(text)
    assert isinstance(found, dict)
    return found


def files_of(converted: Converted) -> dict[str, dict[str, Any]]:
    return {entry["path"]: entry for entry in result(converted).get("write_files", [])}


def plan_of(converted: Converted) -> HostPlan:
    return hostplan.read(files_of(converted)[hostplan.PATH]["content"])


def dropped(converted: Converted) -> dict[str, tuple[int, str]]:
    return {said.path: (said.line, said.why) for said in converted.report.dropped}


# ------------------------------------------------------------------ the corpus


def paths(tree: Any) -> Iterator[str]:
    """Every key of a cloud-config that must be used or named, by a reading of its own."""
    for key, value in tree.items():
        yield key
        if key == "coreos":
            for section, content in (value or {}).items():
                yield f"coreos.{section}"
                if section == "units":
                    yield from (f"coreos.units[{unit['name']}].{name}" for unit in content for name in unit)
                elif isinstance(content, dict):
                    yield from (f"coreos.{section}.{name}" for name in content)
        if key.replace("-", "_") == "write_files":
            yield from (f"{key}[{file['path']}].{name}" for file in value for name in file)
        if key == "users":
            yield from (f"users[{user['name']}].{name}" for user in value for name in user)


REFUSED = {"cloud-config-init.yaml": "line 6: no YAML", "user-data.yml": "line 2: it is a text and has no keys"}


@with_corpus
@pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(file.parts[-3:])[-60:])
def test_an_old_cloud_config_is_converted_or_refused_by_reason_and_nothing_is_lost(file: Path) -> None:
    raw = file.read_bytes()
    if (why := REFUSED.get(file.name)) is not None:
        with pytest.raises(Failure, match=re.escape(why)):
            convert_bytes(raw, file.name, Choice())
        return
    converted = convert_bytes(raw, file.name, Choice())
    entries = files_of(converted)
    report, old = converted.report, loaded(raw)

    said = {entry.path for entry in (*report.dropped, *report.changed)} | set(report.used)
    whole = {entry.path for entry in report.dropped}  # a unit without a form is named as one
    unsaid = [path for path in paths(old) if path not in said and path.rpartition(".")[0] not in whole]
    assert unsaid == []

    for wanted in old.get("write_files") or old.get("write-files") or []:
        content = (
            wanted["content"].replace("$private_ipv4", hostplan.PRIVATE).replace("$public_ipv4", hostplan.PUBLIC)
        )
        assert entries[wanted["path"]]["content"] == content
    for unit in (old.get("coreos") or {}).get("units") or []:
        path = f"/etc/systemd/system/{unit['name']}"
        if "content" in unit and not unit["name"].endswith(".network"):
            kept = [line.strip() for line in entries[path]["content"].splitlines() if line.startswith("Exec")]
            assert len(kept) == sum(line.startswith("Exec") for line in unit["content"].splitlines())
        if "content" in unit and "command" in unit:
            assert f"systemctl --no-block {unit['command']} {unit['name']}\n" in str(
                entries["/var/lib/cloud/scripts/per-boot/units"]["content"]
            )


@with_corpus
def test_the_corpus_is_all_there() -> None:
    assert len(FILES) == 46
    assert sum(file.name in REFUSED for file in FILES) == 2


# ------------------------------------------------------------------- the traps


@pytest.mark.parametrize("word", ["off", "'off'", "best-effort", "reboot"])
def test_a_reboot_strategy_is_a_word_and_has_no_form(word: str) -> None:
    converted = convert(f"#cloud-config\ncoreos:\n  update:\n    reboot-strategy: {word}\n")
    assert dropped(converted) == {"coreos.update.reboot-strategy": (4, "Unitfleet reboots no host")}


@pytest.mark.parametrize("mode", ["0754", "'0754'", '"0754"', "754", "0o754"])
def test_a_mode_is_the_same_however_it_is_written(mode: str) -> None:
    converted = convert(f"#cloud-config\nwrite_files:\n  - path: /a\n    permissions: {mode}\n    content: x\n")
    assert files_of(converted)["/a"]["permissions"] == "0754"


def test_a_word_is_what_was_written_and_not_what_an_older_yaml_makes_of_it() -> None:
    tree = yamltree.read("a: off\nb: 0644\nc: 644\nd: 'true'\ne: true\nf: ~\ng: 2001-01-01\n")
    wanted = {"a": "off", "b": "0644", "c": 644, "d": "true", "e": True, "f": None, "g": "2001-01-01"}
    assert yamltree.plain(tree) == wanted


def test_a_file_without_permissions_that_can_be_read_gets_the_usual_ones_and_is_named() -> None:
    converted = convert("#cloud-config\nwrite_files:\n  - {path: /a, permissions: rw, content: x}\n")
    assert files_of(converted)["/a"]["permissions"] == "0644"
    assert "no permissions" in dropped(converted)["write_files[/a].permissions"][1]


@pytest.mark.parametrize(("files", "dropins"), [("write-files", "drop-ins"), ("write_files", "drop_ins")])
def test_hyphen_and_underscore_are_the_same(files: str, dropins: str) -> None:
    converted = convert(
        f"#cloud-config\n{files}:\n  - {{path: /a, content: x}}\ncoreos:\n  units:\n"
        f"    - name: docker.service\n      {dropins}:\n        - {{name: 1.conf, content: '[Service]'}}\n"
    )
    assert {"/a", "/etc/systemd/system/docker.service.d/1.conf"} <= set(files_of(converted))
    assert converted.report.dropped == []


def test_the_hosts_own_addresses_are_filled_in_by_the_host() -> None:
    converted = convert(
        "#cloud-config\ncoreos:\n  fleet: {public-ip: $public_ipv4}\n"
        "  etcd2: {initial-cluster: 'a=http://10.0.0.1:2380'}\n"
        'write_files:\n  - {path: /a, content: "ip=$private_ipv4:1 \\$private_ipv4"}\n'
    )
    plan = plan_of(converted)
    assert plan.agent["address"] == hostplan.PUBLIC
    assert plan.fill_in == ("/a",)
    assert files_of(converted)["/a"]["content"] == f"ip={hostplan.PRIVATE}:1 $private_ipv4"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#cloud-config\na:\n  b\n  c: d\n", "line 4: no YAML"),
        ("#cloud-config\n${filled in by somebody}\n", "line 2: it is a text and has no keys"),
        ("#cloud-config-archive\n- type: text/cloud-config\n", "line 1: it is an archive"),
        ("#cloud-config\n- a\n", "line 2: it is a list"),
        ("#!/bin/sh\n", "line 1: it is a script"),
        ("Content-Type: multipart/mixed\n", "line 1: it has several parts"),
        ("#cloud-config\na: 1\n---\nb: 1\n", "line 3: no YAML"),
    ],
)
def test_what_is_no_cloud_config_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(Failure, match=re.escape(words)):
        convert(text)


# ------------------------------------------------------------- fleet and etcd


def test_fleets_metadata_becomes_the_agents() -> None:
    converted = convert(
        "#cloud-config\ncoreos:\n  fleet:\n    metadata: role=web,zone=a,name=%H,odd\n    etcd_servers: http://10.0.0.9:2379\n"
    )
    agent = files_of(converted)["/etc/unitfleet/agent.toml"]["content"]
    assert 'metadata = { "role" = "web", "zone" = "a" }' in agent
    assert 'etcd = ["10.0.0.9:2379"]' in agent
    assert set(dropped(converted)) == {"coreos.fleet.metadata[name=%H]", "coreos.fleet.metadata[odd]"}


ETCD = "#cloud-config\ncoreos:\n  etcd2:\n    "


@pytest.mark.parametrize(
    ("settings_", "members"),
    [
        ("initial-cluster: 'n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380'", ("10.0.0.1", "10.0.0.2")),
        ("initial_cluster: '%H=http://$private_ipv4:2380'", (hostplan.PRIVATE,)),
        ("heartbeat-interval: 600", (hostplan.PRIVATE,)),
        ("peers: 10.0.0.1:7001, 10.0.0.2:7001", ("10.0.0.1", "10.0.0.2")),
    ],
)
def test_members_of_etcd_are_read_from_what_names_them(settings_: str, members: tuple[str, ...]) -> None:
    plan = plan_of(convert(ETCD + settings_ + "\n"))
    assert (plan.role, plan.members) == (Role.CLUSTER, members)


def test_a_proxy_of_etcd_is_a_host_with_an_agent_alone() -> None:
    converted = convert(ETCD + "proxy: on\n    initial-cluster: n1=http://10.0.0.1:2380\n")
    assert 'etcd = ["10.0.0.1:2379"]' in files_of(converted)["/etc/unitfleet/agent.toml"]["content"]


def test_a_discovery_url_is_dropped_with_the_reason_and_the_operator_names_members() -> None:
    text = ETCD + "discovery: https://discovery.etcd.io/abc\n"
    converted = convert(text)
    assert "the public discovery service is gone" in dropped(converted)["coreos.etcd2.discovery"][1]
    assert "the agent will ask 127.0.0.1" in dropped(converted)["coreos.etcd"][1]
    assert "discovery" not in converted.user_data.text()
    assert plan_of(convert(text, Choice(members=("10.0.0.1",)))).members == ("10.0.0.1",)
    assert plan_of(convert(text, Choice(srv="_etcd-server._tcp.a.b"))).srv == "_etcd-server._tcp.a.b"


def test_a_file_that_never_spoke_of_fleet_makes_no_part_of_one() -> None:
    converted = convert("#cloud-config\nhostname: node-a\nwrite_files:\n  - {path: /a, content: x}\n")
    assert result(converted) == {
        "hostname": "node-a",
        "write_files": [{"path": "/a", "permissions": "0644", "content": "x"}],
    }


# ----------------------------------------------------------------------- units


def unit(name: str, **keys: str) -> str:
    return "#cloud-config\ncoreos:\n  units:\n    - " + json.dumps({"name": name, **keys}) + "\n"


def test_a_unit_is_given_its_orders_at_each_boot_once_the_first_is_done() -> None:
    converted = convert(
        unit("a.service", content="[Service]\nExecStart=/bin/true\n", command="start", enable="true")
    )
    script = files_of(converted)["/var/lib/cloud/scripts/per-boot/units"]["content"]
    assert script.index("enable a.service") < script.index("--no-block start a.service")
    assert result(converted)["runcmd"] == [["sh", "/var/lib/cloud/scripts/per-boot/units", "first"]]


def test_what_a_unit_requires_exists_here_or_is_no_requirement() -> None:
    text = (
        "[Unit]\nRequires=etcd2.service docker.service\nAfter=flanneld.service\nAfter=fleet.service\n[Service]\n"
    )
    converted = convert(unit("a.service", content=text))
    written = files_of(converted)["/etc/systemd/system/a.service"]["content"].splitlines()
    assert written == [
        "[Unit]",
        "Requires=docker.service",
        "Wants=etcd.service",
        "After=unit-agent.service",
        "[Service]",
    ]
    assert "Requires=etcd2.service docker.service became" in converted.report.changed[0].why


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("locksmithd.service", "Unitfleet reboots no host"),
        ("flanneld.service", "there is no overlay network"),
        ("../x.service", "no name that systemd could give"),
    ],
)
def test_a_service_without_a_form_is_named(name: str, why: str) -> None:
    converted = convert(unit(name, command="start"))
    assert why in dropped(converted)[f"coreos.units[{name}]"][1]
    assert "runcmd" not in result(converted)


def test_additions_to_fleets_own_units_are_named() -> None:
    drop_in = "{name: fleet.socket, drop-ins: [{name: a.conf, content: x}]}"
    text = f"#cloud-config\ncoreos:\n  units:\n    - {drop_in}\n"
    assert "coreos.units[fleet.socket].drop-ins" in dropped(convert(text))


# ---------------------------------------------------------------------- others


def test_users_and_keys_are_cloud_inits() -> None:
    converted = convert(
        "#cloud-config\nssh_authorized_keys: [ssh-rsa AAAA me, ssh-rsa]\nusers:\n  - name: ada\n    passwd: $6$x\n"
        "    groups: [sudo]\n    coreos-ssh-import-github: ada\n    coreos-ssh-import-url: http://x\n"
    )
    found = result(converted)
    assert found["ssh_authorized_keys"] == ["ssh-rsa AAAA me"]
    assert found["users"][0] == "default"
    assert found["users"][1]["ssh_import_id"] == ["gh:ada"]
    assert found["users"][1]["lock_passwd"] is False
    assert set(dropped(converted)) == {"ssh_authorized_keys[1]", "users[ada].coreos-ssh-import-url"}


def test_the_user_core_is_made_where_files_are_his() -> None:
    converted = convert("#cloud-config\nwrite_files:\n  - {path: /home/core/x, owner: core, content: x}\n")
    assert [user["name"] for user in result(converted)["users"][1:]] == ["core"]
    assert files_of(converted)["/home/core/x"]["defer"] is True


def test_hosts_and_resolver_are_cloud_inits() -> None:
    text = (
        "#cloud-config\nmanage_etc_hosts: localhost\nmanage-resolv-conf: yes\nhostname: $hostname\nruncmd: [ls]\n"
    )
    converted = convert(text)
    assert result(converted) == {"manage_etc_hosts": "localhost", "manage_resolv_conf": True}
    assert "no host name" in dropped(converted)["hostname"][1]
    assert "CoreOS ignored it; cloud-init would not" in dropped(converted)["runcmd"][1]


def test_the_command_prints_user_data_and_beside_it_what_has_no_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.yaml"
    old.write_text("#cloud-config\ncoreos:\n  update:\n    reboot-strategy: off\n")
    assert run(["bootstrap", "convert", str(old)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("#cloud-config\n")
    assert "coreos.update.reboot-strategy (line 4): no form: Unitfleet reboots no host\n" in captured.err
    assert run(["bootstrap", "convert", str(old), "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["dropped"] == [
        {"path": "coreos.update.reboot-strategy", "line": 4, "why": "Unitfleet reboots no host"}
    ]
    old.write_text("#cloud-config\nx: y: z\n")
    assert run(["bootstrap", "convert", str(old)]) == 1
    assert f"error: cannot convert {old}: line 2: no YAML" in capsys.readouterr().err


_WORDS = st.sampled_from(["off", "0644", "x", "", "null", "$private_ipv4", "[]", "{}", "~", "a=b,c", "http://a:1"])
_KEYS = st.sampled_from(
    "coreos fleet etcd2 units write_files users hostname name content path metadata ssh_authorized_keys "
    "manage_etc_hosts initial-cluster drop-ins command update peers".split()
)
_TREES = st.recursive(
    _WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4)
)


@settings(max_examples=40)
@given(st.dictionaries(_KEYS, _TREES, max_size=4))
@example({"coreos": {"units": [{"name": ["x"]}], "etcd2": None, "fleet": "x"}, "users": {"a": "b"}})
@example({"write_files": [{"path": "/a", "content": {}, "permissions": "rw", "encoding": "b32"}]})
@example({"coreos": {"units": [{"name": "a.service", "command": "start", "content": "", "mask": "x"}]}})
def test_no_tree_of_keys_makes_it_fail(tree: dict[str, Any]) -> None:
    try:
        converted = convert_bytes(yaml.safe_dump(tree).encode(), "old.yaml", Choice())
    except Failure:
        return
    result(converted)


@settings(max_examples=40)
@given(st.binary(max_size=120))
def test_no_bytes_make_it_fail(raw: bytes) -> None:
    try:
        convert_bytes(raw, "old.yaml", Choice())
    except Failure:
        pass
