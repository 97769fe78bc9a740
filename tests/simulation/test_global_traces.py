"""Global units in the protocol: the model's shortest traces, with the real decisions."""

from __future__ import annotations

from harness.steps import Steps

A = "a.service"


async def test_a_global_unit_runs_on_a_machine_that_joins_and_its_copy_of_a_removed_one_goes() -> None:
    steps = await Steps.of("m1", "m2")
    await steps.create(A, "Global=true")
    await steps.rest()
    assert steps.runs(A) == ["m1", "m2"]
    await steps.expires("m2")
    await steps.leader()
    roster = (await steps.view()).roster["m2"].value
    await steps.order("m2", removed_join=roster.join)
    await steps.leader()
    assert (await steps.view()).placements_of(A).keys() == {"m1"}
    assert steps.runs(A) == ["m1", "m2"]  # nothing was stopped on the machine that was away
    await steps.joins("m2")
    await steps.rest()
    assert steps.runs(A) == ["m1", "m2"] and len(steps.machines["m2"].births) == 1  # adopted, not restarted


async def test_a_late_report_on_a_global_unit_from_a_removed_machine_stays_not_for_ever() -> None:
    steps = await Steps.of("m1", "m2")
    await steps.create(A, "Global=true")
    await steps.leader()
    await steps.sees("m2")
    steps.acts("m2")
    under_way = await steps.states("m2")
    await steps.expires("m2")
    await steps.leader()
    roster = (await steps.view()).roster["m2"].value
    await steps.order("m2", removed_join=roster.join)
    await steps.leader()
    for put in under_way:
        await steps._put_state(put)
    await steps.leader()
    assert "m2" not in (await steps.view()).states_of(A)
