"""How long until so many containers run, and what each costs; and a thousand of them with the load they make."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from versus.cost import Meter
from versus.turns import Contender, Round, Setting, turn
from versus.witness import Witness

PACE_S = 1.0
"""Nobody starts fewer containers a second, whatever the load: a bound, not an aim."""

SETTLED_S = 1.0
"""What is done for a container after it started, reports and events, is counted to its cost."""


async def starts(round: Round, setting: Setting) -> None:
    """Start each number of containers with each network, one after the other."""
    async with turn(round, setting) as (contender, witness):
        for network in round.networks:
            for count in round.counts:
                figures = await _timed(contender, witness, network, count, round)
                round.lines.write("starts", setting.who, network, count, **figures)
                round.say(f"  {setting.who}: {count} containers, {network} network: {figures['seconds']:.2f} s")
                await contender.clear()
                await asyncio.sleep(1)


async def big(round: Round, setting: Setting) -> None:
    """Start many, and look at the machine meanwhile."""
    async with turn(round, setting) as (contender, witness):
        for count in round.counts:
            watch = asyncio.create_task(_machine(round, witness))
            try:
                figures = await _timed(contender, witness, "host", count, round)
            finally:
                watch.cancel()
                [seen] = await asyncio.gather(watch, return_exceptions=True)
            if isinstance(seen, BaseException):
                raise seen
            round.lines.write("big", setting.who, "host", count, **figures, **seen)
            round.say(f"  {setting.who}: {count} containers: {figures['seconds']:.1f} s, load {seen['peak_load']}")


async def _timed(contender: Contender, witness: Witness, network: str, count: int, round: Round) -> dict[str, Any]:
    meter = Meter(round.lab, contender.pids())
    began = time.time()
    handed = asyncio.create_task(contender.start(count, network))
    seen = asyncio.create_task(witness.see(count, 60 + count / PACE_S))
    try:
        done, _ = await asyncio.wait((handed, seen), return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        handed.cancel()
        seen.cancel()
    foreign_cores = meter.read().foreign_cores  # what others take afterwards disturbs nobody
    await asyncio.sleep(SETTLED_S)
    return {
        "seconds": round_s(seen.result() - began),
        "cpu_ms": meter.read().ms_each(count),
        "foreign_cores": foreign_cores,
    }


async def _machine(round: Round, witness: Witness) -> dict[str, float]:
    """Follow the machine until cancelled: its highest load, its least memory."""
    load, free, said = 0.0, float("inf"), 0
    try:
        while True:
            load = max(load, os.getloadavg()[0])
            free = min(free, _available_mb())
            if witness.count() >= said + 100:
                said = witness.count()
                round.say(f"    {said} run, load {os.getloadavg()[0]:.0f}")
            await asyncio.sleep(1)
    except asyncio.CancelledError:
        return {"peak_load": load, "least_memory_mb": free}


def _available_mb() -> float:
    [line] = [each for each in Path("/proc/meminfo").read_text().splitlines() if each.startswith("MemAvailable")]
    return int(line.split()[1]) // 1000


def round_s(seconds: float) -> float:
    """Return seconds as they are written."""
    return float(f"{seconds:.3f}")
