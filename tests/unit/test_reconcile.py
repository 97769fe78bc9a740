"""The leader's plan for units, case by case: the sentences of the placement protocol first."""

from __future__ import annotations

import pytest

from harness.builders import Built, BuiltUnit, a_machine, a_pending, a_placement, a_record, a_state, a_unit, a_view
from unit_master.actions import (
    Acknowledged,
    DeleteUnit,
    DropState,
    Gone,
    Pend,
    PinImage,
    Place,
    UnitAction,
    Unpend,
    Want,
)
from unit_master.reconcile import plan_units
from unitfleet import codec, keys
from unitfleet.model import CopyPhase, MachineStatus, Pin, TargetState, UnitState, Wanted
from unitfleet.policy import Policy

LOST = MachineStatus.LOST


def plan(*built: Built, epoch: int = 9, now: float = 1000.0) -> list[UnitAction]:
    return plan_units(a_view(*built, epoch=epoch), now)


def placed(*built: Built) -> dict[str, str]:
    return {action.unit: action.machine for action in plan(*built) if isinstance(action, Place)}


def gone(*built: Built) -> set[tuple[str, str]]:
    return {(action.unit, action.machine) for action in plan(*built) if isinstance(action, Gone)}


def test_a_launched_unit_is_placed_once_and_says_why() -> None:
    (action,) = plan(a_machine("m1"), a_unit())
    assert isinstance(action, Place) and action.machine == "m1" and action.reason


def test_a_unit_that_runs_as_wanted_needs_nothing() -> None:
    unit = a_unit()
    assert plan(a_machine("m1"), unit, a_placement(unit, "m1"), a_state(unit, "m1")) == []


def test_a_unit_that_fits_nowhere_says_so_once() -> None:
    unit = a_unit(fleet="MachineMetadata=region=eu")
    (action,) = plan(a_machine("m1"), unit)
    assert isinstance(action, Pend) and "region=eu" in action.pending.refused[0].example
    assert plan(a_machine("m1"), unit, a_record(keys.pending("a.service"), action.pending)) == []


def test_what_kept_a_unit_is_cleared_when_it_is_placed() -> None:
    unit = a_unit()
    kinds = [type(action) for action in plan(a_machine("m1"), unit, a_pending(unit, "no machine"))]
    assert kinds == [Place, Unpend]


# ---------------------------------------------------------------- sentence 1: incarnations


def test_a_placement_of_a_destroyed_namesake_is_ordered_gone() -> None:
    unit = a_unit(incarnation="i2")
    actions = plan(a_machine("m1"), a_machine("m2"), unit, a_placement(unit, "m1", incarnation="i1"))
    assert Gone("a.service", "m1", "another unit of the same name, destroyed since") in actions


def test_a_gone_placement_is_never_rewritten_and_its_machine_no_candidate() -> None:
    unit = a_unit()
    leaving = a_placement(unit, "m1", wanted=Wanted.GONE)
    (action,) = plan(a_machine("m1"), unit, leaving)
    assert isinstance(action, Pend)
    assert placed(a_machine("m1"), a_machine("m2"), unit, leaving) == {"a.service": "m2"}


# ---------------------------------------------------------------- sentence 2: orphans


def test_an_orphan_of_a_unit_that_is_not_launched_is_ordered_gone() -> None:
    unit = a_unit(target=TargetState.INACTIVE)
    assert gone(a_machine("m1"), unit, a_state(unit, "m1")) == {("a.service", "m1")}


def test_an_orphan_of_a_unit_nobody_knows_is_ordered_gone() -> None:
    unit = a_unit()
    state = a_state(unit, "m1")
    assert gone(a_machine("m1"), state) == {("a.service", "m1")}


def test_an_orphan_stays_until_the_newer_copy_runs() -> None:
    unit = a_unit()
    cluster = (
        a_machine("m1"),
        a_machine("m2"),
        unit,
        a_placement(unit, "m2", epoch=5),
        a_state(unit, "m1", epoch=3),
    )
    assert gone(*cluster) == set()
    assert gone(*cluster, a_state(unit, "m2", epoch=5)) == {("a.service", "m1")}


def test_a_state_that_speaks_of_nothing_is_dropped() -> None:
    unit = a_unit(target=TargetState.INACTIVE)
    assert plan(a_machine("m1"), unit, a_state(unit, "m1", CopyPhase.GONE)) == [DropState("a.service", "m1")]


# ---------------------------------------------------------------- gone and acknowledged


