"""What one wish of a user means for one unit as it stands: a pure decision, with its refusal in words."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from unit_master import limits
from unit_master.phases import Phases, is_template
from unit_master.view import ClusterView
from unitfleet import keys, names
from unitfleet.accept import ignored, read
from unitfleet.api import Change, Result
from unitfleet.errors import InvalidUnit, NotFound, Refused
from unitfleet.model import TargetState, Unit

MAX_FILE = 512
"""Characters of a file's name that are said back."""

MOST_TOLD = 5
"""Faults of a text that an event tells."""


class Conflict(Refused):
    """Another text stands under the name already."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A unit's record as it is: `revision` 0 and no unit when there is none; `fault` when it can't be read."""

    unit: Unit | None
    revision: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Write:
    """A record to write if the one that stands is still of `revision`, with its text if that is new.

    `notice` is what an event is to say of it, "" for nothing.
    """

    unit: Unit
    revision: int
    text: str | None
    result: Result
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a decision takes from outside: the time, and an incarnation that no unit ever had."""

    at: float
    incarnation: str


def standing(view: ClusterView, name: str) -> Standing:
    """Return a unit's record as the view has it."""
    entry = view.units.get(name)
    if entry is not None:
        return Standing(entry.value, entry.revision)
    key = keys.unit(name)
    return Standing(None, view.revisions.get(key, 0), view.bad.get(key, ""))


def decide(view: ClusterView, held: Standing, change: Change, moment: Moment) -> Write | Result:
    """Return the record that carries out `change`, or a result that says it stands so already.

    Raises `InvalidName`, `InvalidUnit`, `NotFound`, `Conflict` or `Refused`.
    """
    names.validate(change.name)
    if change.bandwidth is not None and change.text is not None:
        raise Refused(f"cannot limit {change.name} and submit its text by one wish", hint="limit it afterwards")
    if held.fault:
        return _over_garbage(held, change, moment)
    warnings = _known_warnings(view, held) if change.text is None else _warnings(view, change)
    unit = held.unit
    if unit is None or unit.target is TargetState.DESTROYED:
        return _anew(view, held, change, moment, warnings)
    spec = unit.spec
    if change.text is not None and (spec := digest_of(change.text)) != unit.spec and not change.replace:
        raise Conflict(
            f"cannot submit {change.name}: another text stands under this name",
            hint="give --replace to put the new text in its place, or destroy the unit first",
        )
    target = unit.target if change.target is None else change.target
    _refuse_start_of_template(change)
    restart = unit.restart
    if _raises_restart(view, unit, change, target):
        restart = _highest_restart(view, unit) + 1
    bandwidth = unit.bandwidth
    if change.bandwidth is not None:
        bandwidth = limits.limited(view, unit, change.bandwidth)
    elif change.text is not None and bandwidth is not None and spec != unit.spec:
        warnings += limits.kept(bandwidth, read(change.name, change.text))
    if (spec, target, restart, bandwidth) == (unit.spec, unit.target, unit.restart, unit.bandwidth):
        return Result(name=change.name, target=target, warnings=warnings)
    new = msgspec.structs.replace(
        unit,
        spec=spec,
        target=target,
        restart=restart,
        bandwidth=bandwidth,
        generation=unit.generation + 1,
        changed_at=moment.at,
    )
    result = Result(name=change.name, target=target, changed=True, warnings=warnings)
    return Write(new, held.revision, change.text, result, _notice(change) if spec != unit.spec else "")


def digest_of(text: str) -> str:
    """Return the name of a unit text under specs/."""
    return hashlib.sha256(text.encode()).hexdigest()


def _anew(
    view: ClusterView, held: Standing, change: Change, moment: Moment, warnings: tuple[str, ...]
) -> Write | Result:
    """Decide about a unit that does not exist, or is on its way out."""
    name = change.name
    if change.text is None:
        if held.unit is None:
            if change.if_exists:
                return Result(name=name)
            raise unknown(name, view.units)
        if change.target is TargetState.DESTROYED:
            return Result(name=name, target=TargetState.DESTROYED)
        raise Refused(f"cannot change {name}: it is being destroyed", hint="submit it again")
    target = change.target or TargetState.INACTIVE
    if target is TargetState.DESTROYED:
        raise Refused(f"cannot create {name} and destroy it by one wish", hint="leave the text out to destroy it")
    if change.restart:
        raise Refused(f"cannot restart {name}: it does not run", hint=f"unitctl start {name}")
    _refuse_start_of_template(change)
    unit = Unit(
        name=name,
        spec=digest_of(change.text),
        target=target,
        generation=held.unit.generation + 1 if held.unit else 1,
        incarnation=moment.incarnation,
        changed_at=moment.at,
    )
    result = Result(name=name, target=target, changed=True, created=True, warnings=warnings)
    return Write(unit, held.revision, change.text, result, _notice(change))


