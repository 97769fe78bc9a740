"""What should stand on a host for its units' bandwidth, and the steps to it: pure decisions, on random hosts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit_agent.shaping.layout import HOST_INGRESS, NO_EGRESS, UNBOUNDED, stand
from unit_agent.shaping.plan import Op, Put, plan
from unit_agent.shaping.shape import Group, HostShape, Nowhere, Place, UnitShape, Veths, minors, pull_cap
from unit_agent.shaping.things import (
    FIRST_MINOR,
    IN,
    LAST_MINOR,
    OUT,
    UPLINK_TREE,
    Class,
    Filter,
    Ifb,
    Key,
    Mark,
    Qdisc,
    Rules,
    TcSeen,
    Thing,
    handle,
)
from unitfleet.model import Bandwidth

M, G = 10**6, 10**9
INNER, HOST = handle(0xF11, 0x101), handle(UPLINK_TREE, 0x101)


def veth(minor: int, *, unit: str = "", **wanted: int) -> UnitShape:
    """Return a container with a network of its own."""
    return UnitShape(
        unit or f"u{minor}",
        minor,
        Bandwidth(**wanted),
        Veths((f"v{minor}",), (f"02:00:00:00:00:{minor & 255:02x}",)),
    )


def on_host(minor: int, version: int = 2, **wanted: int) -> UnitShape:
    """Return a unit on the host's network."""
    return UnitShape(f"u{minor}", minor, Bandwidth(**wanted), Group(version, f"group/{minor}", 7000 + minor))


def host(
    *units: UnitShape, egress: int = G, ingress: int = G, uplink: str = "eth0", may: bool = True
) -> HostShape:
    return HostShape(units, uplink, egress, ingress, (22, 2379), may)


def classes(shape: HostShape) -> dict[tuple[str, int], Class]:
    things = stand(shape, {}).things
    return {(thing.device, thing.handle): thing for thing in things if isinstance(thing, Class)}


class Kernel:
    """The kernel's rules about what may be made and removed when, over values."""

    def __init__(self, things: Iterable[Thing] = ()) -> None:
        self.things: dict[Key, Thing] = {thing.key: thing for thing in things}

    def carry_out(self, ops: Sequence[Op]) -> None:
        for op in ops:
            thing = op.thing
            if isinstance(op, Put):
                assert self.things.get(thing.key) == op.instead
                self._allow(thing)
                self.things[thing.key] = thing
            else:
                assert thing.key in self.things, f"{thing} is not there"
                self._remove(thing)

    def suffer(self, key: Key, what: str) -> None:
        """Let somebody change, move or remove a thing, if it is there and the kernel would let him."""
        match self.things.get(key), what:
            case Class() as thing, "change":
                self.things[key] = dataclasses.replace(thing, ceil=thing.ceil + 1)
            case Class() as thing, "move" if thing.handle & 0xFFFF > 1:
                self.things[key] = dataclasses.replace(thing, parent=0xFFFFFFFF)
            case (Qdisc() | Filter() | Rules()) as thing, "remove":
                self._remove(thing)

    def _allow(self, thing: Thing) -> None:
        match thing:
            case Qdisc(device) if device in (OUT, IN):
                assert ("link", device) in self.things
            case Class(device, number, parent):
                assert ("qdisc", device, "root") in self.things
                if parent != 0xFFFFFFFF:
                    assert any(
                        isinstance(each, Class) and (each.device, each.handle) == (device, parent)
                        for each in self.things.values()
                    ), "no parent"
                now = self.things.get(thing.key)
                assert now is None or (isinstance(now, Class) and now.parent == parent), f"{number:x} moves"
            case Filter(device, parent):
                holders = [each for each in self.things.values() if isinstance(each, Qdisc)]
                assert any(each.device == device and each.handle == parent for each in holders)
                assert thing.key not in self.things
                assert not thing.redirect or ("link", thing.redirect) in self.things

    def _remove(self, thing: Thing) -> None:
        match thing:
            case Class(device, number):
                for each in self.things.values():
                    assert not (isinstance(each, Class) and each.device == device and each.parent == number)
                    assert not (isinstance(each, Filter) and each.device == device and each.target == number)
            case Ifb(name):
                redirects = [each for each in self.things.values() if isinstance(each, Filter)]
                assert not any(each.redirect == name for each in redirects), "packets would be lost"
        inside = [key for key, each in self.things.items() if self._is_inside(each, thing)]
        for key in [thing.key, *inside]:
            del self.things[key]

    def _is_inside(self, each: Thing, holder: Thing) -> bool:
        if isinstance(holder, Ifb):
            return isinstance(each, Qdisc | Class | Filter) and each.device == holder.name
        if not isinstance(holder, Qdisc) or not isinstance(each, Class | Filter):
            return False
        major = (each.handle if isinstance(each, Class) else each.parent) >> 16
        return each.device == holder.device and major == holder.handle >> 16


