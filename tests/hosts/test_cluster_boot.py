"""One user-data for every host, and nothing before them: three of four become etcd and masters, all run units.

cloud-init 22.4 runs under systemd at each boot with EC2's datasource. Nothing is done on a host by hand: what is
asked is asked of a member's unitctl, or of its etcd.
"""

from __future__ import annotations

import json
import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from harness import packaged
from harness.boot_phases import phases
from harness.cloud import Cloud
from harness.fleet import DEADLINE_S, Fleet, told, user_data
from harness.hosts import Host, Hosts
from harness.packages import Packages

pytestmark = pytest.mark.host

MEMBERS = ("one", "two", "three")
ALL = (*MEMBERS, "four")
UNITS = [f"adserver@{number}.service" for number in (1, 2, 3, 4)]
KEYS = {"cluster-key-file": "/etc/unitfleet/cluster.key", "secrets-key-file": "/etc/unitfleet/secrets.key"}
ADSERVER = """[Container]
Image=%s
Exec=sh -c "echo serving; while :; do sleep 1; done"
Network=none
StopSignal=SIGKILL

[Service]
Restart=always

[X-Fleet]
Spread=instance-id
"""
WRITTEN = "[Container]\nImage=%s\n"
WRITTEN_KEY = "/unitfleet/v1/units/written.service"


class Cluster(Fleet):
    """What the tests below tell in turn."""

    def __init__(self, hosts: Hosts, cloud: Cloud, built: Packages) -> None:
        self.image = cloud.push("adserver:1")
        self.members = hosts.coming(len(MEMBERS))
        text = user_data(
            *("--role", "cluster", "--members", ",".join(self.members), "--metadata", "role=adserver"),
            *("--ec2-metadata", "--warm", self.image, "--package", cloud.offer(built.deb)),
            *("--set", f"agent.cluster-key-file={KEYS['cluster-key-file']}"),
            *(word for key, path in KEYS.items() for word in ("--set", f"master.{key}={path}")),
            *("--set", "master.listen=UNITFLEET_PRIVATE_IPV4:4001", "--set", "master.trusted-network=true"),
        )
        super().__init__(cloud, text, secrets={path: secrets.token_hex(32) + "\n" for path in KEYS.values()})

    def at_once(self, do: Callable[[Host], object], *names: str) -> None:
        """Do something to hosts, to all at the same moment."""
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: do(self.host(name)), names))

    def holds_image(self, name: str) -> bool:
        listed = self.host(name).attempt("docker", "images", "--format", "{{.Repository}}:{{.Tag}}")
        return self.image in listed.stdout.split()

    def etcd(self) -> dict[str, Etcd]:
        """Return what the etcd of each member says that answers."""
        said = {name: Etcd.of(self.host(name)) for name in MEMBERS}
        return {name: each for name, each in said.items() if each is not None}

    def founded(self, said: Mapping[str, Etcd]) -> dict[str, tuple[object, ...]]:
        """Return what a second cluster, or a member that begins anew, would have otherwise."""
        return {name: (each.cluster, each.member, each.members, each.unitfleet) for name, each in said.items()}

    def ids(self) -> dict[str, str]:
        """Return the machines' ids."""
        return {name: machine["id"] for name, machine in self.machines().items()}

    def is_whole(self, running: Mapping[str, list[str]]) -> bool:
        """Tell whether all are ready, members hold the same data, and units run where they should."""
        if len(said := self.etcd()) < len(MEMBERS) or not self.ready(*ALL) or self.running() != running:
            return False
        revision = max(each.revision for each in said.values())
        hashes = [
            _ask(self.host(name), "maintenance/hash", revision=str(revision)).get("hash") for name in MEMBERS
        ]
        return None not in hashes and len(set(hashes)) == 1


@dataclass(frozen=True)
class Etcd:
    """What the etcd of a host says of itself and of its cluster."""

    cluster: str
    member: str
    leader: str
    revision: int
    members: dict[str, tuple[str, ...]]  # id → where it is asked
    unitfleet: str  # the cluster's own record

    @classmethod
    def of(cls, host: Host) -> Etcd | None:
        """Ask the etcd of a host, by itself alone; None while it does not answer."""
        status, listed = _ask(host, "maintenance/status"), _ask(host, "cluster/member/list")
        kept = _ask(host, "kv/range", key=_encoded("/unitfleet/v1/cluster"), serializable=True)
        if not status or not listed or not kept or not status.get("leader"):
            return None
        header = status["header"]
        members = {each["ID"]: tuple(each.get("clientURLs", ())) for each in listed["members"]}
        record = b64decode(kept["kvs"][0]["value"]).decode() if kept.get("kvs") else ""
        return cls(
            header["cluster_id"], header["member_id"], status["leader"], int(header["revision"]), members, record
        )


