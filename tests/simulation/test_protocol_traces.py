"""The shortest traces by which the placement protocol breaks when one of its sentences is left out.

Each was found by a model checker in a model of the protocol; here the real decisions walk the same way and do
not break. Machines are m1 and m2 and the unit is a.service, unless said.
"""

from __future__ import annotations

from harness.steps import STRICT_TEXT, Held, Steps, wanted_of
from unit_master.actions import Gone, Lose, Place
from unitfleet import keys
from unitfleet.model import MachineStatus, TargetState, Wanted

A = "a.service"
DESTROYED, LOADED, LAUNCHED = TargetState.DESTROYED, TargetState.LOADED, TargetState.LAUNCHED


async def running_on_m1() -> Steps:
    steps = await Steps.of("m1", "m2")
    await steps.create(A)
    await steps.rest()
    assert steps.runs(A) == ["m1"]
    return steps


async def only(steps: Steps, kind: type[Place] | type[Gone], unit: str = A) -> Held:
    """The planned transaction of that kind of action for that unit."""
    planned = await steps.plans()
    (held,) = [h for h in planned if isinstance(h.actions[0], kind) and h.actions[0].unit == unit]
    return held


# ---------------------------------------------------------------- sentence 1: incarnation


async def test_a_copy_from_before_destroy_and_create_does_not_run_on_as_the_new_unit() -> None:
    steps = await running_on_m1()
    former = steps.machines["m1"].copies[A].incarnation
    await steps.wish(A, DESTROYED)
    await steps.create(A)  # before the leader has looked
    await steps.rest()
    (machine,) = steps.runs(A)
    assert steps.machines[machine].copies[A].incarnation != former


async def test_a_machine_that_was_removed_comes_back_with_an_old_incarnation_and_it_goes() -> None:
    steps = await running_on_m1()
    former = steps.machines["m1"].copies[A].incarnation
    await steps.expires("m1")
    await steps.leader()  # m1 is lost, and a moves to m2
    await steps.wish(A, DESTROYED)
    await steps.leader()
    roster = (await steps.view()).roster["m1"].value
    await steps.order("m1", removed_join=roster.join)
    await steps.leader()
    await steps.joins("m1")
    await steps.create(A)
    await steps.rest()
    (machine,) = steps.runs(A)
    assert steps.machines[machine].copies[A].incarnation != former


async def test_a_gone_placement_of_a_returning_machine_is_not_rewritten() -> None:
    steps = await running_on_m1()
    await steps.expires("m1")
    await steps.leader()
    await steps.wish(A, DESTROYED)
    await steps.leader()
    await steps.joins("m1")
    await steps.create(A)
    await steps.leader()
    assert wanted_of(await steps.view(), A)["m1"] is Wanted.GONE
    await steps.rest()
    assert len(steps.runs(A)) == 1


# ---------------------------------------------------------------- sentence 2: orphans


async def test_a_copy_no_key_speaks_of_is_found_and_goes() -> None:
    steps = await running_on_m1()
    await steps.expires("m1")
    await steps.leader()
    await steps.round("m2")
    roster = (await steps.view()).roster["m1"].value
    await steps.order("m1", removed_join=roster.join)
    await steps.leader()
    assert steps.runs(A) == ["m1", "m2"]  # nothing was stopped on the machine that was away
    await steps.joins("m1")
    await steps.rest()
    assert steps.runs(A) == ["m2"]


async def test_a_report_retried_after_its_acknowledgement_was_collected_stays_not_for_ever() -> None:
    steps = await running_on_m1()
    await steps.wish(A, DESTROYED)
    await steps.leader()
    await steps.sees("m1")
    steps.acts("m1")
    retried = await steps.states("m1")
    await steps.reports("m1")
    await steps.leader()
    for key, state in retried:
        assert state is not None
        await steps._put_state((key, state))
    await steps.rest()
    assert (await steps.view()).states == {}


# ---------------------------------------------------------------- sentences 3 and 4: strict units


async def strict_on_m1() -> Steps:
    steps = await Steps.of("m1", "m2")
    await steps.create(A, text=STRICT_TEXT)
    await steps.leader()
    await steps.sees("m1")
    return steps


async def loses(steps: Steps, machine: str) -> None:
    """The leader sees presence gone, waits, and declares the machine lost."""
    assert await steps.plans() == []  # it begins by reading the fence
    for held in await steps.plans():
        if isinstance(held.actions[0], Lose) and held.actions[0].machine == machine:
            assert await steps.lands(held)


