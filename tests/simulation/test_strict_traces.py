"""Strict units together with restarts, stops and new texts: the model's shortest traces, with the real decisions.

As in `test_protocol_traces.py`: machines are m1 and m2 and the unit is a.service.
"""

from __future__ import annotations

from harness.steps import STRICT_SPEC, STRICT_TEXT, Steps, wanted_of
from unitfleet.model import MachineStatus, TargetState, Wanted

A = "a.service"


async def strict_with_nowhere_to_go() -> Steps:
    """Let it run on m1, which is drained while m2 is lost."""
    steps = await Steps.of("m1", "m2")
    await steps.create(A, text=STRICT_TEXT)
    await steps.rest()
    await steps.expires("m2")
    steps.machines["m2"].reaches_store = False
    await steps.order("m1", drained=True)
    await steps.rest()
    assert steps.runs(A) == ["m1"]
    return steps


async def ordinary_on_m1() -> Steps:
    steps = await Steps.of("m1", "m2")
    await steps.create(A)
    await steps.rest()
    assert steps.runs(A) == ["m1"]
    return steps


# ---------------------------------------------------------------- sentence 7, strict


async def test_a_strict_unit_with_nowhere_to_go_is_restarted_where_it_is() -> None:
    steps = await strict_with_nowhere_to_go()
    await steps.restart(A)
    await steps.rest()
    assert steps.runs(A) == ["m1"] and steps.machines["m1"].copies[A].restart == 1


async def test_a_strict_unit_with_nowhere_to_go_is_stopped_where_it_is() -> None:
    steps = await strict_with_nowhere_to_go()
    await steps.wish(A, TargetState.LOADED)
    await steps.rest()
    assert steps.runs(A) == []


# ---------------------------------------------------------------- sentence 10: a unit that becomes strict


async def test_a_unit_that_becomes_strict_amid_a_move_never_runs_twice() -> None:
    steps = await ordinary_on_m1()
    await steps.order("m1", drained=True)
    await steps.leader()  # placed on m2 as well: make before break
    await steps.replace_text(A, STRICT_TEXT)
    await steps.leader()
    await steps.round("m2")
    assert steps.runs(A) == ["m1"]  # the copy on m1 has no deadline: it goes first
    await steps.rest()
    assert steps.runs(A) == ["m2"]


async def test_a_unit_that_became_strict_waits_for_a_machine_that_never_heard_of_it() -> None:
    steps = await ordinary_on_m1()
    steps.machines["m1"].reaches_store = False
    await steps.replace_text(A, STRICT_TEXT)
    await steps.leader()
    await steps.expires("m1")
    await steps.leader()  # begins its wait
    await steps.leader()  # m1 is lost
    assert (await steps.view()).roster["m1"].value.status is MachineStatus.LOST
    await steps.round("m2")
    assert steps.runs(A) == ["m1"]  # still the ordinary copy, which no deadline ends
    steps.machines["m1"].reaches_store = True
    await steps.joins("m1")
    await steps.rest()
    (machine,) = steps.runs(A)
    assert steps.machines[machine].copies[A].spec == STRICT_SPEC


async def test_a_unit_becomes_strict_on_the_machine_where_it_runs() -> None:
    steps = await Steps.of("m1")
    await steps.create(A)
    await steps.rest()
    await steps.replace_text(A, STRICT_TEXT)
    await steps.rest()
    assert steps.runs(A) == ["m1"] and wanted_of(await steps.view(), A) == {"m1": Wanted.LAUNCHED}
    assert steps.machines["m1"].copies[A].spec == STRICT_SPEC


# ---------------------------------------------------------------- a new text of a strict unit


async def test_a_new_text_of_a_strict_unit_starts_only_by_a_renewal_of_its_new_placement() -> None:
    steps = await Steps.of("m1", "m2")
    await steps.create(A, text=STRICT_TEXT)
    await steps.rest()
    await steps.restart(A)
    await steps.leader()
    assert not await steps.renews("m1", A)  # it has not seen the new placement yet
    await steps.sees("m1")
    assert await steps.renews("m1", A)
    steps.acts("m1")
    assert steps.runs(A) == ["m1"] and steps.machines["m1"].copies[A].restart == 1
