"""What the shaping duty tells: a trouble once it has lasted, a repair at once, limits only while they hold."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import pytest

from unit_agent.duty import Context
from unit_agent.settings import AgentConfig, ShapeUplink
from unit_agent.shaping import duty
from unit_agent.shaping.host import Outcome
from unit_agent.shaping.layout import HOST_INGRESS, stand
from unit_agent.shaping.shape import Group, HostShape, Nowhere, UnitShape, Veths
from unit_agent.shaping.things import Key
from unitfleet.errors import InvalidConfig
from unitfleet.model import Bandwidth

M = 10**6
CONTAINER = UnitShape("a.service", 0x101, Bandwidth(egress_limit=10 * M, ingress_limit=5 * M), Veths(("veth1",)))
ON_HOST = UnitShape("b.service", 0x102, Bandwidth(egress_limit=M, ingress_limit=M), Group(2, "group", 5))


class Heard:
    """An agent that keeps what happened."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.facts = SimpleNamespace(address="192.0.2.7", port=7777, id="m", name="m")
        self.sync = SimpleNamespace(placements={})
        self.texts = SimpleNamespace(known=lambda unit, digest: None)

    def happened(self, kind: str, unit: str, message: str) -> None:
        self.events.append((kind, unit, message))


def a_duty(**config: Any) -> tuple[duty.Shaping, Heard]:
    heard = Heard()
    return duty.Shaping(Context(cast(Any, heard), cast(Any, None), AgentConfig(**config))), heard


def outcome(*units: UnitShape) -> Outcome:
    shape = HostShape(units, "eth0", 1000 * M, 1000 * M, (22,))
    return Outcome(shape, stand(shape, {}))


def test_a_trouble_is_told_once_and_not_before_it_has_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    shaping, heard = a_duty()
    clock = [100.0]
    monkeypatch.setattr("unit_agent.shaping.duty.time.monotonic", lambda: clock[0])
    for clock[0], told in ((100.0, 0), (100.5, 0), (101.1, 1), (200.0, 1)):
        shaping._tell(outcome(CONTAINER, ON_HOST))
        assert len(heard.events) == told
    assert heard.events == [("shaping-failed", "b.service", HOST_INGRESS)]
    shaping._tell(outcome(CONTAINER))  # it is gone, comes again, and fails again
    for clock[0] in (300.0, 302.0):
        shaping._tell(outcome(ON_HOST))
    assert len(heard.events) == 2


def test_a_repair_is_one_event_a_unit() -> None:
    shaping, heard = a_duty()
    repaired = (("a.service", "class gone"), ("a.service", "filter gone"), ("", "qdisc gone"))
    shaping._tell(dataclasses.replace(outcome(CONTAINER), repaired=repaired))
    assert heard.events == [
        ("shaping-repaired", "a.service", "set again what somebody had changed: class gone and 1 more"),
        ("shaping-repaired", "", "set again what somebody had changed: qdisc gone"),
    ]


def test_limits_are_told_only_while_they_are_in_force() -> None:
    shaping, _ = a_duty()
    shaping._outcome = outcome(CONTAINER, ON_HOST)
    assert shaping.limits_of("a.service") == (10 * M, 5 * M)
    assert shaping.limits_of("b.service") == (M, 0)  # on the host's network only what it sends
    assert shaping.limits_of("c.service") == (0, 0)
    shaping._outcome = dataclasses.replace(outcome(CONTAINER), failed={("qdisc", "veth1", "root"): "no"})
    assert shaping.limits_of("a.service") == (0, 0)


def test_etcd_this_agent_and_ssh_are_reserved() -> None:
    shaping, _ = a_duty(etcd=("10.0.0.1:2379", "10.0.0.2:2479"), egress="1G", shape_uplink=ShapeUplink.NEVER)
    said = duty.settings(shaping._context)
    assert said.ports == (22, 2379, 2479, 7777)
    assert (said.egress, said.ingress, said.may_shape_uplink) == (1000 * M, 0, False)


