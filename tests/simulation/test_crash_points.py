"""Every write to the store and every driver call of every process may be its last, unanswered, or badly seen."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import pytest

import unit_agent.copies
import unit_agent.worker
from harness.effort import examples
from simulation.crash_points import Role, hold, perturbations, recorded
from simulation.crash_stories import STORIES
from simulation.taps import Trouble

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"

ELSEWHERE = {
    "cluster": "a daemon writes it as it starts, by a transaction of its own",
    "masters": "a daemon's sign of life, bound to its lease",
    "tokens": "tests/functional/test_identities.py",
    "token-names": "tests/functional/test_identities.py",
    "join": "tests/functional/test_joins.py",
    "identities": "tests/functional/test_identities.py",
    "protection": "tests/functional/test_etcd_protecting.py",
    "images": "a duty's, which pulls in real time: tests/lab",
}
"""Kinds of keys without a point, and who holds them."""

EVERY_NTH = examples(1, 41)
"""In a short run each kind of trouble takes other points: together they come by most of them."""

stories = pytest.mark.parametrize("story", STORIES)


def hold_all(story: str, role: Role, trouble: Trouble) -> None:
    """Tell a story once for each point of a role and each moment of the call."""
    shift = (list(STORIES).index(story) + 2 * list(Role).index(role) + list(Trouble).index(trouble)) % EVERY_NTH
    chosen = list(islice(perturbations(story, role, trouble), shift, None, EVERY_NTH))
    for perturbation in chosen:
        hold(story, perturbation)


@stories
def test_every_store_write_of_a_leader_may_be_its_last(story: str) -> None:
    hold_all(story, Role.LEADER, Trouble.CRASH)


@stories
def test_a_leader_may_go_on_from_an_old_view_after_every_store_write(story: str) -> None:
    hold_all(story, Role.LEADER, Trouble.STALE)


@stories
def test_a_leader_may_miss_an_event_after_every_store_write(story: str) -> None:
    hold_all(story, Role.LEADER, Trouble.MISSED)


@stories
def test_every_store_write_of_an_agent_may_be_its_last(story: str) -> None:
    hold_all(story, Role.AGENT, Trouble.CRASH)


@stories
def test_an_agent_may_go_on_from_an_old_view_after_every_store_write(story: str) -> None:
    hold_all(story, Role.AGENT, Trouble.STALE)


@stories
def test_an_agent_may_miss_an_event_after_every_store_write(story: str) -> None:
    hold_all(story, Role.AGENT, Trouble.MISSED)


@stories
def test_every_driver_call_of_an_agent_may_be_its_last(story: str) -> None:
    hold_all(story, Role.DRIVER, Trouble.CRASH)


@stories
def test_a_driver_may_take_long_to_list_what_was_after_every_call(story: str) -> None:
    hold_all(story, Role.DRIVER, Trouble.STALE)


@stories
def test_an_event_of_a_driver_may_be_missed_after_every_call(story: str) -> None:
    hold_all(story, Role.DRIVER, Trouble.MISSED)


@stories
def test_the_api_may_die_over_every_command_which_is_whole_or_not_there_and_has_one_effect(story: str) -> None:
    hold_all(story, Role.API, Trouble.CRASH)


@stories
def test_the_api_may_go_on_from_an_old_view_after_every_command(story: str) -> None:
    hold_all(story, Role.API, Trouble.STALE)


@stories
def test_the_api_may_miss_an_event_after_every_command(story: str) -> None:
    hold_all(story, Role.API, Trouble.MISSED)


def test_no_kind_of_key_is_without_a_point() -> None:
    section = ARCHITECTURE.read_text().partition("## The store")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| `([a-z-]+)", section, re.MULTILINE))
    assert {"epoch", "placements", "states", "units"} <= told
    points = [point for story in STORIES for point in recorded(story) if not point.of_driver]
    written = {kind for point in points for kind in point.call.split("+")}
    assert told & written == told - ELSEWHERE.keys()


def test_no_driver_call_that_runs_units_is_without_a_point() -> None:
    """Those that the worker and the look at copies make; `examine`, `keep` and their like are calls of duties."""
    modules = (unit_agent.worker, unit_agent.copies)
    called = {verb for m in modules for verb in re.findall(r"await (?:held\.)?driver\.(\w+)\(", _source(m))}
    assert {"start", "stop", "list"} <= called
    points = {point.call.split()[1] for story in STORIES for point in recorded(story) if point.of_driver}
    assert points == called


def _source(module: object) -> str:
    return Path(str(getattr(module, "__file__", ""))).read_text()
