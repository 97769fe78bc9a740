"""What everybody takes while 100 containers run and nothing happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import psutil

from versus import cost
from versus.turns import Contender, Round, Setting, turn

_PROGRAMS = {"dockerd": "dockerd", "containerd": "containerd", "containerd-shim": "shims"}


async def idle(round: Round, setting: Setting) -> None:
    """Start containers, wait for quiet, and look for a while: sums over all hosts."""
    [count] = round.counts
    async with turn(round, setting) as (contender, witness):
        await contender.start(count, "host")
        await witness.see(count, 120)
        await asyncio.sleep(10)
        pids = programs(round, contender)
        before, engines, began = _cpu(pids), cost.engines_cpu_s(round.lab), time.monotonic()
        meter = cost.Meter(round.lab, contender.pids())
        await asyncio.sleep(round.seconds)
        took = time.monotonic() - began
        cpu = {who: _percent(used - before[who], took) for who, used in _cpu(pids).items()}
        rss = {who: round_mb(held) for who, held in pids.items()}
        whole = _percent(cost.engines_cpu_s(round.lab) - engines, took)
        round.lines.write(
            "idle",
            setting.who,
            "host",
            count,
            seconds=round.seconds,
            cpu_percent={**cpu, "engines in all": whole},
            rss_mb=rss,
            foreign_cores=meter.read().foreign_cores,
        )
        round.say(f"  {setting.who}: CPU % {cpu}, engines {whole}; RSS MB {rss}")


def programs(round: Round, contender: Contender) -> dict[str, list[int]]:
    """Return the processes of each program, of the Engines and of the contender."""
    found: dict[str, list[int]] = {name: [] for name in _PROGRAMS.values()}
    for host in range(round.lab.engines.hosts):
        for pid in cost.daemons(round.lab, host):
            # the kernel cuts a name after 15 characters
            name = psutil.Process(pid).name()
            program = "containerd-shim" if name.startswith("containerd-sh") else name
            if program in _PROGRAMS:
                found[_PROGRAMS[program]].append(pid)
    return found | contender.pids()


def round_mb(pids: Sequence[int]) -> float:
    """Return the resident memory of all these, in 10^6 bytes."""
    return round(sum(psutil.Process(pid).memory_info().rss for pid in pids) / 1e6, 1)


def _cpu(pids: Mapping[str, Sequence[int]]) -> dict[str, float]:
    found = {}
    for who, held in pids.items():
        times = [psutil.Process(pid).cpu_times() for pid in held]
        found[who] = sum(each.user + each.system for each in times)
    return found


def _percent(cpu_s: float, seconds: float) -> float:
    return round(cpu_s / seconds * 100, 2)
