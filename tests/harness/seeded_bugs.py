"""Faults put into the real code on purpose: the checks are worth what they find of these.

    with seeded("no_grace"):
        …

`apply(name)` puts one in for good; `python -m harness.with_bug NAME unit_master …` starts a daemon with it. Each
is a mistake that somebody could make in good faith, and takes away one sentence of the protocol.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest import mock

import unit_agent.agent
import unit_agent.reconcile
import unit_agent.worker
import unit_master.machines
from unit_agent import fence
from unit_agent.copies import Copies
from unit_agent.driver import Copy
from unit_agent.reconcile import Action, Activity, Step
from unit_agent.strict.deadlines import Deadline, Deadlines
from unit_agent.strict.keeper import Strict
from unit_master.actions import Acknowledged, Lose
from unit_master.apply import Scribe, Transaction
from unit_master.brake import BrakeState
from unit_master.cache import Cache
from unit_master.machines import Clocks
from unit_master.reconcile import _Plan
from unit_master.view import ClusterView
from unitfleet import keys
from unitfleet.election import Term
from unitfleet.model import Placement, UnitState, Wanted

Patch = tuple[Any, str, Any]  # object, attribute, what it is to be


def _no_fence_compare() -> Sequence[Patch]:
    """A machine renews its fence whatever became of its presence and its placements."""
    real = fence.renewal

    def renewal(*arguments: Any) -> Any:
        _, operations = real(*arguments)
        return [], operations

    return [(fence, "renewal", renewal)]


def _no_lock_delay() -> Sequence[Patch]:
    """A strict unit is placed anew as soon as its machine is overdue."""
    return [(unit_master.machines, "strict_wait_s", lambda view, machine: 0.0)]


def _unconfirmed_start() -> Sequence[Patch]:
    """A strict copy starts without asking the store whether it may."""

    async def admit(self: Strict, placement: Placement, driver: str) -> None:
        return None

    return [(Strict, "admit", admit), (Strict, "must_stop", lambda self, unit: False)]


def _no_grace() -> Sequence[Patch]:
    """A machine is lost as soon as its presence is gone."""
    real = unit_master.machines._overdue

    def overdue(view: ClusterView, clocks: Clocks) -> Any:
        return real(view, replace(clocks, grace_s=0.0))

    return [(unit_master.machines, "_overdue", overdue)]


def _brake_off() -> Sequence[Patch]:
    """However many machines vanish at once, all their units move."""
    return [(unit_master.machines, "brake", lambda *_: BrakeState("off"))]


def _loses_the_present() -> Sequence[Patch]:
    """A machine is declared lost without looking whether it is back."""
    real = Scribe._lose

    def lose(self: Scribe, txn: Transaction, action: Lose) -> None:
        real(self, txn, action)
        del txn.compares[keys.presence(action.machine)]

    return [(Scribe, "_lose", lose)]


def _epoch_reuse() -> Sequence[Patch]:
    """Placements of one transaction share an epoch, and the counter is not raised."""

    def raised(self: Scribe, txn: Transaction) -> int:
        txn.epoch = max(1, self._epoch)
        return txn.epoch

    return [(Scribe, "_raise", raised)]


def _unguarded_leader() -> Sequence[Patch]:
    """A leader's writes do not compare its term."""
    return [(Term, "guard", lambda self: ())]


def _break_before_make() -> Sequence[Patch]:
    """The old copy goes when the new one is ordered, not when it runs."""
    return [(_Plan, "_runs", lambda self, placement: True)]


def _clears_unacknowledged() -> Sequence[Patch]:
    """What was ordered gone is forgotten without waiting for its agent to say so."""

    def acknowledged(self: _Plan) -> Iterator[Acknowledged]:
        for machine, entry in sorted(self.placements.items()):
            if entry.value.wanted is Wanted.GONE:
                yield Acknowledged(self.name, machine)
                del self.placements[machine]
                self.scene.clear(self.name, machine)

    return [(_Plan, "_acknowledged", acknowledged)]


def _delete_on_missing() -> Sequence[Patch]:
    """An agent stops what it finds no placement for."""
    real = unit_agent.reconcile.plan

    def plan(wanted: Placement | None, copy: Copy | None) -> tuple[Action, ...]:
        if wanted is None and copy is not None and copy.executing:
            return (Action(Step.STOP, "not placed here"), Action(Step.REMOVE, "not placed here"))
        return real(wanted, copy)

    return [(unit_agent.worker, "plan", plan), (unit_agent.reconcile, "plan", plan)]


