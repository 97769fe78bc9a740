"""What `net limit` makes of a unit's bandwidth: what holds now, changed in part, judged as its text would be."""

from __future__ import annotations

import msgspec

from unit_master.phases import is_template
from unit_master.rules import uplink_short
from unit_master.scene import scene_of
from unit_master.view import ClusterView
from unitfleet.api import NetLimit
from unitfleet.bandwidth import FIELDS, MAX_BURST, MIN_BURST, asked, faults, in_words
from unitfleet.errors import Refused
from unitfleet.model import Bandwidth, MachineStatus, Requirements, Unit, Wanted
from unitfleet.spec import UnitSpec


def limited(view: ClusterView, unit: Unit, wish: NetLimit) -> Bandwidth | None:
    """Return the unit's bandwidth as `wish` makes it, None for its text's.

    Raises `Refused` for what can't be enforced, and for a guarantee that the uplink where it is has not left.
    """
    if is_template(unit.name):
        example = unit.name.replace("@.", "@1.", 1)
        raise Refused(f"cannot limit a template: {unit.name}", hint=f"limit an instance of it, such as {example}")
    spec = view.spec(unit.name, unit.spec)
    if spec is None:
        raise Refused(f"cannot limit {unit.name}: {view.unreadable(unit.name, unit.spec)}")
    given = {field: getattr(wish, field) for field in FIELDS.values() if getattr(wish, field) is not None}
    if wish.reset and given:
        raise Refused(f"cannot limit {unit.name} and reset its limits by one wish", hint="reset it first")
    if not wish.reset and not given:
        raise Refused(f"cannot limit {unit.name}: no rate is given", hint="give one of --egress, --ingress, …")
    held = spec.bandwidth if unit.bandwidth is None else unit.bandwidth  # one without a rate is an answer, too
    new = None if wish.reset else msgspec.structs.replace(held, **given)
    if new is not None and not new and "burst" not in given:
        new = Bandwidth()  # the last rate went, and its burst with it
    if new is not None:
        _judge(unit.name, new, spec)
    _verify_room(view, unit.name, asked(spec.requirements, spec.bandwidth if new is None else new))
    return new


def kept(bandwidth: Bandwidth, spec: UnitSpec) -> tuple[str, ...]:
    """Return the warning that a new text's bandwidth has no effect; raises `Refused` if it can't have this one."""
    _judge(spec.name, bandwidth, spec)
    if bandwidth == spec.bandwidth:
        return ()
    held = f"{in_words(bandwidth)}, set by net limit, stays in place of what the text says"
    return (f"{spec.name}: {held} (unitctl net limit {spec.name} --reset)",)


def _judge(name: str, bandwidth: Bandwidth, spec: UnitSpec) -> None:
    for fault in faults(bandwidth, spec.requirements.drivers, spec.container):
        raise Refused(f"cannot limit {name}: {fault.message}", hint=fault.hint)
    if bandwidth.burst and not MIN_BURST <= bandwidth.burst <= MAX_BURST:
        raise Refused(f"cannot limit {name}: a burst of {bandwidth.burst} bytes is not from 2K to 64M")


def _verify_room(view: ClusterView, name: str, needs: Requirements) -> None:
    """Refuse a guarantee that a machine which has the unit can't give, in the words of the rule."""
    if not (needs.egress or needs.ingress):
        return
    scene = scene_of(view)
    for machine, entry in sorted(view.placements_of(name).items()):
        host = scene.hosts.get(machine)
        if host is None or host.status is MachineStatus.LOST or entry.value.wanted is Wanted.GONE:
            continue
        short = uplink_short(needs, host)
        if short:
            hint = f"unitctl explain {name} shows what other machines have left; or ask for less"
            raise Refused(f"cannot limit {name}: {', '.join(short)}", hint=hint)
