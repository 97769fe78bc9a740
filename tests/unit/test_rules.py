"""What each rule of placement refuses, and in which words."""

from __future__ import annotations

import pytest

from harness.builders import GIB, MIB, a_host, a_scene, needs
from unit_master.rules import RULES, Rule, size, unsuitable
from unit_master.scene import Host, Scene
from unitfleet.model import Capacity, MachineStatus, Requirements
from unitfleet.policy import Demands, Policy

RULE: dict[str, Rule] = dict(RULES)
SMALL = Capacity(cpu=4, memory=4 * GIB)
LONG_ID = "0123456789abcdef"


def ask(rule: str, unit: Requirements, host: Host, *others: Host) -> str | None:
    scene = a_scene(host, *others)
    return RULE[rule](unit, host, scene)


def case(name: str, rule: str, unit: Requirements, host: Host, why: str | None) -> object:
    return pytest.param(rule, unit, host, why, id=name)


def test_the_rules_are_asked_in_the_order_of_the_architecture() -> None:
    names = [name for name, _ in RULES]
    assert (
        names
        == "pin ready room driver lease policy secret metadata peers conflicts replaces ports resources".split()
    )


def with_policy() -> Host:
    host = a_host()
    host.policy = Policy()
    return host


def needs_region(*values: str) -> Requirements:
    return needs(metadata=(("region", values),))


