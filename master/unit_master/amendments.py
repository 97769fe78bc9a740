"""A unit's bandwidth where it is placed: whether a placement is amended, or keeps what it has. Pure.

An amendment writes a placement again with another bandwidth and at the same epoch, so that no copy is touched
(docs/decisions/0006-amending-a-placement.md). A guarantee is given only where the uplink has it left.
"""

from __future__ import annotations

from collections.abc import Iterable

from unit_master.actions import Amend
from unit_master.rules import uplink_short
from unit_master.scene import Host
from unitfleet.bandwidth import in_words
from unitfleet.model import MachineStatus, Pending, Placement, Requirements, Unit, Wanted
from unitfleet.spec import UnitSpec


def amendment(
    unit: Unit, spec: UnitSpec, needs: Requirements, held: Placement, host: Host | None
) -> Amend | list[str] | None:
    """Return how a live placement comes to carry what `net limit` set; a list of what its uplink lacks; or None.

    `needs` is what the unit asks for now. A placement of another text or incarnation is renewed, not amended.
    """
    same = (held.spec, held.incarnation) == (unit.spec, unit.incarnation)
    if held.bandwidth == unit.bandwidth or not same or host is None or host.status is MachineStatus.LOST:
        return None
    allowed = spec.bandwidth if unit.bandwidth is None else unit.bandwidth
    return uplink_short(needs, host) or Amend(unit.name, held.machine, in_words(allowed))


def too_much(unit: Unit, needs: Requirements, held: Placement, wanted: Wanted, host: Host) -> list[str]:
    """Return what the uplink lacks for the new text of a unit that can't go elsewhere; a stop is always taken."""
    if held.spec == unit.spec or wanted is not Wanted.LAUNCHED or host.status is not MachineStatus.READY:
        return []
    return uplink_short(needs, host)


def keeps(unit: str, what: str, host: Host, short: Iterable[str], now: float) -> Pending:
    """Say that a unit stays as it was on a machine whose uplink can't guarantee what is wanted now."""
    return Pending(
        unit=unit,
        considered=1,
        message=f"keeps its former {what} on {host.name}: {', '.join(short)}",
        hint=f"free some of it, or ask for less: unitctl net limit {unit}",
        since=now,
    )
