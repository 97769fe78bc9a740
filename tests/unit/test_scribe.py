"""How decisions become transactions: which go together, and what keeps its turn."""

from __future__ import annotations

from collections.abc import Sequence

from harness.builders import a_machine, a_placement, a_unit, a_view
from unit_master.actions import Gone, Place, UnitAction
from unit_master.apply import Scribe, Transaction
from unitfleet.model import Wanted
from unitfleet.store import MAX_OPERATIONS

UNITS = [a_unit(f"job@{number:02}.service") for number in range(60)]
MACHINES = ["m1", "m2", "m3"]


def written(actions: Sequence[UnitAction], most: int = 40) -> list[Transaction]:
    view = a_view(*(a_machine(name) for name in MACHINES), *UNITS, a_placement(UNITS[0], "m3"))
    return Scribe(view, "w", 0.0, iter(range(1000)).__next__).batches(actions, most)


def placed_on(machine: str, number: int) -> Place:
    return Place(f"job@{number:02}.service", machine, Wanted.LAUNCHED, "least loaded")


def test_placements_of_a_pass_go_machine_by_machine_so_that_an_agent_hears_of_its_own_at_once() -> None:
    batches = written([placed_on(MACHINES[number % 3], number) for number in range(60)])
    told = [[action.machine for action in batch.actions if isinstance(action, Place)] for batch in batches]
    assert told == [["m1"] * 20 + ["m2"] * 20, ["m3"] * 20]
    names = [action.unit for batch in batches for action in batch.actions if isinstance(action, Place)]
    assert names[:20] == sorted(names[:20]), "on a machine each keeps its turn: a peer goes before who follows it"
    assert all(len(batch.compares) + 3 <= MAX_OPERATIONS >= len(batch.ops) + 1 for batch in batches)
    epochs = [batch.epoch for batch in batches]
    assert epochs == [41, 61], "the counter goes up in the order in which they are written"


def test_a_placement_does_not_pass_an_order_of_another_kind() -> None:
    gone = Gone("job@00.service", "m3", "runs elsewhere")
    [batch] = written([placed_on("m2", 1), gone, placed_on("m1", 2)])
    assert batch.actions == [placed_on("m2", 1), gone, placed_on("m1", 2)]
