"""Where a unit goes, and what is said when it can go nowhere."""

from __future__ import annotations

import pytest

from harness.builders import GIB, MIB, a_host, a_machine, a_placement, a_scene, a_unit, a_view, needs
from unit_master.scene import Host, Scene, group_of, scene_of
from unit_master.scheduler import Placed, Refused, in_words, pending_of, place
from unitfleet import names
from unitfleet.model import Capacity, MachineStatus, Requirements, RuleCount, Wanted

SMALL = Capacity(cpu=4, memory=4 * GIB)


def placed(unit: Requirements, scene: Scene) -> Placed:
    decided = place(unit, scene)
    assert isinstance(decided, Placed)
    return decided


def refused(unit: Requirements, scene: Scene) -> Refused:
    decided = place(unit, scene)
    assert isinstance(decided, Refused)
    return decided


def settled(unit: Requirements, scene: Scene) -> str:
    machine = placed(unit, scene).machine
    scene.settle(unit, machine)
    return machine


# ---------------------------------------------------------------------- the choice


def test_the_least_loaded_machine_is_chosen() -> None:
    scene = a_scene(a_host("m1", needs("b.service")), a_host("m2"), a_host("m3", needs("c.service")))
    decided = placed(needs(), scene)
    assert (decided.machine, decided.reason) == ("m2", "least loaded of 3 that fit")
    assert [score.machine for score in decided.scores] == ["m2", "m1", "m3"]


def test_the_load_is_the_most_used_resource_after_placing() -> None:
    much_cpu = a_host("m1", needs("b.service", cpu=3))
    much_memory = a_host("m2", needs("c.service", memory=2 * GIB))
    assert placed(needs(cpu=0.5, memory=MIB), a_scene(much_cpu, much_memory)).machine == "m2"
    assert placed(needs(cpu=0.1, memory=2 * GIB), a_scene(much_cpu, much_memory)).machine == "m1"


def test_a_unit_that_asks_for_nothing_counts_as_a_tenth_of_a_core_and_64_mib() -> None:
    silent = [needs(f"s{n}.service") for n in range(3)]
    scene = a_scene(a_host("m1", *silent), a_host("m2", needs("b.service", cpu=0.2, memory=64 * MIB)))
    assert placed(needs(), scene).machine == "m2"
    assert placed(needs(), scene).scores[0].share == pytest.approx(0.3 / 4)


def test_a_preferred_machine_is_taken_though_it_is_fuller_and_another_one_when_it_does_not_fit() -> None:
    wishes = needs(prefer=(("disk", ("ssd",)),), cpu=1)
    ssd = a_host("m1", needs("b.service", cpu=2), metadata={"disk": "ssd"})
    decided = placed(wishes, a_scene(ssd, a_host("m2")))
    assert (decided.machine, decided.reason) == ("m1", "suits its wishes best of 2 that fit")
    full = a_host("m1", needs("b.service", cpu=4), metadata={"disk": "ssd"})
    assert placed(wishes, a_scene(full, a_host("m2"))).machine == "m2"


def test_the_machine_with_the_fewest_units_to_avoid_is_taken_and_any_when_all_have_some() -> None:
    noisy = a_host("m1", needs("batch-1.service"))
    noisier = a_host("m2", needs("batch-2.service"), needs("batch-3.service"))
    quiet = a_host("m3", *(needs(f"log{n}.service", cpu=1) for n in range(3)))
    wishes = needs(avoid=("batch-*",))
    assert placed(wishes, a_scene(noisy, noisier, quiet)).machine == "m3"
    assert placed(wishes, a_scene(noisy, noisier)).machine == "m1"


def test_spreading_comes_before_wishes() -> None:
    hosts = [
        a_host("m1", needs("ad@1.service"), metadata={"zone": "a", "disk": "ssd"}),
        a_host("m2", metadata={"zone": "b"}),
    ]
    wishes = needs("ad@2.service", spread="zone", prefer=(("disk", ("ssd",)),))
    assert placed(wishes, a_scene(*hosts)).machine == "m2"


def test_wishes_stand_beside_a_score_in_words() -> None:
    wishes = needs(prefer=(("disk", ("ssd",)), ("zone", ("a", "b"))), avoid=("batch-*",))
    scene = a_scene(a_host("m1", needs("batch-1.service"), metadata={"disk": "ssd"}))
    [score] = placed(wishes, scene).scores
    assert in_words(score, wishes, scene)[:3] == (
        "preferred disk=ssd",
        "no zone=a|b as preferred",
        "batch-1.service to avoid",
    )


