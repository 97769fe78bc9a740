"""Live figures on a screen: amounts in few characters, and no line more than there is room for."""

from __future__ import annotations

import io

import pytest

from harness.api_views import machine
from unitctl.amounts import core_shares, cores, rate, shares, small
from unitctl.commands.net import _not_yet
from unitctl.commands.top import MACHINES, UNITS, ordered
from unitctl.live import Frame, part, screen
from unitctl.render import Style
from unitfleet.api import MachineFigures, NetView, UnitFigures, UnitNet
from unitfleet.model import Bandwidth, Capacity

PLAIN = Style(io.StringIO())


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0, "0"),
        (999, "999"),
        (48_211, "48.2K"),
        (300_000_000, "300M"),
        (1_254_000_000, "1.25G"),
        (999_600_000, "1G"),
    ],
)
def test_a_rate_has_three_figures(bits: int, text: str) -> None:
    assert rate(bits) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (512, "512"), (1 << 20, "1M"), (3 << 29, "1.5G"), (1000 << 20, "1G"), (20 << 40, "20T")],
)
def test_bytes_are_written_as_unit_files_have_them(count: int, text: str) -> None:
    assert small(count) == text


def test_a_resource_is_used_reserved_and_there_is() -> None:
    assert [cores(count) for count in (0, 0.04, 0.5, 16)] == ["0", "0.04", "0.5", "16"]
    assert core_shares(0.4, 2, 0) == "0.4/2/-"
    assert shares(1 << 30, 0, 4 << 30, small) == "1G/0/4G"


def a_frame(units: int) -> Frame:
    view = machine("m1")
    used = tuple(UnitFigures(unit=f"u{n:03}.service", at=1.0, driver="process", cpu=n / 10) for n in range(units))
    told = MachineFigures(machine=view.id, name="m1", at=1.0, capacity=Capacity(), used=Capacity(), units=used)
    return Frame((view, machine("m2"), machine("m0", status="lost")), {view.id: told})


def test_what_has_no_room_on_the_screen_is_counted() -> None:
    frame = a_frame(100)

    def draw(frame: Frame) -> tuple[object, ...]:
        return part(MACHINES, frame.machines()), part(UNITS, ordered(frame, "cpu"), clipped=True)

    lines = screen(frame, draw, PLAIN, "title", 20).plain.splitlines()  # type: ignore[arg-type]
    assert len(lines) == 19, "one line less than the screen: the last would scroll"
    assert lines[0] == "title" and lines[8].startswith("u099.service"), "the busiest first"
    shown = sum(line.startswith("u0") for line in lines)
    assert lines[-1] == f"and {100 - shown} more"


def test_every_machine_stands_there_and_says_why_it_tells_nothing() -> None:
    assert [(row.view.name, row.why) for row in a_frame(1).machines()] == [
        ("m1", ""),
        ("m2", "has not told yet"),
        ("m0", "is lost"),
    ]


def test_trouble_with_the_api_stands_on_the_screen() -> None:
    frame = a_frame(1)
    frame.trouble = "cannot reach the API; trying again"
    assert "cannot reach the API; trying again" in screen(frame, lambda frame: (), PLAIN, "title", 20).plain


def held(**more: object) -> NetView:
    net = UnitNet(**{"unit": "a", "machine": "m1", "egress": 5, "in_force": True, **more})  # type: ignore[arg-type]
    rates = Bandwidth(egress=5)
    return NetView(unit="a", wanted=rates, ordered=rates, machine="id1", machine_name="m1", in_force=net)


@pytest.mark.parametrize(
    ("row", "runs", "why"),
    [
        (held(), True, ""),
        (held(in_force=False, trouble="no HTB"), True, "on m1: no HTB"),
        (held(egress=4), True, "the agent of m1 is at it"),
        (held(in_force=False), False, ""),
        (NetView(unit="a", wanted=Bandwidth(egress=5)), False, ""),
        (
            NetView(unit="a", wanted=Bandwidth(egress=5), machine="id1", machine_name="m1"),
            True,
            "m1 has no order for it yet",
        ),
    ],
    ids=["it is", "it can't be", "not yet the new rate", "nothing runs", "not placed", "the leader is at it"],
)
def test_a_change_is_waited_for_until_it_is_in_force(row: NetView, runs: bool, why: str) -> None:
    assert _not_yet(row, runs) == why
