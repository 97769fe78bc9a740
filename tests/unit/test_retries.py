"""What fails again and again on one host is tried on another, on three at most, and the store alone remembers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.builders import Built, BuiltUnit, a_machine, a_record, a_unit, a_view
from unit_master.actions import Gone, Place, UnitAction, Want
from unit_master.apply import Scribe
from unit_master.reconcile import plan_units
from unit_master.retries import MOST_HOSTS
from unit_master.views import Views
from unitfleet import codec, keys
from unitfleet.model import CopyPhase, MachineStatus, Placement, UnitState, Wanted
from unitfleet.store import Put

THREE = (a_machine("m1"), a_machine("m2"), a_machine("m3"))
FOUR = (*THREE, a_machine("m4"))
ONESHOT = "[Service]\nType=oneshot\nExecStart=/bin/false\n"


def ordered(of: BuiltUnit, machine: str, *, epoch: int = 1, tried: tuple[str, ...] = (), **wishes: Any) -> Built:
    unit = of.unit
    usual = {"restart": unit.restart, "spec": unit.spec, "incarnation": unit.incarnation}
    placement = Placement(
        unit=unit.name,
        machine=machine,
        epoch=epoch,
        wanted=Wanted.LAUNCHED,
        reason="least loaded",
        tried=tried,
        **{**usual, **wishes},
    )
    return a_record(keys.placement(machine, unit.name), placement)


def told(
    of: BuiltUnit, machine: str, phase: CopyPhase = CopyPhase.FAILED, *, epoch: int = 1, **wishes: Any
) -> Built:
    """Build what an agent says of a copy: by default one that was restarted in vain."""
    unit = of.unit
    usual = {
        "restarts": 4,
        "copy_id": "c1",
        "message": "exited with status 3; not restarted",
        "restart": unit.restart,
    }
    state = UnitState(
        unit=unit.name,
        machine=machine,
        incarnation=unit.incarnation,
        epoch=epoch,
        spec=unit.spec,
        phase=phase,
        **{**usual, **wishes},
    )
    return a_record(keys.state(machine, unit.name), state)


def plan(*built: Built) -> list[UnitAction]:
    return plan_units(a_view(*built, epoch=9), 1000.0)


def test_a_unit_that_was_restarted_in_vain_is_placed_on_another_machine_that_remembers_where_it_failed() -> None:
    unit = a_unit()
    [action] = plan(*THREE, unit, ordered(unit, "m1"), told(unit, "m1"))
    assert isinstance(action, Place) and action.machine in ("m2", "m3")
    assert (action.moved_from, action.tried) == ("m1", ("m1",))
    assert action.reason.startswith("failed on m1: exited with status 3")


def test_the_new_order_carries_the_memory_into_the_store_and_a_renewed_one_forgets_it() -> None:
    unit = a_unit()
    view = a_view(*THREE, unit, ordered(unit, "m1", tried=("m2",)), told(unit, "m1"), epoch=9)
    actions = plan_units(view, 1000.0)
    assert [action.machine for action in actions if isinstance(action, Place)] == ["m3"]

    def written(action: UnitAction) -> Placement:
        [batch] = Scribe(view, "master1", 1000.0, iter(range(99)).__next__).batches([action], 10)
        [raw] = [op.value for op in batch.ops if isinstance(op, Put) and "/placements/" in op.key]
        return codec.decode(raw, Placement, "placement")

    assert written(actions[0]).tried == ("m2", "m1")
    assert written(Want(unit.unit.name, "m1", Wanted.LAUNCHED, "restart was asked for")).tried == ()


def test_after_three_hosts_it_stays_failed_and_names_them() -> None:
    unit = a_unit()
    world = (*FOUR, unit, ordered(unit, "m3", tried=("m1", "m2")), told(unit, "m3"))
    assert MOST_HOSTS == 3 and plan(*world) == []
    shown = Views(a_view(*world, epoch=9)).unit(unit.unit.name)
    assert shown is not None and (shown.phase, shown.settled) == ("failed", True)
    assert shown.why.endswith("it failed on m1, m2 and m3"), shown.why


def test_as_long_as_another_host_is_to_try_it_nobody_is_told_that_it_is_over() -> None:
    unit = a_unit()
    shown = Views(a_view(*THREE, unit, ordered(unit, "m1"), told(unit, "m1"), epoch=9)).unit(unit.unit.name)
    assert shown is not None and (shown.phase, shown.settled) == ("failed", False)
    alone = Views(a_view(a_machine("m1"), unit, ordered(unit, "m1"), told(unit, "m1"), epoch=9)).unit("a.service")
    assert alone is not None and alone.settled


def test_a_unit_that_never_came_to_run_is_tried_elsewhere_at_once() -> None:
    unit = a_unit()
    [action] = plan(*THREE, unit, ordered(unit, "m1"), told(unit, "m1", restarts=0, copy_id=""))
    assert isinstance(action, Place)


@pytest.mark.parametrize(
    ("unit", "state"),
    [
        (a_unit(), {"restarts": 0}),
        (a_unit(text=ONESHOT), {}),
        (a_unit(fleet="MachineID=m1"), {}),
        (a_unit(fleet="Global=true"), {}),
        (a_unit(fleet="OnMachineLoss=wait"), {}),
        (a_unit(), {"epoch": 2}),
        (a_unit(), {"phase": CopyPhase.FINISHED}),
        (a_unit(), {"phase": CopyPhase.RESTARTING}),
    ],
    ids=[
        "a single bad end with Restart=no",
        "a oneshot that ran",
        "a pinned one",
        "a global one",
        "one whose data is on its host",
        "a state of another order",
        "one that finished",
        "one that is still tried",
    ],
)
def test_what_another_host_would_not_mend_stays(unit: BuiltUnit, state: dict[str, Any]) -> None:
    machines = (a_machine("m1"), a_machine("m2"))
    placements = [ordered(unit, "m1")]
    states = [told(unit, "m1", **state)]
    if "Global" in dict(unit.pieces)[keys.spec(unit.unit.spec)].decode():
        placements.append(ordered(unit, "m2", epoch=2))
        states.append(told(unit, "m2", CopyPhase.RUNNING, epoch=2))
    assert not [action for action in plan(*machines, unit, *placements, *states) if isinstance(action, Place)]


def test_a_global_unit_that_failed_on_a_machine_has_failed() -> None:
    unit = a_unit(fleet="Global=true")
    failed, running = told(unit, "m1"), told(unit, "m2", CopyPhase.RUNNING, epoch=2)
    orders = (ordered(unit, "m1"), ordered(unit, "m2", epoch=2))
    view = a_view(a_machine("m1"), a_machine("m2"), unit, *orders, failed, running)
    shown = Views(view).unit(unit.unit.name)
    assert shown is not None and (shown.phase, shown.settled) == ("failed", True), shown


def test_a_oneshot_that_never_ran_is_tried_elsewhere() -> None:
    unit = a_unit(text=ONESHOT)
    actions = plan(*THREE, unit, ordered(unit, "m1"), told(unit, "m1", restarts=0, copy_id=""))
    assert any(isinstance(action, Place) for action in actions)


def test_it_stays_where_it_failed_while_that_machine_is_not_heard_of() -> None:
    unit = a_unit()
    silent = a_machine("m1", present=False)
    assert plan(silent, a_machine("m2"), unit, ordered(unit, "m1"), told(unit, "m1")) == []


def test_a_user_who_asks_again_is_obeyed_where_it_is_with_nothing_remembered() -> None:
    unit = a_unit(restart=1)
    order = ordered(unit, "m3", tried=("m1", "m2"), restart=0)
    [action] = plan(*THREE, unit, order, told(unit, "m3", restart=0))
    assert isinstance(action, Want) and action.machine == "m3"


def test_a_failed_copy_goes_when_the_next_host_failed_too_and_a_third_one_tries() -> None:
    unit = a_unit()
    first, second = ordered(unit, "m1"), ordered(unit, "m2", epoch=2, tried=("m1",))
    actions = plan(*THREE, unit, first, second, told(unit, "m1"), told(unit, "m2", epoch=2))
    assert [(type(action), action.machine) for action in actions] == [(Gone, "m1"), (Place, "m3")]  # type: ignore[union-attr]
    place = actions[1]
    assert isinstance(place, Place) and place.tried == ("m1", "m2")


def test_a_host_that_runs_it_after_all_is_its_place_again() -> None:
    """The agent of a host that could not make the copy goes on trying: nothing is stopped that runs."""
    unit = a_unit()
    first, second = ordered(unit, "m1"), ordered(unit, "m2", epoch=2, tried=("m1",))
    running = told(unit, "m1", CopyPhase.RUNNING, restarts=0)
    [action] = plan(*THREE, unit, first, second, running, told(unit, "m2", epoch=2))
    assert isinstance(action, Want) and action.machine == "m1"


def test_a_lost_host_is_a_matter_of_losses_and_its_failures_are_forgotten() -> None:
    unit = a_unit()
    lost = a_machine("m1", status=MachineStatus.LOST)
    [action] = plan(lost, a_machine("m2"), unit, ordered(unit, "m1", tried=("m2",)), told(unit, "m1"))
    assert isinstance(action, Place) and (action.machine, action.tried) == ("m2", ())


def test_an_order_of_an_older_version_has_tried_nothing() -> None:
    raw = msgspec.json.encode({"v": 1, "unit": "a.service"})
    assert b"tried" not in raw and Placement.__struct_defaults__[-2:] == ((), 0.0)
