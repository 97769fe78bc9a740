"""What every changing verb does: give all wishes in one call, follow them, tell how each ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec

from unitctl.client import Api, failure
from unitctl.context import Invocation
from unitctl.failures import Failure, NotPlaced, TimedOut, raise_all
from unitctl.goal import TARGET, Goal, Verdict
from unitctl.narrate import narrator
from unitctl.phrases import (
    considered,
    copy_warnings,
    place,
    refusals,
    stays,
    summary,
    units_text,
    waiting_for,
)
from unitctl.render import escape, items_json, json_line, out, span, warn
from unitctl.wait import Ending, Wait
from unitfleet.api import Change, ErrorBody, Result
from unitfleet.errors import UnitfleetError
from unitfleet.model import TargetState

# How many failed units get their last log lines shown.
_TELL_LOGS = 3
_LOG_LINES = 5

_PAST = {
    Goal.START: "started",
    Goal.RESTART: "restarted",
    Goal.LOAD: "loaded",
    Goal.STOP: "stopped",
    Goal.UNLOAD: "unloaded",
    Goal.DESTROY: "destroyed",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """A change and what to wait for; `goal` None: nothing (submit)."""

    change: Change
    goal: Goal | None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a command waits, and for what. `for_place`: also for a machine that takes the unit."""

    timeout: float
    no_block: bool = False
    for_place: bool = False


def carry_out(
    api: Api, wishes: Sequence[Wish], patience: Patience, invocation: Invocation, output: str = "table"
) -> None:
    """Give the wishes and wait for them; raises what failed after all that went well is written."""
    changed = api.change(wish.change for wish in wishes)
    for warning in dict.fromkeys(warning for result in changed.items for warning in result.warnings):
        warn(warning)
    failures = refusals_of(changed.items)
    taken = {result.name: result for result in changed.items if result.error is None}
    goals = {wish.change.name: wish.goal for wish in wishes if wish.goal is not None and wish.change.name in taken}
    if patience.no_block or not goals:
        _write_taken(output, changed.rev, wishes, taken)
        raise_all(failures)
        return
    telling = narrator(invocation, list(goals))
    endings = Wait(api, goals, telling, timeout=patience.timeout, patient=patience.for_place).run(changed.rev)
    _write_endings(output, changed.rev, endings)
    for ending in endings:
        if ending.view is not None and ending.goal is Goal.STOP:
            for warning in copy_warnings(ending.view):
                warn(warning)
    raise_all([*failures, *failures_of(api, endings, patience)])


def refusals_of(results: Iterable[Result]) -> list[UnitfleetError]:
    """Say why wishes were refused: those that differ in nothing but the unit's name, once for them all."""
    alike: dict[str, list[str]] = {}
    bodies: dict[str, ErrorBody] = {}
    for result in results:
        if result.error is not None:
            said = msgspec.json.encode(result.error).decode()
            key = said.replace(result.name, "\0")
            bodies.setdefault(key, result.error)
            alike.setdefault(key, []).append(result.name)
    found = []
    for key, names in alike.items():
        message = bodies[key].message.replace(names[0], units_text(names), 1)
        found.append(failure(msgspec.structs.replace(bodies[key], message=message)))
    return found


def failures_of(api: Api, endings: Sequence[Ending], patience: Patience) -> list[UnitfleetError]:
    """Say of every unit that missed its goal why; units that no machine takes for one reason make one failure."""
    failed = [ending for ending in endings if ending.verdict is Verdict.FAILED]
    late = [ending for ending in endings if ending.verdict is Verdict.WAITING]
    unplaced = [ending for ending in endings if ending.verdict is Verdict.NOT_PLACED]
    errors: list[UnitfleetError] = []
    errors += [_failed(api, ending, logs=number < _TELL_LOGS) for number, ending in enumerate(failed)]
    errors += [_late(ending, patience) for ending in late]
    errors += [_not_placed(list(group)) for _, group in groupby(sorted(unplaced, key=_reason), key=_reason)]
    return errors


def _reason(ending: Ending) -> tuple[str, ...]:
    """What makes two units not placed for the same reason; names in the words do not."""
    if ending.view is None or ending.view.pending is None:
        return (ending.view.why if ending.view else "",)
    pending = ending.view.pending
    return (considered(pending), *refusals(pending), pending.hint.replace(ending.name, "…"))