def test_metadata_not_to_have_stands_in_the_refusal_and_in_the_fix() -> None:
    scene = a_scene(a_host("m1", metadata={"region": "eu"}), a_host("m2", metadata={"region": "eu"}))
    told = refused(needs(metadata_not=(("region", ("eu",)),)), scene)
    assert told.message == "no machine fits: 2 considered: 2 have region=eu"
    assert told.hint == "add a machine without region=eu"


def test_a_disk_that_is_too_full_is_told_with_what_would_fit() -> None:
    told = refused(needs(disk=40 * GIB), a_scene(a_host("m1", needs("b.service", disk=70 * GIB))))
    assert told.message == "no machine fits: 1 considered: 1 short of disk"
    assert told.hint == "m1 would fit with Disk=30G"


def test_a_larger_machine_takes_more() -> None:
    scene = a_scene(a_host("m1", capacity=Capacity(cpu=2, memory=2 * GIB)), a_host("m2", capacity=SMALL))
    machines = [settled(needs(f"u{n}.service", cpu=0.5), scene) for n in range(6)]
    assert machines.count("m2") == 4


def test_equal_machines_are_taken_by_fewest_units_then_by_id() -> None:
    two_small = [needs(f"s{n}.service", cpu=0.1, memory=64 * MIB) for n in range(2)]
    one_big = needs("b.service", cpu=0.2, memory=128 * MIB)
    scene = a_scene(a_host("m1", *two_small), a_host("m2", one_big), a_host("m3", one_big))
    assert placed(needs(), scene).machine == "m2"


def test_a_machine_of_unknown_capacity_is_the_last_choice() -> None:
    scene = a_scene(a_host("m1", capacity=Capacity()), a_host("m2", needs("b.service", cpu=3)))
    decided = placed(needs(), scene)
    assert decided.machine == "m2"
    assert in_words(decided.scores[1], needs(), scene) == ("capacity unknown", "0 other units")


def test_instances_spread_over_the_values_of_a_key_before_load() -> None:
    zones = {"m1": "a", "m2": "a", "m3": "b"}
    scene = a_scene(*(a_host(name, metadata={"zone": zone}) for name, zone in zones.items()))
    units = [needs(f"ad@{n}.service", spread="zone") for n in range(4)]
    assert [settled(unit, scene) for unit in units] == ["m1", "m3", "m2", "m3"]
    decided = placed(needs("ad@9.service", spread="zone"), a_scene(*(_emptied(scene, "m3"))))
    assert (decided.machine, decided.reason) == ("m3", "spreads over zone")


def _emptied(scene: Scene, machine: str) -> list[Host]:
    for unit in list(scene.hosts[machine].units):
        scene.clear(unit, machine)
    return list(scene.hosts.values())


def test_a_unit_that_is_no_instance_has_nothing_to_spread_over() -> None:
    scene = a_scene(
        a_host("m1", metadata={"zone": "a"}), a_host("m2", needs("ad@1.service", cpu=2), metadata={"zone": "b"})
    )
    assert placed(needs("ad.service", spread="zone"), scene).reason == "least loaded of 2 that fit"


def test_siblings_on_lost_machines_do_not_count_for_spread() -> None:
    lost = a_host("m1", metadata={"zone": "a"}, status=MachineStatus.LOST)
    scene = a_scene(lost, a_host("m2", metadata={"zone": "a"}), a_host("m3", needs("x.service", cpu=1)))
    scene.settle(needs("ad@1.service"), "m1")
    assert lost.units == {}
    assert placed(needs("ad@2.service", spread="zone"), scene).machine == "m2"


def test_a_unit_is_no_sibling_of_itself() -> None:
    here = a_host("m1", needs("ad@1.service", spread="zone"), metadata={"zone": "a"})
    scene = a_scene(here, a_host("m2", metadata={"zone": "b"}))
    assert placed(needs("ad@1.service", spread="zone"), scene).machine == "m1"


def test_a_machine_that_already_holds_the_unit_is_a_candidate_and_is_not_charged_twice() -> None:
    unit = needs(cpu=3, memory=3 * GIB, host_ports=((80, "tcp"),), conflicts=("*",), container_name="db")
    decided = placed(unit, a_scene(a_host("m1", unit, capacity=SMALL)))
    assert decided.machine == "m1"
    assert decided.scores[0].share == pytest.approx(0.75)
    assert decided.scores[0].units == 0


