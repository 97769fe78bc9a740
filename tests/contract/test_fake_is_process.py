"""The fake driver, on which simulations rest, and that of processes show the same in the same random programs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from contract.driver_programs import Player, Step, difference, programs
from contract.driver_rig import FakeRig, ProcessRig
from harness.effort import examples


@settings(
    max_examples=examples(15, 3),
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # a program takes seconds: it is not made shorter
    suppress_health_check=[HealthCheck.too_slow],
)
@given(program=programs)
def test_the_fake_and_processes_show_an_agent_the_same(
    program: list[Step], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory: Path = tmp_path_factory.mktemp("programs")

    async def play_both() -> tuple[list[object], list[object]]:
        async with ProcessRig(directory) as processes:
            return await Player(FakeRig(directory)).play(program), await Player(processes).play(program)

    fake, real = asyncio.run(play_both())
    assert not (told := difference(fake, real)), f"{told}\n{program}"
