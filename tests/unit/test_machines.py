"""Which machines are lost, and when the brake holds."""

from __future__ import annotations

import pytest

from harness.builders import Built, a_machine, a_record, a_view
from unit_master.actions import Enroll, Forget, Lose
from unit_master.brake import brake
from unit_master.machines import Clocks, MachinePlan, plan_machines
from unitfleet import keys
from unitfleet.model import Brake, BrakeOrder, MachineSpec, MachineStatus

NOW = 10_000.0


def plan(
    *built: Built, absent_for: dict[str, float] | None = None, in_doubt: bool = False, grace_s: float = 2.0
) -> MachinePlan:
    clocks = Clocks(now=NOW, absent_for=absent_for or {}, waits={}, grace_s=grace_s, in_doubt=in_doubt)
    return plan_machines(a_view(*built), clocks)


def lost(found: MachinePlan) -> list[str]:
    return [action.machine for action in found.actions if isinstance(action, Lose)]


def fleet(count: int, absent: int) -> list[Built]:
    return [a_machine(f"m{n}", present=n >= absent) for n in range(count)]


def away(count: int, for_s: float = 3.0) -> dict[str, float]:
    return {f"m{n}": for_s for n in range(count)}


def test_a_machine_that_joins_is_enrolled_once() -> None:
    (action,) = plan(a_machine("m1", known=False)).actions
    assert isinstance(action, Enroll) and action.event == "joined" and action.entry.join == 1
    assert plan(a_machine("m1")).actions == ()


def test_a_machine_that_comes_back_from_lost_gets_a_new_join() -> None:
    presence = a_machine("m1")
    roster = a_machine("m1", status=MachineStatus.LOST, join=3)
    (action,) = plan(presence, roster).actions
    assert isinstance(action, Enroll) and action.event == "returned" and action.entry.join == 4


def test_a_machine_is_suspect_until_its_grace_is_over() -> None:
    found = plan(*fleet(5, 1), absent_for=away(1, 1.5))
    assert lost(found) == [] and found.again_s == pytest.approx(0.5)
    assert lost(plan(*fleet(5, 1), absent_for=away(1, 2.0))) == ["m0"]


def test_a_leader_that_is_late_itself_declares_nobody_lost() -> None:
    assert lost(plan(*fleet(5, 1), absent_for=away(1, 60.0), in_doubt=True)) == []


def test_the_operator_knows_better_than_the_grace() -> None:
    told = a_record(keys.machine_spec("m0"), MachineSpec(id="m0", lost_join=1))
    assert lost(plan(*fleet(5, 1), told, absent_for=away(1, 0.1), in_doubt=True)) == ["m0"]


def test_what_the_operator_said_of_an_earlier_join_no_longer_holds() -> None:
    told = a_record(keys.machine_spec("m0"), MachineSpec(id="m0", lost_join=7))
    assert lost(plan(*fleet(5, 1), told, absent_for=away(1, 0.1))) == []


def test_a_machine_is_removed_only_when_it_is_lost() -> None:
    told = a_record(keys.machine_spec("m1"), MachineSpec(id="m1", removed_join=1))
    assert plan(a_machine("m1", present=False), told, absent_for={"m1": 0.0}).actions == ()
    assert plan(a_machine("m1", status=MachineStatus.LOST), told).actions == (Forget("m1"),)


# ---------------------------------------------------------------- the brake


@pytest.mark.parametrize(
    ("machines", "absent", "mode"),
    [
        (2, 1, "off"),
        (3, 1, "off"),
        (6, 2, "off"),
        (5, 2, "holding"),
        (3, 2, "holding"),
        (5, 3, "stopped"),
        (4, 4, "stopped"),
        (2, 2, "holding"),
        (10, 5, "holding"),
        (10, 6, "stopped"),
    ],
)
def test_the_brake_counts_on_the_roster(machines: int, absent: int, mode: str) -> None:
    found = plan(*fleet(machines, absent), absent_for=away(absent))
    assert found.brake.mode == mode
    assert (lost(found) != []) == (mode == "off")


def test_the_hold_ends_after_a_minute_of_quiet() -> None:
    found = plan(*fleet(5, 2), absent_for=away(2, 61.0))
    assert found.brake.mode == "off" and lost(found) == ["m0", "m1"]


def test_another_loss_begins_the_hold_anew() -> None:
    found = plan(*fleet(6, 3), absent_for={"m0": 61.0, "m1": 61.0, "m2": 5.0})
    assert found.brake.mode == "holding" and lost(found) == []


def test_a_stop_does_not_end_by_itself() -> None:
    assert plan(*fleet(5, 3), absent_for=away(3, 1e6)).brake.mode == "stopped"


def test_losses_one_after_another_within_a_minute_count_together() -> None:
    earlier = a_machine("m1", status=MachineStatus.LOST, since=NOW - 30)
    found = plan(a_machine("m0", present=False), earlier, a_machine("m2"), absent_for={"m0": 3.0})
    assert found.brake.mode == "holding"


def test_a_machine_lost_long_ago_weighs_nothing() -> None:
    old = [a_machine(f"old{n}", status=MachineStatus.LOST, since=NOW - 3600) for n in range(5)]
    assert lost(plan(*fleet(4, 1), *old, absent_for=away(1))) == ["m0"]


def test_a_release_lets_go_of_the_losses_known_then_and_no_later_ones() -> None:
    absent = {"m0": NOW - 100, "m1": NOW - 100, "m2": NOW - 100}
    release = Brake(order=BrakeOrder.RELEASE, at=NOW - 50)
    assert brake(absent, {}, 4, release, NOW).mode == "released"
    assert brake({**absent, "m3": NOW - 10}, {}, 4, release, NOW).mode == "stopped"


def test_a_hold_keeps_even_a_single_loss() -> None:
    held = a_record(keys.BRAKE, Brake(order=BrakeOrder.HOLD, at=NOW))
    found = plan(*fleet(5, 1), held, absent_for=away(1))
    assert found.brake.mode == "held" and lost(found) == []