def _gone_before_stop() -> Sequence[Patch]:
    """An agent acknowledges that a copy is gone before it has ended it."""
    real = unit_agent.reconcile.report

    def report(
        machine: str, unit: str, wanted: Placement | None, copy: Copy | None, activity: Activity | None
    ) -> UnitState | None:
        if wanted is not None and wanted.wanted is Wanted.GONE:
            return real(machine, unit, wanted, None, activity)
        return real(machine, unit, wanted, copy, activity)

    return [(unit_agent.agent, "report", report)]


def _restart_from_memory() -> Sequence[Patch]:
    """Which restart a copy was born of is kept in the agent's memory, and not on the copy."""
    real_put, real_take = Copies.put, Copies._take

    def put(self: Copies, copy: Copy) -> None:
        vars(self).setdefault("restarts", {})[copy.unit] = copy.restart
        real_put(self, copy)

    def take(self: Copies, held: Any, copies: Sequence[Copy], tick: int) -> None:
        known = vars(self).setdefault("restarts", {})
        real_take(self, held, [replace(copy, restart=known.get(copy.unit, 0)) for copy in copies], tick)

    return [(Copies, "put", put), (Copies, "_take", take)]


def _brake_by_wall_clock() -> Sequence[Patch]:
    """How long machines have been lost is told by the clock of whoever declared it."""
    return [(Cache, "lost_for", lambda self: {})]


def _later_epochs_forgotten() -> Sequence[Patch]:
    """A copy of a later epoch than its order, in a store that was set back, is never ordered anew."""
    return [(_Plan, "_forgotten", lambda self, placement: False)]


def _foreign_incarnation() -> Sequence[Patch]:
    """A copy of a unit that was destroyed is taken for the new one of its name."""
    real = unit_agent.reconcile._outdated

    def outdated(wanted: Placement, copy: Copy) -> str | None:
        return real(wanted, replace(copy, incarnation=wanted.incarnation))

    return [(unit_agent.reconcile, "_outdated", outdated)]


def _replaced_by_new_epoch() -> Sequence[Patch]:
    """A copy is made anew whenever its placement is written again, though nothing the user wrote has changed."""
    real = unit_agent.reconcile._outdated

    def outdated(wanted: Placement, copy: Copy) -> str | None:
        return real(wanted, copy) or ("ordered anew" if copy.epoch < wanted.epoch else None)

    return [(unit_agent.reconcile, "_outdated", outdated)]


def _deadline_from_answer() -> Sequence[Patch]:
    """A strict copy's deadline counts from when its renewal was answered, not from when it was sent."""
    real = Deadlines.renewed

    def renewed(self: Deadlines, unit: str, revision: int, sent: float) -> Deadline:
        return real(self, unit, revision, self.clock())

    return [(Deadlines, "renewed", renewed)]


def _strict_does_not_wait() -> Sequence[Patch]:
    """A strict unit is placed anew while its former copy still leaves."""
    return [(_Plan, "_waits_for_its_end", lambda self: "")]


BUGS: Mapping[str, Callable[[], Sequence[Patch]]] = {
    "no_fence_compare": _no_fence_compare,
    "no_lock_delay": _no_lock_delay,
    "unconfirmed_start": _unconfirmed_start,
    "no_grace": _no_grace,
    "brake_off": _brake_off,
    "loses_the_present": _loses_the_present,
    "epoch_reuse": _epoch_reuse,
    "unguarded_leader": _unguarded_leader,
    "break_before_make": _break_before_make,
    "clears_unacknowledged": _clears_unacknowledged,
    "delete_on_missing": _delete_on_missing,
    "gone_before_stop": _gone_before_stop,
    "restart_from_memory": _restart_from_memory,
    "brake_by_wall_clock": _brake_by_wall_clock,
    "later_epochs_forgotten": _later_epochs_forgotten,
    "foreign_incarnation": _foreign_incarnation,
    "replaced_by_new_epoch": _replaced_by_new_epoch,
    "deadline_from_answer": _deadline_from_answer,
    "strict_does_not_wait": _strict_does_not_wait,
}


@contextlib.contextmanager
def seeded(name: str) -> Iterator[None]:
    """Have the fault in the code meanwhile; raises KeyError for one nobody knows."""
    with ExitStack() as stack:
        for thing, attribute, wrong in BUGS[name]():
            stack.enter_context(mock.patch.object(thing, attribute, wrong))
        yield


def apply(name: str) -> None:
    """Put the fault into the code of this process, for good."""
    for thing, attribute, wrong in BUGS[name]():
        setattr(thing, attribute, wrong)
