"""A live change of bandwidth: the placement is amended at its own epoch, and nothing else comes of it."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.builders import GIB, Built, BuiltUnit, a_machine, a_placement, a_state, a_unit, a_view
from unit_agent.driver import Copy
from unit_agent.reconcile import amends, plan
from unit_master.actions import Amend, Pend, Place, Unpend, Want
from unit_master.apply import Scribe, Transaction
from unit_master.reconcile import plan_units
from unit_master.view import ClusterView
from unit_master.wishes import Moment, Write, decide, standing
from unitfleet import codec, keys
from unitfleet.api import Change, NetLimit
from unitfleet.errors import Refused, UnitfleetError
from unitfleet.model import (
    Bandwidth,
    Capacity,
    CopyPhase,
    MachineStatus,
    Placement,
    TargetState,
    Unit,
    Wanted,
)
from unitfleet.store import Put

M = 10**6
WIRED = Capacity(cpu=64, memory=256 * GIB, egress=1000 * M, ingress=1000 * M)
TEXT = "[Container]\nImage=ad:1\n[X-Fleet]\nEgress=10M\n"
NOW = 1000.0


def limited(bandwidth: Bandwidth | None, name: str = "a.service", **more: object) -> BuiltUnit:
    return a_unit(name, text=TEXT, bandwidth=bandwidth, **more)  # type: ignore[arg-type]


def written(view: ClusterView) -> list[Transaction]:
    numbers = itertools.count(1)
    return Scribe(view, "master-1", NOW, lambda: next(numbers)).batches(plan_units(view, NOW), 40)


def placements(transactions: list[Transaction]) -> list[Placement]:
    return [
        codec.decode(op.value, Placement)
        for txn in transactions
        for op in txn.ops
        if isinstance(op, Put) and keys.split(op.key)[0] == "placements"
    ]


# ------------------------------------------------------------------ the leader


PHASES = st.sampled_from(list(CopyPhase))
RATES = st.builds(Bandwidth, egress=st.integers(0, 1000 * M), egress_limit=st.integers(0, 10**9))


@given(
    phase=PHASES,
    before=st.none() | RATES,
    after=st.none() | RATES,
    wanted=st.sampled_from([TargetState.LOADED, TargetState.LAUNCHED]),
)
def test_an_amendment_changes_nothing_but_bandwidth(
    phase: CopyPhase, before: Bandwidth | None, after: Bandwidth | None, wanted: TargetState
) -> None:
    unit = limited(after, target=wanted)
    order = Wanted(wanted.value)
    built = (
        a_machine("m1", capacity=WIRED),
        unit,
        a_placement(unit, "m1", epoch=7, wanted=order, bandwidth=before),
        a_state(unit, "m1", phase, epoch=7),
    )
    view = a_view(*built, epoch=9)
    held = view.placements_of("a.service")["m1"].value
    if before == after:
        assert written(view) == []
        return
    (txn,) = written(view)
    (amended,) = placements([txn])
    assert amended == msgspec.structs.replace(held, bandwidth=after)
    assert amended.epoch == 7 and txn.epoch == 10, "the counter is raised, the placement's epoch is not"
    assert {keys.split(op.key)[0] for op in txn.ops} == {"placements", "events"}


def test_an_amendment_holds_only_if_unit_and_placement_stand_as_seen() -> None:
    unit = limited(Bandwidth(egress=20 * M))
    view = a_view(a_machine("m1", capacity=WIRED), unit, a_placement(unit, "m1"))
    (txn,) = written(view)
    assert txn.compares.keys() == {keys.unit("a.service"), keys.placement("m1", "a.service")}


def test_once_it_is_amended_there_is_nothing_to_do() -> None:
    rates = Bandwidth(egress=20 * M)
    unit = limited(rates)
    held = a_placement(unit, "m1", bandwidth=rates)
    assert plan_units(a_view(a_machine("m1", capacity=WIRED), unit, held, a_state(unit, "m1")), NOW) == []


def test_a_new_placement_carries_it_from_the_start() -> None:
    view = a_view(a_machine("m1", capacity=WIRED), limited(Bandwidth(egress=20 * M)))
    (placed,) = placements(written(view))
    assert placed.bandwidth == Bandwidth(egress=20 * M)


def test_it_is_placed_by_what_was_set_and_not_by_its_text() -> None:
    slow = a_machine("m1", capacity=Capacity(cpu=4, memory=GIB, egress=15 * M))
    (action,) = plan_units(a_view(slow, limited(Bandwidth(egress=20 * M))), NOW)
    assert isinstance(action, Pend) and action.pending.refused[0].example == (
        "m1: egress: 15M of 15M left on m1, needs 20M"
    )
    (action,) = plan_units(a_view(slow, limited(Bandwidth())), NOW)
    assert isinstance(action, Place)


def test_reset_brings_back_what_the_text_says() -> None:
    unit = limited(None)
    view = a_view(a_machine("m1", capacity=WIRED), unit, a_placement(unit, "m1", bandwidth=Bandwidth(egress=1)))
    (amended,) = placements(written(view))
    assert amended.bandwidth is None


def test_a_gone_placement_and_one_on_a_lost_machine_are_left_alone() -> None:
    unit = limited(Bandwidth(egress=20 * M))
    gone = a_view(
        a_machine("m1", capacity=WIRED), unit, a_placement(unit, "m1", wanted=Wanted.GONE), a_state(unit, "m1")
    )
    assert not [action for action in plan_units(gone, NOW) if isinstance(action, Amend)]
    lost = a_view(a_machine("m1", status=MachineStatus.LOST, capacity=WIRED), unit, a_placement(unit, "m1"))
    assert not [action for action in plan_units(lost, NOW) if isinstance(action, Amend)]


def test_while_it_moves_both_placements_are_amended() -> None:
    unit = limited(Bandwidth(egress=20 * M))
    view = a_view(
        a_machine("m1", capacity=WIRED),
        a_machine("m2", capacity=WIRED),
        unit,
        a_placement(unit, "m1", epoch=1),
        a_placement(unit, "m2", epoch=2),
        a_state(unit, "m1", epoch=1),
    )
    assert [action.machine for action in plan_units(view, NOW) if isinstance(action, Amend)] == ["m1", "m2"]


def test_a_renewal_leaves_the_guarantee_to_the_amendment() -> None:
    unit = limited(Bandwidth(egress=20 * M), restart=1)
    view = a_view(a_machine("m1", capacity=WIRED), unit, a_placement(unit, "m1", restart=0), a_state(unit, "m1"))
    assert [type(action) for action in plan_units(view, NOW)] == [Want]
    (renewed,) = placements(written(view))
    assert (renewed.restart, renewed.bandwidth) == (1, None)


def two_that_want_the_uplink() -> tuple[Built, ...]:
    greedy, other = limited(Bandwidth(egress=900 * M)), limited(Bandwidth(egress=900 * M), "b.service")
    return (
        a_machine("m1", capacity=WIRED),
        greedy,
        a_placement(greedy, "m1"),
        a_state(greedy, "m1"),
        other,
        a_placement(other, "m1"),
        a_state(other, "m1"),
    )


def test_of_two_new_guarantees_the_one_that_fits_no_more_waits_and_says_why() -> None:
    amend, pend = plan_units(a_view(*two_that_want_the_uplink()), NOW)
    assert isinstance(amend, Amend) and amend.unit == "a.service"
    assert isinstance(pend, Pend) and pend.pending.unit == "b.service"
    assert pend.pending.message == "keeps its former bandwidth on m1: egress: 100M of 1G left on m1, needs 900M"


def test_what_waited_is_amended_once_it_fits() -> None:
    unit = limited(Bandwidth(egress=900 * M))
    (pend,) = (
        action for action in plan_units(a_view(*two_that_want_the_uplink()), NOW) if isinstance(action, Pend)
    )
    told = Built(((keys.pending("b.service"), codec.encode(pend.pending)),))
    other = limited(Bandwidth(egress=900 * M), "b.service")
    view = a_view(a_machine("m1", capacity=WIRED), other, a_placement(other, "m1"), a_state(other, "m1"), told)
    assert [type(action) for action in plan_units(view, NOW)] == [Amend, Unpend]
    assert unit.unit.bandwidth == other.unit.bandwidth


def test_a_global_unit_keeps_its_text_where_the_new_one_is_promised_too_much() -> None:
    everywhere = TEXT + "Global=true\n"
    unit = a_unit("g.service", text=everywhere.replace("10M", "400M"))
    former = a_unit("g.service", text=everywhere)
    busy = limited(Bandwidth(egress=700 * M), "busy.service")
    view = a_view(
        a_machine("m1", capacity=WIRED),
        a_machine("m2", capacity=WIRED),
        former,
        unit,
        a_placement(former, "m1"),
        a_placement(former, "m2"),
        busy,
        a_placement(busy, "m2", bandwidth=Bandwidth(egress=700 * M)),
        a_state(busy, "m2"),
    )
    want, pend = plan_units(view, NOW)
    assert isinstance(want, Want) and want.machine == "m1"
    assert isinstance(pend, Pend)
    assert pend.pending.message == "keeps its former text on m2: egress: 300M of 1G left on m2, needs 400M"


# ------------------------------------------------------------------ the wish


def wished(view: ClusterView, wish: NetLimit, name: str = "a.service") -> Unit:
    decided = decide(view, standing(view, name), Change(name=name, bandwidth=wish), Moment(NOW, "new"))
    assert isinstance(decided, Write)
    return decided.unit


def placed_view(bandwidth: Bandwidth | None = None, *more: Built) -> ClusterView:
    unit = limited(bandwidth)
    return a_view(a_machine("m2", capacity=WIRED), unit, a_placement(unit, "m2", bandwidth=bandwidth), *more)


def test_a_wish_changes_what_it_names_and_leaves_the_rest_as_the_text_says() -> None:
    view = placed_view()
    unit = wished(view, NetLimit(egress_limit=50 * M))
    assert unit.bandwidth == Bandwidth(egress=10 * M, egress_limit=50 * M)
    held = view.units["a.service"].value
    assert (unit.generation, unit.restart, unit.incarnation) == (
        held.generation + 1,
        held.restart,
        held.incarnation,
    )


def test_zero_takes_a_rate_away_and_reset_all_of_it() -> None:
    assert wished(placed_view(), NetLimit(egress=0)).bandwidth == Bandwidth()
    assert wished(placed_view(Bandwidth(egress=5)), NetLimit(reset=True)).bandwidth is None


def test_a_guarantee_that_does_not_fit_where_it_runs_is_refused_in_the_rules_words() -> None:
    neighbour = limited(None, "b.service")
    held = a_placement(neighbour, "m2", bandwidth=Bandwidth(egress=700 * M))
    with pytest.raises(Refused) as caught:
        wished(placed_view(None, neighbour, held), NetLimit(egress=400 * M))
    assert caught.value.message == "cannot limit a.service: egress: 300M of 1G left on m2, needs 400M"
    assert wished(placed_view(None, neighbour, held), NetLimit(egress=300 * M)).bandwidth


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (NetLimit(), "no rate is given"),
        (NetLimit(reset=True, egress=1), "reset its limits by one wish"),
        (NetLimit(egress_limit=5 * M), "Egress=10M is above EgressLimit=5M"),
        (NetLimit(burst=1), "a burst of 1 bytes is not from 2K to 64M"),
        (NetLimit(egress=0, burst=4096), "Burst= goes with no rate"),
    ],
    ids=["nothing", "both", "below its guarantee", "too small a burst", "a burst alone"],
)
def test_a_wish_that_makes_no_sense_is_refused(wish: NetLimit, said: str) -> None:
    with pytest.raises(UnitfleetError, match=said):
        wished(placed_view(), wish)


def test_what_comes_to_a_service_can_not_be_limited_live_either() -> None:
    unit = a_unit("a.service")
    with pytest.raises(Refused, match="only what it sends"):
        wished(a_view(unit), NetLimit(ingress_limit=1))


def test_a_template_is_not_limited() -> None:
    with pytest.raises(Refused, match="cannot limit a template") as caught:
        wished(a_view(limited(None, "a@.service")), NetLimit(egress=1), "a@.service")
    assert caught.value.hint == "limit an instance of it, such as a@1.service"


def test_a_new_text_says_that_the_live_limit_stays() -> None:
    view = placed_view(Bandwidth(egress=20 * M))
    change = Change(name="a.service", text=TEXT.replace("10M", "30M"), replace=True)
    decided = decide(view, standing(view, "a.service"), change, Moment(NOW, "new"))
    assert isinstance(decided, Write)
    assert decided.unit.bandwidth == Bandwidth(egress=20 * M)
    assert any("egress 20M, set by net limit, stays in place of" in warning for warning in decided.result.warnings)


def test_destroyed_and_made_again_it_has_what_its_text_says() -> None:
    view = a_view(limited(Bandwidth(egress=20 * M), target=TargetState.DESTROYED))
    change = Change(name="a.service", text=TEXT, target=TargetState.LAUNCHED)
    decided = decide(view, standing(view, "a.service"), change, Moment(NOW, "new"))
    assert isinstance(decided, Write) and decided.unit.bandwidth is None


# ------------------------------------------------------------------ the agent


def an_order(**more: object) -> Placement:
    fields: dict[str, object] = {
        "unit": "a.service",
        "machine": "m1",
        "spec": "s",
        "incarnation": "i",
        "epoch": 3,
        "wanted": Wanted.LAUNCHED,
        "restart": 0,
        "reason": "r",
    }
    return Placement(**{**fields, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", list(CopyPhase), ids=str)
def test_no_copy_in_any_phase_is_touched_by_an_amendment(phase: CopyPhase) -> None:
    copy = Copy(
        unit="a.service", driver="process", id="1", incarnation="i", epoch=3, restart=0, spec="s", phase=phase
    )
    plain, amended = an_order(), an_order(bandwidth=Bandwidth(egress=1))
    assert plan(amended, copy) == plan(plain, copy)


def test_an_amendment_is_no_order_and_everything_else_is() -> None:
    plain = an_order()
    assert amends(plain, an_order(bandwidth=Bandwidth(egress=1)))
    assert amends(an_order(bandwidth=Bandwidth(egress=1)), plain)
    for more in ({"epoch": 4}, {"wanted": Wanted.GONE}, {"restart": 1}, {"spec": "t"}):
        assert not amends(plain, an_order(bandwidth=Bandwidth(egress=1), **more))
    assert not amends(None, plain) and not amends(plain, None)