@pytest.mark.parametrize(
    ("unit", "hosts", "reason"),
    [
        pytest.param(needs(), ["m1"], "the only machine", id="one machine"),
        pytest.param(needs(machine_id="m2"), ["m1", "m2"], "pinned by MachineID=m2", id="pinned"),
        pytest.param(needs(drivers=("rare",)), ["m1", "m2"], "the only one of 2 that fits", id="one that fits"),
        pytest.param(
            needs(machine_of=("g.service",)), ["m1", "m2"], "together with g.service", id="with its peer"
        ),
    ],
)
def test_a_placement_gives_its_reason(unit: Requirements, hosts: list[str], reason: str) -> None:
    scene = a_scene(*(a_host(name) for name in hosts))
    last = scene.hosts[hosts[-1]]
    last.drivers = (*last.drivers, "rare")
    scene.settle(needs("g.service"), last.id)
    decided = placed(unit, scene)
    assert (decided.machine, decided.reason) == (last.id, reason)


def test_excluded_machines_are_not_considered() -> None:
    scene = a_scene(a_host("m1"), a_host("m2", cordoned=True))
    decided = place(needs(), scene, but=("m1",))
    assert isinstance(decided, Refused)
    assert [refusal.machine for refusal in decided.refusals] == ["m2"]
    assert place(needs(), scene, but=("m1", "m2")) == Refused(
        0, (), "no machine fits: none other is there", "add a machine"
    )


# ---------------------------------------------------------------------- the refusal


def full(name: str, left: int) -> Host:
    return a_host(name, needs(f"big-{name}.service", memory=4 * GIB - left), capacity=SMALL)


EU = (("region", ("eu",)),)


def said(name: str, unit: Requirements, hosts: list[Host], message: str, hint: str) -> object:
    return pytest.param(unit, hosts, f"no machine fits: {message}", hint, id=name)


