"""What docs/proof.md says of the recorded runs is what they say."""

from __future__ import annotations

from pathlib import Path

from chaos import figures

GROUP = {"version": 2, "first": 0, "last": 99, "verdict": "kept", "faults": {"agent_dies": 3, "power_fails": 2}}
FAILED = {"version": 2, "seed": 7, "verdict": "violated"}
PAGE = Path(figures.__file__).parents[2] / "docs" / "proof.md"


def test_seeds_are_counted_by_the_newest_version_and_a_broken_one_once() -> None:
    assert figures.simulated([{**GROUP, "version": 1}, GROUP, FAILED]) == (100, 5, 1)


def test_a_void_round_counts_for_nothing() -> None:
    rounds: list[dict[str, object]] = [
        {"verdict": verdict, "faults": [{}, {}]} for verdict in ("held", "void", "crashed", "violated")
    ]
    assert figures.real(rounds) == (2, 4, 1)


def test_the_bound_is_the_rule_of_three_and_none_is_given_after_a_violation() -> None:
    assert figures.bound(1000, 0) == "below 0.3 %"
    assert figures.bound(1000, 1) == figures.bound(0, 0) == "-"


def test_the_page_says_what_the_records_say() -> None:
    assert figures.table() in PAGE.read_text()
