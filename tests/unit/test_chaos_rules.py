"""The rules by which a witness of faults judges copies: each fires on what breaks it, and on nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.witness.engine import Happened
from chaos.witness.processes import Copy
from chaos.witness.rules import moved, overlaps, touched, twice, unit_wrong
from chaos.workload import Shape, Wanted, shapes
from unitfleet.model import TargetState

SHAPES = shapes(Path("/mark"))
BY_NAME = {shape.name: shape for shape in SHAPES}


def copy(unit: str, machine: str = "m1", pid: int = 1) -> Copy:
    return Copy(unit, machine, f"{pid:064d}", pid, str(pid))


def told(name: str, copies: dict[Copy, str], target: TargetState = TargetState.LAUNCHED) -> list[str]:
    return unit_wrong(BY_NAME[name], Wanted(target, 7), copies, 3)


def test_one_copy_with_the_text_that_was_acknowledged_is_right() -> None:
    assert told("ad@1.service", {copy("ad@1.service"): "sleep 7"}) == []


@pytest.mark.parametrize(
    ("copies", "rule"),
    [
        pytest.param({}, "I1", id="none"),
        pytest.param({copy("ad@1.service"): "sleep 7", copy("ad@1.service", "m2"): "sleep 7"}, "I1", id="two"),
        pytest.param({copy("ad@1.service"): "sleep 6"}, "I3", id="one with an older text"),
    ],
)
def test_anything_else_is_wrong(copies: dict[Copy, str], rule: str) -> None:
    [said] = told("ad@1.service", copies)
    assert said.startswith(rule)


def test_a_global_unit_runs_on_each_machine_once() -> None:
    found = {copy("everywhere.service", f"m{n}", n): "sleep 7" for n in range(3)}
    assert told("everywhere.service", found) == []
    assert told("everywhere.service", dict(list(found.items())[:2]))
    doubled = {copy("everywhere.service", "m1", n): "sleep 7" for n in range(3)}
    assert told("everywhere.service", doubled)


def test_what_was_stopped_and_what_is_finished_does_not_run() -> None:
    stopped = told("busy@1.service", {copy("busy@1.service"): "sleep 7"}, TargetState.LOADED)
    finished = told("once.service", {copy("once.service"): "sleep 7"})
    assert [said[:2] for said in (*stopped, *finished)] == ["I3", "I3"]
    assert told("busy@1.service", {}, TargetState.LOADED) == told("once.service", {}) == []


def test_a_strict_unit_that_executes_twice_is_seen_and_an_ordinary_one_is_free_to() -> None:
    both = [copy("only@1.service", "m1", 1), copy("only@1.service", "m2", 2)]
    assert twice(both, {"only@1.service"}) and not twice(both[:1], {"only@1.service"}) and not twice(both, set())


def test_intervals_that_overlap_are_seen_and_those_that_follow_each_other_are_not() -> None:
    def events(second_began: float) -> list[Happened]:
        return [
            Happened(1.0, 0, "only@1.service", "a" * 64, "start"),
            Happened(5.0, 0, "only@1.service", "a" * 64, "die"),
            Happened(second_began, 1, "only@1.service", "b" * 64, "start"),
        ]

    assert overlaps(events(4.9), {"only@1.service"}, {"b" * 64}, 9.0)
    assert not overlaps(events(5.1), {"only@1.service"}, {"b" * 64}, 9.0)
    assert not overlaps(events(4.9), set(), {"b" * 64}, 9.0)
    assert overlaps(events(4.9)[1:], {"only@1.service"}, {"b" * 64}, 9.0)  # the first began before anybody looked


def judged(before: set[Copy], after: set[Copy], freed: set[Copy], *named: str) -> list[str]:
    return touched(before, after, before | after, freed, set(named), SHAPES)


def test_a_copy_that_ends_and_one_that_begins_for_no_reason_are_seen() -> None:
    old, new = copy("ad@1.service", "m1", 1), copy("ad@1.service", "m1", 2)
    assert [said[-9:] for said in judged({old}, {new}, set())] == ["has ended", "has begun"]
    assert judged({old}, {old}, set()) == []


def test_what_a_fault_or_a_command_names_may_move_and_what_goes_with_it_too() -> None:
    old, new = copy("ad@1.service", "m1", 1), copy("ad@1.service", "m2", 2)
    peer, after = copy("peer.service", "m1", 3), copy("peer.service", "m2", 4)
    assert judged({old, peer}, {new, after}, {old}) == []
    assert judged({old, peer}, {new, after}, set(), "ad@1.service") == []
    assert judged({peer}, {after}, set())


def test_a_global_unit_may_be_touched_only_where_the_fault_is() -> None:
    here, there = copy("everywhere.service", "m1", 1), copy("everywhere.service", "m2", 2)
    assert judged({here, there}, {copy("everywhere.service", "m1", 3), there}, {here}) == []
    assert len(judged({here, there}, {here, copy("everywhere.service", "m2", 3)}, {here})) == 2


def test_what_moved_is_told_with_where_from() -> None:
    old = copy("ad@1.service", "m1", 1)
    assert moved({old}, {copy("ad@1.service", "m2", 2)}) == ["ad@1.service m1>m2"]
    assert moved({old}, {copy("ad@1.service", "m1", 2)}) == ["ad@1.service m1"]


def test_shapes_have_names_of_their_own() -> None:
    assert len(BY_NAME) == len(SHAPES)
    assert {shape.peer for shape in SHAPES if shape.peer} <= set(BY_NAME)
    assert isinstance(SHAPES[0], Shape)