@pytest.mark.parametrize(
    ("text", "limit"), [("", None), ("auto", None), ("none", 0), ("0", 0), ("300M", 300 * M)], ids=repr
)
def test_a_pull_limit_is_a_rate_none_or_left_to_the_uplink(text: str, limit: int | None) -> None:
    shaping, _ = a_duty(pull_limit=text)
    assert duty.settings(shaping._context).pull_limit == limit
    assert AgentConfig().pull_limit_rate is None


def uncapped() -> Outcome:
    shape = HostShape((), "eth0", pull_limit=10 * M, engine=Nowhere("it is away"))
    return Outcome(shape, stand(shape, {}))


@pytest.mark.parametrize(("said", "events"), [("auto", 0), ("10M", 1)])
async def test_pulls_that_are_not_capped_are_an_event_only_where_a_cap_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, said: str, events: int
) -> None:
    caplog.set_level("INFO", "unit_agent.shaping.duty")
    shaping, heard = a_duty(pull_limit=said)
    clock = [100.0]
    monkeypatch.setattr("unit_agent.shaping.duty.time.monotonic", lambda: clock[0])
    why = "image pulls are not capped: it is away"
    for clock[0] in (100.0, 102.0, 200.0):
        shaping._took(uncapped(), pulling=True)
        shaping._took(Outcome(), pulling=False)  # it is said and shown once, however many pulls follow
        assert (await shaping.limits()).trouble == why
    assert heard.events == [("shaping-failed", "", why)] * events
    assert len([record for record in caplog.records if why in record.getMessage()]) == 1
    shaping._took(outcome(), pulling=True)  # this one is capped
    assert (await shaping.limits()).trouble == ""


def test_a_rule_that_the_firewall_refuses_is_the_trouble_of_pulls_only_while_there_is_a_cap() -> None:
    failed: dict[Key, str] = {("rules", "iptables"): "no rules"}
    shape = HostShape((), "eth0", pull_limit=10 * M, engine=Group(2, "docker", 5))
    assert Outcome(shape, stand(shape, {}), failed).pull_trouble == "image pulls are not capped: no rules"
    assert dataclasses.replace(outcome(ON_HOST), failed=failed).pull_trouble == ""


def test_a_pull_limit_in_bytes_is_refused_with_the_right_form() -> None:
    with pytest.raises(InvalidConfig, match=r"pull-limit.*80M"):
        AgentConfig(pull_limit="10MB")


def placed(bandwidth: Bandwidth | None) -> SimpleNamespace:
    return SimpleNamespace(spec="text", bandwidth=bandwidth)


@pytest.mark.parametrize(
    ("rested", "order", "spec", "wakes"),
    [
        pytest.param(True, placed(None), SimpleNamespace(bandwidth=Bandwidth()), False, id="asks for nothing"),
        pytest.param(True, placed(None), SimpleNamespace(bandwidth=Bandwidth(egress=M)), True, id="its text asks"),
        pytest.param(True, placed(Bandwidth(egress=M)), None, True, id="its order asks"),
        pytest.param(True, placed(Bandwidth()), SimpleNamespace(bandwidth=Bandwidth(egress=M)), False, id="freed"),
        pytest.param(True, placed(None), None, True, id="its text was not read"),
        pytest.param(False, placed(None), SimpleNamespace(bandwidth=Bandwidth()), True, id="something stands"),
    ],
)
def test_where_nothing_is_shaped_only_a_unit_that_may_ask_for_it_wakes_the_duty(
    rested: bool, order: SimpleNamespace, spec: SimpleNamespace | None, wakes: bool
) -> None:
    shaping, heard = a_duty()
    heard.sync = SimpleNamespace(placements={"a.service": order})
    heard.texts = SimpleNamespace(known=lambda unit, digest: spec)
    shaping._rested = rested
    shaping.order_changed("a.service")
    assert shaping._wake.is_set() == wakes
