"""What the operator of one host told its agent about units: `unit-agent local stop`, and `start` again."""

from __future__ import annotations

import msgspec

from unit_agent.driver import Copy
from unit_agent.local_copy import LocalCopy, read_record
from unit_agent.reconcile import Action, Step
from unitfleet import codec
from unitfleet.model import Placement, Record, Wanted

HOLDS = "holds.json"

HELD = "stopped on this host, until `unit-agent local start` or a new order"


class KeptHolds(Record, frozen=True, kw_only=True):
    """Units that were stopped on this host, each with the epoch of the order that this overrides."""

    machine: str
    epochs: dict[str, int] = msgspec.field(default_factory=dict)


class Holds:
    """The units held on this host. A hold ends with an order of a higher epoch."""

    def __init__(self, local: LocalCopy, machine: str) -> None:
        self._local = local
        self._machine = machine
        self._epochs: dict[str, int] = {}

    async def load(self) -> None:
        """Take up what is kept of this machine."""
        kept = await read_record(self._local, HOLDS, KeptHolds)
        if kept is not None and kept.machine == self._machine:
            self._epochs = dict(kept.epochs)

    async def hold(self, unit: str, epoch: int) -> None:
        """Hold a unit against orders up to `epoch`; raises OSError when that can't be kept."""
        self._epochs[unit] = epoch
        await self._save()

    async def release(self, unit: str) -> None:
        """Let a unit go again; one that is not held is fine."""
        if self._epochs.pop(unit, None) is not None:
            await self._save()

    def units(self) -> set[str]:
        """Return every unit that a hold is kept of."""
        return set(self._epochs)

    def holds(self, unit: str, wanted: Placement | None) -> bool:
        """Tell whether the unit is held, and no newer order has come."""
        epoch = self._epochs.get(unit)
        return epoch is not None and (wanted is None or wanted.epoch <= epoch)

    async def _save(self) -> None:
        await self._local.write(HOLDS, codec.encode(KeptHolds(machine=self._machine, epochs=self._epochs)))


def plan_held(wanted: Placement | None, copy: Copy | None) -> tuple[Action, ...] | None:
    """Return the steps for a unit that is held, or None when the order stands as it is.

    The copy is removed too: one that was stopped by hand would read as one that ended by itself.
    """
    if wanted is not None and wanted.wanted is Wanted.GONE:
        return None
    if copy is None or not copy.executing:
        return ()
    return (Action(Step.STOP, "stopped on this host by its operator"), Action(Step.REMOVE, "it is held"))
