"""What the API shows of units and machines: every phase, and the moment from which `unitctl` stops waiting."""

from __future__ import annotations

import msgspec
import pytest

from harness.builders import (
    GIB,
    Built,
    BuiltUnit,
    a_machine,
    a_pending,
    a_placement,
    a_record,
    a_state,
    a_unit,
    a_view,
)
from unit_master.view import ClusterView
from unit_master.views import Views, endpoints, machine_view, machine_views
from unitfleet import codec, keys
from unitfleet.api import UnitView
from unitfleet.model import (
    Capacity,
    CopyPhase,
    Leader,
    MachineStatus,
    Pin,
    Port,
    Resources,
    TargetState,
    UnitState,
    Wanted,
)

LOST = MachineStatus.LOST
M1, M2 = a_machine("m1"), a_machine("m2")
WAITS = "OnMachineLoss=wait"


def seen(*built: Built, name: str = "a.service") -> UnitView:
    shown = Views(a_view(*built)).unit(name)
    assert shown is not None
    return shown


def state_with(of: BuiltUnit, machine: str, **fields: object) -> Built:
    raw = a_state(of, machine).pieces[0][1]
    state = msgspec.structs.replace(codec.decode(raw, UnitState), **fields)
    return a_record(keys.state(machine, of.unit.name), state)


def test_an_unknown_unit_has_no_view() -> None:
    assert Views(a_view()).unit("a.service") is None


def test_a_new_unit_is_pending_until_the_leader_has_looked() -> None:
    unit = a_unit()
    shown = seen(unit)
    assert (shown.phase, shown.settled, shown.ok) == ("pending", False, False)
    assert "not looked at yet" in shown.why and "no master leads" in shown.why
    led = seen(unit, a_record(keys.LEADER, Leader(nonce="n", name="one")))
    assert led.why == "not looked at yet"


def test_a_unit_that_fits_nowhere_tells_the_leaders_reason() -> None:
    unit = a_unit()
    shown = seen(unit, a_pending(unit, "no machine fits", since=7.0))
    assert (shown.phase, shown.settled, shown.ok, shown.why, shown.since) == (
        "pending",
        False,
        False,
        "no machine fits",
        7.0,
    )
    assert shown.pending is not None


def test_a_placement_without_a_report_is_placed() -> None:
    unit = a_unit()
    shown = seen(M1, unit, a_placement(unit, "m1"))
    assert (shown.phase, shown.settled, shown.ok) == ("placed", False, False)
    assert shown.copies[0].machine_name == "m1" and shown.copies[0].phase == ""


@pytest.mark.parametrize(
    ("reported", "phase", "settled", "ok"),
    [
        (CopyPhase.WAITING, "placed", False, False),
        (CopyPhase.PULLING, "pulling", False, False),
        (CopyPhase.STARTING, "starting", False, False),
        (CopyPhase.LOADED, "starting", False, False),
        (CopyPhase.RUNNING, "running", True, True),
        (CopyPhase.RESTARTING, "restarting", False, False),
        (CopyPhase.STOPPING, "stopping", False, False),
        (CopyPhase.FINISHED, "finished", True, True),
        (CopyPhase.FAILED, "failed", True, False),
        (CopyPhase.GONE, "placed", False, False),
    ],
)
def test_a_launched_unit_is_as_its_copy_reports(reported: CopyPhase, phase: str, settled: bool, ok: bool) -> None:
    unit = a_unit()
    shown = seen(M1, unit, a_placement(unit, "m1"), a_state(unit, "m1", reported))
    assert (shown.phase, shown.settled, shown.ok) == (phase, settled, ok)
    assert bool(shown.why) is not ok
    assert shown.copies[0].current


