"""The steady workload of a run, and the ledger of what its user was answered.

Each text asks for `sleep N` with an N of its own, so that /proc alone tells which text a copy runs.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.image import IMAGE
from unitctl.client import Api
from unitctl.failures import Unreachable
from unitfleet.api import Change
from unitfleet.errors import OutcomeUnknown, StoreUnavailable, UnitfleetError
from unitfleet.model import TargetState

_UNCLEAR = ("unavailable", "unknown_outcome", "full")

SECRET = "canary"


@dataclass(frozen=True, slots=True)
class Shape:
    """How a unit looks: `text` takes its number; `commanded`: the user does things to it while faults last."""

    name: str
    text: Callable[[int], str]
    commanded: bool = False
    everywhere: bool = False
    once: bool = False  # a oneshot: it has run, and runs no more
    strict: bool = False
    container: bool = True
    peer: str = ""  # the unit that it goes with


@dataclass(slots=True)
class Wanted:
    """What the user was told about one unit: its target, and the number in its text."""

    target: TargetState
    number: int


def _container(section: str = "", container: str = "") -> Callable[[int], str]:
    def text(number: int) -> str:
        return (
            f"[Container]\nImage={IMAGE}\nExec=sleep {number}\nNetwork=host\nPull=never\nStopSignal=SIGKILL\n"
            f"{container}\n[Service]\nRestart=always\nRestartSec=200ms\n\n[X-Fleet]\n{section}"
        )

    return text


def _process(section: str = "") -> Callable[[int], str]:
    def text(number: int) -> str:
        return (
            f"[Service]\nExecStart=/bin/sleep {number}\nRestart=always\nRestartSec=200ms\n\n[X-Fleet]\n{section}"
        )

    return text


def _oneshot(mark: Path) -> Callable[[int], str]:
    def text(number: int) -> str:
        return f"[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo {number} >> {mark}'\n"

    return text


def shapes(mark: Path) -> list[Shape]:
    """Return the units of a run; the oneshot leaves a line in `mark` each time it runs."""
    found = [Shape(f"ad@{n}.service", _container("Spread=rack\n")) for n in range(1, 5)]
    found += [Shape(f"alone@{n}.service", _container("Conflicts=alone@*\n")) for n in range(1, 4)]
    found += [Shape(f"proc@{n}.service", _process("Spread=rack\n"), container=False) for n in range(1, 5)]
    found += [
        Shape("peer.service", _container("MachineOf=ad@1.service\n"), peer="ad@1.service"),
        Shape("everywhere.service", _container("Global=true\n"), everywhere=True),
        Shape("stays.service", _container("OnMachineLoss=wait\n")),
        Shape("secretive.service", _container(container=f"Secret={SECRET}\n")),
        Shape("once.service", _oneshot(mark), once=True, container=False),
        Shape("only@1.service", _container("Singleton=strict\n"), strict=True),
        Shape("only@2.service", _container("Singleton=strict\n"), strict=True),
        Shape("sole.service", _process("Singleton=strict\n"), strict=True, container=False),
    ]
    found += [Shape(f"busy@{n}.service", _container(), commanded=True) for n in range(1, 4)]
    found += [Shape("busyproc.service", _process(), commanded=True, container=False)]
    found += [Shape("busyonly.service", _container("Singleton=strict\n"), commanded=True, strict=True)]
    return found


@dataclass(slots=True)
class Answers:
    """How many commands were answered how, since the start of a round."""

    acknowledged: int = 0
    refused: int = 0
    unclear: int = 0


class Workload:
    """Gives commands as a user would, and remembers each answer.

    `given` are the units of this round's commands, `renewed` those that must run as another process for it.
    """

    def __init__(self, api: Callable[[], Api], found: list[Shape]) -> None:
        self._api = api
        self._numbers: Iterator[int] = itertools.count(100001)
        self.shapes = {shape.name: shape for shape in found}
        self.wanted: dict[str, Wanted] = {}
        self.unclear: dict[str, Wanted] = {}  # asked and not answered: it may be this, or as before
        self.given: set[str] = set()
        self.renewed: set[str] = set()
        self.answers = Answers()
        self.violations: list[str] = []
        self.told: list[str] = []
        self._turn = asyncio.Lock()  # a user gives one command after the other: each builds on the last answer

    async def begin(self) -> None:
        """Start every unit."""
        changes = []
        for shape in self.shapes.values():
            number = next(self._numbers)
            changes.append(_change(shape, number, TargetState.LAUNCHED))
            self.wanted[shape.name] = Wanted(TargetState.LAUNCHED, number)
        answer = await asyncio.to_thread(self._api().change, changes)
        refused = [f"{item.name}: {item.error.message}" for item in answer.items if item.error]
        assert not refused, refused

    def begin_round(self) -> None:
        """Forget the commands of the round before."""
        self.given.clear()
        self.renewed.clear()
        self.told.clear()
        self.violations.clear()
        self.answers = Answers()

    async def command(self, rng: random.Random) -> None:
        """Do something to one of the units that are there for it."""
        async with self._turn:
            shape = rng.choice([shape for shape in self.shapes.values() if shape.commanded])
            if shape.name in self.unclear:
                return
            wanted = self.wanted[shape.name]
            if wanted.target is TargetState.LAUNCHED:
                kind = rng.choice(("restart", "stop", "text", "anew"))
            else:
                kind = rng.choice(("start", "text", "anew"))
            await self._do(shape, kind)

    async def settle_answers(self) -> bool:
        """Give what was not answered again; tell whether everything is answered now."""
        for name, asked in list(self.unclear.items()):
            shape = self.shapes[name]
            change = _change(shape, asked.number, asked.target)
            answer = await self._ask(change)
            if answer is True:
                self.wanted[name] = asked
                del self.unclear[name]
            elif answer is False:
                self.violations.append(f"I3: {self.told[-1]} for a command that was not answered before")
                del self.unclear[name]
        return not self.unclear

    async def repeat(self, names: set[str]) -> None:
        """Give the orders of a time that the store has forgotten again."""
        for name in sorted(names):
            wanted = self.wanted[name]
            if await self._ask(_change(self.shapes[name], wanted.number, wanted.target)) is not True:
                self.unclear[name] = Wanted(wanted.target, wanted.number)

    async def restart(self, name: str) -> bool:
        """Restart one unit, by the operator; tells whether it was acknowledged."""
        self.given.add(name)
        return await self._ask(Change(name=name, restart=True)) is True

    async def _do(self, shape: Shape, kind: str) -> None:
        wanted = self.wanted[shape.name]
        self.given.add(shape.name)
        asked = Wanted(TargetState.LAUNCHED, wanted.number)
        changes = [Change(name=shape.name, target=TargetState.LAUNCHED)]
        match kind:
            case "restart":
                changes = [Change(name=shape.name, restart=True)]
            case "stop":
                asked.target = TargetState.LOADED
                changes = [Change(name=shape.name, target=TargetState.LOADED)]
            case "text":
                asked.number = next(self._numbers)
                changes = [_change(shape, asked.number, TargetState.LAUNCHED)]
            case "anew":
                asked.number = next(self._numbers)
                changes = [
                    Change(name=shape.name, target=TargetState.DESTROYED),
                    _change(shape, asked.number, TargetState.LAUNCHED),
                ]
        for change in changes:
            answer = await self._ask(change)
            if answer is None:
                self.unclear[shape.name] = asked
                return
            if answer is False:
                if change is not changes[0]:  # destroyed, and not made anew: the user asks until it is there
                    self.unclear[shape.name] = asked
                return
        self.wanted[shape.name] = asked
        self.renewed.add(shape.name)

    async def _ask(self, change: Change) -> bool | None:
        """Send one wish: True when it was acknowledged, False when refused, None when that can't be told."""
        verb = "restart" if change.restart else f"{change.target}{' text' if change.text else ''}"
        try:
            answer = await asyncio.to_thread(self._api().change, [change])
            [item] = answer.items
            said = "acknowledged" if item.error is None else f"{item.error.code}: {item.error.message}"
            result = True if item.error is None else None if item.error.code in _UNCLEAR else False
        except (Unreachable, OutcomeUnknown, StoreUnavailable) as error:
            said, result = f"unclear: {error}", None
        except UnitfleetError as error:
            said, result = f"refused: {error}", False
        self.told.append(f"{verb} {change.name}: {said}")
        if result is None:
            self.answers.unclear += 1
        elif result:
            self.answers.acknowledged += 1
        else:
            self.answers.refused += 1
        return result


def _change(shape: Shape, number: int, target: TargetState) -> Change:
    file = shape.name.replace(".service", ".container") if shape.container else shape.name
    text = shape.text(number)
    return Change(name=shape.name, text=text, replace=True, target=target, file=file)
