"""A machine that closed itself: no new units, those that are there stay, and everybody is told why."""

from __future__ import annotations

import click
import pytest

from harness.builders import ROOMY, a_host, a_machine, a_placement, a_record, a_scene, a_unit, a_view, needs
from unit_agent.presence import differs
from unit_agent.settings import AgentConfig
from unit_master.explain import explain
from unit_master.rules import unsuitable
from unit_master.scene import scene_of
from unit_master.scheduler import Placed, Refused, fits, place
from unit_master.views import machine_view
from unitctl.commands import list_machines
from unitfleet import keys
from unitfleet.errors import InvalidConfig
from unitfleet.model import Capacity, MachineStatus, Resources

WHY = "disk: 93 % of /var/lib/docker used, closed from 90 %"
FULL = a_record(keys.resources("m1"), Resources(id="m1", capacity=ROOMY, closed=WHY))


def test_a_closed_machine_takes_no_new_unit_and_says_why() -> None:
    closed, free = a_host("m1"), a_host("m2")
    closed.closed = WHY
    refusal = fits(needs(), closed, a_scene(closed))
    assert refusal is not None and (refusal.rule, refusal.why) == ("room", WHY)
    placed = place(needs(), a_scene(closed, free))
    assert isinstance(placed, Placed) and placed.machine == "m2"


def test_a_unit_that_is_there_stays() -> None:
    host = a_host("m1", needs())
    host.closed = WHY
    assert fits(needs(), host, a_scene(host)) is None
    assert unsuitable(needs(), host, a_scene(host)) is None


def test_a_unit_that_finds_no_other_machine_is_told_the_reason_and_the_fix() -> None:
    host = a_host("m1")
    host.closed = WHY
    refused = place(needs(), a_scene(host))
    assert isinstance(refused, Refused)
    assert refused.message == "no machine fits: 1 considered: 1 is too full"
    assert refused.hint == "free space on m1 or add a machine"


def test_a_lost_machine_is_lost_before_it_is_full() -> None:
    host = a_host("m1", status=MachineStatus.LOST)
    host.closed = WHY
    refusal = fits(needs(), host, a_scene(host))
    assert refusal is not None and refusal.rule == "ready"


def test_explain_and_the_machines_tell_what_the_agent_said() -> None:
    unit = a_unit()
    view = a_view(unit, a_machine("m1"), FULL, a_machine("m2"))
    assert scene_of(view).hosts["m1"].closed == WHY
    said = explain(view, "a.service")
    assert said is not None
    [verdict] = [one for one in said.machines if one.machine == "m1"]
    assert (verdict.refused_by, verdict.why) == ("room", WHY)
    shown, other = machine_view(view, "m1"), machine_view(view, "m2")
    assert shown is not None and other is not None
    assert (shown.status, shown.closed, other.closed) == ("ready", WHY, "")


def test_a_machine_that_closes_keeps_the_unit_in_its_place() -> None:
    unit = a_unit()
    said = explain(a_view(unit, a_machine("m1"), FULL, a_machine("m2"), a_placement(unit, "m1")), "a.service")
    assert said is not None and said.summary.startswith("placed on m1")


def test_list_machines_shows_closed_beside_ready_and_why() -> None:
    shown = machine_view(a_view(a_machine("m1"), FULL), "m1")
    assert shown is not None and isinstance(list_machines.command, click.Command)
    cells = {column.title: column.cell(shown) for column in list_machines._COLUMNS}
    assert (cells["STATUS"], cells["WHY"]) == ("ready,closed", WHY)


def test_closing_is_worth_a_write_and_so_is_a_tenth_of_the_uplink() -> None:
    uplink = Capacity(cpu=4, memory=1000, disk=1000, egress=10**9)
    told = Resources(id="m", capacity=uplink)
    assert differs(told, Resources(id="m", capacity=uplink, closed=WHY))
    assert not differs(told, Resources(id="m", capacity=uplink, egress_used=10**8))
    assert differs(told, Resources(id="m", capacity=uplink, egress_used=10**8 + 1))
    assert not differs(told, Resources(id="m", capacity=uplink, ingress_used=10**12)), "its capacity is not known"
    assert not differs(told, Resources(id="m", capacity=uplink, load=90.0, pressure={"cpu": 99.0}))


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"egress": "10MB"}, "cannot use egress: '10MB' is bytes, rates are bits a second: write 80M"),
        ({"ingress": "0"}, "cannot use ingress: '0' is no rate"),
        ({"disk_full": 101}, "cannot use disk-full: 101 is no percentage"),
        ({"inodes_full": 0}, "cannot use inodes-full: 0 is no percentage"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_with_the_right_form(wish: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        AgentConfig(**wish)  # type: ignore[arg-type]
    assert refused.value.message.startswith(said)


def test_rates_of_the_uplink_are_read_from_the_options() -> None:
    config = AgentConfig(egress="2.5G")
    assert (config.egress_rate, config.ingress_rate) == (2_500_000_000, 0)
