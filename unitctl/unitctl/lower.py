"""What stop, unload, destroy and restart share: registered units, by name, range or glob, one call, wait."""

from __future__ import annotations

from collections.abc import Sequence

from unitctl.arguments import registered, spread
from unitctl.change import Patience, Wish, carry_out
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.goal import TARGET, Goal
from unitctl.render import say
from unitfleet import names
from unitfleet.api import Change, UnitView
from unitfleet.model import TargetState


def lower(invocation: Invocation, units: Sequence[str], goal: Goal, patience: Patience, output: str) -> None:
    """Bring registered units to the target of a goal and wait; raises what failed."""
    api = connect(invocation)
    target = None if goal is Goal.RESTART else TARGET[goal]
    found = registered(api, units)
    literally = {names.complete(name) for name in spread(units) if not names.is_glob(name)}
    views = {} if goal in (Goal.UNLOAD, Goal.DESTROY) else {view.name: view for view in api.known(found).items}
    wishes = []
    for name in found:
        why = left_alone(goal, views.get(name), by_glob=name not in literally)
        if why:
            say(f"{name}: {why}")
            continue
        change = Change(name=name, target=target, restart=goal is Goal.RESTART, if_exists=name not in literally)
        wishes.append(Wish(change, goal))
    if wishes:
        carry_out(api, wishes, patience, invocation, output)


def left_alone(goal: Goal, view: UnitView | None, *, by_glob: bool) -> str:
    """Say why a unit needs nothing done, "" when it does.

    A stop would place an inactive unit (`loaded` is above `inactive`); a glob restarts what is to run.
    """
    if view is None:
        return ""
    if goal is Goal.STOP and view.target is TargetState.INACTIVE:
        return "is inactive already"
    if goal is Goal.RESTART and by_glob and view.target is not TargetState.LAUNCHED:
        return f"is not to run (its target is {view.target}), so it is not restarted"
    return ""
