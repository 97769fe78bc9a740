"""What an agent tells of a unit that it can't make: failed in time, so that another may try, and tried on."""

from __future__ import annotations

from functional.agent_world import RESTARTING, World, story, until
from unit_agent.drivers.fake import Behaviour
from unit_agent.worker import MOST_FAILURES
from unitfleet.model import CopyPhase

UNIT = "a.service"


def test_a_unit_whose_image_can_not_be_had_is_told_as_failed_with_the_cause_and_runs_once_it_can() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours[UNIT] = Behaviour(pull_fails=MOST_FAILURES + 2)
        async with world.agent():
            await world.place(UNIT, text=RESTARTING)
            await world.becomes(UNIT, CopyPhase.FAILED, 30.0)
            state = await world.state(UNIT)
            assert state is not None and state.copy_id == "" and state.active == "failed"
            assert "cannot pull the image of a.service" in state.message and "tries again in" in state.message
            await world.becomes(UNIT, CopyPhase.RUNNING, 300.0)
            assert world.host.running() == {UNIT}

    story(tell)


def test_one_failure_to_make_a_copy_is_not_told_as_failed() -> None:
    async def tell(world: World) -> None:
        world.host.behaviours[UNIT] = Behaviour(pull_fails=MOST_FAILURES - 1)
        seen = set()

        async def runs() -> bool:
            seen.add(await world.phase(UNIT))
            return CopyPhase.RUNNING in seen

        async with world.agent():
            await world.place(UNIT, text=RESTARTING)
            await until(runs, 60.0, f"{UNIT} runs")
        assert CopyPhase.FAILED not in seen

    story(tell)
