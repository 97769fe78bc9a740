"""The fake driver, on which all simulations rest, and Docker's show the same in the same random programs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from contract.docker_rig import DockerRig
from contract.driver_programs import Player, Step, difference, programs
from contract.driver_rig import FakeRig
from harness.effort import examples

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, runner: asyncio.Runner) -> Iterator[DockerRig]:
    rig = DockerRig(tmp_path_factory.mktemp("docker"))
    runner.run(rig.__aenter__())
    try:
        yield rig
    finally:
        runner.run(rig.__aexit__(None, None, None))


@settings(
    max_examples=examples(12, 4),
    derandomize=True,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # a program takes seconds: it is not made shorter
    suppress_health_check=[HealthCheck.too_slow],
)
@given(program=programs)
def test_the_fake_and_docker_show_an_agent_the_same(
    program: list[Step], docker: DockerRig, runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory: Path = tmp_path_factory.getbasetemp()

    async def play_both() -> tuple[list[object], list[object]]:
        return await Player(FakeRig(directory), forgets=True).play(program), await Player(
            docker, forgets=True
        ).play(program)

    fake, real = runner.run(play_both())
    assert not (told := difference(fake, real)), f"{told}\n{program}"
