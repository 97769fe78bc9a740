"""The placement protocol as a model: it keeps its promises, and breaks without its sentences (docs/model.md).

About a minute on one core. The scenarios whole, which take an hour, are run by hand: `scripts/model`.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.effort import examples
from model.__main__ import main
from model.cluster import Cluster
from model.rules import SENTENCES, rules
from model.scenarios import BUGS, HOLES, NEEDLESS, SCENARIOS, deeper, without
from model.search import Found, explore, walk
from unitfleet.model import TargetState, Wanted

SMALL = examples(60_000, 4_000)
"""States: all of every small scenario but two."""

PREFIX = examples(20_000, 2_000)
"""States of a large scenario: all that can be reached in about ten steps."""

WALKS = examples(40, 6)
UNBOUNDED = 240.0  # seconds: the bounds are states, so that a busy machine finds the same

SHORTEST = {
    "incarnation": ("I5", 6),
    "incarnation: a removed machine": ("I5", 16),
    "incarnation gone_final": ("I5", 16),
    "orphan": ("I3", 15),
    "orphan: a report retried": ("I3", 9),
    "orphan_known": ("I3", 12),
    "fence_placement": ("I2", 12),
    "loss_guard": ("I2", 13),
    "wait_for_gone": ("I2", 12),
    "remove_lost": ("I2", 10),
    "serial": ("I7", 3),
    "reaffirm nowhere_stays": ("I3", 14),
    "nowhere_stays": ("I8", 9),
    "nowhere_others": ("I3", 23),
    "nowhere_strict": ("I8", 10),
    "strict_anew": ("I2", 10),
    "strict_anew: cut off": ("I2", 12),
}
BY_BUG = {
    "delete_not_gone": ("I3", 4),
    "stop_on_absence": ("I4", 10),
    "epoch_per_unit": ("I3", 18),
    "no_term_guard": ("I1", 3),
    "break_first": ("I4", 3),
    "restart_in_memory": ("I8", 7),
    "keepalive_fence": ("I2", 11),
    "no_wait": ("I2", 10),
}
CUT = ("fence_placement", "nowhere_others")


def holds(found: Found) -> None:
    """Fail with the steps that lead to a broken promise."""
    assert not found.broken, "\n".join((found.broken, *found.trace))


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_promise_holds_in_the_first_states_of(name: str) -> None:
    found = explore(SCENARIOS[name], UNBOUNDED, PREFIX)
    holds(found)
    assert found.states > PREFIX


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_promise_holds_on_random_walks_beyond_the_bounds_of(name: str) -> None:
    found = walk(deeper(SCENARIOS[name]), seed=1, walks=WALKS, seconds=UNBOUNDED)
    holds(found)
    assert found.states == WALKS


@pytest.mark.parametrize("name", [name for name in {**HOLES, **BUGS} if name not in CUT])
def test_every_promise_holds_in_all_states_of_the_small_scenario(name: str) -> None:
    found = explore({**HOLES, **BUGS}[name], UNBOUNDED, SMALL)
    holds(found)
    assert found.complete or found.states > SMALL == 4_000


@pytest.mark.parametrize("name", HOLES)
def test_the_protocol_breaks_without(name: str) -> None:
    found = explore(without(name, HOLES[name]), UNBOUNDED)
    assert (found.broken[:2], len(found.trace)) == SHORTEST[name], "\n".join((found.broken, *found.trace))


@pytest.mark.parametrize("name", NEEDLESS)
def test_another_sentence_covers(name: str) -> None:
    found = explore(without(name, NEEDLESS[name]), UNBOUNDED)
    holds(found)
    assert found.complete


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_is_found(name: str) -> None:
    found = explore(replace(BUGS[name], bug=name), UNBOUNDED)
    assert (found.broken[:2], len(found.trace)) == BY_BUG[name], "\n".join((found.broken, *found.trace))


def test_every_sentence_is_left_out_somewhere() -> None:
    tried = {sentence for name in (*HOLES, *NEEDLESS) for sentence in name.partition(":")[0].split()}
    assert tried == SENTENCES


def test_states_that_differ_by_the_names_of_machines_and_epochs_alone_are_one() -> None:
    cluster = Cluster(rules(budget=(0, 0, 0)))
    first = {cluster.canonical(raw)[0] for *_, raw in cluster.steps(cluster.initial())}
    assert len(first) == 1  # placed on either machine
    (placed,) = first
    world = cluster.world(placed)
    assert [machine.slots[0].placement is not None for machine in world.machines].count(True) == 1


def test_a_launched_unit_comes_to_rest_running_once() -> None:
    cluster = Cluster(rules(budget=(0, 0, 0)))
    here = cluster.initial()
    while steps := [cluster.canonical(raw)[0] for _, _, fair, raw in cluster.steps(here) if fair]:
        here = steps[0]
    world = cluster.world(here)
    placements = [machine.slots[0].placement for machine in world.machines]
    assert [held.wanted for held in placements if held is not None] == [Wanted.LAUNCHED]
    assert world.units[0].target is TargetState.LAUNCHED
    assert [bool(machine.slots[0].copy) for machine in world.machines].count(True) == 1


def test_the_launcher_prints_a_line_a_run_and_the_steps_beside(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["holes", "serial", "20"]) == 0
    printed = capsys.readouterr()
    (line,) = map(json.loads, printed.out.splitlines())
    assert line["run"] == "holes serial" and line["broken"].startswith("I7") and line["length"] == 3
    assert "leader: place unit" in printed.err
