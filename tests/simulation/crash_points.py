"""Run each story again with one trouble at one point, for every point: the promises hold, and the end is the same.

points = recorded("start")
hold("start", Perturbation(points[0], Moment.AFTER, Trouble.CRASH))
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Iterator
from enum import Enum

from harness.virtual_time import run_virtual
from simulation.crash_stories import STORIES
from simulation.crash_world import API, CrashWorld
from simulation.taps import Moment, Perturbation, Point, Tap, Trouble

LIMIT_S = 1200.0


class Role(Enum):
    """Whose points they are."""

    LEADER = "leader"
    AGENT = "agent"
    DRIVER = "driver"
    API = "api"

    @staticmethod
    def of(point: Point) -> Role:
        """Return whose a point is."""
        if point.of_driver:
            return Role.DRIVER
        if point.process == API:
            return Role.API
        return Role.LEADER if point.process.startswith("master") else Role.AGENT


@functools.cache
def recorded(story: str) -> tuple[Point, ...]:
    """Return every point of a story, as it goes by itself."""
    tap = Tap()
    run_virtual(_tell(tap, [], story), limit_s=LIMIT_S)
    return tuple(tap.points)


def perturbations(story: str, role: Role, trouble: Trouble) -> Iterator[Perturbation]:
    """Iterate over all that is done to a role's points in a story, in their order."""
    for point in recorded(story):
        if Role.of(point) is role:
            for moment in Moment:
                if moment is Moment.LOST and not point.has_effect:
                    continue  # as if it had never gone out
                yield Perturbation(point, moment, trouble)


def hold(story: str, perturbation: Perturbation) -> None:
    """Tell the story with one trouble in it; raises AssertionError with all that happened if a promise broke."""
    tap, trace = Tap(perturbation), list[str]()
    try:
        run_virtual(_tell(tap, trace, story), limit_s=LIMIT_S)
        assert tap.hit, "the story never came to this point"
    except BaseException as error:
        told = "\n".join(trace)
        raise AssertionError(f"{story}: {perturbation}: {error!r}\n{told}") from error


async def _tell(tap: Tap, trace: list[str], story: str) -> None:
    world, told = CrashWorld(tap), STORIES[story]
    world.trace = trace
    async with world.running():
        await told.first(world)
        world.tap.recording = True
        await told.then(world)
        await world.rest()
        world.tap.recording = False
    broken = [each for each in world.witness.violations if not _is_meant(world, each)] + world.effects
    assert not broken, "; ".join(broken)


def _is_meant(world: CrashWorld, violation: str) -> bool:
    """Whether the witness saw a unit end that was to end by itself, or break before make of a strict one."""
    ends = (f"P7: {unit} was stopped on " for unit in world.ends_by_itself)
    breaks = f"I4: {world.strict} was ordered gone from "
    return breaks in violation or any(end in violation for end in ends)


def table() -> int:
    """Do all of it and print points, runs and seconds of CPU by story; return how many runs broke a promise."""
    logging.disable(logging.CRITICAL)
    broken, sums = 0, [0, 0, 0.0]
    print(f"{'story':<26}{'points':>8}{'runs':>8}{'seconds':>9}")
    for story in STORIES:
        began, runs = time.process_time(), 0
        for role in Role:
            for trouble in Trouble:
                for perturbation in perturbations(story, role, trouble):
                    runs += 1
                    try:
                        hold(story, perturbation)
                    except AssertionError as error:
                        broken += 1
                        print(error, file=sys.stderr)
        line = [len(recorded(story)), runs, time.process_time() - began]
        sums = [a + b for a, b in zip(sums, line, strict=True)]
        print(f"{story:<26}{line[0]:>8}{line[1]:>8}{line[2]:>9.1f}", flush=True)
    print(f"{'all':<26}{sums[0]:>8}{sums[1]:>8}{sums[2]:>9.1f}   {broken} broken")
    return broken


if __name__ == "__main__":
    sys.exit(1 if table() else 0)
