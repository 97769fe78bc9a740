"""What a client of fleet's wants of a unit, as a wish of ours: fleet's checks in fleet's order and words.

What fleet took and we would refuse in `[X-Fleet]` is taken: the text gets the line that says so
(`accept.AS_FLEET`), and an event names what is ignored. What no driver could run is refused with our words.
"""

from __future__ import annotations

from unit_master.api.fleet import shown
from unit_master.phases import is_template
from unit_master.view import ClusterView
from unitfleet import accept, names, unitfile, xfleet
from unitfleet.api import Change
from unitfleet.errors import InvalidName, InvalidUnit, Refused
from unitfleet.fleetapi import Option, Unit
from unitfleet.model import TargetState
from unitfleet.unitfile import UnitFile

STATES = (TargetState.INACTIVE, TargetState.LOADED, TargetState.LAUNCHED)


def wanted(view: ClusterView, name: str, body: Unit) -> tuple[Change, bool]:
    """Return the wish, and whether it brings new options; raises `InvalidName`, `InvalidUnit` or `Refused`.

    New options without a state make the unit inactive, whatever it was: so fleet's clients replace a unit.
    """
    if body.name not in ("", name):
        raise InvalidName(
            f'name in URL "{_said(name)}" differs from unit name in request body "{_said(body.name)}"'
        )
    if (fault := names.fault(name)) is not None:
        raise InvalidName(fault)
    held = shown.unit(view, name)
    if held is None and not body.options:
        raise Refused("unit does not exist and options field empty")
    if body.options and (held is None or not _same(body.options, held.options)):
        text = text_of(name, body.options)
        target = TargetState.INACTIVE if is_template(name) else _state(body.desired_state or TargetState.INACTIVE)
        return Change(name=name, text=text, replace=True, target=target), True
    if not body.desired_state:
        raise Refused("must provide DesiredState to update existing unit")
    target = _state(body.desired_state)
    if is_template(name) and target is not TargetState.INACTIVE:
        raise InvalidUnit(f'cannot activate template "{name}"')
    return Change(name=name, target=target), False


def text_of(name: str, options: tuple[Option, ...]) -> str:
    """Write options as a unit text that we take, in fleet's form and of fleet's hash; raises `InvalidUnit`."""
    file = _file(options)
    if (error := xfleet.options_error(file)) is not None:
        raise InvalidUnit(error)
    text = file.serialize()
    if not _reads_back(file, text):
        raise InvalidUnit(
            "options cannot be written as a unit file: a section, name or value holds a line of its own"
        )
    try:
        accept.read(name, text)
    except InvalidUnit:
        text = f"{accept.AS_FLEET}\n{text}"
        accept.read(name, text)
    return text


def _said(text: str) -> str:
    """Cut what a client sent as it may be said back."""
    return text[: names.MAX_LENGTH].encode("utf-8", "backslashreplace").decode()


def _state(text: str) -> TargetState:
    for state in STATES:
        if state == text:
            return state
    raise InvalidUnit(f'invalid desiredState "{_said(text)[:40]}": expect inactive, loaded or launched')


def _file(options: tuple[Option, ...]) -> UnitFile:
    return UnitFile(tuple(unitfile.Option(each.section, each.name, each.value, 0) for each in options))


def _same(one: tuple[Option, ...], other: tuple[Option, ...]) -> bool:
    return _file(one).serialize() == _file(other).serialize()


def _reads_back(file: UnitFile, text: str) -> bool:
    """Whether a text holds these options and no other: a value with a newline may bring in anything."""
    try:
        found = unitfile.parse(text, max_line=None)
    except unitfile.UnreadableUnit:
        return False
    return _plain(found) == _plain(file)


def _plain(file: UnitFile) -> list[tuple[str, str, str]]:
    return sorted((each.section, each.name, each.value.strip()) for each in file.options)
