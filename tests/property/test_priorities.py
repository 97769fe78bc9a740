"""Whoever evicts whom, it comes to rest, and then nobody waits who could be placed."""

from __future__ import annotations

from random import Random

import pytest

from harness.builders import GIB, a_machine, a_unit
from harness.effort import examples
from harness.obedient import Obedient
from unit_master.actions import Evict
from unit_master.eviction import evictable, make_room
from unit_master.scene import scene_of
from unitfleet.model import Capacity, TargetState

UNITS = [f"{letter}.service" for letter in "abcdef"]


def play(seed: int) -> Obedient:
    """Let users and operators do this and that on a small fleet, and agents keep up as they can."""
    random = Random(seed)
    machines = [f"m{number}" for number in range(random.randint(1, 4))]
    fleet = Obedient(*(a_machine(m, capacity=Capacity(cpu=random.choice([2, 4]), memory=GIB)) for m in machines))
    for step in range(random.randint(3, 12)):
        name, chance = random.choice(UNITS), random.random()
        if chance < 0.75 or name not in fleet.view.units:
            known = fleet.view.units.get(name)
            wishes = [f"CPU={random.choice(['0.5', '1', '2', '3'])}", f"Priority={random.choice([0, 0, 5, 100])}"]
            if random.random() < 0.2:
                wishes.append(f"Conflicts={random.choice('abcdef')}*")
            if random.random() < 0.15:
                wishes.append("Singleton=strict")
            target = random.choice([TargetState.LAUNCHED] * 4 + [TargetState.LOADED])
            incarnation = known.value.incarnation if known else f"i{step}"
            unit = a_unit(name, "\n".join(wishes), target=target, incarnation=incarnation, generation=step)
            fleet.put(unit)
        elif chance < 0.9:
            fleet.want(name, random.choice([TargetState.INACTIVE, TargetState.DESTROYED, TargetState.LAUNCHED]))
        else:
            fleet.drain(random.choice(machines), random.random() < 0.5)
        for _ in range(random.randint(0, 3)):
            fleet.lead()
            fleet.obey(random, 0.7)
    fleet.rest(random)
    return fleet


@pytest.mark.parametrize("part", range(4))
def test_priorities_come_to_rest_and_nobody_waits_who_could_evict(part: int) -> None:
    evictions = 0
    for seed in range(examples(200, 40)):
        fleet = play(seed * 4 + part)
        assert fleet.overlooked() == [], f"seed {seed * 4 + part}"
        scene = scene_of(fleet.view)
        for name in fleet.view.pending.keys() & fleet.view.units.keys() - scene.live.keys():
            unit = fleet.view.units[name].value
            spec = fleet.view.spec(name, unit.spec)
            if spec is not None and unit.target is TargetState.LAUNCHED and spec.requirements.priority:
                room = make_room(spec.requirements, scene, evictable(fleet.view, ()))
                assert room is None, f"seed {seed * 4 + part}: {name} waits and could have {room}"
        evictions += sum(isinstance(action, Evict) for action in fleet.decided)
    assert evictions, "nobody was evicted: this tried nothing"