rates = st.sampled_from([0, 0, 64_000, 10 * M, 100 * M, 700 * M])
bandwidths = st.builds(
    Bandwidth,
    egress=rates,
    ingress=rates,
    egress_limit=rates,
    ingress_limit=rates,
    burst=st.sampled_from([0, 32_000]),
)


@st.composite
def hosts(draw: st.DrawFn) -> HostShape:
    units = []
    for minor in draw(st.lists(st.integers(0x100, 0x108), unique=True, max_size=6)):
        places: list[Place] = [
            Veths((f"v{minor}",), ("02:00:00:00:00:01",)),
            Veths((f"v{minor}", f"w{minor}"), ()),
            Group(2, f"g/{minor}", minor),
            Group(1, f"/g/{minor}", minor),
            Nowhere("it has none"),
        ]
        place = draw(st.sampled_from(places))
        units.append(UnitShape(f"u{minor}", minor, draw(bandwidths), place))
    return HostShape(
        tuple(units),
        draw(st.sampled_from(["eth0", ""])),
        draw(st.sampled_from([0, G])),
        draw(st.sampled_from([0, G])),
        (22,),
        draw(st.booleans()),
    )


@given(hosts(), hosts(), st.data())
def test_the_steps_lead_from_whatever_stands_to_what_is_wanted(
    before: HostShape, wanted: HostShape, data: st.DataObject
) -> None:
    kernel = Kernel(stand(before, {}).things)
    if kernel.things:
        for key in data.draw(st.lists(st.sampled_from(list(kernel.things)), max_size=3, unique=True)):
            kernel.suffer(key, data.draw(st.sampled_from(["change", "move", "remove"])))
    made = plan(wanted, TcSeen(tuple(kernel.things.values())))
    kernel.carry_out([op for op in made.ops if not isinstance(op.thing, Mark) or isinstance(op, Put)])
    left = {key: thing for key, thing in kernel.things.items() if not isinstance(thing, Mark)}
    assert left == {thing.key: thing for thing in made.layout.things if not isinstance(thing, Mark)}
    assert plan(wanted, TcSeen(tuple(made.layout.things))).ops == ()


@given(hosts(), st.data())
def test_steps_that_were_cut_short_are_gone_on_with(wanted: HostShape, data: st.DataObject) -> None:
    kernel = Kernel()
    ops = plan(wanted, TcSeen()).ops
    kernel.carry_out(ops[: data.draw(st.integers(0, len(ops)))])
    rest = plan(wanted, TcSeen(tuple(kernel.things.values())))
    kernel.carry_out(rest.ops)
    assert kernel.things == {thing.key: thing for thing in rest.layout.things}


@given(hosts())
def test_no_two_things_have_one_name_and_every_class_is_in_its_parents_bounds(shape: HostShape) -> None:
    things = stand(shape, {}).things
    assert len({thing.key for thing in things}) == len(things)
    for each in things:
        if isinstance(each, Class):
            assert 0 < each.rate <= each.ceil
            assert each.ceil * 8 <= UNBOUNDED


@given(hosts())
def test_guarantees_never_come_to_more_than_the_uplink(shape: HostShape) -> None:
    for device in (OUT, IN, "eth0"):
        capacity = shape.ingress if device == IN else shape.egress
        units = [
            each for (name, number), each in classes(shape).items() if name == device and number & 0xFFFF > 255
        ]
        if capacity:
            assert sum(each.rate for each in units if each.rate > 2000) * 8 <= capacity


@given(st.lists(st.text(min_size=1), unique=True, max_size=30), st.data())
def test_a_unit_keeps_its_minor_while_others_come_and_go(units: list[str], data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(units), unique=True)) if units else []
    first = minors(some, {})
    then = minors(units, first)
    assert {unit: then[unit] for unit in some} == first
    assert len(set(then.values())) == len(units)
    assert all(FIRST_MINOR <= minor <= LAST_MINOR for minor in then.values())
    assert minors(units, {}) == minors(reversed(units), {})


