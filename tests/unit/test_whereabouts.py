"""Where a unit was, and how lines of several machines become one stream."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

from unit_master.api.merging import merged
from unit_master.whereabouts import places, spells
from unitfleet.api import LogLine
from unitfleet.model import Stay


def stay(machine: str, epoch: int, at: float) -> Stay:
    return Stay(unit="a.service", machine=machine, epoch=epoch, at=at, reason="")


def test_a_stay_lasts_until_the_next_one_and_the_last_one_goes_on() -> None:
    found = places([stay("m2", 5, 200.0), stay("m1", 3, 100.0), stay("m1", 9, 300.0)], everywhere=False)
    assert [(p.machine, p.since, p.until) for p in found] == [
        ("m1", 100.0, 200.0),
        ("m2", 200.0, 300.0),
        ("m1", 300.0, math.inf),
    ]
    assert spells(found, "m2", 0.0, 250.0) == (200.0, 250.0)
    assert spells(found, "m1", 150.0, 1000.0) == (150.0, 1000.0)
    assert spells(found, "m2", 1000.0, 2000.0) is None, "long after it left"
    assert spells(found, "m2", 310.0, 2000.0) is not None, "a copy that was moved away still stops"
    assert spells(found, "m3", 0.0, 1000.0) is None


def test_a_destroyed_unit_is_nowhere_and_a_global_one_everywhere_at_once() -> None:
    gone = places([stay("m1", 3, 100.0), stay("", 4, 150.0)], everywhere=False)
    assert [(p.machine, p.until) for p in gone] == [("m1", 150.0)]
    everywhere = places([stay("m1", 3, 100.0), stay("m2", 4, 101.0), stay("m1", 6, 300.0)], everywhere=True)
    assert [(p.machine, p.until) for p in everywhere] == [("m1", 300.0), ("m2", math.inf), ("m1", math.inf)]


async def part(machine: str, *times: float, piece: int = 2) -> AsyncIterator[list[LogLine]]:
    lines = [LogLine(at=at, stream="stdout", text=f"{machine}{n}", machine=machine) for n, at in enumerate(times)]
    for begin in range(0, len(lines), piece):
        yield lines[begin : begin + piece]


async def test_parts_are_merged_by_time_and_each_keeps_its_own_order() -> None:
    parts = [part("a", 1.0, 4.0, 3.0, 9.0), part("b", 2.0, 5.0, 6.0), part("c")]
    found = [line.text async for lines in merged(parts, 2) for line in lines]
    assert [text for text in found if text[0] == "a"] == ["a0", "a1", "a2", "a3"], (
        "a step back in time stays in place"
    )
    assert found == ["a0", "b0", "a1", "a2", "b1", "b2", "a3"]
