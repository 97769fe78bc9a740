"""Bandwidth as a scheduled resource: who is admitted by a machine's uplink, and what the others are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.builders import GIB, a_host, a_machine, a_placement, a_scene, a_unit, a_view, needs
from unit_master.explain import explain
from unit_master.rules import resources_left, uplink_left_for
from unit_master.scene import Host, scene_of
from unit_master.scheduler import Placed, Refused, place, scores_of
from unit_master.views import machine_view
from unitfleet.model import Bandwidth, Capacity, Requirements

M = 10**6
WIRED = Capacity(cpu=64, memory=256 * GIB, egress=1000 * M, ingress=1000 * M)
CONTAINER = "[Container]\nImage=ad:1\n[X-Fleet]\n"


def why_not(unit: Requirements, host: Host) -> str | None:
    return resources_left(unit, host, a_scene(host))


def test_a_guarantee_above_what_is_left_is_refused_in_these_words() -> None:
    host = a_host("m2", needs("b.service", egress=700 * M), capacity=WIRED)
    assert why_not(needs(egress=400 * M), host) == "egress: 300M of 1G left on m2, needs 400M"
    assert why_not(needs(egress=300 * M), host) is None
    assert why_not(needs(ingress=2000 * M), host) == "ingress: 1G of 1G left on m2, needs 2G"


def test_a_machine_whose_uplink_is_not_known_takes_no_guarantee() -> None:
    host = a_host("m1", capacity=Capacity(cpu=4, memory=GIB))
    assert why_not(needs(egress=1), host) == (
        "egress: this machine's uplink is not known (set --egress on its agent)"
    )
    assert why_not(needs(), host) is None


def test_a_leaving_copy_keeps_its_guarantee() -> None:
    host = a_host("m1", needs("b.service", egress=700 * M), leaving=["b.service"], capacity=WIRED)
    assert why_not(needs(egress=400 * M), host) is not None


def test_what_a_unit_has_here_already_counts_as_free_for_itself() -> None:
    host = a_host("m1", needs(egress=700 * M), capacity=WIRED)
    assert why_not(needs(egress=1000 * M), host) is None
    slower = a_host("m1", needs(egress=700 * M), capacity=Capacity(cpu=64, memory=GIB, egress=100 * M))
    assert why_not(needs(egress=700 * M), slower) is None
    assert why_not(needs(egress=800 * M), slower) == "egress: 700M of 100M left on m1, needs 800M"


@pytest.mark.parametrize(
    ("capacity", "taken", "hint"),
    [
        (WIRED, 700 * M, "m1 would fit with Egress=300M"),
        (WIRED, 900 * M, "free 300M of Egress on m1 or add a machine"),
        (
            Capacity(cpu=64, memory=GIB, egress=100 * M),
            0,
            "add a machine with Egress of 400M or more (m1 has 100M)",
        ),
        (Capacity(cpu=64, memory=GIB), 0, "set --egress on the agent of m1"),
    ],
    ids=["a little less", "make room", "too slow for it", "not known"],
)
def test_the_nearest_fix_is_named(capacity: Capacity, taken: int, hint: str) -> None:
    scene = a_scene(a_host("m1", needs("b.service", egress=taken), capacity=capacity))
    decided = place(needs(egress=400 * M), scene)
    assert isinstance(decided, Refused)
    assert decided.hint == hint
    assert decided.message == "no machine fits: 1 considered: 1 short of egress"


def test_the_machine_with_more_of_its_uplink_left_is_taken() -> None:
    busy = a_host("m1", needs("b.service", egress=500 * M, cpu=0.1, memory=1), capacity=WIRED)
    calm = a_host("m2", needs("c.service", cpu=20, memory=1), capacity=WIRED)
    scores = scores_of(needs(egress=100 * M), [busy, calm], a_scene(busy, calm))
    assert [score.machine for score in scores] == ["m2", "m1"]
    assert scores[1].share == pytest.approx(0.6)


@given(
    rates=st.lists(st.tuples(st.integers(0, 600 * M), st.integers(0, 600 * M)), max_size=30),
    leave=st.sets(st.integers(0, 29)),
)
def test_the_sum_of_guarantees_never_exceeds_an_uplink(rates: list[tuple[int, int]], leave: set[int]) -> None:
    hosts = [a_host(f"m{n}", capacity=WIRED) for n in range(3)]
    scene = a_scene(*hosts)
    for number, (egress, ingress) in enumerate(rates):
        unit = needs(f"u{number}.service", egress=egress, ingress=ingress)
        decided = place(unit, scene)
        if isinstance(decided, Placed):
            scene.settle(unit, decided.machine)
            if number in leave:
                scene.clear(unit.unit, decided.machine)
        else:
            assert all(
                egress > uplink_left_for(unit, host)[0] or ingress > uplink_left_for(unit, host)[1]
                for host in hosts
            )
        for host in hosts:
            held = list(host.units.values())
            assert sum(each.egress for each in held) == host.egress_reserved <= host.capacity.egress
            assert sum(each.ingress for each in held) == host.ingress_reserved <= host.capacity.ingress


def test_explain_says_what_is_left_of_each_uplink() -> None:
    big = a_unit("big.service", text=f"{CONTAINER}Egress=700M\n")
    view = a_view(
        a_machine("m1", capacity=Capacity(cpu=4, memory=GIB)),
        a_machine("m2", capacity=WIRED),
        big,
        a_placement(big, "m2"),
        a_unit("a.service", text=f"{CONTAINER}Egress=400M\n"),
    )
    explained = explain(view, "a.service")
    assert explained is not None
    assert {verdict.machine: verdict.why for verdict in explained.machines} == {
        "m1": "egress: this machine's uplink is not known (set --egress on its agent)",
        "m2": "egress: 300M of 1G left on m2, needs 400M",
    }
    assert explained.hint == "m2 would fit with Egress=300M"


def test_what_a_placement_guarantees_counts_in_place_of_what_its_text_says() -> None:
    unit = a_unit("a.service", text=f"{CONTAINER}Egress=400M\n")
    amended = a_placement(unit, "m1", bandwidth=Bandwidth(egress=100 * M, ingress=50 * M))
    view = a_view(a_machine("m1", capacity=WIRED), unit, amended)
    host = scene_of(view).hosts["m1"]
    assert (host.egress_reserved, host.ingress_reserved) == (100 * M, 50 * M)
    shown = machine_view(view, "m1")
    assert shown is not None
    assert (shown.reserved.egress, shown.reserved.ingress) == (100 * M, 50 * M)
