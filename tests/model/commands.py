"""What the user may do: commands to units and to machines."""

from __future__ import annotations

from collections.abc import Iterator

from model.landing import removed
from model.rules import Rules
from model.state import Machine, Roster, Unit
from unitfleet.model import TargetState


def unit_commands(rules: Rules, unit: Unit) -> Iterator[tuple[str, Unit]]:
    """Yield each command to this unit and what is wanted then; `create` makes a new incarnation."""
    launched, loaded = TargetState.LAUNCHED, TargetState.LOADED
    inactive, destroyed = TargetState.INACTIVE, TargetState.DESTROYED
    allowed, target = rules.commands, unit.target
    if target is launched and "stop" in allowed:
        yield "stop", unit._replace(target=loaded, last=loaded)
    if target is loaded and "stop" in allowed:
        yield "start", unit._replace(target=launched, last=launched)
    if target is launched and "unload" in allowed:
        yield "unload", unit._replace(target=inactive, last=inactive)
    if target is inactive and "unload" in allowed:
        yield "start", unit._replace(target=launched, last=launched)
    if target in (launched, loaded, inactive):
        if "destroy" in allowed:
            yield "destroy", unit._replace(target=destroyed, last=None)
        if "limit" in allowed and unit.band == 0:
            yield "limit", unit._replace(band=1)
    if target is launched:
        if "restart" in allowed and unit.restart == 0:
            yield "restart", unit._replace(restart=1)
        if "text" in allowed and unit.text == 0:
            yield "submit another text of", unit._replace(text=1)
    if "create" in allowed and (target is None or (target is destroyed and "over" in allowed)):
        yield "create", Unit(launched, 0, 0, 0, launched)


def of_older_incarnation(machine: Machine, unit: int) -> Machine:
    """Return the machine once the unit was created anew: all that speaks of it is of an older incarnation."""
    slot = machine.slots[unit]
    slot = slot._replace(
        placement=slot.placement._replace(current=False) if slot.placement else None,
        seen=slot.seen._replace(current=False) if slot.seen else None,
        copy=slot.copy._replace(current=False) if slot.copy else None,
    )
    return machine.with_slot(unit, slot)


def machine_commands(rules: Rules, machine: Machine) -> Iterator[tuple[str, Machine]]:
    """Yield each command to this machine, and what it is then; only one machine is drained at a time."""
    if "drain" in rules.commands and not machine.drained:
        yield "drain", machine._replace(drained=True)
    if "label" in rules.commands:
        yield "take the label from" if machine.matches else "label", machine._replace(matches=not machine.matches)
    if _may_remove(rules, machine):
        yield "machines rm", removed(machine)


def _may_remove(rules: Rules, machine: Machine) -> bool:
    """`machines rm` is refused unless the machine is lost."""
    if "rm" not in rules.commands or machine.present:
        return False
    return machine.roster is Roster.LOST or (machine.roster is Roster.READY and not rules.says("remove_lost"))