@pytest.mark.parametrize(
    ("unit", "hosts", "message", "hint"),
    [
        said("no machine", needs(), [], "none has joined yet", "start unit-agent on a host"),
        said(
            "several rules",
            needs(memory=512 * MIB, metadata=EU),
            [
                a_host("m1"),
                a_host("m2"),
                *(
                    a_host(
                        f"m{n}", needs("b.service", memory=4 * GIB - 416 * MIB), capacity=SMALL, metadata=dict(r)
                    )
                    for n, r in [(3, {"region": "eu"}), (4, {"region": "eu"}), (5, {"region": "eu"})]
                ),
            ],
            "5 considered: 3 short of memory, 2 lack region=eu",
            "m3 would fit with Memory=416M",
        ),
        said(
            "the nearest of several that are short",
            needs(memory=512 * MIB),
            [full("m1", 300 * MIB), full("m2", 416 * MIB)],
            "2 considered: 2 short of memory",
            "m2 would fit with Memory=416M",
        ),
        said(
            "far too little left",
            needs(memory=1024 * MIB),
            [full("m1", 16 * MIB)],
            "1 considered: 1 short of memory",
            "free 1008M of Memory on m1 or add a machine",
        ),
        said(
            "larger than any machine",
            needs(memory=64 * GIB, cpu=3),
            [a_host("m1", needs("b.service", cpu=2), capacity=SMALL)],
            "1 considered: 1 short of cpu and memory",
            "m1 would fit with CPU=2 and add a machine with Memory of 64G or more (m1 has 4G)",
        ),
        said(
            "a cordon is near",
            needs(),
            [a_host("m1", status=MachineStatus.LOST), a_host("m2", cordoned=True)],
            "2 considered: 1 is lost, 1 is cordoned",
            "uncordon m2",
        ),
        said(
            "who is shut out is the last to be asked",
            needs(),
            [a_host("m1", shut_out=True)],
            "1 considered: 1 is shut out",
            "let m1 in again or add a machine",
        ),
        said(
            "a cordon is not the only obstacle",
            needs(metadata=EU),
            [a_host("m1", cordoned=True), a_host("m2", drained=True, metadata={"region": "eu"})],
            "2 considered: 1 is cordoned, 1 is drained",
            "undrain m2",
        ),
        said(
            "nobody is heard from",
            needs(),
            [a_host(f"m{n}", status=MachineStatus.SUSPECT, drivers=()) for n in (1, 2)],
            "2 considered: 2 are suspect",
            "wait for m1 to come back",
        ),
        said(
            "all are lost",
            needs(),
            [a_host("m1", status=MachineStatus.LOST)],
            "1 considered: 1 is lost",
            "bring m1 back or add a machine",
        ),
        said(
            "metadata that no machine has",
            needs(metadata=(("region", ("eu", "de")),)),
            [a_host("m1"), a_host("m2", metadata={"region": "us"})],
            "2 considered: 2 lack region=eu|de",
            "add region=eu or region=de to a machine",
        ),
        said(
            "no driver",
            needs(drivers=("docker",)),
            [a_host("m1", drivers=("process",)), a_host("m2", drivers=("process",))],
            "2 considered: 2 have no docker driver",
            "add a machine with the docker driver",
        ),
        said(
            "conflicts on each",
            needs("ad@3.service", conflicts=("ad@*",)),
            [a_host("m1", needs("ad@1.service"), needs("ad@2.service")), a_host("m5", needs("ad@4.service"))],
            "2 considered: 2 hold a unit in conflict with it",
            "stop ad@4.service on m5 or add a machine",
        ),
        said(
            "a conflict that ends by itself",
            needs(conflicts=("b*",)),
            [a_host("m1", needs("b.service"), leaving=["b.service"])],
            "1 considered: 1 holds a unit in conflict with it",
            "wait until b.service has left m1",
        ),
        said(
            "its old copy",
            needs(),
            [a_host("m1", needs(), leaving=["a.service"])],
            "1 considered: 1 is still stopping its old copy",
            "wait until its old copy has left m1",
        ),
        said(
            "a replacer",
            needs(),
            [a_host("m1", needs("b.service", replaces=("a*",)))],
            "1 considered: 1 holds a unit that replaces it",
            "stop b.service on m1 or add a machine",
        ),
        said(
            "a port",
            needs(host_ports=((80, "tcp"),), container_name="db"),
            [a_host("m1", needs("b.service", host_ports=((80, "tcp"),), container_name="db"))],
            "1 considered: 1 has container name db and port 80/tcp taken",
            "stop b.service on m1 or add a machine",
        ),
        said(
            "a peer that is nowhere",
            needs(machine_of=("g.service", "h.service")),
            [a_host("m1", needs("h.service")), a_host("m2")],
            "2 considered: 2 are without g.service and h.service",
            "start g.service first",
        ),
        said(
            "the peer's machine is the one that counts",
            needs(machine_of=("g.service",), conflicts=("g*",)),
            [a_host("m1"), a_host("m2", needs("g.service"))],
            "2 considered: 1 is without g.service, 1 holds a unit in conflict with it",
            "stop g.service on m2",
        ),
        said(
            "peers apart",
            needs(machine_of=("g.service", "h.service")),
            [a_host("m1", needs("g.service")), a_host("m2", needs("h.service"))],
            "2 considered: 2 are without g.service and h.service",
            "put g.service and h.service on one machine",
        ),
        said(
            "pinned to an unknown machine",
            needs(machine_id="m9"),
            [a_host("m1"), a_host("m2")],
            "2 considered: 2 are not machine m9",
            "start the agent of machine m9 or change MachineID=",
        ),
        said(
            "pinned to a machine that is lost",
            needs(machine_id="m2"),
            [a_host("m1"), a_host("m2", status=MachineStatus.LOST)],
            "2 considered: 1 is not machine m2, 1 is lost",
            "bring m2 back",
        ),
    ],
)
def test_a_refusal_explains_itself(unit: Requirements, hosts: list[Host], message: str, hint: str) -> None:
    decided = refused(unit, a_scene(*hosts))
    assert (decided.message, decided.hint) == (message, hint)


def test_the_pending_record_counts_what_each_rule_refused_with_an_example() -> None:
    scene = a_scene(full("m1", 416 * MIB), full("m2", 0), a_host("m3", cordoned=True))
    decided = refused(needs(memory=512 * MIB), scene)
    pending = pending_of(decided, "a.service", 12.5)
    assert pending.refused == (
        RuleCount(rule="ready", machines=1, example="m3: is cordoned"),
        RuleCount(rule="resources", machines=2, example="m1: memory: 96M short (needs 512M, 416M of 4G left)"),
    )
    assert (pending.unit, pending.considered, pending.since) == ("a.service", 3, 12.5)
    assert (pending.message, pending.hint) == (decided.message, decided.hint)


# ---------------------------------------------------------------------- the snapshot


