"""What should stand on a host, out of what its units want. Decides, does nothing.

The trees (docs/bandwidth.md has the picture):

    out   unitfleet-out, HTB f11:   what containers send, caught at their interface, one class a unit
    in    unitfleet-in,  HTB f12:   what comes to containers; made only where a unit has a guarantee of it
    veth  each container's, HTB f13:   its ceiling of what comes in
    up    the uplink,    HTB f10:   units on the host's network, guarantees against the host's own traffic
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from unit_agent.shaping.rules import forwarded_rule, group_rule, pull_rule, reserved_rule, rule_lines
from unit_agent.shaping.shape import Group, HostShape, Nowhere, UnitShape, Veths
from unit_agent.shaping.things import (
    AT_ROOT,
    DEFAULT_MINOR,
    IN,
    IN_TREE,
    INGRESS_HANDLE,
    OUT,
    OUT_TREE,
    PULL_MINOR,
    RESERVED_MINOR,
    ROOT_MINOR,
    UPLINK_TREE,
    VETH_TREE,
    Class,
    Filter,
    Ifb,
    Key,
    Mark,
    Qdisc,
    Thing,
    handle,
)
from unitfleet.rates import rate_text

UNBOUNDED = 400 * 10**9
"""bit/s of a class that is not to hold anything back."""

SMALL = 16_000
"""bit/s that a unit without a guarantee calls its own; HTB knows no class without. The rest it borrows."""

MIN_BURST, MAX_BURST = 10_000, 1_000_000
BURST_S = 0.002
RESERVED_LEAST, RESERVED_MOST = 256_000, 20_000_000

NO_EGRESS = "the uplink's capacity is not known, so no egress can be guaranteed"
NO_INGRESS = "the uplink's capacity is not known, so no ingress can be guaranteed"
HOST_INGRESS = "its ingress can't be shaped: it is on the host's network, where only what it sends is told apart"


@dataclass(slots=True)
class Layout:
    """What should stand, in the order of making, and what can't be had.

    `owners` tells whose a thing is ("" or absent: everybody's); `sends` and `receives` where a unit's packets are
    counted, as (device, handle).
    """

    things: list[Thing] = field(default_factory=list)
    owners: dict[Key, str] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    trouble: str = ""
    pull_trouble: str = ""
    sends: dict[str, tuple[str, int]] = field(default_factory=dict)
    receives: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    uplink: str = ""  # the interface, where it is shaped
    own_rules: list[str] = field(default_factory=list)
    forwarded_rules: list[str] = field(default_factory=list)
    pull_rules: list[str] = field(default_factory=list)

    def put(self, *things: Thing, owner: str = "") -> None:
        """Add things of a unit, or of everybody."""
        for thing in things:
            self.things.append(thing)
            self.owners[thing.key] = owner

    def concerns(self, key: Key, unit: str) -> bool:
        """Tell whether a unit's bandwidth rests on a thing: its own, or everybody's where it is shaped."""
        owner = self.owners.get(key, "")
        if owner:
            return owner == unit
        device = self.uplink if key[0] == "rules" else key[1]
        return any(owner == unit and key[1] == device for key, owner in self.owners.items())

    def refuse(self, unit: str, why: str) -> None:
        """Note something that a unit can't have."""
        said = self.troubles.get(unit)
        self.troubles[unit] = f"{said}; {why}" if said else why


def stand(shape: HostShape, foreign: dict[str, str]) -> Layout:
    """Return what should stand on the host; `foreign` are root qdiscs that somebody else set, by device."""
    layout = Layout()
    for unit in shape.units:
        if isinstance(unit.place, Nowhere) and unit.bandwidth:
            layout.refuse(unit.unit, unit.place.why)
        if isinstance(unit.place, Group) and (unit.bandwidth.ingress or unit.bandwidth.ingress_limit):
            layout.refuse(unit.unit, HOST_INGRESS)
    uplink_why_not = _uplink_why_not(shape, foreign)
    sent = [unit for unit in shape.units if isinstance(unit.place, Veths) or not uplink_why_not]
    egress = _granted(layout, sent, "egress", shape.egress, NO_EGRESS)
    inner = [unit for unit in shape.units if isinstance(unit.place, Veths)]
    ingress = _granted(layout, inner, "ingress", shape.ingress, NO_INGRESS)
    _containers(layout, shape, inner, egress, ingress)
    on_host = [unit for unit in shape.units if isinstance(unit.place, Group) and _sends(unit)]
    if on_host or egress:
        if uplink_why_not:
            layout.trouble = f"the uplink is not shaped: {uplink_why_not}"
            for unit in on_host:
                layout.refuse(unit.unit, f"its egress can't be shaped: {uplink_why_not}")
        else:
            _uplink(layout, shape, on_host, [unit for unit in inner if unit.unit in egress], egress)
    _pulls(layout, shape)
    rules = rule_lines(shape.uplink, layout.own_rules, layout.forwarded_rules, layout.pull_rules)
    if (layout.things or rules) and not any(isinstance(thing, Ifb) for thing in layout.things):
        layout.put(Ifb(OUT))  # unused: its being there tells a next agent that there is something to look at
    layout.put(*rules)
    return layout


def _pulls(layout: Layout, shape: HostShape) -> None:
    """Put what keeps image pulls to their limit: it stands on the way in, and needs no qdisc."""
    engine = shape.engine
    if not shape.pull_limit:
        return
    if not shape.uplink or isinstance(engine, Nowhere):
        why = engine.why if shape.uplink and isinstance(engine, Nowhere) else "there is no uplink that can be told"
        layout.pull_trouble = f"image pulls are not capped: {why}"
        return
    class_id = handle(UPLINK_TREE, PULL_MINOR)
    if engine.version == 1:
        layout.put(Mark(engine.path, engine.inode, class_id))
    layout.pull_rules.append(pull_rule(engine, class_id, shape.pull_limit))


def _sends(unit: UnitShape) -> bool:
    return bool(unit.bandwidth.egress or unit.bandwidth.egress_limit)


def _uplink_why_not(shape: HostShape, foreign: dict[str, str]) -> str:
    """Return why the uplink can't be shaped, or ""."""
    if not shape.may_shape_uplink:
        return "the agent is told --shape-uplink never"
    if not shape.uplink:
        return "this host has no uplink that can be told: no default route, and no interface with its address"
    if shape.uplink in foreign:
        return f"{shape.uplink} has a qdisc that somebody else set ({foreign[shape.uplink]})"
    return ""


def _granted(layout: Layout, units: Iterable[UnitShape], what: str, capacity: int, unknown: str) -> dict[str, int]:
    """Return the guarantees that can be kept, bit/s by unit: earlier units first, never more than there is."""
    given: dict[str, int] = {}
    left = capacity
    for unit in units:
        asked: int = getattr(unit.bandwidth, what)
        if not asked:
            continue
        if not capacity:
            layout.refuse(unit.unit, unknown)
        elif asked > left:
            rest = f"{rate_text(left)} of {rate_text(capacity)} is left"
            layout.refuse(unit.unit, f"{what} {rate_text(asked)} can't be guaranteed: {rest}")
        else:
            given[unit.unit] = asked
            left -= asked
    return given


def _containers(
    layout: Layout, shape: HostShape, units: list[UnitShape], egress: dict[str, int], ingress: dict[str, int]
) -> None:
    """Put the trees of the containers. Once anything is guaranteed, all of them share the trees."""
    everybody = any(unit.unit in egress for unit in units) or bool(ingress)
    shaped = [unit for unit in units if everybody or unit.bandwidth]
    if not shaped:
        return
    _tree(layout, OUT, OUT_TREE, shape.egress)
    if ingress:
        _tree(layout, IN, IN_TREE, shape.ingress)
    for unit in shaped:
        assert isinstance(unit.place, Veths)
        into = _Share(ingress.get(unit.unit, 0), shape.ingress) if ingress else None
        things = _container(unit, _Share(egress.get(unit.unit, 0), shape.egress), into)
        layout.put(*things, owner=unit.unit)
        if unit.bandwidth:
            layout.sends[unit.unit] = (OUT, handle(OUT_TREE, unit.minor))
        layout.receives[unit.unit] = tuple(
            (veth, handle(VETH_TREE, DEFAULT_MINOR)) for veth in unit.place.interfaces
        )


def _tree(layout: Layout, device: str, major: int, capacity: int) -> None:
    """Put an ifb with its root class and the default class that units without keys share."""
    layout.put(
        Ifb(device),
        Qdisc(device, "htb", handle(major), DEFAULT_MINOR),
        *_top(device, major, capacity),
    )


def _top(device: str, major: int, capacity: int) -> tuple[Class, Class]:
    most = capacity or UNBOUNDED
    root, default = handle(major, ROOT_MINOR), handle(major, DEFAULT_MINOR)
    return _class(device, root, handle(major), most, most), _class(device, default, root, most // 100, most)


@dataclass(frozen=True, slots=True)
class _Share:
    """What a unit is guaranteed of a tree, and all there is of it, bit/s."""

    granted: int
    capacity: int


@functools.lru_cache(maxsize=1024)
def _container(unit: UnitShape, out: _Share, into: _Share | None) -> tuple[Thing, ...]:
    """Return what stands for a container; `into` where what comes to containers passes a tree.

    Kept, for all but one of a host's units are as they were at the last round.
    """
    assert isinstance(unit.place, Veths)
    things: list[Thing] = []
    bandwidth, target = unit.bandwidth, unit.minor if unit.bandwidth else DEFAULT_MINOR
    if bandwidth:
        things.append(_unit_class(OUT, OUT_TREE, unit, out, bandwidth.egress_limit))
        if into is not None:
            things.append(_unit_class(IN, IN_TREE, unit, into, bandwidth.ingress_limit))
    for veth in unit.place.interfaces:
        things += _interface(unit, veth, target, into is not None)
    return tuple(things)


def _unit_class(device: str, major: int, unit: UnitShape, share: _Share, limit: int) -> Class:
    """Return a unit's class: its guarantee or a little, and up to its limit or all there is."""
    most = min(limit or UNBOUNDED, share.capacity or UNBOUNDED)
    own = share.granted or (SMALL if share.capacity else most)
    parent = handle(major, ROOT_MINOR)
    return _class(device, handle(major, unit.minor), parent, min(own, most), most, unit.bandwidth.burst)


def _interface(unit: UnitShape, veth: str, target: int, shared: bool) -> Iterator[Thing]:
    """Give what stands on a container's interface. The redirect comes last: from then on it is shaped."""
    root, only = handle(VETH_TREE), handle(VETH_TREE, DEFAULT_MINOR)
    most = unit.bandwidth.ingress_limit or UNBOUNDED
    yield Qdisc(veth, "htb", root, DEFAULT_MINOR)
    yield _class(veth, only, root, most, most, unit.bandwidth.burst)
    if shared:
        if target != DEFAULT_MINOR:
            yield Filter(IN, handle(IN_TREE), handle(IN_TREE, target), source=veth)
        yield Filter(veth, root, only, redirect=IN)
    if target != DEFAULT_MINOR:
        yield Filter(OUT, handle(OUT_TREE), handle(OUT_TREE, target), source=veth)
    yield Qdisc(veth, "ingress", INGRESS_HANDLE)
    yield Filter(veth, INGRESS_HANDLE, handle(OUT_TREE), redirect=OUT)


def _uplink(
    layout: Layout, shape: HostShape, on_host: list[UnitShape], inner: list[UnitShape], granted: dict[str, int]
) -> None:
    """Put the uplink's tree and what classifies for it.

    Without a known capacity nothing but the limits is there: what no rule names passes unshaped (HTB's default 0).
    """
    device, capacity = shape.uplink, shape.egress
    layout.uplink = device
    layout.put(Qdisc(device, "htb", handle(UPLINK_TREE), DEFAULT_MINOR if capacity else 0))
    root, default = _top(device, UPLINK_TREE, capacity)
    layout.put(root)
    if capacity:
        share = min(max(capacity // 50, RESERVED_LEAST), RESERVED_MOST, capacity)
        reserved = handle(UPLINK_TREE, RESERVED_MINOR)
        layout.put(default, _class(device, reserved, root.handle, share, capacity, priority=0))
        layout.own_rules.append(reserved_rule(shape.ports, reserved))

    def share_of(unit: UnitShape) -> _Share:
        return _Share(granted.get(unit.unit, 0), capacity)

    for unit in inner:
        layout.put(_unit_class(device, UPLINK_TREE, unit, share_of(unit), 0), owner=unit.unit)
        assert isinstance(unit.place, Veths)
        layout.forwarded_rules += [
            forwarded_rule(address, handle(UPLINK_TREE, unit.minor)) for address in unit.place.addresses
        ]
    for unit in on_host:
        limit = unit.bandwidth.egress_limit
        layout.put(_unit_class(device, UPLINK_TREE, unit, share_of(unit), limit), owner=unit.unit)
        class_id = handle(UPLINK_TREE, unit.minor)
        layout.sends[unit.unit] = (device, class_id)
        assert isinstance(unit.place, Group)
        if unit.place.version == 1:
            layout.put(Mark(unit.place.path, unit.place.inode, class_id), owner=unit.unit)
        layout.own_rules.append(group_rule(unit.place, class_id))


def _class(
    device: str, number: int, parent: int, rate: int, ceil: int, burst: int = 0, *, priority: int = 1
) -> Class:
    """Return a class with rates given in bit/s and a burst in bytes (0: as much as the rate needs)."""
    rate, ceil = max(rate // 8, 1), max(ceil // 8, 1)
    if not parent & 0xFFFF:
        parent = AT_ROOT  # as the kernel writes it
    return Class(device, number, parent, rate, ceil, _burst_us(burst, rate), _burst_us(burst, ceil), priority)


def _burst_us(burst: int, rate: int) -> int:
    """Return how long a burst lasts at `rate` bytes a second, in µs; at most what fits the kernel's 32 bits."""
    size = burst or min(max(int(rate * BURST_S), MIN_BURST), MAX_BURST)
    return min(max(1_000_000 * size // rate, 1), 200_000_000)
