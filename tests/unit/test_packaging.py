"""What the packages' units of systemd say."""

from __future__ import annotations

import re
from pathlib import Path

UNITS = Path(__file__).parents[2] / "packaging/systemd"

TAKES = re.compile(
    r"(Protect|Private|Restrict|SystemCall|Lock|Device|Capability|ReadOnly|Inaccessible|Memory)[A-Z]"
)
"""Sandboxing, which every child inherits."""


def test_the_agent_is_left_what_units_may_need() -> None:
    said = (UNITS / "unit-agent.service").read_text().splitlines()
    assert not [line for line in said if TAKES.match(line) and not line.endswith("=no")]