@pytest.mark.parametrize("target", [TargetState.INACTIVE, TargetState.DESTROYED])
def test_every_live_placement_of_an_ended_unit_is_ordered_gone(target: TargetState) -> None:
    unit = a_unit(target=target)
    assert gone(a_machine("m1"), unit, a_placement(unit, "m1")) == {("a.service", "m1")}


def test_an_acknowledged_copy_is_cleared() -> None:
    unit = a_unit(target=TargetState.DESTROYED)
    leaving = a_placement(unit, "m1", epoch=7, wanted=Wanted.GONE)
    assert plan(a_machine("m1"), unit, leaving, a_state(unit, "m1", CopyPhase.GONE, epoch=7)) == [
        Acknowledged("a.service", "m1")
    ]


def test_an_acknowledgement_of_another_epoch_clears_nothing() -> None:
    unit = a_unit(target=TargetState.DESTROYED)
    leaving = a_placement(unit, "m1", epoch=7, wanted=Wanted.GONE)
    assert plan(a_machine("m1"), unit, leaving, a_state(unit, "m1", CopyPhase.GONE, epoch=6)) == []


def test_a_copy_of_an_epoch_that_the_store_has_lost_is_ordered_anew() -> None:
    unit = a_unit()
    known = (a_machine("m1"), unit, a_placement(unit, "m1", epoch=4))
    assert plan(*known, a_state(unit, "m1", epoch=4)) == []
    (again,) = plan(*known, a_state(unit, "m1", epoch=9))
    assert isinstance(again, Want) and again.wanted is Wanted.LAUNCHED
    leaving = (a_machine("m1"), unit, a_placement(unit, "m1", epoch=4, wanted=Wanted.GONE))
    assert gone(*leaving, a_state(unit, "m1", epoch=9)) == {("a.service", "m1")}


def test_a_destroyed_unit_is_deleted_when_no_copy_is_left() -> None:
    assert plan(a_machine("m1"), a_unit(target=TargetState.DESTROYED)) == [DeleteUnit("a.service")]


def test_a_copy_on_a_lost_machine_does_not_hold_the_name() -> None:
    unit = a_unit(target=TargetState.DESTROYED)
    lost = a_machine("m1", status=LOST)
    assert plan(lost, unit, a_placement(unit, "m1", wanted=Wanted.GONE)) == [DeleteUnit("a.service")]
    assert DeleteUnit("a.service") not in plan(
        a_machine("m1", present=False), unit, a_placement(unit, "m1", wanted=Wanted.GONE)
    )


def test_a_placement_whose_unit_key_is_missing_is_left_alone() -> None:
    unit = a_unit()
    assert plan(a_machine("m1"), a_placement(unit, "m1"), a_state(unit, "m1")) == []


def test_a_record_that_cannot_be_read_stops_nothing() -> None:
    unit = a_unit()
    poisoned = Built(((keys.unit("a.service"), b"not json"),))
    assert plan(a_machine("m1"), unit, poisoned, a_placement(unit, "m1"), a_state(unit, "m1")) == []


def test_a_unit_whose_text_is_missing_is_left_where_it_runs() -> None:
    unit = a_unit()
    bare = Built(tuple(piece for piece in unit.pieces if "/units/" in piece[0]))
    (action,) = plan(a_machine("m1"), bare, a_placement(unit, "m1"), a_state(unit, "m1"))
    assert isinstance(action, Pend) and "cannot read its unit file" in action.pending.message


# ---------------------------------------------------------------- moves


def two_machines(old: Built, unit: BuiltUnit) -> tuple[Built, ...]:
    return (old, a_machine("m2"), unit, a_placement(unit, "m1", epoch=3), a_state(unit, "m1", epoch=3))


@pytest.mark.parametrize(
    "old",
    [a_machine("m1", drained=True), a_machine("m1", status=LOST)],
    ids=["off a drained machine", "off a lost machine"],
)
def test_a_move_makes_before_it_breaks(old: Built) -> None:
    unit = a_unit()
    before = two_machines(old, unit)
    assert placed(*before) == {"a.service": "m2"} and gone(*before) == set()
    moving = (*before, a_placement(unit, "m2", epoch=5))
    assert plan(*moving) == []
    assert plan(*moving, a_state(unit, "m2", CopyPhase.STARTING, epoch=5)) == []
    assert gone(*moving, a_state(unit, "m2", epoch=5)) == {("a.service", "m1")}


def test_a_suspect_machine_keeps_its_units() -> None:
    unit = a_unit()
    assert plan(*two_machines(a_machine("m1", present=False), unit)) == []


def test_a_cordoned_machine_keeps_its_units() -> None:
    unit = a_unit()
    assert plan(*two_machines(a_machine("m1", cordoned=True), unit)) == []


