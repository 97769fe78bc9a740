"""Units that fail on some hosts, in clusters in trouble: they end up where they can run, in one copy each."""

from __future__ import annotations

import asyncio

import pytest

from harness.effort import examples
from harness.virtual_time import run_virtual
from simulation.test_promises import TROUBLE_S, settled
from simulation.world import UNITS, World
from unit_agent.drivers.fake import Behaviour
from unit_agent.restart import Exit
from unitfleet.api import Change
from unitfleet.model import CopyPhase, TargetState

TEXT = """[Unit]
StartLimitIntervalSec=20
StartLimitBurst=3
[Service]
ExecStart=/bin/ad
Restart=always
[X-Fleet]
"""
CURSED = ("b.service", "c.service")


class Failing(World):
    """A world in which two of four hosts can't run `CURSED`: it crashes there, or is never made."""

    def curse(self) -> list[str]:
        hosts = self.dice.sample(sorted(self.machines), 2)
        for name in hosts:
            for unit in CURSED:
                crashes = Behaviour(run_s=self.dice.choice((0.01, 0.3)), exit=Exit(3))
                self.machines[name].host.behaviours[unit] = self.dice.choice(
                    (crashes, Behaviour(pull_fails=10**9))
                )
        self.say(f"{' and '.join(hosts)} can't run {' or '.join(CURSED)}")
        return hosts

    async def wish(self, name: str, target: TargetState | None, *, restart: bool = False) -> None:
        text = TEXT + UNITS[name] if target not in (None, TargetState.DESTROYED) else None
        change = Change(name=name, text=text, target=target, restart=restart)
        (result,) = (await self._changer.carry_out([change])).items
        said = result.error.message if result.error else "ok"
        self.say(f"user: {name} {'restart' if restart else target}: {said}")
        if result.error is None and target is not None:
            self.wishes[name] = target


async def story(seed: int) -> None:
    world = Failing(seed)
    hosts = world.curse()
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
            await asyncio.sleep(60.0)  # what crashed in the trouble has its start limit behind it
            for (
                name
            ) in UNITS:  # a unit that was stopped, or failed on three hosts in the trouble, is asked for anew
                if world.wishes.get(name) is TargetState.LAUNCHED and has_failed(world, name):
                    await world.wish(name, TargetState.LAUNCHED)
            await settled(world)
            for name in CURSED:
                runs = [machine for machine in hosts if name in world.machines[machine].host.running()]
                assert not runs, f"{name} runs on {runs}"
        assert [told for told in world.witness.violations if not is_curse(told, hosts)] == []
    except BaseException as error:
        told = "\n".join([*world.trace, *world.witness.violations])
        raise AssertionError(f"seed {seed}: {error!r}\n{told}") from error


def is_curse(violation: str, hosts: list[str]) -> bool:
    """Whether the witness saw a unit end that was cursed to."""
    return any(f"P7: {unit} was stopped on {host} " in violation for unit in CURSED for host in hosts)


def has_failed(world: World, name: str) -> bool:
    states = world.cache.view.states_of(name).values()
    return any(entry.value.phase is CopyPhase.FAILED for entry in states)


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_clusters_with_hosts_that_fail_their_units_come_to_rest_elsewhere(first: int) -> None:
    for seed in range(first, first + examples(10, 2)):
        run_virtual(story(seed), limit_s=3600)
