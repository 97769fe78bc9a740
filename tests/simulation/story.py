"""One seed's story: a fleet comes up, its user wishes, misfortunes happen, all heals and comes to rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from unittest import mock

from harness.processes import ProcessLoop
from harness.virtual_time import NeverRests, run_virtual
from simulation import misfortunes
from simulation.fleet import Fleet
from simulation.mixes import ANY, MIXES
from simulation.rest import settled
from unitfleet import accept
from unitfleet.model import TargetState
from unitfleet.spec import UnitSpec

VERSION = 5
"""Of the simulation: a seed tells the same story as long as this, and what it tells of, is the same."""

LIMIT_S = 900.0


@dataclass(slots=True)
class Told:
    """What a story was: `violations` is empty when every promise was kept, `trace` says what happened."""

    seed: int
    kind: str = ANY
    faults: Counter[str] = field(default_factory=Counter)
    commands: int = 0
    virtual_s: float = 0.0
    violations: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed} of {self.kind}", *self.trace, *self.violations])


def tell(seed: int, kind: str = ANY) -> Told:
    """Run the story of a seed, of one of `MIXES`; raises KeyError for a kind nobody knows."""
    told = Told(seed, kind)
    with quick():
        try:
            run_virtual(_story(told), limit_s=LIMIT_S, loop=ProcessLoop)
        except Exception as error:
            told.violations.append(_in_words(error))
    return told


@lru_cache(maxsize=256)
def _read_once(name: str, text: str) -> UnitSpec:
    return accept.read(name, text)


def _read(name: str, text: str, *, host: Mapping[str, str] | None = None) -> UnitSpec:
    """Read a text, once for all hosts: those of a simulation have no specifiers."""
    return _read_once(name, text)


def _in_words(error: BaseException) -> str:
    """Return an exception with where it came from; of a group the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, AssertionError):
        return str(error)
    if isinstance(error, NeverRests):
        return f"I9: {error}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error!r} at {Path(where.filename).name}:{where.lineno}"


async def _story(told: Told) -> None:
    mix = MIXES[told.kind]
    fleet = Fleet(told.seed, mix.always)
    dice = fleet.dice
    loop = asyncio.get_running_loop()
    told.trace, told.violations = fleet.trace, fleet.witness.violations
    try:
        async with fleet.running():
            await asyncio.sleep(dice.choice((0.5, 3.0)))
            for kind in fleet.units:
                await fleet.wish(kind.name, TargetState.LAUNCHED)
            what = mix.theme(fleet)
            end = loop.time() + dice.choice(mix.lasts_s)
            pace = dice.choice(mix.pace_s)
            while loop.time() < end:
                await asyncio.sleep(dice.expovariate(1 / pace))
                await misfortunes.something_happens(fleet, what)
            await fleet.heal()
            await settled(fleet)
    finally:
        told.faults, told.commands, told.virtual_s = fleet.faults, fleet.commands, loop.time()


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Spend no time on what is the same each time: a text is read once, and nothing is logged."""
    former = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        patched = ("unit_agent.texts.read", "unit_agent.texts.read_kept", "unit_master.view.read_kept")
        with contextlib.ExitStack() as stack:
            for name in patched:
                stack.enter_context(mock.patch(name, _read))
            yield
    finally:
        logging.disable(former)