def test_a_machine_with_an_older_live_placement_is_a_candidate_again() -> None:
    unit = a_unit()
    cluster = (a_machine("m1"), a_machine("m2", status=LOST), unit, a_placement(unit, "m1", epoch=3))
    assert placed(*cluster, a_placement(unit, "m2", epoch=5)) == {"a.service": "m1"}


def test_a_unit_with_nowhere_to_go_stays_and_takes_restarts() -> None:
    unit = a_unit(restart=1)
    actions = plan(a_machine("m1", drained=True), unit, a_placement(unit, "m1", restart=0), a_state(unit, "m1"))
    assert Want("a.service", "m1", Wanted.LAUNCHED, "has nowhere else to go") in actions
    assert gone(a_machine("m1", drained=True), unit, a_placement(unit, "m1"), a_state(unit, "m1")) == set()


def test_a_unit_that_is_stopped_amid_a_move_with_nowhere_to_go_runs_nowhere() -> None:
    unit = a_unit(target=TargetState.LOADED)
    drained = (a_machine("m1", drained=True), a_machine("m2", drained=True))
    old = (a_placement(unit, "m1", epoch=3), a_state(unit, "m1", epoch=3))
    new = (a_placement(unit, "m2", epoch=5, wanted=Wanted.LOADED), a_state(unit, "m2", CopyPhase.LOADED, epoch=5))
    assert gone(*drained, unit, *old, *new) == {("a.service", "m1")}


def test_a_finished_oneshot_is_not_run_again_when_its_machine_is_lost() -> None:
    unit = a_unit(text="[Service]\nType=oneshot\nExecStart=/bin/true\n")
    lost = a_machine("m1", status=LOST)
    done = (a_placement(unit, "m1"), a_state(unit, "m1", CopyPhase.FINISHED))
    assert plan(lost, a_machine("m2"), unit, *done) == []


def test_a_unit_whose_copy_fails_to_start_elsewhere_keeps_the_one_that_runs() -> None:
    unit = a_unit()
    before = two_machines(a_machine("m1", drained=True), unit)
    failed = (a_placement(unit, "m2", epoch=5), a_state(unit, "m2", CopyPhase.FAILED, epoch=5))
    assert gone(*before, *failed) == set()


@pytest.mark.parametrize(
    ("wish", "after", "moves"), [("wait", 1e6, False), ("wait:30m", 1799.0, False), ("wait:30m", 1801.0, True)]
)
def test_a_unit_waits_for_its_machine_as_long_as_it_says(wish: str, after: float, moves: bool) -> None:
    unit = a_unit(fleet=f"OnMachineLoss={wish}")
    lost = a_machine("m1", status=LOST, since=1000.0)
    actions = plan(*two_machines(lost, unit), now=1000.0 + after)
    if moves:
        assert [action.machine for action in actions if isinstance(action, Place)] == ["m2"]
    else:
        (action,) = actions
        assert isinstance(action, Pend) and "waits for m1" in action.pending.message


# ---------------------------------------------------------------- wishes that change


def test_a_stopped_unit_is_loaded_where_it_is() -> None:
    unit = a_unit(target=TargetState.LOADED)
    (action,) = plan(a_machine("m1"), unit, a_placement(unit, "m1"), a_state(unit, "m1"))
    assert action == Want("a.service", "m1", Wanted.LOADED, "target state loaded")


def test_a_new_text_is_ordered_in_place() -> None:
    unit = a_unit(fleet="CPU=1")
    (action,) = plan(
        a_machine("m1"), unit, a_placement(unit, "m1", spec="0" * 64), a_state(unit, "m1", spec="0" * 64)
    )
    assert action == Want("a.service", "m1", Wanted.LAUNCHED, "its text was replaced")


def test_a_new_text_that_does_not_suit_the_machine_moves_the_unit() -> None:
    unit = a_unit(fleet="MachineMetadata=region=eu")
    machines = (a_machine("m1"), a_machine("m2", metadata={"region": "eu"}))
    assert placed(*machines, unit, a_placement(unit, "m1", spec="0" * 64)) == {"a.service": "m2"}


def test_a_new_text_that_asks_for_more_than_its_host_allows_moves_the_unit() -> None:
    unit = a_unit(text="[Container]\nImage=x\nNetwork=host\n")
    machines = (a_machine("m1", policy=Policy()), a_machine("m2"))
    assert placed(*machines, unit, a_placement(unit, "m1", spec="0" * 64)) == {"a.service": "m2"}


def test_a_policy_that_was_made_stricter_moves_nothing() -> None:
    unit = a_unit(text="[Container]\nImage=x\nNetwork=host\n")
    machines = (a_machine("m1", policy=Policy()), a_machine("m2"))
    assert plan(*machines, unit, a_placement(unit, "m1"), a_state(unit, "m1")) == []