def test_a_scene_is_what_the_store_says() -> None:
    a, b = a_unit("a.service", "Conflicts=b.service"), a_unit("b.service")
    scene = scene_of(
        a_view(
            a_machine("m1", metadata={"zone": "a", "old": "x"}, ordered={"zone": "b", "old": ""}, cordoned=True),
            a_machine("m2", present=False, capacity=SMALL),
            a_machine("m3", status=MachineStatus.LOST),
            a_machine("m4", known=False),
            a_machine("m5", measured=Capacity(cpu=2, memory=GIB), drained=True),
            a,
            b,
            a_placement(a, "m1", epoch=5),
            a_placement(a, "m2", epoch=7),
            a_placement(b, "m1", epoch=9, wanted=Wanted.GONE),
            a_placement(b, "m3", epoch=3),
        )
    )
    m1, m2, m3, m5 = (scene.hosts[name] for name in ("m1", "m2", "m3", "m5"))
    assert set(scene.hosts) == {"m1", "m2", "m3", "m5"}
    assert (m1.status, m2.status, m3.status) == (MachineStatus.READY, MachineStatus.SUSPECT, MachineStatus.LOST)
    assert (m1.metadata, m1.cordoned, m1.drained) == ({"zone": "b"}, True, False)
    assert (m2.drivers, m2.capacity) == ((), SMALL)
    assert (m5.capacity, m5.drained) == (Capacity(cpu=2, memory=GIB), True)
    assert (set(m1.units), m1.leaving) == ({"a.service", "b.service"}, {"b.service"})
    assert m1.units["a.service"].conflicts == ("b.service",)
    assert m3.units == {}
    assert scene.place == {"a.service": "m2", "b.service": "m3"}


def test_a_placed_unit_whose_text_is_unreadable_takes_nothing() -> None:
    unit = a_unit("a.service")
    scene = scene_of(a_view(a_machine(), unit, a_placement(unit, "m1", spec="f" * 64)))
    assert scene.hosts["m1"].units["a.service"] == Requirements(unit="a.service", drivers=())
    assert scene.hosts["m1"].memory_reserved == 0


def test_drafting_keeps_the_sums() -> None:
    host = a_host()
    scene = a_scene(host)
    unit = needs(cpu=1.5, memory=GIB, host_ports=((80, "tcp"),))
    scene.settle(unit, "m1")
    scene.settle(needs(cpu=0.5, memory=MIB), "m1")
    assert (host.cpu_reserved, host.memory_reserved, host.taken) == (0.5, MIB, {})
    scene.settle(unit, "m1")
    scene.leave("a.service", "m1")
    assert (host.cpu_reserved, host.memory_reserved) == (1.5, GIB)
    assert (scene.place, host.leaving, host.taken) == ({}, {"a.service"}, {(80, "tcp"): {"a.service"}})
    scene.clear("a.service", "m1")
    assert (host.cpu_millis, host.memory_reserved, host.cpu_load, host.memory_load) == (0, 0, 0, 0)
    assert (host.units, host.leaving, host.taken) == ({}, set(), {})


def test_a_place_falls_back_to_the_placement_before_when_the_newest_leaves() -> None:
    scene = a_scene(a_host("m1", needs("ad@1.service")), a_host("m2"))
    scene.settle(needs("ad@1.service"), "m2")
    assert scene.place["ad@1.service"] == "m2"
    assert scene.siblings("ad@2.service") == {"m2": 1}
    scene.leave("ad@1.service", "m2")
    assert scene.place["ad@1.service"] == "m1"
    assert scene.siblings("ad@2.service") == {"m1": 1}


def test_drafting_on_an_unknown_machine_moves_the_place_alone() -> None:
    scene = a_scene(a_host("m1"))
    scene.settle(needs("ad@1.service"), "gone-since")
    assert scene.place == {"ad@1.service": "gone-since"}
    assert scene.siblings("ad@2.service") == {}
    scene.clear("ad@1.service", "gone-since")
    assert scene.place == {}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("adserver@1.service", "adserver@.service"),
        ("a@b@c.timer", "a@.timer"),
        ("a.b@1.2.service", "a.b@.service"),
        ("plain.service", ""),
        ("garbage", ""),
        ("gar@bage", ""),
    ],
)
def test_instances_are_grouped_by_their_template(name: str, group: str) -> None:
    assert group_of(name) == group


@pytest.mark.parametrize(
    "name", ["a@1.service", "a@.timer", "a@b@c.service", "a.b@1.c.socket", "a.service", "plain", "a.x@y"]
)
def test_the_group_of_a_unit_is_its_template(name: str) -> None:
    assert group_of(name) == (names.split(name).template if "." in name else "")
