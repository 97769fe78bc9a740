"""What `GET /v1/net` answers, out of a round's outcome and the classes' counters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unit_agent.shaping.host import Outcome
from unit_agent.shaping.seen import Counters
from unit_agent.shaping.shape import Group, UnitShape, Veths
from unitfleet.api import NetLimits, UnitNet

Counted = Mapping[str, Mapping[int, Counters]]


def counted_devices(outcome: Outcome) -> tuple[str, ...]:
    """Return the interfaces whose classes have to be read."""
    layout = outcome.layout
    sends = {device for device, _ in layout.sends.values()}
    return tuple(sorted(sends | {device for pairs in layout.receives.values() for device, _ in pairs}))


def net_limits(
    machine: str, name: str, at: float, outcome: Outcome, counted: Counted, pull_trouble: str = ""
) -> NetLimits:
    """Write the state of a host's bandwidth; units that ask for nothing are left out.

    `pull_trouble` is why the latest pull was not capped.
    """
    shape = outcome.shape
    return NetLimits(
        machine=machine,
        name=name,
        at=at,
        uplink=shape.uplink,
        egress=shape.egress,
        ingress=shape.ingress,
        shaped=bool(outcome.layout.uplink) and not outcome.trouble,
        trouble="; ".join(filter(None, [outcome.layout.trouble, outcome.trouble, pull_trouble])),
        units=tuple(
            unit_net(name, unit, outcome, counted)
            for unit in sorted(shape.units, key=lambda unit: unit.unit)
            if unit.bandwidth
        ),
    )


def unit_net(machine: str, unit: UnitShape, outcome: Outcome, counted: Counted) -> UnitNet:
    """Write one unit's."""
    layout, bandwidth, trouble = outcome.layout, unit.bandwidth, outcome.trouble_of(unit.unit)
    sends = layout.sends.get(unit.unit)
    sent = _sum([sends] if sends else [], counted)
    received = _sum(layout.receives.get(unit.unit, ()), counted)
    match unit.place:
        case Veths(interfaces):
            interface, how = ",".join(interfaces), "veth+ifb"
        case Group():
            interface, how = outcome.shape.uplink, "cgroup"
        case _:
            interface, how = "", ""
    return UnitNet(
        unit=unit.unit,
        machine=machine,
        interface=interface,
        how=how,
        egress=bandwidth.egress,
        egress_limit=bandwidth.egress_limit,
        ingress=bandwidth.ingress,
        ingress_limit=bandwidth.ingress_limit,
        in_force=not trouble,
        trouble=trouble,
        sent_bytes=sent.sent,
        sent_dropped=sent.dropped,
        sent_backlog=sent.backlog,
        received_bytes=received.sent,
        received_dropped=received.dropped,
        received_backlog=received.backlog,
    )


def _sum(classes: Sequence[tuple[str, int]], counted: Counted) -> Counters:
    """Add up the counters of classes; -1 for what nobody counts."""
    found = [counted[device][number] for device, number in classes if number in counted.get(device, {})]
    if not found:
        return Counters(-1, -1, -1)
    return Counters(
        sum(each.sent for each in found), sum(each.dropped for each in found), sum(each.backlog for each in found)
    )
