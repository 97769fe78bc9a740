"""The promises of the design, over whole clusters on a virtual clock: crashes, cuts, delays, lost answers."""

from __future__ import annotations

import asyncio

import pytest

from harness.effort import examples
from harness.virtual_time import run_virtual
from simulation.rest import leftovers
from simulation.world import UNITS, World
from unit_master.view import ClusterView
from unitfleet.model import TargetState

TROUBLE_S = 25.0
SETTLE_S = 180.0


async def story(seed: int) -> None:
    world = World(seed)
    try:
        async with world.running():
            await asyncio.sleep(3.0)
            for name in UNITS:
                await world.wish(name, TargetState.LAUNCHED)
            end = asyncio.get_running_loop().time() + TROUBLE_S
            while asyncio.get_running_loop().time() < end:
                await asyncio.sleep(world.dice.expovariate(1 / 0.8))
                await world.something_happens()
            await world.heal()
            await settled(world)
        assert world.witness.violations == []
    except BaseException as error:
        told = "\n".join([*world.trace, *world.witness.violations])
        raise AssertionError(f"seed {seed}: {error!r}\n{told}") from error


async def settled(world: World) -> None:
    """Wait until everything is as the user last wished, and stays so."""
    unsettled = ["not looked yet"]
    quiet = 0
    for _ in range(int(SETTLE_S)):
        unsettled = differences(world)
        quiet = 0 if unsettled else quiet + 1
        if quiet >= 3:
            return
        await asyncio.sleep(1.0)
    raise AssertionError("; ".join(unsettled))


def differences(world: World) -> list[str]:
    """What is not as it should be at rest, by the store and by what really runs."""
    view = world.cache.view
    found: list[str] = []
    for name in UNITS:
        wish = world.wishes.get(name)
        runs = sorted(machine.name for machine in world.machines.values() if name in machine.host.running())
        unit = view.units.get(name)
        if wish in (None, TargetState.DESTROYED):
            if unit is not None:
                found.append(f"{name} is never deleted")
        elif unit is None or unit.value.target is not wish:
            found.append(f"I6: the wish {wish} for {name} is lost")
        if wish is not TargetState.LAUNCHED:
            if runs:
                found.append(f"{name} is {wish} and runs on {runs}")
            continue
        if name == "e.service":
            expected = sorted(world.machines)
            if runs != expected:
                found.append(f"global {name} runs on {runs}")
            continue
        if len(runs) > 1 or not (runs or waits_for_its_peer(view, name)):
            found.append(f"{name} runs on {runs}")
            continue
        if waits_for_its_peer(view, name):
            continue  # what still runs of it stays as it is
        for machine in runs:
            copy = world.machines[machine].host.copies[name]
            if unit is not None and (copy.incarnation, copy.restart) != (
                unit.value.incarnation,
                unit.value.restart,
            ):
                found.append(f"I5, I8: {name} on {machine} is not the copy that is wanted")
    places = {name: [m.name for m in world.machines.values() if name in m.host.running()] for name in UNITS}
    if set(places["a.service"]) & set(places["b.service"]):
        found.append("I7: two units in conflict run on one machine")
    if places["c.service"] and places["d.service"] and places["c.service"] != places["d.service"]:
        found.append("I7: MachineOf does not hold")
    return found + leftovers(view, lambda unit: waits_for_its_peer(view, unit))


def waits_for_its_peer(view: ClusterView, name: str) -> bool:
    """Whether it follows a unit that is on no machine: it may run where it was, and is placed nowhere anew."""
    return name == "d.service" and not view.placements_of("c.service")


GROUP = examples(20, 8)


@pytest.mark.parametrize("first", range(0, examples(200, 8), GROUP))
def test_clusters_in_trouble_keep_every_promise(first: int) -> None:
    for seed in range(first, first + GROUP):
        run_virtual(story(seed), limit_s=600)
