"""The host of the leader loses its power: until a scale is taken, until it runs, until all runs again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence

from versus.cost import Meter
from versus.failover import boot, power_off
from versus.ours import Fleet, wishes
from versus.starts import round_s
from versus.swarm import Swarm
from versus.turns import Round, Setting, turn

MANAGERS = 3
UNITS, SCALED = 20, 24
WITHIN_S = 150.0
ATTEMPT_S = 0.25
SETTLED_S = 3.0

SETTINGS = (
    Setting("unitfleet", "default", functools.partial(Fleet.up, masters=MANAGERS, hosted=True)),
    Setting("swarm", "default", functools.partial(Swarm.up, managers=MANAGERS)),
)


async def leader(round: Round, setting: Setting) -> None:
    """Cut the power of the leader's host; ask the other two in turn for more, each 0.25 s."""
    async with turn(round, setting) as (contender, witness):
        await contender.start(UNITS, "host")
        await witness.see(UNITS, 60)
        await asyncio.sleep(SETTLED_S + random.uniform(0, 5))
        attempts: list[Callable[[], None]]
        store = False
        if isinstance(contender, Fleet):
            leads = await contender.leader()
            assert leads is not None, "no master leads"
            number = contender.masters.index(leads)
            doomed = contender.on_hosts[number]
            store = contender.etcd.members.index(await contender.etcd.leader()) == doomed
            more = wishes(UNITS + 1, SCALED, "host")
            others = [each for each in range(MANAGERS) if each != number]
            attempts = [functools.partial(contender.ask_for, each, more) for each in others]
        else:
            assert isinstance(contender, Swarm)
            doomed = await asyncio.to_thread(contender.leader)
            others = [each for each in range(MANAGERS) if each != doomed]
            attempts = [functools.partial(contender.scale, each, SCALED) for each in others]
        lost = witness.on(doomed)
        meter, began = Meter(round.lab, contender.pids()), time.time()
        await power_off(round, contender, witness, doomed)
        accepted = await _accepted(attempts)
        works = await witness.see(SCALED - lost, WITHIN_S)
        whole = await witness.see(SCALED, WITHIN_S)
        figures = {"seconds": works - began, "accepted_s": accepted - began, "whole_s": whole - began}
        round.lines.write(
            "leader",
            setting.who,
            setting.name,
            UNITS,
            **{name: round_s(value) for name, value in figures.items()},
            lost=lost,
            store_leader_too=store or setting.who == "swarm",
            foreign_cores=meter.read().foreign_cores,
        )
        said = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
        round.say(f"  {setting.who}: {said}")
        await boot(round, doomed)


async def _accepted(attempts: Sequence[Callable[[], None]]) -> float:
    """Ask by turns, without waiting for an answer; return when the first one was granted."""
    loop = asyncio.get_running_loop()
    granted: asyncio.Future[float] = loop.create_future()

    def grant(at: float) -> None:
        if not granted.done():
            granted.set_result(at)

    def attempt(ask: Callable[[], None]) -> None:
        try:
            ask()
        except (OSError, RuntimeError, http.client.HTTPException):
            return
        at = time.time()
        with contextlib.suppress(RuntimeError):  # the bench has ended: nobody waits any more
            loop.call_soon_threadsafe(grant, at)

    async with asyncio.timeout(WITHIN_S):
        for ask in itertools.cycle(attempts):
            # a thread for each: one that gets no answer keeps none of the others waiting
            threading.Thread(target=attempt, args=(ask,), daemon=True).start()
            await asyncio.wait([granted], timeout=ATTEMPT_S)
            if granted.done():
                break
    return granted.result()
