"""From user-data to running units and back: instances of a cloud boot, join, warm, run, and end in every way.

cloud-init 22.4 runs under systemd at each boot with EC2's datasource; the cluster has identities, and each host
joins by a token. Nothing is done on a host by hand: whatever is asked is asked of the master.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import packaged
from harness.boot_phases import phases
from harness.cloud import Cloud
from harness.fleet import DEADLINE_S, Fleet, told, user_data
from harness.hosts import Host, Hosts
from harness.packages import Packages

pytestmark = pytest.mark.host

JOIN_FILE = "/etc/unitfleet/join"
UNITS = [f"adserver@{number}.service" for number in (1, 2, 3)]
ADSERVER = """[Container]
Image=%s
Exec=sh -c "while :; do sleep 1; done"
Network=none
StopSignal=SIGKILL

[Service]
Restart=always

[X-Fleet]
Conflicts=adserver@*.service
MachineMetadata=role=adserver
MachineMetadata=zone=us-east-1a
"""


@pytest.fixture(scope="module")
def control(hosts: Hosts, built: Packages) -> Iterator[Host]:
    """A host with etcd and the first master, made as docs/operations.md says; it runs no units."""
    host = hosts.create("control")
    host.wait_booted()
    packaged.install(host, built.deb)
    etcd = (
        f'ETCD_LISTEN_CLIENT_URLS="http://0.0.0.0:2379"\nETCD_ADVERTISE_CLIENT_URLS="http://{host.address}:2379"\n'
    )
    host.copy_in(etcd, "/etc/default/etcd")
    host.run("systemctl", "enable", "--now", "etcd")
    host.run("unitctl", "cluster", "init", "--hosts", host.address)
    host.copy_in('listen = "0.0.0.0:4001"\n', "/etc/unitfleet/master.toml")
    host.run("systemctl", "enable", "--now", "unit-master")
    yield host
    hosts.remove(host)


class Story(Fleet):
    """What the tests below tell in turn."""

    def __init__(self, cloud: Cloud, control: Host, deb: Path) -> None:
        self.image = cloud.push("adserver:1")
        self.control = control
        text = user_data(
            *(
                "--role",
                "agent",
                "--etcd",
                f"{control.address}:2379",
                "--metadata",
                "role=adserver,region=us-east",
            ),
            *("--ec2-metadata", "--warm", self.image, "--package", cloud.offer(deb)),
            *("--set", f"agent.join-file={JOIN_FILE}"),
        )
        token = control.run("unitctl", "machines", "join-token", "--uses", "5", "--ttl", "1h").strip()
        super().__init__(cloud, text, asked=control, secrets={JOIN_FILE: token})


@pytest.fixture(scope="module")
def story(hosts: Hosts, cloud: Cloud, control: Host, built: Packages) -> Iterator[Story]:
    made = Story(cloud, control, built.deb)
    yield made
    for instance in made.instances.values():
        hosts.remove(instance.host)


def measured(story: Story, capsys: pytest.CaptureFixture[str], *names: str) -> None:
    """Take the phases of hosts that are ready, show them, and hold them to the bound."""
    for name in names:
        took = phases(story.host(name), story.instances[name].launched)
        told(capsys, {"host": name, **took.figures(), "total": round(took.total, 1)})
        assert took.total < DEADLINE_S, took


def test_three_instances_boot_join_and_hold_the_image_before_any_unit_asks_for_it(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    story.launch("ad-1", "ad-2", "ad-3")
    story.wait(lambda: story.ready("ad-1", "ad-2", "ad-3"), "three hosts are ready", "ad-1", "ad-2", "ad-3")
    measured(story, capsys, "ad-1", "ad-2", "ad-3")
    for name, machine in story.machines().items():
        own = {"role": "adserver", "region": "us-east", "zone": "us-east-1a", "instance-type": "t3.small"}
        assert machine["metadata"] == {**own, "pool": "ads", "instance-id": story.instances[name].id}
        assert story.image in story.host(name).run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}")
        assert story.host(name).run("cloud-init", "status").strip() == "status: done"


def test_a_unit_runs_on_each_with_nothing_left_to_pull(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    pulled = story.cloud.registry.pulled()
    story.control.copy_in(ADSERVER % story.image, "/root/adserver@.container")
    story.control.run("unitctl", "submit", "/root/adserver@.container")
    began = time.monotonic()
    story.control.run("unitctl", "start", "adserver@<1..3>", timeout_s=60)
    told(capsys, {"from the order to three running units": round(time.monotonic() - began, 1)})
    running = story.running()
    assert (sorted(running), sorted(running.values())) == (UNITS, [["ad-1"], ["ad-2"], ["ad-3"]])
    assert story.cloud.registry.pulled() == pulled


def test_one_that_reboots_is_the_same_machine_and_its_unit_runs_again_there(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    host, before, ran = story.host("ad-2"), story.machines()["ad-2"], story.running()
    settings = host.run("cat", "/etc/unitfleet/agent.toml")
    story.cloud.silence(story.instances["ad-2"])  # as a cloud may be, just then
    host.shut_down()
    host.start()
    took = story.wait(lambda: story.running() == ran, "its unit runs again", "ad-2")
    told(capsys, {"from power on to its unit running again": round(took, 1)})
    host.wait_booted()  # and cloud-init has run our part of each boot
    story.wait(lambda: story.ready("ad-2"), "it is ready", "ad-2")
    story.cloud.tell(story.instances["ad-2"], {})
    after = story.machines()["ad-2"]
    assert (after["id"], after["metadata"]) == (before["id"], before["metadata"])
    assert host.run("cat", "/etc/unitfleet/agent.toml") == settings
    assert "what EC2 said at a former boot holds" in host.run("cat", "/var/log/cloud-init-output.log")


def test_a_fourth_joins_later(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    story.launch("ad-4")
    story.wait(lambda: story.ready("ad-4"), "the fourth is ready", "ad-4")
    measured(story, capsys, "ad-4")
    (token,) = json.loads(story.control.run("unitctl", "machines", "join-tokens", "-o", "json"))["items"]
    assert token["uses_left"] == 1, "four hosts have joined, one of them has booted twice"


def test_one_that_just_dies_is_replaced_and_is_the_same_machine_when_it_is_back(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    before, ran = story.machines()["ad-3"], story.running()
    moved = next(unit for unit, where in ran.items() if where == ["ad-3"])
    story.host("ad-3").kill()
    took = story.wait(lambda: story.running() == {**ran, moved: ["ad-4"]}, "its unit runs on the fourth", "ad-4")
    told(capsys, {"from a death to the unit running elsewhere": round(took, 1)})
    story.host("ad-3").start()
    story.wait(lambda: story.ready("ad-3"), "it is ready again", "ad-3")
    assert story.machines()["ad-3"]["id"] == before["id"]
    story.wait(lambda: story.running() == {**ran, moved: ["ad-4"]}, "the unit runs once", "ad-3", "ad-4")


def test_one_that_gets_notice_is_drained_and_its_unit_runs_elsewhere_before_it_ends(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = story.running()
    moved = next(unit for unit, where in ran.items() if where == ["ad-1"])
    notice = {"action": "terminate", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 120))}
    story.cloud.tell(story.instances["ad-1"], {"spot/instance-action": json.dumps(notice)})

    def is_moved() -> bool:
        running = story.running()
        assert moved in running, f"{moved} ran nowhere for a moment: {running}"
        return running == {**ran, moved: ["ad-3"]}

    took = story.wait(is_moved, "its unit runs on the third", "ad-1", "ad-3")
    told(capsys, {"from a notice to the unit running elsewhere": round(took, 1)})
    assert story.machines()["ad-1"]["drained"]
    story.host("ad-1").shut_down()
    assert story.running() == {**ran, moved: ["ad-3"]}
    status = {unit["name"]: unit["ok"] for unit in packaged.units(story.control)}
    assert status == dict.fromkeys(UNITS, True)