@pytest.mark.parametrize(
    ("rule", "unit", "host", "why"),
    [
        case(
            "what the host's own policy does not allow",
            "policy",
            needs(demands=Demands(host_network=True)),
            with_policy(),
            "allows no host network",
        ),
        case("what it allows", "policy", needs(), with_policy(), None),
        case("a host without a policy", "policy", needs(demands=Demands(host_network=True)), a_host(), None),
        case("no pin suits any machine", "pin", needs(), a_host(), None),
        case("the whole id is meant", "pin", needs(machine_id=LONG_ID), a_host(id=LONG_ID), None),
        case("its first 8 characters are enough", "pin", needs(machine_id="01234567"), a_host(id=LONG_ID), None),
        case(
            "fewer are not enough",
            "pin",
            needs(machine_id="0123456"),
            a_host(id=LONG_ID),
            "is not machine 0123456",
        ),
        case("a name is no id", "pin", needs(machine_id="m1"), a_host("m1", id=LONG_ID), "is not machine m1"),
        case("a ready machine", "ready", needs(), a_host(), None),
        case("a lost machine", "ready", needs(), a_host(status=MachineStatus.LOST), "is lost"),
        case(
            "a machine that is not heard from",
            "ready",
            needs(),
            a_host(status=MachineStatus.SUSPECT),
            "is suspect: its agent is not heard from",
        ),
        case("a cordon keeps units out", "ready", needs(), a_host(cordoned=True), "is cordoned"),
        case(
            "a cordon lets the unit that is here stay",
            "ready",
            needs(),
            a_host("m1", needs(), cordoned=True),
            None,
        ),
        case("who is shut out gets no units", "ready", needs(), a_host(shut_out=True), "is shut out"),
        case(
            "who is shut out keeps the unit that is there",
            "ready",
            needs(),
            a_host("m1", needs(), shut_out=True),
            None,
        ),
        case("a drain does not", "ready", needs(), a_host("m1", needs(), drained=True), "is drained"),
        case(
            "an old copy that still leaves",
            "ready",
            needs(),
            a_host("m2", needs(), leaving=["a.service"]),
            "its old copy is still leaving m2",
        ),
        case("any of its drivers will do", "driver", needs(drivers=("systemd", "process")), a_host(), None),
        case(
            "none of its drivers",
            "driver",
            needs(drivers=("docker",)),
            a_host(drivers=("process",)),
            "needs the docker driver (has process)",
        ),
        case(
            "a machine without drivers",
            "driver",
            needs(),
            a_host(drivers=()),
            "needs the process driver (has none)",
        ),
        case("any value of a key", "metadata", needs_region("eu", "us"), a_host(metadata={"region": "us"}), None),
        case(
            "another value",
            "metadata",
            needs_region("eu"),
            a_host(metadata={"region": "us"}),
            "region=eu not found (has region=us)",
        ),
        case("no value", "metadata", needs_region("eu", "de"), a_host(), "region=eu|de not found (has no region)"),
        case(
            "every key",
            "metadata",
            needs(metadata=(("region", ("eu",)), ("disk", ("ssd",)))),
            a_host(metadata={"region": "eu", "disk": "hdd"}),
            "disk=ssd not found (has disk=hdd)",
        ),
        case(
            "a peer that is here",
            "peers",
            needs(machine_of=("g.service",)),
            a_host("m1", needs("g.service")),
            None,
        ),
        case(
            "a peer that is nowhere",
            "peers",
            needs(machine_of=("g.service",)),
            a_host(),
            "g.service is not placed",
        ),
        case(
            "a peer that is leaving",
            "peers",
            needs(machine_of=("g.service",)),
            a_host("m1", needs("g.service"), leaving=["g.service"]),
            "g.service is not placed",
        ),
        case(
            "one of two peers is not enough",
            "peers",
            needs(machine_of=("g.service", "h.service")),
            a_host("m1", needs("g.service")),
            "h.service is not placed",
        ),
        case(
            "it conflicts with one here",
            "conflicts",
            needs(conflicts=("b*",)),
            a_host("m1", needs("b.service")),
            "conflicts with b.service here",
        ),
        case(
            "one here conflicts with it",
            "conflicts",
            needs(),
            a_host("m1", needs("b.service", conflicts=("a.*",))),
            "conflicts with b.service here",
        ),
        case(
            "a leaving one counts",
            "conflicts",
            needs(conflicts=("b*",)),
            a_host("m1", needs("b.service"), leaving=["b.service"]),
            "conflicts with b.service here",
        ),
        case(
            "several are named by the first and their number",
            "conflicts",
            needs(conflicts=("*",)),
            a_host("m1", needs("d.service"), needs("b.service"), needs("c.service")),
            "conflicts with b.service and 2 more here",
        ),
        case(
            "never with itself",
            "conflicts",
            needs(conflicts=("*",)),
            a_host("m1", needs(conflicts=("*",))),
            None,
        ),
        case(
            "no braces in fleet's globs",
            "conflicts",
            needs(conflicts=("{b,c}.service",)),
            a_host("m1", needs("b.service")),
            None,
        ),
        case(
            "one here replaces it",
            "replaces",
            needs(),
            a_host("m1", needs("b.service", replaces=("a.*",))),
            "is replaced by b.service here",
        ),
        case(
            "it may come to one it replaces",
            "replaces",
            needs(replaces=("b*",)),
            a_host("m1", needs("b.service")),
            None,
        ),
        case(
            "mutual Replaces is ignored",
            "replaces",
            needs(replaces=("b*",)),
            a_host("m1", needs("b.service", replaces=("a*",))),
            None,
        ),
        case(
            "one that leaves replaces nothing",
            "replaces",
            needs(),
            a_host("m1", needs("b.service", replaces=("a*",)), leaving=["b.service"]),
            None,
        ),
        case(
            "a port that is taken",
            "ports",
            needs(host_ports=((8081, "tcp"),)),
            a_host("m1", needs("web@1.service", host_ports=((8081, "tcp"),))),
            "port 8081/tcp is taken by web@1.service",
        ),
        case(
            "a port held by a unit that leaves",
            "ports",
            needs(host_ports=((8081, "tcp"),)),
            a_host("m1", needs("web@1.service", host_ports=((8081, "tcp"),)), leaving=["web@1.service"]),
            "port 8081/tcp is taken by web@1.service",
        ),
        case(
            "the same number of another protocol",
            "ports",
            needs(host_ports=((53, "udp"),)),
            a_host("m1", needs("dns.service", host_ports=((53, "tcp"),))),
            None,
        ),
        case(
            "a container name that is taken",
            "ports",
            needs(container_name="db"),
            a_host("m1", needs("b.service", container_name="db")),
            "container name db is taken by b.service",
        ),
        case(
            "its own port",
            "ports",
            needs(host_ports=((80, "tcp"),)),
            a_host("m1", needs(host_ports=((80, "tcp"),))),
            None,
        ),
        case(
            "too little memory",
            "resources",
            needs(memory=512 * MIB),
            a_host("m1", needs("b.service", memory=4 * GIB - 416 * MIB), capacity=SMALL),
            "memory: 96M short (needs 512M, 416M of 4G left)",
        ),
        case(
            "exactly enough",
            "resources",
            needs(cpu=0.5, memory=512 * MIB),
            a_host("m1", needs("b.service", cpu=3.5, memory=4 * GIB - 512 * MIB), capacity=SMALL),
            None,
        ),
        case(
            "too little of both",
            "resources",
            needs(cpu=1, memory=GIB),
            a_host("m1", needs("b.service", cpu=3.5, memory=4 * GIB), capacity=SMALL),
            "cpu: 0.5 short (needs 1, 0.5 of 4 left), memory: 1G short (needs 1G, 0M of 4G left)",
        ),
        case(
            "a leaving unit keeps what it had",
            "resources",
            needs(cpu=1),
            a_host("m1", needs("b.service", cpu=3.5), leaving=["b.service"], capacity=SMALL),
            "cpu: 0.5 short (needs 1, 0.5 of 4 left)",
        ),
        case(
            "what it has here already counts as free",
            "resources",
            needs(cpu=4),
            a_host("m1", needs(cpu=3), capacity=SMALL),
            None,
        ),
        case(
            "who asks for nothing fits a full machine",
            "resources",
            needs(),
            a_host("m1", needs("b.service", cpu=9, memory=9 * GIB), capacity=SMALL),
            None,
        ),
    ],
)
def test_a_rule(rule: str, unit: Requirements, host: Host, why: str | None) -> None:
    assert ask(rule, unit, host) == why