def _ask(host: Host, what: str, **body: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:2379/v3/{what}"
    ran = host.attempt("curl", "-sS", "--fail", "--max-time", "5", "-d", json.dumps(body), url)
    return json.loads(ran.stdout) if ran.code == 0 and ran.stdout else {}  # it may end before it has answered


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


@pytest.fixture(scope="module")
def cluster(hosts: Hosts, cloud: Cloud, built: Packages) -> Iterator[Cluster]:
    made = Cluster(hosts, cloud, built)
    yield made
    for instance in made.instances.values():
        hosts.remove(instance.host)


def test_four_hosts_with_one_text_become_three_members_and_four_machines(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.launch(*ALL)
    cluster.wait(
        lambda: cluster.ready(*ALL) and all(map(cluster.holds_image, ALL)), "four hosts are ready and warm", *ALL
    )
    for name in ALL:
        took = phases(cluster.host(name), cluster.instances[name].launched)
        told(capsys, {"host": name, **took.figures(), "total": round(took.total, 1)})
        assert took.total < DEADLINE_S, took
        assert cluster.host(name).run("cloud-init", "status", "--wait").split("\n")[-2] == "status: done"
    assert [cluster.host(name).address for name in MEMBERS] == cluster.members
    daemons = {"etcd", "unit-master", "unit-agent"}
    active = [{each for each in daemons if cluster.host(name).active(each)} for name in ALL]
    assert active == [daemons, daemons, daemons, {"unit-agent"}]
    said = cluster.etcd()
    assert len({(each.cluster, each.unitfleet) for each in said.values()}) == 1
    assert len({each.member for each in said.values()}) == len(MEMBERS)
    for each in said.values():
        assert sorted(each.members.values()) == sorted((f"http://{own}:2379",) for own in cluster.members)
    machines = cluster.machines()
    assert sorted(machines) == sorted(ALL)
    for name, machine in machines.items():
        own = {"role": "adserver", "pool": "ads", "instance-type": "t3.small", "region": "us-east-1"}
        assert machine["metadata"] == {**own, "zone": "us-east-1a", "instance-id": cluster.instances[name].id}


def test_units_spread_over_all_and_any_member_reads_their_output(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    pulled = cluster.cloud.registry.pulled()
    cluster.asked.copy_in(ADSERVER % cluster.image, "/root/adserver@.container")
    cluster.asked.run("unitctl", "submit", "/root/adserver@.container")
    began = time.monotonic()
    cluster.asked.run("unitctl", "start", "adserver@<1..4>", timeout_s=60)
    told(capsys, {"from the order to four running units": round(time.monotonic() - began, 1)})
    running = cluster.running()
    assert (sorted(running), sorted(running.values())) == (UNITS, sorted([name] for name in ALL))
    assert cluster.cloud.registry.pulled() == pulled
    for name in MEMBERS:
        for unit in UNITS:
            assert "serving" in cluster.host(name).run("unitctl", "logs", unit), (name, unit, running[unit])


def test_one_member_dies_the_others_go_on_and_it_comes_back_with_what_it_missed(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    before, ids = cluster.etcd(), cluster.ids()
    dead = next(name for name, each in before.items() if each.member == each.leader)
    moved = next(unit for unit, where in cluster.running().items() if where == [dead])
    cluster.host(dead).kill()
    cluster.asked.copy_in(WRITTEN % cluster.image, "/root/written.container")

    def is_written() -> bool:
        return cluster.asked.attempt("unitctl", "submit", "/root/written.container").code == 0

    took = cluster.wait(is_written, "two members take a write")
    told(capsys, {f"from the death of etcd's leader, {dead}, to a write": round(took, 1)})
    elsewhere = cluster.wait(lambda: sorted(cluster.running()) == UNITS, "its unit runs elsewhere")
    told(capsys, {"to its unit running elsewhere": round(took + elsewhere, 1)})
    now = cluster.running()
    assert [len(now[unit]) for unit in UNITS] == [1, 1, 1, 1], now

    cluster.host(dead).start()
    took = cluster.wait(lambda: cluster.is_whole(now), "the cluster is whole again", dead)
    told(capsys, {"from its power on to a whole cluster": round(took, 1)})
    cluster.wait(
        lambda: cluster.founded(cluster.etcd()) == cluster.founded(before), "it is the same etcd", *MEMBERS
    )
    assert cluster.ids() == ids
    assert cluster.running() == now, f"{moved} stays where it went"
    for name in MEMBERS:
        assert _ask(cluster.host(name), "kv/range", key=_encoded(WRITTEN_KEY), serializable=True)["count"] == "1"


def test_all_lose_their_power_at_once_and_are_the_same_cluster_with_its_units_again(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    before, ids, ran = cluster.etcd(), cluster.ids(), cluster.running()
    cluster.at_once(Host.kill, *ALL)
    began = time.monotonic()
    cluster.at_once(Host.start, *ALL)
    cluster.wait(lambda: cluster.is_whole(ran), "the cluster is back with its units", *ALL)
    told(capsys, {"from the power of all to a whole cluster and its units": round(time.monotonic() - began, 1)})
    for name in ALL:
        assert cluster.host(name).run("cloud-init", "status", "--wait").split("\n")[-2] == "status: done"
    assert cluster.founded(cluster.etcd()) == cluster.founded(before)
    assert cluster.ids() == ids
    assert {unit["name"]: unit["ok"] for unit in packaged.units(cluster.asked)} == {
        **dict.fromkeys(UNITS, True),
        "written.service": True,
    }


def test_one_without_a_master_that_gets_notice_is_drained(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    notice = {"action": "terminate", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 120))}
    cluster.cloud.tell(cluster.instances["four"], {"spot/instance-action": json.dumps(notice)})

    def is_drained() -> bool:
        running = cluster.running()
        return sorted(running) == UNITS and not any("four" in where for where in running.values())

    took = cluster.wait(is_drained, "its units run elsewhere", "four")
    told(capsys, {"from a notice to its units running elsewhere": round(took, 1)})
    assert cluster.machines()["four"]["drained"]
