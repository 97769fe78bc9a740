"""From the silent power-off of a host with 4 of 20 containers until 20 run again."""

from __future__ import annotations

import asyncio
import functools
import random
import time

from unitfleet.profiles import Profile
from versus.cost import Meter
from versus.ours import Fleet
from versus.starts import round_s
from versus.swarm import Swarm
from versus.turns import Contender, Round, Setting, turn
from versus.witness import Witness

UNITS = 20
WITHIN_S = 120.0
SETTLED_S = 3.0

SETTINGS = (
    *(Setting("unitfleet", each.value, functools.partial(Fleet.up, profile=each.value)) for each in Profile),
    Setting("swarm", "default", Swarm.up),
    Setting("swarm", "heartbeat 1 s", functools.partial(Swarm.up, heartbeat_s=1.0)),
    Setting(
        "swarm",
        "heartbeat 1 s, no restart delay",
        functools.partial(Swarm.up, heartbeat_s=1.0, restart_delay_s=0.0),
    ),
)


async def failover(round: Round, setting: Setting) -> None:
    """Cut the power of any host but the first, where Swarm's manager is."""
    doomed = random.randrange(1, round.lab.engines.hosts)
    async with turn(round, setting) as (contender, witness):
        await contender.start(UNITS, "host")
        await witness.see(UNITS, 60)
        lost = witness.on(doomed)
        # at any moment between two heartbeats
        await asyncio.sleep(SETTLED_S + random.uniform(0, 5))
        meter, began = Meter(round.lab, contender.pids()), time.time()
        await power_off(round, contender, witness, doomed)
        last = await witness.see(UNITS, WITHIN_S)
        spent = meter.read()
        round.lines.write(
            "failover",
            setting.who,
            setting.name,
            UNITS,
            seconds=round_s(last - began),
            lost=lost,
            foreign_cores=spent.foreign_cores,
        )
        round.say(f"  {setting.who} {setting.name}: {last - began:.2f} s for {lost} lost")
        await boot(round, doomed)


async def power_off(round: Round, contender: Contender, witness: Witness, host: int) -> None:
    """End everything on a host at once, unplugged first; returns when the witness knows, in a moment."""
    if isinstance(contender, Fleet):
        await contender.power_off(contender.machines[host])
    else:
        await round.lab.cut(host)
        round.lab.power_off(host)
    while witness.on(host):  # noqa: ASYNC110 (the stream of its Engine ends)
        await asyncio.sleep(0.01)


async def boot(round: Round, host: int) -> None:
    """Start a host again that was powered off, without an agent."""
    await round.lab.heal(host)
    round.lab.boot(host)
