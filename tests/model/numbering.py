"""Values under numbers, and states without needless names: ranks for epochs, an order for machines."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from model.state import Held, Late, Machine, Slot

Part = TypeVar("Part", bound=Hashable)


class Numbers(Generic[Part]):
    """Values and their numbers, in the order in which they were met."""

    def __init__(self) -> None:
        self.values: list[Part] = []
        self._numbers: dict[Part, int] = {}

    def __call__(self, value: Part) -> int:
        """Return the number of the value, a new one when it is met for the first time."""
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
        return number


Epochs = tuple[int, ...]
"""For each unit a set of epochs, as bits: 0b101 is {1, 3}."""


def epochs_of(machine: Machine) -> Epochs:
    """Return the epochs that anything on this machine speaks of."""
    return tuple(_bits(slot) for slot in machine.slots)


def placed_epochs_of(machine: Machine) -> Epochs:
    """Return the epochs of its placements alone."""
    return tuple(_bit(slot.placement.epoch) if slot.placement else 0 for slot in machine.slots)


def together(parts: Sequence[Epochs], late: Late | None) -> Epochs:
    """Return the epochs of all machines, and of a report that is under way."""
    found = parts[0]
    for other in parts[1:]:
        found = tuple([mine | others for mine, others in zip(found, other, strict=True)])
    if late is not None:
        bit = _bit(late.report.epoch)
        found = tuple([epochs | bit if unit == late.unit else epochs for unit, epochs in enumerate(found)])
    return found


def has_gaps(epochs: Epochs) -> bool:
    """Say whether the epochs of any unit are not 1, 2, … without a gap."""
    return any([bits & (bits + 1) for bits in epochs])


def with_ranks(machine: Machine, epochs: Epochs) -> Machine:
    """Return the machine with each epoch's rank among `epochs` in its place."""
    return machine._replace(
        slots=tuple(_ranked(slot, bits) for slot, bits in zip(machine.slots, epochs, strict=True))
    )


def rank_of(epoch: int, bits: int) -> int:
    """Return the rank of an epoch in a set, from 1."""
    return (bits & (_bit(epoch + 1) - 1)).bit_count()


def renamed(held: Held | None, order: Sequence[int]) -> Held | None:
    """Return the transaction when the machine that now stands at i stood at order[i] before."""
    if held is None or held.op.machine < 0:
        return held
    place = order.index(held.op.machine)
    of_machine = ("presence", "fence")
    compares = frozenset((what, order.index(of) if what in of_machine else of) for what, of in held.compares)
    return Held(held.op._replace(machine=place), compares, held.old_term)


def _bit(epoch: int) -> int:
    return 1 << (epoch - 1)


def _bits(slot: Slot) -> int:
    found = 0
    for part in (slot.placement, slot.report, slot.seen, slot.copy):
        if part is not None:
            found |= _bit(part.epoch)
    return found


def _ranked(slot: Slot, bits: int) -> Slot:
    return slot._replace(
        placement=slot.placement and slot.placement._replace(epoch=rank_of(slot.placement.epoch, bits)),
        report=slot.report and slot.report._replace(epoch=rank_of(slot.report.epoch, bits)),
        seen=slot.seen and slot.seen._replace(epoch=rank_of(slot.seen.epoch, bits)),
        copy=slot.copy and slot.copy._replace(epoch=rank_of(slot.copy.epoch, bits)),
    )