@pytest.mark.parametrize(
    ("reported", "phase", "settled", "ok"),
    [
        (CopyPhase.PULLING, "pulling", False, False),
        (CopyPhase.LOADED, "loaded", True, True),
        (CopyPhase.RUNNING, "stopping", False, False),
        (CopyPhase.STOPPING, "stopping", False, False),
        (CopyPhase.FAILED, "failed", True, False),
    ],
)
def test_a_loaded_unit_is_as_its_copy_reports(reported: CopyPhase, phase: str, settled: bool, ok: bool) -> None:
    unit = a_unit(target=TargetState.LOADED)
    shown = seen(M1, unit, a_placement(unit, "m1", wanted=Wanted.LOADED), a_state(unit, "m1", reported))
    assert (shown.phase, shown.settled, shown.ok) == (phase, settled, ok)


def test_a_report_of_an_older_epoch_says_nothing_of_the_present_order() -> None:
    unit = a_unit()
    shown = seen(M1, unit, a_placement(unit, "m1", epoch=5), a_state(unit, "m1", epoch=4))
    assert (shown.phase, shown.settled, shown.ok) == ("placed", False, False)


def test_a_report_of_another_incarnation_says_nothing() -> None:
    unit = a_unit()
    shown = seen(M1, unit, a_placement(unit, "m1"), a_state(unit, "m1", incarnation="i0"))
    assert (shown.phase, shown.ok) == ("placed", False)
    assert not shown.copies[0].current


@pytest.mark.parametrize("former", [{"restart": 0}, {"spec": "0" * 64}], ids=["restart", "text"])
def test_a_copy_from_before_a_restart_or_a_new_text_does_not_settle_it(former: dict[str, object]) -> None:
    unit = a_unit(restart=1)
    state = state_with(unit, "m1", **former)
    for placement in (a_placement(unit, "m1", restart=0), a_placement(unit, "m1")):
        shown = seen(M1, unit, placement, state)
        assert (shown.phase, shown.settled, shown.ok) == ("restarting", False, False)
        assert shown.why and not shown.copies[0].current


def test_a_copy_that_failed_to_take_the_new_text_has_failed() -> None:
    unit = a_unit()
    state = state_with(unit, "m1", spec="0" * 64, phase=CopyPhase.FAILED, message="no such image")
    shown = seen(M1, unit, a_placement(unit, "m1"), state)
    assert (shown.phase, shown.settled, shown.why) == ("failed", True, "no such image")


def test_a_failure_from_before_the_restart_does_not_settle_it() -> None:
    unit = a_unit(restart=1)
    former = a_state(unit, "m1", CopyPhase.FAILED, restart=0)
    assert not seen(M1, unit, a_placement(unit, "m1", restart=0), former).settled


def test_a_running_copy_is_not_loaded_until_it_was_told() -> None:
    unit = a_unit(target=TargetState.LOADED)
    shown = seen(M1, unit, a_placement(unit, "m1"), a_state(unit, "m1"))
    assert (shown.phase, shown.settled) == ("stopping", False)
    unit = a_unit(target=TargetState.LAUNCHED)
    shown = seen(M1, unit, a_placement(unit, "m1", wanted=Wanted.LOADED), a_state(unit, "m1", CopyPhase.LOADED))
    assert (shown.phase, shown.settled) == ("placed", False)


def test_the_place_is_the_newest_live_placement_and_stands_first() -> None:
    unit = a_unit()
    shown = seen(
        M1,
        M2,
        unit,
        a_placement(unit, "m1", epoch=3),
        a_state(unit, "m1", epoch=3),
        a_placement(unit, "m2", epoch=4),
        a_state(unit, "m2", CopyPhase.STARTING, epoch=4),
    )
    assert [copy.machine for copy in shown.copies] == ["m2", "m1"]
    assert shown.phase == "starting"


def test_a_placement_that_leaves_is_not_the_place() -> None:
    unit = a_unit()
    leaving = a_placement(unit, "m2", epoch=9, wanted=Wanted.GONE)
    shown = seen(M1, M2, unit, a_placement(unit, "m1", epoch=3), a_state(unit, "m1", epoch=3), leaving)
    assert shown.ok and shown.copies[1].wanted == "gone"


