"""What holds of the scheduler whatever the units and machines are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.builders import GIB, MIB, a_host, needs
from unit_master.ranking import Entry, Ranking, choose
from unit_master.rules import RULES, conflicting, unsuitable
from unit_master.scene import Host, Scene
from unit_master.scheduler import Placed, Refused, pending_of, place
from unitfleet.model import Capacity, MachineStatus, Requirements

NAMES = [f"{stem}@{n}.service" for stem in ("ad", "web") for n in range(4)] + ["db.service", "log.service"]
GLOBS = ["ad@*", "web@[12].service", "db.service", "*@3.*", "*", "[broken"]
MACHINES = [f"{n:08x}cafe" for n in range(6)]

names = st.sampled_from(NAMES)
globs = st.lists(st.sampled_from(GLOBS), max_size=2).map(tuple)


@st.composite
def requirements(draw: st.DrawFn, name: str) -> Requirements:
    return needs(
        name,
        drivers=draw(st.sampled_from([("process",), ("docker",), ("systemd", "process")])),
        machine_id=draw(st.sampled_from(["", "", "", "", MACHINES[0], MACHINES[1][:8]])),
        machine_of=draw(st.one_of(st.just(()), st.just(()), st.tuples(names))),
        metadata=draw(st.sampled_from([(), (), (("zone", ("a", "b")),), (("disk", ("ssd",)), ("zone", ("a",)))])),
        metadata_not=draw(st.sampled_from([(), (), (("zone", ("a",)),), (("disk", ("hdd", "ssd")),)])),
        conflicts=draw(st.one_of(st.just(()), globs)),
        replaces=draw(st.one_of(st.just(()), globs)),
        cpu=draw(st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.5])),
        memory=draw(st.sampled_from([0, 64 * MIB, 700 * MIB, 2 * GIB])),
        disk=draw(st.sampled_from([0, 0, GIB, 60 * GIB])),
        host_ports=draw(st.sampled_from([(), (), ((80, "tcp"),), ((80, "udp"), (81, "tcp"))])),
        container_name=draw(st.sampled_from(["", "", "main"])),
        spread=draw(st.sampled_from(["", "zone"])),
        prefer=draw(st.sampled_from([(), (), (("zone", ("b",)),), (("disk", ("ssd",)), ("zone", ("a", "b")))])),
        avoid=draw(st.one_of(st.just(()), globs)),
        priority=draw(st.sampled_from([0, 0, 5, 100])),
    )


@st.composite
def units(draw: st.DrawFn) -> list[Requirements]:
    chosen = draw(st.lists(names, unique=True, min_size=1))
    return [draw(requirements(name)) for name in chosen]


@st.composite
def machines(draw: st.DrawFn) -> list[Host]:
    return [
        a_host(
            f"m{n}",
            id=machine,
            status=draw(st.sampled_from([MachineStatus.READY] * 5 + [MachineStatus.SUSPECT, MachineStatus.LOST])),
            cordoned=draw(st.sampled_from([False] * 4 + [True])),
            drained=draw(st.sampled_from([False] * 4 + [True])),
            metadata=draw(st.sampled_from([{}, {"zone": "a"}, {"zone": "b"}, {"zone": "a", "disk": "ssd"}])),
            drivers=draw(st.sampled_from([("process",), ("docker", "process"), ()])),
            capacity=draw(
                st.sampled_from(
                    [
                        Capacity(cpu=2, memory=2 * GIB),
                        Capacity(cpu=2, memory=2 * GIB, disk=4 * GIB),
                        Capacity(cpu=4, memory=8 * GIB, disk=100 * GIB),
                    ]
                )
            ),
        )
        for n, machine in enumerate(MACHINES[: draw(st.integers(0, len(MACHINES)))])
    ]


def a_copy(hosts: Sequence[Host]) -> Scene:
    """Make a scene of empty hosts in the given order, so that one example can be played twice."""
    return Scene(
        {
            host.id: a_host(
                host.name,
                id=host.id,
                status=host.status,
                cordoned=host.cordoned,
                drained=host.drained,
                metadata=host.metadata,
                drivers=host.drivers,
                capacity=host.capacity,
            )
            for host in hosts
        }
    )


def play(wanted: Sequence[Requirements], scene: Scene) -> list[Placed | Refused]:
    decisions = []
    for unit in wanted:
        decision = place(unit, scene)
        decisions.append(decision)
        if isinstance(decision, Placed):
            scene.settle(unit, decision.machine)
    return decisions


@given(units(), machines())
def test_a_placed_unit_passes_every_rule_and_a_refusal_names_every_machine_once(
    wanted: list[Requirements], hosts: list[Host]
) -> None:
    scene = a_copy(hosts)
    for unit in wanted:
        match place(unit, scene):
            case Placed(machine=machine, scores=scores):
                passing = [
                    host.id
                    for host in scene.hosts.values()
                    if all(rule(unit, host, scene) is None for _, rule in RULES)
                ]
                assert sorted(score.machine for score in scores) == sorted(passing)
                assert machine in passing
                scene.settle(unit, machine)
            case Refused() as refused:
                assert [refusal.machine for refusal in refused.refusals] == sorted(scene.hosts)
                assert refused.considered == len(hosts)
                assert refused.hint
                assert all(refusal.why for refusal in refused.refusals)
                pending = pending_of(refused, unit.unit, 0.0)
                assert sum(count.machines for count in pending.refused) == len(hosts)


@given(units(), machines(), st.randoms(use_true_random=False))
def test_the_order_of_machines_and_of_what_is_on_them_changes_nothing(
    wanted: list[Requirements], hosts: list[Host], random: Random
) -> None:
    first = a_copy(hosts)
    decisions = play(wanted, first)
    shuffled = list(hosts)
    random.shuffle(shuffled)
    again = a_copy(shuffled)
    assert play(wanted, again) == decisions
    rebuilt = a_copy(shuffled)
    for name in sorted(first.place, reverse=True):
        rebuilt.settle(first.hosts[first.place[name]].units[name], first.place[name])
    newcomer = needs("newcomer@1.service", spread="zone", cpu=0.1)
    assert place(newcomer, rebuilt) == place(newcomer, first)


@given(units(), machines(), st.data())
def test_drafts_in_any_order_keep_every_promise(
    wanted: list[Requirements], hosts: list[Host], data: st.DataObject
) -> None:
    scene = a_copy(hosts)
    for unit in [*wanted, *wanted]:
        decision = place(unit, scene)
        if isinstance(decision, Placed) and unit.unit not in scene.hosts[decision.machine].units:
            scene.settle(unit, decision.machine)
        if scene.place and (step := data.draw(st.sampled_from([None, scene.leave, scene.clear]))):
            name = data.draw(st.sampled_from(sorted(scene.place)))
            step(name, scene.place[name])
        for host in scene.hosts.values():
            there = list(host.units.values())
            assert host.cpu_millis == sum(round(other.cpu * 1000) for other in there) <= host.capacity.cpu * 1000
            assert host.memory_reserved == sum(other.memory for other in there) <= host.capacity.memory
            assert host.disk_reserved == sum(other.disk for other in there) <= host.capacity.disk
            assert not any(conflicting(other, host) for other in there)
            ports = Counter(port for other in there for port in other.host_ports)
            assert set(ports.values()) <= {1}
            assert set(host.taken) == {*ports, *(other.container_name for other in there if other.container_name)}
        counted = Counter(
            (name.partition("@")[0], machine) for name, machine in scene.place.items() if "@" in name
        )
        kept = {
            (group.partition("@")[0], machine): count
            for group, by_machine in scene.groups.items()
            for machine, count in by_machine.items()
            if count
        }
        assert counted == kept


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 25))
def test_equal_machines_get_instances_that_differ_by_one_at_most_over_the_key(
    zones: int, each: int, count: int
) -> None:
    hosts = [a_host(f"m{zone}-{n}", metadata={"zone": str(zone)}) for zone in range(zones) for n in range(each)]
    scene = a_copy(hosts)
    play([needs(f"ad@{n}.service", spread="zone") for n in range(count)], scene)
    over = Counter(scene.hosts[machine].metadata["zone"] for machine in scene.place.values())
    figures = [over[str(zone)] for zone in range(zones)]
    assert max(figures) - min(figures) <= 1
    on_hosts = Counter(scene.place.values())
    for zone in range(zones):
        there = [on_hosts[f"m{zone}-{n}"] for n in range(each)]
        assert max(there) - min(there) <= 1


@given(units(), machines())
def test_what_was_just_placed_is_suitable_there(wanted: list[Requirements], hosts: list[Host]) -> None:
    scene = a_copy(hosts)
    for unit in wanted:
        decision = place(unit, scene)
        if isinstance(decision, Placed):
            scene.settle(unit, decision.machine)
            assert unsuitable(unit, scene.hosts[decision.machine], scene) is None


@given(units(), machines(), st.data())
def test_a_ranking_decides_as_the_scheduler_does_whatever_was_drafted(
    wanted: list[Requirements], hosts: list[Host], data: st.DataObject
) -> None:
    scene = a_copy(hosts)
    for number, unit in enumerate(data.draw(st.lists(st.sampled_from(wanted), max_size=24))):
        if data.draw(st.booleans()):  # one more that asks the same
            unit = msgspec.structs.replace(unit, unit=f"more{number}.service")
        but = tuple(data.draw(st.sets(st.sampled_from(MACHINES), max_size=2)))
        decision = place(unit, scene, but=but)
        chosen = choose(unit, scene, but=but)
        if isinstance(decision, Refused):
            assert chosen == decision
            continue
        assert isinstance(chosen, Placed)
        assert (chosen.machine, chosen.reason) == (decision.machine, decision.reason)
        assert chosen.scores[:2] == decision.scores[:2]
        if data.draw(st.booleans()):
            scene.settle(unit, decision.machine)
        if scene.place and (step := data.draw(st.sampled_from([None, scene.leave, scene.clear]))):
            name = data.draw(st.sampled_from(sorted(scene.place)))
            step(name, scene.place[name])


def test_the_next_of_many_that_ask_the_same_judges_what_changed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = a_copy([a_host(f"m{number:03}") for number in range(200)])
    asked: list[int] = []
    judge, build = Ranking._judge, Ranking._build

    def judging(self: Ranking, number: int) -> Entry | None:
        asked.append(number)
        return judge(self, number)

    def building(self: Ranking) -> None:
        asked.extend(range(200))
        build(self)

    monkeypatch.setattr(Ranking, "_judge", judging)
    monkeypatch.setattr(Ranking, "_build", building)
    for number in range(400):
        decided = choose(needs(f"job@{number}.service"), scene)
        assert isinstance(decided, Placed)
        scene.settle(needs(f"job@{number}.service"), decided.machine)
    assert {len(host.units) for host in scene.hosts.values()} == {2}
    assert len(asked) == 200 + 399


def test_a_host_whose_units_name_others_is_asked_about_each_name() -> None:
    wary = a_host("m1", needs("wary.service", conflicts=("job@2.service",)))
    scene = a_copy([a_host("m1"), a_host("m2", drained=True)])
    scene.settle(next(iter(wary.units.values())), "m1")
    decided = choose(needs("job@1.service"), scene)
    assert isinstance(decided, Placed) and decided.machine == "m1"
    assert isinstance(choose(needs("job@2.service"), scene), Refused)