async def test_a_new_presence_does_not_fence_a_placement_that_was_ordered_gone() -> None:
    steps = await strict_on_m1()
    await steps.expires("m1")
    await loses(steps, "m1")
    await steps.leader()
    assert wanted_of(await steps.view(), A) == {"m1": Wanted.GONE, "m2": Wanted.LAUNCHED}
    await steps.joins("m1")
    assert not await steps.renews("m1", A)  # its view is stale: the placement it saw is no more
    await steps.sees("m2")
    assert await steps.renews("m2", A)


async def test_a_machine_that_fences_again_is_not_declared_lost() -> None:
    steps = await strict_on_m1()
    await steps.expires("m1")
    assert await steps.plans() == []
    (lose,) = await steps.plans()
    await steps.joins("m1")
    assert await steps.renews("m1", A)
    assert not await steps.lands(lose)
    assert wanted_of(await steps.view(), A) == {"m1": Wanted.LAUNCHED}


async def test_a_fence_renewed_before_the_presence_went_begins_the_wait_anew() -> None:
    steps = await strict_on_m1()
    await steps.expires("m1")
    assert await steps.plans() == []
    (lose,) = await steps.plans()
    await steps.store.put(keys.fence("m1"), b'{"v":1,"id":"m1","nonce":"late","count":9}')
    assert not await steps.lands(lose)
    assert await steps.plans() == []  # it reads the fence and waits anew
    assert [type(held.actions[0]) for held in await steps.plans()] == [Lose]


async def test_losing_a_machine_orders_its_strict_copies_gone_in_the_same_transaction() -> None:
    steps = await strict_on_m1()
    await steps.expires("m1")
    await loses(steps, "m1")
    view = await steps.view()
    assert view.roster["m1"].value.status is MachineStatus.LOST
    assert wanted_of(view, A) == {"m1": Wanted.GONE}


async def test_a_new_leader_begins_its_own_wait_for_strict_units() -> None:
    steps = await strict_on_m1()
    await steps.expires("m1")
    assert await steps.plans() == []
    await steps.new_term()
    assert await steps.plans() == []
    assert [type(held.actions[0]) for held in await steps.plans()] == [Lose]


async def test_a_strict_copy_that_was_ordered_gone_and_has_not_heard_of_it_is_waited_for() -> None:
    steps = await strict_on_m1()
    await steps.round("m1")
    await steps.order("m1", drained=True)
    assert await steps.lands(await only(steps, Gone))
    await steps.expires("m1")  # revoked; the machine is cut off and sees neither this nor the order
    assert not any(isinstance(held.actions[0], Lose) for held in await steps.plans()), "it reads the fence first"
    (lose,) = [held for held in await steps.plans() if isinstance(held.actions[0], Lose)]
    (action,) = lose.actions
    assert isinstance(action, Lose) and action.fence_revision, "it compares the fence"
    assert action.strict_units == (), "a gone placement is never rewritten"
    assert steps.runs(A) == ["m1"]
    assert await steps.lands(lose)
    await steps.leader()
    assert wanted_of(await steps.view(), A) == {"m1": Wanted.GONE, "m2": Wanted.LAUNCHED}
    assert steps.runs(A) == []


async def test_a_unit_that_became_strict_waits_for_the_machine_that_may_run_its_ordinary_copy() -> None:
    steps = await running_on_m1()
    await steps.expires("m1")
    await steps.replace_text(A, STRICT_TEXT)
    await steps.leader()
    view = await steps.view()
    assert view.roster["m1"].value.status is MachineStatus.LOST
    assert wanted_of(view, A) == {"m1": Wanted.GONE}
    assert "machines rm m1" in view.pending[A].value.message
    await steps.order("m1", removed_join=view.roster["m1"].value.join)
    await steps.leader()
    assert wanted_of(await steps.view(), A) == {"m2": Wanted.LAUNCHED}


async def test_a_strict_unit_is_not_placed_anew_while_its_old_copy_may_run() -> None:
    steps = await strict_on_m1()
    await steps.order("m1", drained=True)
    gone = await only(steps, Gone)
    assert await steps.lands(gone)
    assert [h for h in await steps.plans() if isinstance(h.actions[0], Place)] == []
    await steps.round("m1")
    await steps.leader()
    assert wanted_of(await steps.view(), A) == {"m2": Wanted.LAUNCHED}


# ---------------------------------------------------------------- sentence 5: machines rm


async def test_a_suspect_machine_is_not_removed() -> None:
    steps = await running_on_m1()
    view = await steps.view()
    await steps.order("m1", removed_join=view.roster["m1"].value.join)
    await steps.leader()
    assert "m1" in (await steps.view()).roster


# ---------------------------------------------------------------- one order of all leader writes


