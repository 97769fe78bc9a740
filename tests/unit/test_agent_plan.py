"""What the agent does about one unit, and what it says of it: tables, and every crash point replayed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

import pytest

from unit_agent.driver import Copy
from unit_agent.holds import plan_held
from unit_agent.reconcile import Action, Activity, Step, plan, report
from unitfleet.model import CopyPhase, Placement, Wanted

P, S, R, C, B = Step.PREPARE, Step.STOP, Step.REMOVE, Step.CREATE, Step.START
U = "a.service"


def wants(wanted: Wanted = Wanted.LAUNCHED, epoch: int = 5, **wishes: object) -> Placement:
    """Build a placement of the unit here."""
    fields = {"spec": "s1", "incarnation": "i1", "restart": 0, **wishes}
    return Placement(unit=U, machine="m", epoch=epoch, wanted=wanted, reason="least loaded", **fields)  # type: ignore[arg-type]


def holds(phase: CopyPhase = CopyPhase.RUNNING, epoch: int = 5, **wishes: object) -> Copy:
    """Build a copy that this machine holds."""
    fields = {"spec": "s1", "incarnation": "i1", "restart": 0, **wishes}
    return Copy(unit=U, driver="fake", id="c1", epoch=epoch, phase=phase, **fields)  # type: ignore[arg-type]


LOADED, RUNNING, FAILED, FINISHED = CopyPhase.LOADED, CopyPhase.RUNNING, CopyPhase.FAILED, CopyPhase.FINISHED

CASES: list[tuple[str, Placement | None, Copy | None, tuple[Step, ...]]] = [
    ("nothing ordered, nothing here", None, None, ()),
    ("a running copy without an order is left alone", None, holds(), ()),
    ("a copy between restarts without an order is left alone", None, holds(CopyPhase.RESTARTING), ()),
    ("an ended copy without an order is removed", None, holds(FAILED), (R,)),
    ("gone, and nothing here", wants(Wanted.GONE), None, ()),
    ("gone stops and removes", wants(Wanted.GONE), holds(), (S, R)),
    ("gone of an ended copy removes", wants(Wanted.GONE), holds(FINISHED), (R,)),
    ("gone at the copy's own epoch counts", wants(Wanted.GONE, 5), holds(epoch=5), (S, R)),
    ("gone older than the copy is void", wants(Wanted.GONE, 4), holds(epoch=5), ()),
    ("gone of another incarnation ends this one too", wants(Wanted.GONE, 6, incarnation="i2"), holds(), (S, R)),
    ("loaded is made, not started", wants(Wanted.LOADED), None, (P, C)),
    ("loaded stands", wants(Wanted.LOADED), holds(LOADED), ()),
    ("loaded stops what runs", wants(Wanted.LOADED, 6), holds(), (P, S, R, C)),
    ("loaded makes anew what failed", wants(Wanted.LOADED, 6), holds(FAILED), (P, R, C)),
    ("launched is made and started", wants(), None, (P, C, B)),
    ("launched starts what is loaded", wants(), holds(LOADED), (B,)),
    ("launched leaves what runs", wants(), holds(), ()),
    ("a higher epoch adopts what runs", wants(epoch=9), holds(epoch=5), ()),
    ("launched leaves what failed at this epoch", wants(), holds(FAILED), ()),
    ("a higher epoch tries again what failed", wants(epoch=6), holds(FAILED), (P, R, C, B)),
    ("a finished copy is not run again at its epoch", wants(), holds(FINISHED), ()),
    ("another text replaces", wants(spec="s2"), holds(), (P, S, R, C, B)),
    ("another incarnation is never adopted", wants(incarnation="i2"), holds(), (P, S, R, C, B)),
    ("a higher restart number restarts", wants(restart=1), holds(), (P, S, R, C, B)),
    ("a restart that was done is not done again", wants(restart=1), holds(restart=1), ()),
    ("a lower restart number is old news", wants(restart=1), holds(restart=2), ()),
    ("an order older than the copy changes nothing", wants(epoch=4, spec="s0"), holds(epoch=5), ()),
]


@pytest.mark.parametrize(
    ("wanted", "copy", "steps"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_the_steps_for_an_order_and_a_copy(
    wanted: Placement | None, copy: Copy | None, steps: tuple[Step, ...]
) -> None:
    actions = plan(wanted, copy)
    assert tuple(action.step for action in actions) == steps
    assert all(action.reason for action in actions)


def after(copy: Copy | None, step: Step, wanted: Placement | None) -> Copy | None:
    """Return the copy after one step of a driver."""
    match step:
        case Step.PREPARE:
            return copy
        case Step.STOP:
            assert copy is not None and copy.executing, "only what runs is stopped"
            return replace(copy, phase=LOADED)
        case Step.REMOVE:
            assert copy is not None and not copy.executing, "only what is stopped is removed"
            return None
        case Step.CREATE:
            assert copy is None and wanted is not None, "never a second copy"
            return holds(
                LOADED, wanted.epoch, spec=wanted.spec, incarnation=wanted.incarnation, restart=wanted.restart
            )
        case Step.START:
            assert copy is not None
            return replace(copy, phase=RUNNING)


def carried_out(actions: Iterable[Action], wanted: Placement | None, copy: Copy | None) -> Copy | None:
    """Return the copy after these steps."""
    for action in actions:
        copy = after(copy, action.step, wanted)
    return copy


ORDERS = [
    None,
    *(
        wants(wanted, epoch, spec=spec, incarnation=incarnation, restart=restart)
        for wanted in Wanted
        for epoch in (4, 5, 6)
        for spec in ("s1", "s2")
        for incarnation in ("i1", "i2")
        for restart in (0, 1)
    ),
]
COPIES = [
    None,
    *(
        holds(phase, restart=restart)
        for phase in CopyPhase
        if phase not in (CopyPhase.WAITING, CopyPhase.PULLING, CopyPhase.GONE)
        for restart in (0, 1)
    ),
]


def matters(copy: Copy | None) -> object:
    """Return what an end is judged by: a stopped copy that can be kept may carry the number of its own epoch."""
    return copy and (copy.phase, copy.spec, copy.incarnation)


@pytest.mark.parametrize("copy", COPIES, ids=lambda c: f"{c.phase} {c.restart}" if c else "no copy")
def test_a_crash_after_any_step_leads_to_the_same_end(copy: Copy | None) -> None:
    for wanted in ORDERS:
        actions = plan(wanted, copy)
        end = carried_out(actions, wanted, copy)
        assert plan(wanted, end) == (), f"{wanted} is not at rest after {actions}"
        for done in range(len(actions)):
            halfway = carried_out(actions[:done], wanted, copy)
            again = carried_out(plan(wanted, halfway), wanted, halfway)
            assert matters(again) == matters(end), f"after {done} of {actions}"


def test_nothing_that_runs_is_stopped_but_by_an_order_that_is_not_older() -> None:
    for wanted, copy in itertools.product(ORDERS, COPIES):
        if copy is None or not copy.executing:
            continue
        if any(action.step is Step.STOP for action in plan(wanted, copy)):
            assert wanted is not None and wanted.epoch >= copy.epoch


def test_the_old_copy_serves_until_the_new_one_is_prepared() -> None:
    steps = [action.step for action in plan(wants(spec="s2"), holds())]
    assert steps.index(Step.PREPARE) < steps.index(Step.STOP)


REPORTS: list[tuple[str, Placement | None, Copy | None, Activity | None, CopyPhase | None, int]] = [
    ("no order, no copy: nothing to say", None, None, None, None, 0),
    ("an orphan that runs is reported at its own epoch", None, holds(epoch=3), None, RUNNING, 3),
    ("an orphan that ended is not spoken of", None, holds(FAILED), None, None, 0),
    ("gone and nothing left: acknowledged", wants(Wanted.GONE, 7), None, None, CopyPhase.GONE, 7),
    ("gone and still here: stopping", wants(Wanted.GONE, 7), holds(), None, CopyPhase.STOPPING, 7),
    ("gone older than the copy: not acknowledged", wants(Wanted.GONE, 4), holds(epoch=5), None, RUNNING, 5),
    ("a copy of a later epoch than its order is told as it is", wants(epoch=4), holds(epoch=5), None, RUNNING, 5),
    ("placed, nothing here yet", wants(epoch=7), None, None, CopyPhase.WAITING, 7),
    ("a pull shows", wants(), None, Activity(CopyPhase.PULLING, "", 40), CopyPhase.PULLING, 5),
    ("running is said at the order's epoch", wants(epoch=9), holds(epoch=5), None, RUNNING, 9),
    ("the old text that runs is not the one wanted", wants(spec="s2"), holds(), None, CopyPhase.WAITING, 5),
    ("a restart not done yet is not running", wants(restart=1), holds(), None, CopyPhase.WAITING, 5),
    ("a failed copy", wants(), holds(FAILED), None, FAILED, 5),
    ("a finished copy", wants(), holds(FINISHED), None, FINISHED, 5),
]


@pytest.mark.parametrize(
    ("wanted", "copy", "activity", "phase", "epoch"),
    [case[1:] for case in REPORTS],
    ids=[case[0] for case in REPORTS],
)
def test_what_is_said_of_an_order_and_a_copy(
    wanted: Placement | None, copy: Copy | None, activity: Activity | None, phase: CopyPhase | None, epoch: int
) -> None:
    state = report("m", U, wanted, copy, activity)
    assert (state.phase if state else None) is phase
    assert (state.epoch if state else 0) == epoch


def test_running_is_said_only_when_nothing_is_left_to_do() -> None:
    for wanted, copy in itertools.product(ORDERS, COPIES):
        state = report("m", U, wanted, copy, None)
        if wanted is None or state is None:
            continue
        if state.phase in (RUNNING, FINISHED) and state.epoch == wanted.epoch:
            assert plan(wanted, copy) == ()
        if state.phase is CopyPhase.GONE:
            assert copy is None


HELD: list[tuple[str, Placement | None, Copy | None, tuple[Step, ...] | None]] = [
    ("held: what runs is stopped and removed", wants(), holds(), (S, R)),
    ("held: nothing is started", wants(), None, ()),
    ("held: what is loaded stays", wants(), holds(LOADED), ()),
    ("held: an orphan is stopped too", None, holds(), (S, R)),
    ("held: gone is done all the same", wants(Wanted.GONE), holds(), None),
]


@pytest.mark.parametrize(("wanted", "copy", "steps"), [case[1:] for case in HELD], ids=[case[0] for case in HELD])
def test_a_unit_held_by_the_operator_of_its_host(
    wanted: Placement | None, copy: Copy | None, steps: tuple[Step, ...] | None
) -> None:
    actions = plan_held(wanted, copy)
    assert (tuple(a.step for a in actions) if actions is not None else None) == steps