def test_two_names_that_fall_on_one_minor_get_two() -> None:
    given_ = minors([f"u{number}.service" for number in range(5000)], {})
    assert len(set(given_.values())) == 5000


def test_a_limit_alone_touches_neither_the_uplink_nor_other_containers() -> None:
    things = stand(host(veth(0x101, egress_limit=10 * M), veth(0x102)), {}).things
    devices = {getattr(thing, "device", OUT) for thing in things}
    assert devices == {OUT, "v257"}
    assert classes(host(veth(0x101, egress_limit=10 * M)))[(OUT, INNER)].ceil * 8 == 10 * M


def test_a_guarantee_takes_every_container_into_the_tree_and_the_uplink_too() -> None:
    layout = stand(host(veth(0x101, egress=50 * M), veth(0x102)), {})
    redirects = {thing.device for thing in layout.things if isinstance(thing, Filter) and thing.redirect == OUT}
    assert redirects == {"v257", "v258"}
    assert layout.uplink == "eth0"
    rules = next(thing for thing in layout.things if isinstance(thing, Rules))
    assert any("--mac-source 02:00:00:00:00:01" in line and "0f10:0101" in line for line in rules.lines)
    on_uplink = classes(host(veth(0x101, egress=50 * M, egress_limit=60 * M)))[("eth0", HOST)]
    assert (on_uplink.rate * 8, on_uplink.ceil * 8) == (50 * M, G)  # its ceiling was kept before: not again


def test_what_is_spare_is_lent_up_to_the_limit_or_the_uplink() -> None:
    both = classes(host(veth(0x101, egress=50 * M), veth(0x102, egress=10 * M, egress_limit=20 * M)))
    assert both[(OUT, INNER)].ceil * 8 == G
    assert both[(OUT, INNER + 1)].ceil * 8 == 20 * M


def test_without_a_known_capacity_limits_hold_and_guarantees_are_refused_with_the_reason() -> None:
    layout = stand(host(veth(0x101, egress=50 * M, egress_limit=60 * M), egress=0), {})
    assert layout.troubles == {"u257": NO_EGRESS}
    assert layout.uplink == ""
    assert classes(host(veth(0x101, egress_limit=60 * M), egress=0))[(OUT, INNER)].ceil * 8 == 60 * M


def test_on_the_host_a_limit_holds_without_a_known_capacity_and_nothing_else_is_shaped() -> None:
    shape = host(on_host(0x101, egress_limit=10 * M), egress=0)
    root = next(each for each in stand(shape, {}).things if isinstance(each, Qdisc) and each.device == "eth0")
    assert root.default == 0  # what no rule names passes as it came
    assert classes(shape)[("eth0", HOST)].ceil * 8 == 10 * M


def test_a_host_unit_is_known_by_its_group_after_the_reserved_ports() -> None:
    for version, match in ((1, f"--cgroup {HOST}"), (2, "--path group/257")):
        layout = stand(host(on_host(0x101, version, egress=50 * M)), {})
        rules = next(thing for thing in layout.things if isinstance(thing, Rules))
        assert match in rules.lines[-1] and "unitfleet-101-7257" in rules.lines[-1]
        assert "--ports 22,2379" in rules.lines[-2]
        marks = [thing for thing in layout.things if isinstance(thing, Mark)]
        assert [mark.class_id for mark in marks] == ([HOST] if version == 1 else [])


def test_ingress_of_a_unit_on_the_hosts_network_is_refused_and_its_egress_holds() -> None:
    layout = stand(host(on_host(0x101, egress_limit=10 * M, ingress_limit=10 * M)), {})
    assert layout.troubles == {"u257": HOST_INGRESS}
    assert layout.sends["u257"] == ("eth0", HOST)


def test_an_uplink_that_may_not_or_can_not_be_shaped_says_why() -> None:
    unit = on_host(0x101, egress_limit=10 * M)
    assert "--shape-uplink never" in stand(host(unit, may=False), {}).troubles["u257"]
    assert "no uplink" in stand(host(unit, uplink=""), {}).troubles["u257"]
    layout = stand(host(unit), {"eth0": "fq 8001:"})
    assert "eth0 has a qdisc that somebody else set (fq 8001:)" in layout.troubles["u257"]
    assert layout.things == []


