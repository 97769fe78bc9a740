"""The fake driver, on which all simulations rest, and Docker's show the same in the same random programs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from contract.docker_rig import DockerRig
from contract.driver_programs import UNITS, Player, Step, difference, programs
from contract.driver_rig import FakeRig
from harness.effort import FEW, examples

pytestmark = pytest.mark.engine

ASIDE = 6
"""Programs that are played at once, each as an agent of its own on the one Engine: they mostly wait."""

WEB = UNITS[1]

SEEN_TO_DIFFER = [
    [Step("run", WEB, "runs, restarts"), Step("crash", WEB), Step("new agent"), Step("crash", WEB)],
    [Step("run", WEB, "dies, restarts"), Step("new agent"), Step("start", WEB), Step("new agent")],
    [Step("run", WEB, "runs, restarts"), Step("fail for good", WEB), Step("new agent")],
]


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
    max_examples=examples(5, 2),
    derandomize=FEW,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # a program takes seconds: it is not made shorter
    suppress_health_check=[HealthCheck.too_slow],
)
@given(together=st.lists(programs, min_size=ASIDE, max_size=ASIDE))
@example(together=SEEN_TO_DIFFER)
def test_the_fake_and_docker_show_an_agent_the_same(
    together: list[list[Step]], docker: DockerRig, runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory: Path = tmp_path_factory.getbasetemp()

    async def play_both(number: int, program: list[Step]) -> str:
        place = f"{number}-"
        fake = await Player(FakeRig(directory), place=place).play(program)
        real = await Player(docker, lambda: docker.driver(f"m{number}"), place).play(program)
        told = difference(fake, real)
        return f"{told}\n{program}" if told else ""

    async def play_all() -> list[str]:
        return await asyncio.gather(*(play_both(number, program) for number, program in enumerate(together)))

    assert not any(told := runner.run(play_all())), "\n".join(told)
