"""What happens to one host: leases that end, agents that come back, and faults."""

from __future__ import annotations

from collections.abc import Iterator

from model.agent import Move
from model.rules import Rules
from model.state import Fence, Machine, Mode


def host_moves(rules: Rules, machine: Machine) -> Iterator[Move]:
    """Yield what may happen to this host next; repairs need not come, so they are not fair."""
    if machine.present and machine.mode is not Mode.UP:
        yield Move("lease of {m} expires", machine._replace(present=False), writes="presence")
    if machine.mode is Mode.DEAD:
        yield Move("agent {m} starts again", machine._replace(mode=Mode.UP))
    if machine.mode is Mode.CUT:
        yield Move("partition of {m} heals", machine._replace(mode=Mode.UP), fair=False)
    if machine.mode is Mode.OFF:
        yield Move("host {m} boots", machine._replace(mode=Mode.UP), fair=False)
        if "partition" in rules.faults:
            yield Move("host {m} boots, cut off", machine._replace(mode=Mode.CUT), fair=False)
    yield from _faults(rules, machine)


def _faults(rules: Rules, machine: Machine) -> Iterator[Move]:
    def fault(label: str, after: Machine, writes: str = "") -> Move:
        return Move(f"FAULT {label}", after, fair=False, writes=writes, spends="faults")

    if machine.mode is Mode.UP:
        if "crash" in rules.faults:
            yield fault("agent {m} crashes", _crashed(rules, machine))
        if "partition" in rules.faults:
            yield fault("{m} is cut off", machine._replace(mode=Mode.CUT))
        if "revoke" in rules.faults and machine.present:
            yield fault("lease of {m} is falsely revoked", machine._replace(present=False), "presence")
    if machine.mode is not Mode.OFF and "power" in rules.faults:
        yield fault("host {m} loses power", _powerless(machine))
    if "exit" in rules.faults:
        for unit, slot in enumerate(machine.slots):
            if slot.copy is not None and slot.copy.runs:
                ended = slot._replace(copy=slot.copy._replace(runs=False))
                yield fault(f"unit {unit} on {{m}} exits", machine.with_slot(unit, ended))


def _crashed(rules: Rules, machine: Machine) -> Machine:
    slots = machine.slots
    if rules.bug == "restart_in_memory":
        slots = tuple(s._replace(copy=s.copy._replace(restart=0)) if s.copy else s for s in slots)
    return machine._replace(mode=Mode.DEAD, synced=False, slots=slots)


def _powerless(machine: Machine) -> Machine:
    slots = tuple(
        slot._replace(copy=slot.copy._replace(runs=False) if slot.copy else None, fence=Fence.NONE)
        for slot in machine.slots
    )
    return machine._replace(mode=Mode.OFF, synced=False, slots=slots)
