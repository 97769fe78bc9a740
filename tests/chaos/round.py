"""One round: a fault or a pair happens to a rig that is well, commands are given, and all has to become right."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from chaos.faults.fault import Fault
from chaos.rig import Rig
from chaos.witness.processes import Copy
from chaos.witness.witness import Witness

COMMANDS = (1, 3)
STANDS_S = 1.0
"""For how long all has to be right before it counts: what goes on moving is not settled."""

ASK_S = 0.25
UP_S = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a round; seconds since it began. `settled_s` is -1 when it never became right."""

    ended_s: float
    settled_s: float
    violations: list[str]
    moved: list[str]
    commands: dict[str, int]
    restarted: list[str]  # daemons that ended by themselves
    writes_per_s: float  # the most, over ten seconds

    @property
    def held(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations


async def until_right(rig: Rig, witness: Witness, within_s: float) -> tuple[list[str], list[str]]:
    """Wait until all is right and stays so; return what is still wrong, and the daemons that had to be started."""
    started: list[str] = []
    until = time.monotonic() + within_s
    right_since: float | None = None
    while True:
        started += rig.tend()
        wrong = [] if await rig.workload.settle_answers() else ["a command gets no answer"]
        wrong = wrong or await witness.wrong()
        now = time.monotonic()
        if wrong:
            right_since = None
            if now > until:
                return wrong, started
        else:
            right_since = right_since or now
            if now - right_since >= STANDS_S:
                return [], started
        await asyncio.sleep(ASK_S)


async def go(
    rig: Rig, witness: Witness, faults: Sequence[Fault], rng: random.Random, *, bound_s: float = 0.0
) -> Result:
    """Let the faults happen to the rig, which is right, and judge what came of it.

    All has to be right again within `bound_s`; 0: within the longest of the faults' own bounds.
    """
    witness.begin_round()
    rig.workload.begin_round()
    began = time.monotonic()
    gap = rng.uniform(0.1, 0.8) * faults[0].lasts_s if len(faults) > 1 else 0.0
    over_s = max(faults[0].lasts_s, gap + faults[-1].lasts_s)
    async with asyncio.TaskGroup() as tasks:
        for number, fault in enumerate(faults):
            tasks.create_task(_happen(rig, witness, fault, gap if number else 0.0), name=fault.kind)
        for _ in range(rng.randint(*COMMANDS)):
            at = rng.uniform(0.0, max(over_s, 0.5))
            tasks.create_task(_after(at, lambda: rig.workload.command(rng)), name="command")
    ended_s = time.monotonic() - began
    wrong, restarted = await until_right(rig, witness, bound_s or max(fault.settles_s for fault in faults))
    settled_s = time.monotonic() - began - STANDS_S if not wrong else -1.0
    lost, late = witness.lost(), witness.late()

    def excused(copy: Copy) -> bool:
        strict = rig.workload.shapes[copy.unit].strict
        if strict and copy.machine in late:
            return True  # it stops where the store can't confirm it in time, whatever the reason
        return any(fault.excuses(copy, lost) or (strict and fault.stops_strict(copy)) for fault in faults)

    verdict = witness.judge(excused)
    if len(faults) == 1 and faults[0].unnoticed() in lost:
        verdict.violations.append(
            f"I5: {faults[0].target} was declared lost after {faults[0].lasts_s:g} s of silence"
        )
    answers = rig.workload.answers
    return Result(
        ended_s=round(ended_s, 2),
        settled_s=round(settled_s, 2),
        violations=[*wrong, *verdict.violations],
        moved=verdict.moved,
        commands={
            "acknowledged": answers.acknowledged,
            "refused": answers.refused,
            "unclear": answers.unclear,
        },
        restarted=restarted,
        writes_per_s=round(witness.history.busiest, 1),
    )


async def _happen(rig: Rig, witness: Witness, fault: Fault, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await fault.begin(rig, witness)
    await asyncio.sleep(fault.lasts_s)
    await fault.end(rig, witness)


async def _after(seconds: float, do: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    await do()