def test_the_guarantee_that_does_not_fit_is_refused_not_the_earlier_one() -> None:
    layout = stand(host(veth(0x101, egress=700 * M), veth(0x102, egress=400 * M)), {})
    assert layout.troubles == {"u258": "egress 400M can't be guaranteed: 300M of 1G is left"}
    assert (
        classes(host(veth(0x101, egress=700 * M), veth(0x102, egress=400 * M)))[(OUT, INNER)].rate * 8 == 700 * M
    )


def test_ingress_is_guaranteed_in_a_tree_that_all_containers_share() -> None:
    layout = stand(host(veth(0x101, ingress=50 * M), veth(0x102)), {})
    redirects = {thing.device for thing in layout.things if isinstance(thing, Filter) and thing.redirect == IN}
    assert redirects == {"v257", "v258"}
    assert layout.uplink == ""  # nothing of egress is promised


def test_pulls_are_capped_where_the_engine_can_be_told_and_else_it_says_so() -> None:
    shape = dataclasses.replace(host(), pull_limit=80 * M, engine=Group(2, "docker.service", 5))
    rules = next(thing for thing in stand(shape, {}).things if isinstance(thing, Rules))
    assert "-A INPUT -i eth0 -j UNITFLEET-IN" in rules.lines
    assert "--path docker.service" in rules.lines[-1] and "--hashlimit-above 9765kb/s" in rules.lines[-1]
    layout = stand(dataclasses.replace(shape, engine=Nowhere("the Engine is away")), {})
    assert (layout.pull_trouble, layout.things) == ("image pulls are not capped: the Engine is away", [])
    assert "no uplink" in stand(dataclasses.replace(shape, uplink=""), {}).pull_trouble


@pytest.mark.parametrize(
    ("said", "ingress", "cap"),
    [
        pytest.param(None, G, 500 * M, id="nothing is said: half of the uplink"),
        pytest.param(None, 0, 0, id="nothing is said and the uplink is not known: no cap"),
        pytest.param(0, G, 0, id="none"),
        pytest.param(30 * M, 0, 30 * M, id="a rate holds on any uplink"),
    ],
)
def test_a_cap_is_what_was_said_or_half_of_a_known_uplink(said: int | None, ingress: int, cap: int) -> None:
    assert pull_cap(said, ingress) == cap


def test_what_marks_a_host_stands_before_its_firewall_rules_and_goes_after_them() -> None:
    shape = dataclasses.replace(host(), pull_limit=80 * M, engine=Group(1, "/net_cls/docker", 5))
    made = plan(shape, TcSeen())
    kinds = [type(op.thing) for op in made.ops]
    assert kinds == [Mark, Ifb, Rules, Rules]
    assert [type(op.thing) for op in plan(host(), TcSeen(tuple(made.layout.things))).ops] == [
        Rules,
        Rules,
        Mark,
        Ifb,
    ]


def test_a_changed_limit_is_one_step() -> None:
    before = stand(host(veth(0x101, egress_limit=10 * M)), {}).things
    ops = plan(host(veth(0x101, egress_limit=20 * M)), TcSeen(tuple(before))).ops
    assert [type(op) for op in ops] == [Put]
    assert "ceiling is 10000000 bit/s, wanted 20000000" in ops[0].reason


def test_a_qdisc_that_somebody_deleted_is_made_again_with_all_that_was_in_it() -> None:
    shape = host(veth(0x101, egress_limit=10 * M, ingress_limit=10 * M))
    standing = [thing for thing in stand(shape, {}).things if getattr(thing, "device", "") != "v257"]
    missing = {op.thing.key for op in plan(shape, TcSeen(tuple(standing))).ops}
    assert missing == {thing.key for thing in stand(shape, {}).things if getattr(thing, "device", "") == "v257"}


def test_filters_of_interfaces_that_are_gone_are_removed_one_by_one() -> None:
    stale = [Filter(OUT, handle(0xF11), 0, number=number) for number in (0x80000800, 0x80000801)]
    shape = host(veth(0x101, egress_limit=10 * M))
    ops = plan(shape, TcSeen((*stand(shape, {}).things, *stale))).ops
    numbers = {op.thing.number for op in ops if isinstance(op.thing, Filter)}
    assert numbers == {0x80000800, 0x80000801} and len(ops) == 2