@pytest.mark.parametrize("status", [MachineStatus.READY, LOST])
def test_a_unit_whose_machine_went_away_waits_for_it_and_says_so(status: MachineStatus) -> None:
    unit = a_unit(fleet=WAITS)
    away = a_machine("m1", status=status, present=False, since=1_700_000_000.0)
    shown = seen(away, unit, a_placement(unit, "m1"), a_state(unit, "m1"))
    assert (shown.phase, shown.settled, shown.ok) == ("waiting-for-machine", False, False)
    if status is LOST:
        assert shown.why == "m1 is lost since 2023-11-14 22:13:20Z; waits for it (OnMachineLoss=wait)"
    else:
        assert "m1 is suspect" in shown.why


def test_a_unit_that_can_not_move_off_a_lost_machine_tells_why() -> None:
    unit = a_unit()
    lost = a_machine("m1", status=LOST)
    shown = seen(lost, unit, a_placement(unit, "m1"), a_state(unit, "m1"), a_pending(unit, "no machine fits"))
    assert shown.phase == "waiting-for-machine" and "no machine fits" in shown.why


def test_a_finished_unit_stays_finished_when_its_machine_is_lost() -> None:
    unit = a_unit()
    shown = seen(
        a_machine("m1", status=LOST), unit, a_placement(unit, "m1"), a_state(unit, "m1", CopyPhase.FINISHED)
    )
    assert (shown.phase, shown.settled, shown.ok) == ("finished", True, True)


def test_a_running_unit_that_should_leave_and_can_not_is_ok_and_says_why() -> None:
    unit = a_unit()
    shown = seen(M1, unit, a_placement(unit, "m1"), a_state(unit, "m1"), a_pending(unit, "m1 is drained"))
    assert shown.ok and shown.why == "m1 is drained"


@pytest.mark.parametrize("target", [TargetState.INACTIVE, TargetState.DESTROYED])
def test_a_unit_leaves_until_every_copy_is_acknowledged(target: TargetState) -> None:
    unit = a_unit(target=target)
    phase = "stopping" if target is TargetState.INACTIVE else "destroying"
    untold = seen(M1, unit, a_placement(unit, "m1"), a_state(unit, "m1"))
    told = seen(M1, unit, a_placement(unit, "m1", wanted=Wanted.GONE), a_state(unit, "m1"))
    orphan = seen(M1, unit, a_state(unit, "m1"))
    for shown in (untold, told, orphan):
        assert (shown.phase, shown.settled, shown.ok) == (phase, False, False)
        assert "m1" in shown.why


def test_an_inactive_unit_without_copies_is_as_wanted() -> None:
    shown = seen(M1, a_unit(target=TargetState.INACTIVE))
    assert (shown.phase, shown.settled, shown.ok, shown.why) == ("inactive", True, True, "")


def test_a_copy_on_a_lost_machine_holds_up_no_stop() -> None:
    unit = a_unit(target=TargetState.INACTIVE)
    lost = a_machine("m1", status=LOST)
    gone = a_placement(unit, "m1", wanted=Wanted.GONE)
    assert seen(lost, unit, gone, a_state(unit, "m1")).ok
    assert not seen(lost, unit, a_placement(unit, "m1"), a_state(unit, "m1")).ok  # not even ordered yet


def test_a_template_is_inactive_and_as_wanted() -> None:
    shown = seen(a_unit("a@.service", target=TargetState.INACTIVE), name="a@.service")
    assert shown.is_template and shown.ok and shown.phase == "inactive"


