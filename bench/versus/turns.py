"""Those who are compared take turns on the same hosts: while one works, nothing of the others is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from harness.sites import Lab
from versus import cost
from versus.engine import RawEngine
from versus.lines import Lines
from versus.ours import Fleet
from versus.swarm import Swarm
from versus.witness import Witness


class Contender(Protocol):
    """Somebody who starts containers on the hosts of a lab."""

    who: str

    async def start(self, count: int, network: str) -> None:
        """Have so many containers started over all hosts; returns when that is accepted."""

    async def clear(self) -> None:
        """Remove them all."""

    def pids(self) -> dict[str, list[int]]:
        """Return processes that work besides the Engines, by what they are."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One contender in one setting: `up` founds it and leaves nothing of it."""

    who: str
    name: str
    up: Callable[[Lab], AbstractAsyncContextManager[Contender]]


PLAIN = (
    Setting("engine", "", RawEngine.up),
    Setting("swarm", "", Swarm.up),
    Setting("unitfleet", "", Fleet.up),
)


@dataclass(frozen=True, slots=True)
class Round:
    """What every kind of measurement is given."""

    lab: Lab
    lines: Lines
    counts: Sequence[int]
    networks: Sequence[str]
    seconds: float
    say: Callable[[str], None]


def in_turn(settings: Sequence[Setting], run: int) -> list[Setting]:
    """Return who goes first in this run, and next: nobody is always the first one."""
    first = run % len(settings)
    return [*settings[first:], *settings[:first]]


QUIET_S = 6.0
"""A Swarm goes on making networks for a while after its nodes are ready, and agents look at images."""


@contextlib.asynccontextmanager
async def turn(round: Round, setting: Setting) -> AsyncIterator[tuple[Contender, Witness]]:
    """Have one contender alone on the hosts, seen by a witness."""
    cost.account(round.lab)
    async with setting.up(round.lab) as contender:
        with Witness([round.lab.engines.socket(host) for host in range(round.lab.engines.hosts)]) as witness:
            await asyncio.sleep(QUIET_S)
            yield contender, witness
