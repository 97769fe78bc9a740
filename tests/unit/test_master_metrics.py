"""What a master counts of its own work."""

from __future__ import annotations

import pytest

from unit_master.actions import Gone, Pend, Place
from unit_master.metrics import MasterMetrics
from unitfleet.model import CopyPhase, Pending, RuleCount, Wanted

UNIT = "a.service"


@pytest.fixture
def metrics() -> MasterMetrics:
    return MasterMetrics()


def value(metrics: MasterMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"unitfleet_{name}", labels)


def test_a_first_place_and_a_move_are_told_apart(metrics: MasterMetrics) -> None:
    metrics.decided(Place(UNIT, "m1", Wanted.LAUNCHED, "least loaded"), 1.0)
    metrics.decided(Place(UNIT, "m2", Wanted.LAUNCHED, "m1 is lost", moved_from="m1"), 2.0)
    assert value(metrics, "scheduler_decisions_total", result="placed") == 1.0
    assert value(metrics, "scheduler_decisions_total", result="moved") == 1.0


def test_the_way_to_running_ends_with_the_first_state_that_says_so(metrics: MasterMetrics) -> None:
    metrics.decided(Place(UNIT, "m1", Wanted.LAUNCHED, "least loaded"), 1.0)
    metrics.seen(UNIT, "m1", CopyPhase.STARTING, 1.5)
    metrics.seen(UNIT, "m2", CopyPhase.RUNNING, 1.6)  # an old copy of another machine
    metrics.seen(UNIT, "m1", CopyPhase.RUNNING, 3.0)
    metrics.seen(UNIT, "m1", CopyPhase.RUNNING, 9.0)
    assert value(metrics, "scheduler_unit_time_to_running_seconds_count") == 1.0
    assert value(metrics, "scheduler_unit_time_to_running_seconds_sum") == 2.0


@pytest.mark.parametrize("phase", [CopyPhase.FAILED, CopyPhase.FINISHED])
def test_a_unit_that_failed_is_not_counted_when_it_runs_hours_later(
    metrics: MasterMetrics, phase: CopyPhase
) -> None:
    metrics.decided(Place(UNIT, "m1", Wanted.LAUNCHED, "least loaded"), 1.0)
    metrics.seen(UNIT, "m1", phase, 2.0)
    metrics.seen(UNIT, "m1", CopyPhase.RUNNING, 9999.0)
    assert value(metrics, "scheduler_unit_time_to_running_seconds_count") == 0.0


def test_a_unit_that_was_ordered_gone_is_not_waited_for(metrics: MasterMetrics) -> None:
    metrics.decided(Place(UNIT, "m1", Wanted.LAUNCHED, "least loaded"), 1.0)
    metrics.decided(Gone(UNIT, "m1", "destroyed"), 2.0)
    metrics.seen(UNIT, "m1", CopyPhase.RUNNING, 3.0)
    assert value(metrics, "scheduler_unit_time_to_running_seconds_count") == 0.0


def test_what_each_rule_refused_is_counted_in_machines(metrics: MasterMetrics) -> None:
    refused = (RuleCount(rule="metadata", machines=2, example=""), RuleCount(rule="ports", machines=1, example=""))
    metrics.decided(Pend(Pending(unit=UNIT, considered=3, refused=refused)), 1.0)
    assert value(metrics, "scheduler_filter_rejections_total", rule="metadata") == 2.0
    assert value(metrics, "scheduler_filter_rejections_total", rule="ports") == 1.0