def test_a_global_unit_is_as_good_as_its_least_good_copy() -> None:
    unit = a_unit(fleet="Global=true")
    both = (M1, M2, unit, a_placement(unit, "m1", epoch=1), a_placement(unit, "m2", epoch=2), a_state(unit, "m1"))
    pulling = seen(*both, a_state(unit, "m2", CopyPhase.PULLING, epoch=2))
    assert pulling.is_global and (pulling.phase, pulling.ok) == ("pulling", False)
    running = seen(*both, a_state(unit, "m2", epoch=2))
    assert (running.phase, running.settled, running.ok) == ("running", True, True)
    failed = seen(*both, a_state(unit, "m2", CopyPhase.FAILED, epoch=2))
    assert (failed.phase, failed.settled, failed.ok) == ("failed", True, False)


def test_a_global_unit_waits_for_every_machine_that_matches() -> None:
    unit = a_unit(fleet="Global=true\nMachineMetadata=zone=a")
    in_a, in_b = a_machine("m1", metadata={"zone": "a"}), a_machine("m2", metadata={"zone": "b"})
    placed = (unit, a_placement(unit, "m1"), a_state(unit, "m1"))
    assert seen(in_a, in_b, *placed).ok
    missing = seen(in_a, in_b, a_machine("m3", metadata={"zone": "a"}), *placed)
    assert (missing.phase, missing.ok) == ("pending", False) and "m3" in missing.why


def test_a_global_unit_does_not_wait_for_a_lost_machine() -> None:
    unit = a_unit(fleet="Global=true")
    lost = a_machine("m2", status=LOST)
    held = (a_placement(unit, "m1"), a_state(unit, "m1"), a_placement(unit, "m2", epoch=2))
    assert seen(M1, lost, unit, *held).ok


def test_a_global_unit_that_matches_nothing_is_pending() -> None:
    unit = a_unit(fleet="Global=true")
    assert seen(unit, a_pending(unit, "no machine has joined")).why == "no machine has joined"


def test_a_record_that_can_not_be_read_is_shown_and_hinders_no_other() -> None:
    view = a_view(a_unit("b.service"), Built(((keys.unit("a.service"), b"\x00junk"),)))
    assert Views(view).names() == ["a.service", "b.service"]
    shown = Views(view).unit("a.service")
    assert shown is not None and shown.phase == "unreadable" and not shown.ok and shown.settled
    assert "a.service" in shown.why and "destroy" in shown.why


def test_a_unit_whose_text_is_missing_or_bad_is_unreadable() -> None:
    unit = a_unit()
    no_text = Built(tuple(piece for piece in unit.pieces if "/units/" in piece[0]))
    assert seen(no_text).phase == "unreadable"
    bad = seen(a_unit(fleet="Nonsense=1"))
    assert bad.phase == "unreadable" and "Nonsense" in bad.why


def test_garbage_names_in_the_store_break_nothing() -> None:
    view = a_view(a_unit("no-suffix"), a_unit("..service"), a_unit("x@y@z"), a_unit())
    for name in Views(view).names():
        assert Views(view).unit(name) is not None


def test_a_copy_that_is_gone_without_a_placement_is_not_shown() -> None:
    unit = a_unit(target=TargetState.INACTIVE)
    shown = seen(M1, unit, a_state(unit, "m1", CopyPhase.GONE))
    assert shown.copies == () and shown.ok


def test_the_revision_is_that_of_the_last_change_of_anything_shown() -> None:
    unit = a_unit()
    view = a_view(
        M1, unit, a_placement(unit, "m1"), a_state(unit, "m1"), a_record(keys.pin("p"), Pin(spec="p", image="i"))
    )
    shown = Views(view).unit("a.service")
    assert shown is not None and shown.rev == view.revisions[keys.state("m1", "a.service")]


# ---------------------------------------------------------------------- machines


@pytest.mark.parametrize(
    ("machine", "status"),
    [
        (a_machine("m1"), "ready"),
        (a_machine("m1", present=False), "suspect"),
        (a_machine("m1", status=LOST), "lost"),
        (a_machine("m1", known=False), "ready"),
    ],
    ids=["there", "absent", "lost", "not enrolled yet"],
)
def test_a_machine_is_ready_suspect_or_lost(machine: Built, status: str) -> None:
    shown = machine_view(a_view(machine), "m1")
    assert shown is not None and shown.status == status and shown.address == "127.0.0.1"


