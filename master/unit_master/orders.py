"""Carry out what an operator orders about machines and the brake, by compare-and-set."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from enum import StrEnum

import msgspec

from unit_master.cache import Cache
from unit_master.view import ClusterView
from unitfleet import codec, keys
from unitfleet.errors import NotFound, OutcomeUnknown, Refused
from unitfleet.model import Brake, BrakeOrder, MachineSpec, MachineStatus
from unitfleet.store import Compare, Put, Store, absent, unchanged

logger = logging.getLogger(__name__)

TRIES = 5
CATCH_UP_S = 5.0


class MachineOrder(StrEnum):
    """What can be ordered of a machine."""

    CORDON = "cordon"
    UNCORDON = "uncordon"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    LOST = "lost"
    RM = "rm"


def find_machine(view: ClusterView, wanted: str) -> str:
    """Return the id of the machine that a name, an id or a unique prefix means; raises `NotFound`, `Refused`."""
    found = view.find_machines(wanted)
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{view.machine_name(machine)} ({machine[:8]})" for machine in found[:5])
        raise Refused(f"cannot tell which machine {wanted} is: {several}", hint="give more of its name or its id")
    known = {view.machine_name(machine) for machine in view.roster.keys() | view.presence.keys()}
    near = difflib.get_close_matches(wanted, sorted(known), 1, 0.6)
    raise NotFound(
        f"cannot find machine {wanted}: it never joined",
        hint=f"did you mean {near[0]}?" if near else "unitctl list-machines shows them",
    )


def ordered(view: ClusterView, machine: str, order: MachineOrder) -> MachineSpec:
    """Return the machine's record as `order` makes it; raises `Refused`."""
    entry = view.machine_specs.get(machine)
    held = entry.value if entry else MachineSpec(id=machine)
    known = view.roster.get(machine)
    name = view.machine_name(machine)
    match order:
        case MachineOrder.CORDON | MachineOrder.UNCORDON:
            return msgspec.structs.replace(held, cordoned=order is MachineOrder.CORDON)
        case MachineOrder.DRAIN | MachineOrder.UNDRAIN:
            return msgspec.structs.replace(held, drained=order is MachineOrder.DRAIN)
        case MachineOrder.LOST:
            if machine in view.presence:
                raise Refused(
                    f"cannot declare {name} lost: its agent is there",
                    hint=f"unitctl machines drain {name} empties it",
                )
            if known is None:
                raise Refused(f"cannot declare {name} lost: it was never enrolled", hint="it holds no units")
            return msgspec.structs.replace(held, lost_join=known.value.join)
        case MachineOrder.RM:
            if known is None or known.value.status is not MachineStatus.LOST or machine in view.presence:
                status = "there" if machine in view.presence else "not declared lost yet"
                raise Refused(
                    f"cannot remove {name}: it is {status}",
                    hint=f"stop its agent, wait until it is lost or say so: unitctl machines lost {name}",
                )
            return msgspec.structs.replace(held, removed_join=known.value.join)


class Orders:
    """Writes the operator's orders."""

    def __init__(self, store: Store, cache: Cache, *, now: Callable[[], float]) -> None:
        self._store = store
        self._cache = cache
        self._now = now

    async def machine(self, wanted: str, order: MachineOrder) -> int:
        """Carry out an order about a machine and return the revision it stands at."""
        for _ in range(TRIES):
            view = self._cache.view
            machine = find_machine(view, wanted)
            spec = ordered(view, machine, order)
            entry = view.machine_specs.get(machine)
            key = keys.machine_spec(machine)
            compares = [unchanged(key, view.revisions.get(key, 0)), *_conditions(view, machine, order)]
            ops = [] if entry is not None and entry.value == spec else [Put(key, codec.encode(spec))]
            try:
                result = await self._store.txn(compares, ops)
            except OutcomeUnknown:
                held = await self._store.get(key)  # raises when the store is away
                if held is None or held.value != codec.encode(spec):
                    raise
                return held.mod_revision
            if result.succeeded:
                if ops:
                    logger.info("ordered %s of %s", order, view.machine_name(machine))
                return result.revision if ops else view.revision
            await self._cache.wait_for(result.revision, CATCH_UP_S)
        raise Refused(f"cannot {order} {wanted}: it changes all the time", hint="try again")

    async def brake(self, order: BrakeOrder) -> int:
        """Tell the brake and return the revision it stands at; the last word counts."""
        value = codec.encode(Brake(order=order, at=self._now()))
        try:
            revision = await self._store.put(keys.BRAKE, value)
        except OutcomeUnknown:
            held = await self._store.get(keys.BRAKE)
            if held is None or held.value != value:
                raise
            revision = held.mod_revision
        logger.info("told the brake to %s", order)
        return revision


def _conditions(view: ClusterView, machine: str, order: MachineOrder) -> list[Compare]:
    """Return what else must still be so: an order that ends a machine's stay is for this join of it alone."""
    if order not in (MachineOrder.LOST, MachineOrder.RM):
        return []
    roster = keys.roster(machine)
    return [absent(keys.presence(machine)), unchanged(roster, view.revisions.get(roster, 0))]
