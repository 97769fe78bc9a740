"""`unitctl bootstrap apply`: what a host decides to be, with reasons, and that deciding twice changes nothing."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.imds import FACTS, Imds, serve
from unitctl.__main__ import run
from unitctl.bootstrap.host import imds, srv
from unitctl.bootstrap.host.carry_out import Hands, carry_out
from unitctl.bootstrap.host.decide import Decision, Facts, decide
from unitctl.bootstrap.host.etcd import EtcdFacts, Listed
from unitctl.bootstrap.host.facts import gather
from unitctl.bootstrap.hostplan import PRIVATE, PUBLIC, HostPlan, NameFrom, Role
from unitctl.failures import Failure

MEMBERS = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
CLUSTER = HostPlan(Role.CLUSTER, MEMBERS, agent={"egress": "1G", "metadata": {"role": "web"}})
LISTED = Facts(addresses=("10.0.0.2",), private="10.0.0.2", etcd=EtcdFacts(installed=True))
UNLISTED = Facts(addresses=("10.0.0.9", "fd00::9"), private="10.0.0.9")

Capture = pytest.CaptureFixture[str]


def settings_of(decision: Decision, daemon: str) -> dict[str, Any]:
    [file] = [file for file in decision.files if file.path == f"/etc/unitfleet/{daemon}.toml"]
    return tomllib.loads(file.content)


def environment_of(decision: Decision) -> Mapping[str, str]:
    [file] = [file for file in decision.files if file.path == "/etc/default/etcd"]
    lines = [line.partition("=") for line in file.content.splitlines() if "=" in line]
    return {name: value.strip('"') for name, _, value in lines}


def services_of(decision: Decision) -> list[str]:
    return [service.name for service in decision.services]


def test_a_host_on_the_list_has_etcd_a_master_and_an_agent() -> None:
    decision = decide(CLUSTER, LISTED)
    assert services_of(decision) == ["etcd.service", "unit-master.service", "unit-agent.service"]
    endpoints = [f"{address}:2379" for address in MEMBERS]
    assert settings_of(decision, "master") == {"etcd": endpoints}
    assert settings_of(decision, "agent") == {"egress": "1G", "metadata": {"role": "web"}, "etcd": endpoints}
    environment = environment_of(decision)
    assert environment["ETCD_NAME"] == "etcd-10-0-0-2"
    assert environment["ETCD_INITIAL_CLUSTER_STATE"] == "new"
    assert environment["ETCD_LISTEN_CLIENT_URLS"] == "http://10.0.0.2:2379,http://127.0.0.1:2379"


def test_every_member_works_out_the_same_cluster() -> None:
    clusters = {
        environment_of(decide(CLUSTER, Facts(addresses=(own,), private=own)))["ETCD_INITIAL_CLUSTER"]
        for own in MEMBERS
    }
    assert clusters == {
        "etcd-10-0-0-1=http://10.0.0.1:2380,etcd-10-0-0-2=http://10.0.0.2:2380,etcd-10-0-0-3=http://10.0.0.3:2380"
    }


def test_a_host_that_is_not_on_the_list_is_an_agent_alone_and_says_why() -> None:
    decision = decide(CLUSTER, UNLISTED)
    assert services_of(decision) == ["unit-agent.service"]
    assert [file.path for file in decision.files] == ["/etc/unitfleet/agent.toml"]
    assert decision.files[0].why == "none of its addresses (10.0.0.9, fd00::9) is on the list: an agent alone"


def test_members_found_by_dns_are_as_good_as_named_ones() -> None:
    plan = HostPlan(Role.CLUSTER, srv="_etcd-server._tcp.a.b")
    assert decide(plan, replace(LISTED, members=MEMBERS)).is_member
    assert not decide(plan, replace(UNLISTED, members=MEMBERS)).is_member


def test_a_list_of_the_hosts_own_address_is_a_cluster_of_one() -> None:
    environment = environment_of(decide(HostPlan(Role.CLUSTER, (PRIVATE,)), UNLISTED))
    assert environment["ETCD_INITIAL_CLUSTER"] == "etcd-10-0-0-9=http://10.0.0.9:2380"


def test_etcd_is_installed_where_it_is_missing_and_only_there() -> None:
    assert [package.name for package in decide(CLUSTER, replace(LISTED, etcd=EtcdFacts())).packages] == [
        "etcd-server"
    ]
    assert decide(CLUSTER, LISTED).packages == ()
    assert decide(CLUSTER, UNLISTED).packages == ()


PEER = "http://10.0.0.2:2380"


@pytest.mark.parametrize(
    ("etcd", "state", "held"),
    [
        (EtcdFacts(), "new", ""),
        (EtcdFacts(has_data=True, state="existing"), "existing", ""),
        (EtcdFacts(has_data=True), "new", ""),
        (EtcdFacts(listed=(Listed("a1", (PEER,)),)), "existing", ""),
        (EtcdFacts(listed=(Listed("a1", (PEER,), ("http://10.0.0.2:2379",)),)), "", "etcdctl member remove a1"),
        (EtcdFacts(listed=(Listed("a1", ("http://10.0.0.1:2380",)),)), "", "does not list 10.0.0.2"),
    ],
    ids=[
        "a cluster begins",
        "its data is here, and so stays what it was",
        "its data is here",
        "the cluster runs and waits for it",
        "a member whose data is gone never comes back as itself",
        "a cluster that does not know it is not joined",
    ],
)
def test_how_a_member_of_etcd_starts(etcd: EtcdFacts, state: str, held: str) -> None:
    decision = decide(CLUSTER, replace(LISTED, etcd=etcd))
    if held:
        assert held in decision.held
        assert services_of(decision) == ["unit-agent.service"]
        assert "/etc/default/etcd" not in [file.path for file in decision.files]
    else:
        assert decision.held == ""
        assert environment_of(decision)["ETCD_INITIAL_CLUSTER_STATE"] == state


def test_what_the_user_data_says_goes_before_what_ec2_says() -> None:
    plan = HostPlan(ec2_metadata=True, agent={"metadata": {"zone": "mine"}})
    metadata = settings_of(decide(plan, Facts(ec2={"zone": "a", "region": "eu"})), "agent")["metadata"]
    assert metadata == {"zone": "mine", "region": "eu"}


@pytest.mark.parametrize(
    ("name_from", "name"),
    [(NameFrom.HOSTNAME, None), (NameFrom.INSTANCE_ID, "i-0abc"), (NameFrom.ADDRESS, "10-0-0-9")],
)
def test_where_a_machines_name_comes_from(name_from: NameFrom, name: str | None) -> None:
    decision = decide(HostPlan(name_from=name_from), replace(UNLISTED, instance_id="i-0abc"))
    assert settings_of(decision, "agent").get("name") == name


def test_a_name_that_is_none_is_told_and_left_to_the_host() -> None:
    decision = decide(HostPlan(name_from=NameFrom.INSTANCE_ID), UNLISTED)
    assert "name" not in settings_of(decision, "agent")
    assert decision.notes == ("the instance id '' is no machine's name: the host name is taken",)


def test_the_hosts_addresses_are_filled_in_and_a_second_time_nothing_changes() -> None:
    drop_in = "/etc/systemd/system/docker.service.d/dns.conf"
    plan = HostPlan(Role.NONE, fill_in=(drop_in, "/etc/gone"), coreos_environment=True)
    facts = replace(
        UNLISTED, public="198.51.100.9", texts={drop_in: f"a {PRIVATE} {PUBLIC}\n", "/etc/environment": "X=1\n"}
    )
    decision = decide(plan, facts)
    written = {file.path: file.content for file in decision.files}
    assert written[drop_in] == "a 10.0.0.9 198.51.100.9\n"
    environment = "X=1\nCOREOS_PRIVATE_IPV4=10.0.0.9\nCOREOS_PUBLIC_IPV4=198.51.100.9\n"
    assert written["/etc/environment"] == environment
    assert services_of(decision) == ["docker.service"]
    assert decision.notes == ("/etc/gone is not there: nothing to fill in",)
    again = decide(plan, replace(facts, texts=written))
    assert {file.path: file.content for file in again.files} == written


# ----------------------------------------------------------------- the hands


class Commands:
    """Commands that were run; those of `failing` fail."""

    def __init__(self, *failing: str) -> None:
        self.ran: list[str] = []
        self.failing = list(failing)

    def __call__(self, words: Sequence[str]) -> str:
        self.ran.append(" ".join(words))
        return "no" if self.failing and self.failing[0] in self.ran[-1] and self.failing.pop(0) else ""


def test_what_is_decided_is_done_once_and_again_only_looked_at(tmp_path: Path, capsys: Capture) -> None:
    decision = decide(replace(CLUSTER, warm=("a/b:1",)), LISTED)
    first, second = Commands(), Commands()
    assert carry_out(decision, Hands(tmp_path, first)) == []
    assert first.ran[-1] == "unitctl images warm a/b:1"
    assert "systemctl --no-block restart etcd.service" in first.ran
    assert (tmp_path / "etc/default/etcd").stat().st_mode & 0o777 == 0o644
    capsys.readouterr()
    assert carry_out(decision, Hands(tmp_path, second)) == []
    assert not any("restart" in command for command in second.ran)
    assert "wrote" not in capsys.readouterr().out


def test_a_service_starts_anew_when_what_it_reads_has_changed(tmp_path: Path) -> None:
    carry_out(decide(CLUSTER, LISTED), Hands(tmp_path, Commands()))
    commands = Commands()
    carry_out(decide(replace(CLUSTER, agent={"egress": "2G"}), LISTED), Hands(tmp_path, commands))
    assert [command for command in commands.ran if "restart" in command] == [
        "systemctl --no-block restart unit-agent.service"
    ]


def test_one_service_that_fails_leaves_the_others_started(tmp_path: Path) -> None:
    commands = Commands("enable unit-master.service")
    failures = carry_out(decide(CLUSTER, LISTED), Hands(tmp_path, commands))
    assert failures == ["cannot run systemctl enable unit-master.service: no"]
    assert "systemctl --no-block restart unit-agent.service" in commands.ran


def test_a_masters_file_that_the_image_brought_becomes_the_masters_before_it_starts(tmp_path: Path) -> None:
    keys = {"cluster-key-file": "/etc/unitfleet/cluster.key", "secrets-key-file": "/etc/unitfleet/secrets.key"}
    plan = replace(CLUSTER, master=keys)
    assert plan.masters_files == tuple(keys.values())
    assert decide(plan, replace(UNLISTED, of_root=plan.masters_files)).handed == ()  # has no master
    decision = decide(plan, replace(LISTED, of_root=("/etc/unitfleet/cluster.key",)))
    assert "give /etc/unitfleet/cluster.key to unitfleet: the master reads it" in decision.told()
    commands = Commands()
    carry_out(decision, Hands(tmp_path, commands))
    given = commands.ran.index("chown unitfleet /etc/unitfleet/cluster.key")
    assert given < commands.ran.index("systemctl --no-block restart unit-master.service")
    assert [command for command in commands.ran if "chown" in command] == [commands.ran[given]]


def test_who_owns_a_masters_file_is_looked_up_and_a_missing_one_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "own.key").touch()
    plan = HostPlan(Role.MASTER, master={"cluster-key-file": "/own.key", "token-file": "/missing"})
    found = gather(plan, tmp_path, "http://127.0.0.1:9").of_root
    assert found == (("/own.key",) if (tmp_path / "own.key").stat().st_uid == 0 else ())


def test_an_image_is_asked_for_until_the_masters_answer(tmp_path: Path) -> None:
    commands, now = Commands("images warm", "images warm"), [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    hands = Hands(tmp_path, commands, monotonic=lambda: now[0], sleep=sleep)
    assert carry_out(Decision(warm=("a/b:1",)), hands) == []
    assert commands.ran == ["unitctl images warm a/b:1"] * 3
    gone = Hands(tmp_path, lambda words: "no API", monotonic=lambda: now[0], sleep=sleep)
    assert carry_out(Decision(warm=("a/b:1",)), gone) == ["cannot run unitctl images warm a/b:1: no API"]


def test_for_an_image_that_is_made_files_are_written_and_nothing_starts(tmp_path: Path, capsys: Capture) -> None:
    orders = tmp_path / "bootstrap.toml"
    orders.write_text('role = "agent"\n[agent]\netcd = ["10.0.0.1:2379"]\n')
    assert run(["bootstrap", "apply", str(orders), "--root", str(tmp_path)]) == 0
    assert "not started, since files alone are asked for: unit-agent.service" in capsys.readouterr().out
    assert (tmp_path / "etc/unitfleet/agent.toml").read_text() == 'etcd = ["10.0.0.1:2379"]\n'


def test_a_dry_run_tells_each_step_and_does_none(tmp_path: Path, capsys: Capture) -> None:
    orders = tmp_path / "bootstrap.toml"
    orders.write_text('role = "agent"\n[agent]\netcd = ["10.0.0.1:2379"]\n')
    assert run(["bootstrap", "apply", str(orders), "--dry-run", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "write /etc/unitfleet/agent.toml: every host runs units",
        "start unit-agent.service: every host runs units",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["bootstrap.toml"]


def test_orders_that_are_none_are_refused(tmp_path: Path, capsys: Capture) -> None:
    orders = tmp_path / "bootstrap.toml"
    orders.write_text('role = "agnt"\n')
    assert run(["bootstrap", "apply", str(orders), "--dry-run"]) == 2
    assert ": 'agnt' is none of agent, master, cluster, none" in capsys.readouterr().err


# --------------------------------------------------------------------- facts


TAGS = {
    "tags/instance": "role\nName\ncost centre",
    "tags/instance/role": "adserver",
    "tags/instance/Name": "a name",
    "tags/instance/cost centre": "7",
}
EC2 = {"instance-id": "i-0abc", "instance-type": "t3.small", "zone": "eu-west-1a", "region": "eu-west-1"}


@pytest.mark.parametrize("tokens", [True, False], ids=["IMDSv2", "IMDSv1"])
def test_ec2_is_asked_with_a_token_or_without(tokens: bool) -> None:
    with serve(Imds({**FACTS, **TAGS}, tokens=tokens)) as service:
        instance = imds.ask(service.address)
    assert instance.metadata == {**EC2, "role": "adserver"}
    assert instance.skipped == ("Name", "cost centre")
    assert (instance.private, instance.public) == ("10.0.0.5", "198.51.100.5")
    assert service.asked[0] == "PUT /latest/api/token"


def test_a_region_that_is_not_told_is_read_from_the_zone() -> None:
    facts = {name: value for name, value in FACTS.items() if name != "placement/region"}
    with serve(Imds(facts)) as service:
        assert imds.ask(service.address).metadata["region"] == "eu-west-1"


def test_without_the_service_a_host_boots_all_the_same(tmp_path: Path, capsys: Capture) -> None:
    with serve(Imds()) as service:
        gone = service.address
    orders = tmp_path / "bootstrap.toml"
    orders.write_text('role = "agent"\nec2-metadata = true\n[agent]\netcd = ["10.0.0.1:2379"]\n')
    assert run(["bootstrap", "apply", str(orders), "--root", str(tmp_path), "--imds", gone]) == 0
    assert f"note: no instance-metadata service at {gone}: connection refused" in capsys.readouterr().err
    with serve(Imds()) as service:
        assert run(["bootstrap", "apply", str(orders), "--root", str(tmp_path), "--imds", service.address]) == 0
    assert tomllib.loads((tmp_path / "etc/unitfleet/agent.toml").read_text())["metadata"] == EC2


@pytest.mark.parametrize("name_from", ["hostname", "instance-id"])
@pytest.mark.parametrize("faults", [{}, dict.fromkeys(FACTS, 503)], ids=["not there", "answers 503"])
def test_a_host_keeps_its_ec2_metadata_when_its_cloud_says_nothing_at_a_later_boot(
    tmp_path: Path, capsys: Capture, name_from: str, faults: Mapping[str, int]
) -> None:
    orders = tmp_path / "bootstrap.toml"
    orders.write_text(
        f'role = "agent"\nec2-metadata = true\nname-from = "{name_from}"\n[agent]\netcd = ["10.0.0.1:2379"]\n'
    )
    settings, id = tmp_path / "etc/unitfleet/agent.toml", tmp_path / "var/lib/cloud/data/instance-id"
    id.parent.mkdir(parents=True)
    id.write_text("i-0abc\n")
    with serve(Imds({**FACTS, **TAGS})) as service:
        boot = ("bootstrap", "apply", str(orders), "--root", str(tmp_path), "--imds", service.address)
        assert run(boot) == 0
        first = settings.read_text()
        assert tomllib.loads(first)["metadata"] == {**EC2, "role": "adserver"}
        id.write_text("iid-datasource-none\n")  # cloud-init finds no cloud, either
        service.faults = faults
        if faults:
            assert run(boot) == 0
    if not faults:
        assert run(boot) == 0
    assert settings.read_text() == first
    assert "note: what EC2 said at a former boot holds" in capsys.readouterr().err
    id.write_text("i-0def\n")  # made of an image of the first one
    assert run(boot) == 0
    assert "metadata" not in tomllib.loads(settings.read_text())


class Dns:
    """A resolver that knows some records."""

    def __init__(self, **records: Sequence[str]) -> None:
        self.records = records

    def resolve(self, name: str, kind: str, lifetime: float) -> list[Any]:
        import dns.rdataclass
        import dns.rdatatype
        import dns.resolver
        from dns import rdata

        found = self.records.get(f"{kind}_{name.partition('.')[0].lstrip('_').replace('-', '_')}")
        if found is None:
            raise dns.resolver.NXDOMAIN
        return [rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), text) for text in found]


def test_members_come_from_srv_records_in_one_order_for_all() -> None:
    names = ["0 0 2380 n2.a.b.", "0 0 2380 n1.a.b."]
    known = {"A_n1": ["10.0.0.1"], "A_n2": ["10.0.0.2"], "AAAA_n2": ["fd00::2"]}
    for order in (names, names[::-1]):
        assert srv.find("_etcd-server._tcp.a.b", Dns(SRV_etcd_server=order, **known)) == ("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({}, "cannot look up _etcd-server._tcp.a.b"),
        ({"SRV_etcd_server": ["0 0 1 n1.a.b."]}, "n1.a.b. has no address"),
    ],
)
def test_records_that_are_not_there_are_an_error(records: dict[str, list[str]], words: str) -> None:
    with pytest.raises(Failure, match=words):
        srv.find("_etcd-server._tcp.a.b", Dns(**records))