def _not_placed(endings: Sequence[Ending]) -> NotPlaced:
    names = [ending.name for ending in endings]
    view = endings[0].view
    if view is None:
        return NotPlaced(f"cannot place {units_text(names)}")
    pending = view.pending
    details = list(refusals(pending)) if pending else []
    why = considered(pending) if pending else view.why or "no machine takes it"
    if pending and not details and pending.message:
        details = [pending.message]
    return NotPlaced(
        f"cannot place {units_text(names)}: {why}",
        details=[*details, stays(view.target, names)],
        hint=(pending.hint if pending else "") or None,
        see=f"unitctl explain {names[0]}",
    )


def _failed(api: Api, ending: Ending, *, logs: bool) -> Failure:
    """Why a unit failed, with the last lines it wrote."""
    name, view, verb = ending.name, ending.view, ending.goal.value
    if view is None:
        return Failure(f"cannot {verb} {name}: it was destroyed meanwhile", hint=f"unitctl events --unit {name}")
    if view.target is not TARGET[ending.goal]:
        return Failure(
            f"cannot {verb} {name}: another command made its target {view.target.value} meanwhile",
            hint=f"unitctl events --unit {name}",
        )
    copy = next((copy for copy in view.copies if copy.phase == "failed"), None) or next(iter(view.copies), None)
    message = (copy.message if copy else "") or view.why or f"it is {view.phase}"
    where = f" on {copy.machine_name}" if copy else ""
    return Failure(
        f"cannot {verb} {name}: it {'failed' if view.phase == 'failed' else f'is {view.phase}'}{where}: {message}",
        details=_last_lines(api, name) if logs else (),
        hint=f"unitctl logs -n 50 {name}",
    )


def _last_lines(api: Api, name: str) -> list[str]:
    """The last lines of a failed unit; without an answer there are none, the failure itself is known."""
    try:
        return [f"log: {line.text}" for line in api.logs(name, lines=_LOG_LINES)]
    except UnitfleetError:
        return []


def _late(ending: Ending, patience: Patience) -> TimedOut:
    view, name = ending.view, ending.name
    state = waiting_for(view) if view is not None else "nothing is known of it"
    return TimedOut(
        f"cannot {ending.goal.value} {name} within {span(patience.timeout)}: it is {state}",
        hint="it goes on by itself; --timeout waits longer",
        see=f"unitctl status {name}",
    )


def _write_taken(output: str, rev: int, wishes: Iterable[Wish], taken: dict[str, Result]) -> None:
    """Tell what was accepted, when nothing is waited for."""
    results = list(taken.values())
    goals = {wish.change.name: wish.goal for wish in wishes}
    lines = []
    for result in results:
        goal = goals.get(result.name)
        submitted = "submitted" if result.created or result.changed else "is registered with this text already"
        lines.append((result.name, f"to be {_PAST[goal]}" if goal else submitted))
    _write(output, rev, results, lines)


def _write_endings(output: str, rev: int, endings: Sequence[Ending]) -> None:
    """Tell how the units ended that came to their goal."""
    done = [ending for ending in endings if ending.verdict is Verdict.DONE]
    items = [
        ending.view or Result(name=ending.name, target=TargetState.DESTROYED, changed=True)
        for ending in (done if output in ("table", "name") else endings)
    ]
    _write(output, rev, items, [(ending.name, _ended(ending)) for ending in done])


def _ended(ending: Ending) -> str:
    if ending.view is None:
        return "destroyed"
    if ending.goal is Goal.STOP:
        where = place(ending.view)
        return f"stopped, loaded on {where}" if where else "stopped"
    if ending.goal is Goal.UNLOAD:
        return "inactive"
    return summary(ending.view)


def _write(output: str, rev: int, items: Sequence[object], lines: Sequence[tuple[str, str]]) -> None:
    match output:
        case "json":
            out(items_json(rev, items))
        case "jsonl":
            for item in items:
                out(json_line(item))
        case "name":
            for name, _ in lines:
                out(escape(name))
        case _:
            width = max((len(name) for name, _ in lines), default=0)
            for name, words in lines:
                out(escape(f"{name:<{width}}  {words}"))