def test_a_peer_elsewhere_is_named_with_its_machine() -> None:
    here, there = a_host("m1"), a_host("m2", needs("g.service"))
    assert ask("peers", needs(machine_of=("g.service",)), here, there) == "g.service is on m2"


def test_a_peers_newest_placement_is_its_place() -> None:
    old, new = a_host("m1", needs("g.service")), a_host("m2", needs("g.service"))
    follower = needs(machine_of=("g.service",))
    assert ask("peers", follower, new, old) is not None  # a_scene: the last host is the newest
    assert RULE["peers"](follower, new, a_scene(old, new)) is None


def suits(name: str, unit: Requirements, host: Host, why: str | None) -> object:
    return pytest.param(unit, host, why, id=name)


@pytest.mark.parametrize(
    ("unit", "host", "why"),
    [
        suits("nothing speaks against it", needs(), a_host("m1", needs()), None),
        suits("pinned elsewhere", needs(machine_id="m2"), a_host("m1", needs()), "is not machine m2"),
        suits("metadata went", needs_region("eu"), a_host("m1", needs()), "region=eu not found (has no region)"),
        suits("its peer went", needs(machine_of=("g.service",)), a_host("m1", needs()), "g.service is not placed"),
        suits(
            "the later of two in conflict leaves",
            needs("b.service", conflicts=("a*",)),
            a_host("m1", needs("a.service"), needs("b.service", conflicts=("a*",))),
            "conflicts with a.service here",
        ),
        suits(
            "the earlier stays, whoever named the other",
            needs("a.service"),
            a_host("m1", needs("a.service"), needs("b.service", conflicts=("a*",))),
            None,
        ),
        suits(
            "one that leaves already makes nobody leave",
            needs("b.service", conflicts=("a*",)),
            a_host("m1", needs("a.service"), needs("b.service"), leaving=["a.service"]),
            None,
        ),
        suits(
            "another here replaces it",
            needs(),
            a_host("m1", needs(), needs("kick.service", replaces=("a*",))),
            "is replaced by kick.service here",
        ),
        suits("a cordon", needs(), a_host("m1", needs(), cordoned=True), None),
        suits("an absent driver", needs(drivers=("docker",)), a_host("m1", needs(), drivers=()), None),
        suits("too little memory by now", needs(memory=9 * GIB), a_host("m1", needs(), capacity=SMALL), None),
        suits(
            "a port of another",
            needs(host_ports=((80, "tcp"),)),
            a_host("m1", needs(), needs("b.service", host_ports=((80, "tcp"),))),
            None,
        ),
    ],
)
def test_what_makes_a_placed_unit_leave(unit: Requirements, host: Host, why: str | None) -> None:
    assert unsuitable(unit, host, a_scene(host)) == why


def test_of_any_units_in_conflict_drafting_in_name_order_leaves_one() -> None:
    units = [needs(f"c{n}.service", conflicts=("c*",)) for n in range(5)]
    host = a_host("m1", *units)
    scene = a_scene(host)
    for unit in units:
        if unsuitable(unit, host, scene):
            scene.leave(unit.unit, host.id)
    assert host.units.keys() - host.leaving == {"c0.service"}


def test_a_scene_without_the_peers_machine_names_it_by_its_id() -> None:
    host = a_host("m1")
    scene = Scene({host.id: host})
    scene.settle(needs("g.service"), LONG_ID)
    assert RULE["peers"](needs(machine_of=("g.service",)), host, scene) == "g.service is on 01234567"


@pytest.mark.parametrize(
    ("amount", "up", "written"),
    [
        (0, False, "0M"),
        (416 * MIB, False, "416M"),
        (416 * MIB + 1, False, "416M"),
        (416 * MIB + 1, True, "417M"),
        (GIB, False, "1G"),
        (1536 * MIB, False, "1.5G"),
        (1500 * MIB, False, "1500M"),
        (64 * GIB, False, "64G"),
    ],
)
def test_sizes_are_written_as_a_unit_file_would(amount: int, up: bool, written: str) -> None:
    assert size(amount, up=up) == written


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({}, None),
        ({"region": "as"}, None),
        ({"region": "eu"}, "has region=eu"),
        ({"region": "us"}, "has region=us"),
    ],
)
def test_metadata_with_not_equals_refuses_each_of_its_values_and_no_other(
    metadata: dict[str, str], why: str | None
) -> None:
    unit = needs(metadata_not=(("region", ("eu", "us")),))
    host = a_host("m1", metadata=metadata)
    assert ask("metadata", unit, host) == why


def test_a_disk_is_scheduled_against_what_others_reserved() -> None:
    host = a_host("m1", needs("b.service", disk=70 * GIB))  # of 100
    assert ask("resources", needs(disk=30 * GIB), host) is None
    short = ask("resources", needs(disk=31 * GIB), host)
    assert short == "disk: 1G short (needs 31G, 30G of 100G left)"
    assert ask("resources", needs("b.service", disk=100 * GIB), host) is None
    unknown = a_host("m1", capacity=Capacity(cpu=4, memory=GIB))
    assert ask("resources", needs(disk=GIB), unknown) == "disk: what this machine has is not known"