def _over_garbage(held: Standing, change: Change, moment: Moment) -> Write:
    """Only destroying helps a record that can't be read: a sound one takes its place, and ends as usual."""
    if change.target is not TargetState.DESTROYED or change.text is not None:
        raise Refused(
            f"cannot change {change.name}: its record in the store is unreadable ({held.fault})",
            hint=f"unitctl destroy {change.name}, then submit it again",
        )
    unit = Unit(
        name=change.name,
        spec="",
        target=TargetState.DESTROYED,
        generation=1,
        incarnation=moment.incarnation,
        changed_at=moment.at,
    )
    return Write(unit, held.revision, None, Result(name=change.name, target=unit.target, changed=True))


def _raises_restart(view: ClusterView, unit: Unit, change: Change, target: TargetState) -> bool:
    """Say whether the copy is to be started anew: asked for, or a start of what has ended by itself."""
    if change.restart:
        if target is not TargetState.LAUNCHED:
            raise Refused(
                f"cannot restart {unit.name}: its target state is {target}", hint=f"unitctl start {unit.name}"
            )
        return unit.target is TargetState.LAUNCHED
    if change.target is not TargetState.LAUNCHED or unit.target is not TargetState.LAUNCHED:
        return False
    seen = Phases(view).seen(unit, view.spec(unit.name, unit.spec), None)
    return seen.phase in ("failed", "finished") and seen.settled


def _highest_restart(view: ClusterView, unit: Unit) -> int:
    """Return the highest restart number that the unit or a copy of it has.

    In a store that was set back the unit's own may be lower than that of its copy, which obeys none below it.
    """
    copies = (state.value for state in view.states_of(unit.name).values())
    return max([unit.restart, *(copy.restart for copy in copies if copy.incarnation == unit.incarnation)])


def _refuse_start_of_template(change: Change) -> None:
    starts = change.target in (TargetState.LOADED, TargetState.LAUNCHED) or change.restart
    if starts and is_template(change.name):
        example = change.name.replace("@.", "@1.", 1)
        raise Refused(
            f"cannot start a template: {change.name}", hint=f"start an instance of it, such as {example}"
        )


def _warnings(view: ClusterView, change: Change) -> tuple[str, ...]:
    """Return what a text's reader warns of; raises `InvalidUnit`.

    It is read as the view will read it. Where there is something to say, and where what the user calls the file
    decides, it is read anew under that name.
    """
    text, file = change.text or "", change.file[-MAX_FILE:]
    try:
        spec = view.read(change.name, text)
        if not spec.warnings and (spec.container is not None or not file.endswith(".container")):
            return ()
    except InvalidUnit:
        pass
    return read(change.name, text, filename=file or None).warnings


def _notice(change: Change) -> str:
    """Return what the cluster is to be told of a new text: what is ignored of it, as fleet did."""
    found = ignored(change.name, change.text or "")
    if not found:
        return ""
    more = f" (and {len(found) - MOST_TOLD} more)" if len(found) > MOST_TOLD else ""
    return f"taken as fleet took it, and ignored: {'; '.join(found[:MOST_TOLD])}{more}"


def _known_warnings(view: ClusterView, held: Standing) -> tuple[str, ...]:
    spec = view.spec(held.unit.name, held.unit.spec) if held.unit else None
    return spec.warnings if spec else ()


def unknown(name: str, known: Iterable[str]) -> NotFound:
    """Return the refusal for a unit that is not registered, with the nearest that is; raises `InvalidName`."""
    body, suffix = names.parse(name).name, name.rpartition(".")[2]
    alike = {each.rpartition(".")[0]: each for each in list(known)[:2000] if each.endswith(f".{suffix}")}
    near = difflib.get_close_matches(body, alike, 1, 0.7)
    hint = f"did you mean {alike[near[0]]}?" if near else "unitctl list-unit-files shows what there is"
    return NotFound(f"cannot find unit {name}: it was never submitted", hint=hint)