def test_the_first_digest_that_was_pulled_is_pinned_once() -> None:
    unit = a_unit("a@1.service", text="[Container]\nImage=x\n")
    other = a_unit("a@2.service", text="[Container]\nImage=x\n")

    def reported(of: BuiltUnit, image: str) -> tuple[Built, Built]:
        record = UnitState(
            unit=of.unit.name,
            machine="m1",
            incarnation="i1",
            epoch=1,
            restart=0,
            spec=of.unit.spec,
            phase=CopyPhase.RUNNING,
            image=image,
        )
        return a_placement(of, "m1"), a_record(keys.state("m1", of.unit.name), record)

    cluster = (a_machine("m1"), unit, other, *reported(unit, "x@sha256:1"), *reported(other, "x@sha256:2"))
    assert plan(*cluster) == [PinImage(unit.unit.spec, "x@sha256:1")]
    pin = a_record(keys.pin(unit.unit.spec), Pin(spec=unit.unit.spec, image="x@sha256:1"))
    assert plan(*cluster, pin) == []
    assert codec.decode(pin.pieces[0][1], Pin).image == "x@sha256:1"


# ---------------------------------------------------------------- several units


def test_two_units_in_conflict_are_not_placed_on_one_machine_in_one_pass() -> None:
    units = [a_unit(f"a@{n}.service", fleet="Conflicts=a@*.service") for n in (1, 2, 3)]
    where = placed(a_machine("m1"), a_machine("m2"), *units)
    assert sorted(where.values()) == ["m1", "m2"]


def test_a_unit_follows_its_peer_in_the_same_pass() -> None:
    follower = a_unit("a.service", fleet="MachineOf=b.service")
    where = placed(a_machine("m1"), a_machine("m2"), follower, a_unit("b.service"))
    assert where["a.service"] == where["b.service"]


def test_a_follower_moves_with_its_peer() -> None:
    follower, peer = a_unit("a.service", fleet="MachineOf=b.service"), a_unit("b.service")
    machines = (a_machine("m1", drained=True), a_machine("m2"))
    where = placed(*machines, follower, peer, a_placement(follower, "m1"), a_placement(peer, "m1", epoch=2))
    assert where == {"a.service": "m2", "b.service": "m2"}


def test_a_global_unit_runs_on_every_machine_that_matches() -> None:
    unit = a_unit(fleet="Global=true\nMachineMetadata=role=ad")
    machines = [a_machine(f"m{n}", metadata={"role": "ad" if n < 3 else "db"}) for n in (1, 2, 3)]
    actions = plan(*machines, unit)
    assert sorted(action.machine for action in actions if isinstance(action, Place)) == ["m1", "m2"]


def test_a_global_unit_leaves_a_machine_that_matches_no_more() -> None:
    unit = a_unit(fleet="Global=true\nMachineMetadata=role=ad")
    assert gone(a_machine("m1"), unit, a_placement(unit, "m1"), a_state(unit, "m1")) == {("a.service", "m1")}


def test_an_orphan_goes_although_the_place_should_be_left_and_can_not() -> None:
    unit = a_unit(fleet="MachineOf=peer.service")
    place = (a_placement(unit, "m2", epoch=5), a_state(unit, "m2", epoch=5))
    assert gone(a_machine("m1"), a_machine("m2"), unit, *place, a_state(unit, "m1", epoch=3)) == {
        ("a.service", "m1")
    }


# ---------------------------------------------------------------- an order that can't be read


@pytest.mark.parametrize("fleet", ["", "Global=true"])
def test_a_unit_whose_order_was_overwritten_stays_where_it_runs(fleet: str) -> None:
    unit = a_unit(fleet=fleet)
    broken = Built(((keys.placement("m2", "a.service"), b"garbage{"),))
    actions = plan(a_machine("m1"), a_machine("m2", cordoned=True), unit, broken, a_state(unit, "m2"))
    assert "m2" in {action.machine for action in actions if isinstance(action, Place)}
    assert fleet or not any(action.machine == "m1" for action in actions if isinstance(action, Place))
    assert not any(isinstance(action, Gone) for action in actions)


def test_an_order_that_was_overwritten_says_nothing_of_a_unit_that_never_ran_there() -> None:
    unit = a_unit(fleet="MachineMetadata=region=eu")
    broken = Built(((keys.placement("m1", "a.service"), b"garbage{"),))
    (action,) = plan(a_machine("m1"), unit, broken)
    assert isinstance(action, Pend)