def test_a_machine_shows_what_its_units_reserve_leaving_ones_too() -> None:
    one, two = a_unit("a.service", "CPU=0.5\nMemory=1G"), a_unit("b.service", "CPU=0.25")
    view = a_view(M1, one, two, a_placement(one, "m1"), a_placement(two, "m1", wanted=Wanted.GONE))
    shown = machine_view(view, "m1")
    assert shown is not None
    assert shown.reserved == Capacity(cpu=0.75, memory=GIB) and shown.units == 1


def test_a_machine_shows_its_use_and_the_operators_words() -> None:
    use = Resources(id="m1", capacity=Capacity(cpu=2.0, memory=GIB), cpu_used=0.5, memory_used=5, load=1.5)
    machine = a_machine(
        "m1", metadata={"zone": "a", "rack": "1"}, ordered={"zone": "b", "rack": ""}, cordoned=True
    )
    shown = machine_view(a_view(machine, a_record(keys.resources("m1"), use)), "m1")
    assert shown is not None
    assert (shown.metadata, shown.cordoned, shown.drained) == ({"zone": "b"}, True, False)
    assert (shown.capacity.cpu, shown.used.cpu, shown.used.memory, shown.load) == (2.0, 0.5, 5, 1.5)


def test_machines_are_listed_by_name() -> None:
    view = a_view(a_machine("b", id="1"), a_machine("a", id="2"), a_machine("c", id="0", status=LOST))
    assert [machine.name for machine in machine_views(view)] == ["a", "b", "c"]
    assert machine_view(view, "9") is None


# ---------------------------------------------------------------------- endpoints


def serving(unit: BuiltUnit, **fields: object) -> ClusterView:
    ports = (Port(host=8081, container=80),)
    state = state_with(unit, "m1", **{"address": "10.0.0.1", "ports": ports, **fields})
    return a_view(M1, unit, a_placement(unit, "m1"), state)


def test_a_running_copy_is_an_endpoint() -> None:
    (found,) = endpoints(serving(a_unit()), ["a.service"])
    assert (found.unit, found.machine, found.address, found.ports[0].host) == ("a.service", "m1", "10.0.0.1", 8081)


def test_an_endpoint_without_an_address_of_its_own_is_at_its_machines() -> None:
    (found,) = endpoints(serving(a_unit(), address=""), ["a.service"])
    assert found.address == "127.0.0.1"


@pytest.mark.parametrize(
    "fields",
    [{"phase": CopyPhase.STARTING}, {"health": "unhealthy"}, {"health": "starting"}, {"incarnation": "i0"}],
    ids=["starting", "unhealthy", "not yet healthy", "another incarnation"],
)
def test_a_copy_that_does_not_serve_is_no_endpoint(fields: dict[str, object]) -> None:
    assert endpoints(serving(a_unit(), **fields), ["a.service"]) == ()


def test_a_unit_that_is_to_stop_has_no_endpoints() -> None:
    assert endpoints(serving(a_unit(target=TargetState.INACTIVE)), ["a.service"]) == ()


def test_a_leaving_copy_is_no_endpoint_and_an_absent_machine_still_is() -> None:
    unit = a_unit()
    assert (
        endpoints(
            a_view(M1, unit, a_placement(unit, "m1", wanted=Wanted.GONE), a_state(unit, "m1")), ["a.service"]
        )
        == ()
    )
    held = (unit, a_placement(unit, "m1"), a_state(unit, "m1"))
    assert endpoints(a_view(a_machine("m1", present=False), *held), ["a.service"]) != ()
    assert endpoints(a_view(a_machine("m1", status=LOST), *held), ["a.service"]) == ()
