"""A program of the cluster with one promise broken on purpose: the witness has to find it.

    python -m chaos.broken no-brake unit_master --name …

Each seeded bug names the program that it is in, and the faults that show it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.faults.fault import KINDS, Fault
from unitfleet.errors import StoreError


@dataclass(frozen=True, slots=True)
class Bug:
    """`seed` puts it into this process. `faults` show it: kind, target, seconds; `rule` is what they violate."""

    program: str
    seed: Callable[[], None]
    faults: tuple[tuple[str, str, float], ...]
    rule: str


def _no_brake() -> None:
    from unit_master import machines
    from unit_master.brake import BrakeState

    def off(*_: object) -> BrakeState:
        return BrakeState("off")

    vars(machines)["brake"] = off


def _epochs_stand_still() -> None:
    from unit_master.apply import Scribe

    def stand(self: Any, txn: Any) -> int:
        self._epoch = max(self._epoch, 1)
        txn.epoch = self._epoch
        return int(self._epoch)

    Scribe._raise = stand  # type: ignore[method-assign]


def _acknowledged_unwritten() -> None:
    from unit_master.changes import Changer, _Call

    write = _Call._write

    async def do_not_ask(self: Any) -> None:
        pass

    async def pretend(self: Any, batch: Any, ops: Any) -> int:
        try:
            return await write(self, batch, ops)
        except StoreError:
            return 1

    _Call._write = pretend  # type: ignore[method-assign]
    Changer._ask_if_silent = do_not_ask  # type: ignore[method-assign]


def _no_deadline() -> None:
    from unit_agent.strict.deadlines import Deadline, Deadlines

    def renewed(self: Any, unit: str, revision: int, sent: float) -> Deadline:
        known = self.units.get(unit)
        return Deadline(revision, sent + 3600.0, known.marks if known else None)

    Deadlines.renewed = renewed  # type: ignore[method-assign]


BUGS = {
    "no-brake": Bug("unit_master", _no_brake, (("power-off", "m1", 24.0), ("power-off", "m2", 18.0)), "I7"),
    "epochs-stand-still": Bug("unit_master", _epochs_stand_still, (("power-off", "m1", 9.0),), "I6"),
    "acknowledged-unwritten": Bug("unit_master", _acknowledged_unwritten, (("store-down", "etcd", 20.0),), "I3"),
    "no-deadline": Bug("unit_agent", _no_deadline, (("cut", "{only@1.service}", 18.0),), "I2"),
}


def started_with(bug: str) -> Callable[[str, Sequence[str]], Sequence[str]]:
    """Return how daemons are started so that those of the bug's program have it (`Cluster.in_lab`)."""

    def started(name: str, argv: Sequence[str]) -> Sequence[str]:
        words = list(argv)
        at = words.index("-m")
        if words[at + 1] != BUGS[bug].program:
            return words
        here = __file__.rpartition("/chaos/")[0]
        return ["env", f"PYTHONPATH={here}", *words[:at], "-m", "chaos.broken", bug, *words[at + 1 :]]

    return started


def faults_of(bug: str, machine_of: Callable[[str], str]) -> list[Fault]:
    """Return the faults that show a bug; `machine_of` tells where a unit is, for `{unit}` as target."""
    found = []
    for name, target, lasts_s in BUGS[bug].faults:
        where = machine_of(target[1:-1]) if target.startswith("{") else target
        found.append(KINDS[name].make(where, lasts_s))
    return found


def main(argv: Sequence[str]) -> None:
    """Run the program with its bug."""
    bug, program, *rest = argv
    BUGS[bug].seed()
    sys.argv = [program, *rest]
    importlib.import_module(f"{program}.__main__").main()


if __name__ == "__main__":
    main(sys.argv[1:])