async def test_a_delayed_placement_does_not_land_beside_a_conflicting_one() -> None:
    steps = await Steps.of("m1")
    await steps.create("b.service")
    late = await only(steps, Place, "b.service")
    await steps.create(A, "Conflicts=b.service")
    assert await steps.lands(await only(steps, Place))
    assert not await steps.lands(late)  # nothing of b has changed: only the order of leader writes tells
    assert wanted_of(await steps.view(), "b.service") == {}


async def test_a_transaction_of_an_old_term_does_not_land() -> None:
    steps = await Steps.of("m1", "m2")
    await steps.create(A)
    late = await only(steps, Place)
    await steps.new_term()
    assert not await steps.lands(late)
    assert (await steps.view()).placements == {}


# ---------------------------------------------------------------- sentence 6: reaffirm


async def test_a_unit_whose_new_machine_is_lost_returns_to_one_that_still_holds_it() -> None:
    steps = await running_on_m1()
    await steps.expires("m1")
    await steps.leader()  # lost; a is placed on m2, whose agent never hears of it
    await steps.joins("m1")
    await steps.expires("m2")
    steps.machines["m2"].reaches_store = False
    await steps.rest()
    assert steps.runs(A) == ["m1"]
    copy = steps.machines["m1"].copies[A]
    assert steps.machines["m1"].births == {(f"{A} {copy.incarnation} {copy.id}", 0): 1}  # adopted, not restarted


# ---------------------------------------------------------------- sentence 7: nowhere to go


async def test_a_restart_on_a_drained_machine_with_nowhere_to_go_is_done() -> None:
    steps = await running_on_m1()
    await steps.expires("m2")
    steps.machines["m2"].reaches_store = False
    await steps.leader()
    await steps.restart(A)
    await steps.order("m1", drained=True)
    await steps.rest()
    assert steps.machines["m1"].copies[A].restart == 1 and steps.runs(A) == ["m1"]


# ---------------------------------------------------------------- the model's seeded bugs


async def test_a_placement_is_ordered_gone_and_not_deleted() -> None:
    """`delete_not_gone`: a deleted key would be no order, and the copy would run on."""
    steps = await running_on_m1()
    await steps.wish(A, LOADED)
    await steps.wish(A, TargetState.INACTIVE)
    await steps.leader()
    assert wanted_of(await steps.view(), A) == {"m1": Wanted.GONE}


async def test_a_running_copy_whose_key_is_missing_runs_on() -> None:
    """`stop_on_absence`."""
    steps = await running_on_m1()
    await steps.store.delete(keys.placement("m1", A))
    await steps.sees("m1")
    steps.acts("m1")
    assert steps.runs(A) == ["m1"]


async def test_epochs_go_up_although_nothing_of_the_unit_is_left() -> None:
    """`epoch_per_unit`: counted from what is left, a new placement would look older than the copy."""
    steps = await running_on_m1()
    former = (await steps.view()).placements_of(A)["m1"].value.epoch
    await steps.expires("m1")
    steps.machines["m1"].reaches_store = False
    await steps.leader()
    roster = (await steps.view()).roster["m1"].value
    await steps.order("m1", removed_join=roster.join)
    await steps.wish(A, DESTROYED)
    await steps.rest()
    await steps.create(A)
    await steps.leader()
    assert all(entry.value.epoch > former for entry in (await steps.view()).placements_of(A).values())


async def test_a_drained_copy_runs_until_the_new_one_does() -> None:
    """`break_first`."""
    steps = await running_on_m1()
    await steps.order("m1", drained=True)
    await steps.leader()
    assert steps.runs(A) == ["m1"] and wanted_of(await steps.view(), A)["m1"] is Wanted.LAUNCHED
    await steps.round("m1")
    await steps.round("m2")
    assert steps.runs(A) == ["m1", "m2"]
    await steps.rest()
    assert steps.runs(A) == ["m2"]


async def test_a_restart_is_done_once_although_the_agent_forgets() -> None:
    """`restart_in_memory`: the number stands on the copy."""
    steps = await running_on_m1()
    await steps.restart(A)
    await steps.rest()
    steps.machines["m1"].seen = {}  # the agent was killed and knows nothing but its copies
    await steps.rest()
    assert [count for (_, number), count in steps.machines["m1"].births.items() if number == 1] == [1]


async def test_a_keepalive_is_no_fence() -> None:
    """`keepalive_fence`: presence is back under a new lease; only the transaction counts."""
    steps = await strict_on_m1()
    await steps.joins("m1")
    steps.machines["m1"].presence_revision -= 1  # it believes in the presence it had
    assert not await steps.renews("m1", A)


async def test_a_strict_unit_is_lost_only_after_a_wait() -> None:
    """`no_wait`."""
    steps = await strict_on_m1()
    await steps.expires("m1")
    assert await steps.plans() == [] and steps.waits.keys() == {"m1"}
