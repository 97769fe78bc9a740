"""Carry out what an operator orders about machines and the brake, by compare-and-set."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping
from enum import StrEnum

import msgspec

from unit_master.cache import Cache
from unit_master.identities import AGENT, find_identity, shut_out
from unit_master.labels import labelled
from unit_master.view import ClusterView
from unit_master.warming import reference_digest
from unitfleet import codec, keys
from unitfleet.api import WarmOrder
from unitfleet.errors import NotFound, OutcomeUnknown, Refused
from unitfleet.model import Brake, BrakeOrder, IdentityRecord, MachineSpec, MachineStatus, WarmImage
from unitfleet.problems import nearest
from unitfleet.store import Compare, Delete, Put, Store, absent, unchanged

logger = logging.getLogger(__name__)

TRIES = 5
CATCH_UP_S = 5.0
MOST_LABELLED = 100
"""Machines in one transaction of etcd's."""


class MachineOrder(StrEnum):
    """What can be ordered of a machine."""

    CORDON = "cordon"
    UNCORDON = "uncordon"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    LOST = "lost"
    RM = "rm"
    DENY = "deny"
    ALLOW = "allow"


def find_machine(view: ClusterView, wanted: str) -> str:
    """Return the id of the machine that a name, an id or a unique prefix means; raises `NotFound`, `Refused`."""
    found = view.find_machines(wanted)
    if len(found) == 1:
        return found[0]
    if found:
        fits = sorted(f"{view.machine_name(machine)} ({machine[:8]})" for machine in found)
        several = ", ".join(fits[:5])
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
        case MachineOrder.DENY | MachineOrder.ALLOW:
            return held


def identity(view: ClusterView, machine: str, order: MachineOrder) -> IdentityRecord | None:
    """Return the machine's identity as `order` makes it, None when it is left as it is; raises `Refused`.

    One that is removed is shut out too, if it ever had a certificate.
    """
    if order is MachineOrder.RM:
        return shut_out(view, machine, denied=True) if machine in view.identities.get(AGENT, {}) else None
    if order in (MachineOrder.DENY, MachineOrder.ALLOW):
        return shut_out(view, machine, denied=order is MachineOrder.DENY)
    return None


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
            machine = _meant(view, wanted, order)
            spec = ordered(view, machine, order)
            known = identity(view, machine, order)
            entry = view.machine_specs.get(machine)
            key = keys.machine_spec(machine)
            compares = [unchanged(key, view.revisions.get(key, 0)), *_conditions(view, machine, order)]
            of_spec = order not in (MachineOrder.DENY, MachineOrder.ALLOW)
            changed = of_spec and (entry is None or entry.value != spec)
            ops = [Put(key, codec.encode(spec))] if changed else []
            if known is not None:
                identity_key = keys.identity(known.role, known.name)
                compares.append(unchanged(identity_key, view.revisions.get(identity_key, 0)))
                if known != view.identities[known.role][known.name].value:
                    ops.append(Put(identity_key, codec.encode(known)))
            try:
                result = await self._store.txn(compares, ops)
            except OutcomeUnknown:
                if not ops:
                    raise
                held = await self._store.get(ops[-1].key)  # raises when the store is away
                if held is None or held.value != ops[-1].value:
                    raise
                return held.mod_revision
            if result.succeeded:
                if ops:
                    logger.info("ordered %s of %s", order, view.machine_name(machine))
                return result.revision if ops else view.revision
            await self._cache.wait_for(result.revision, CATCH_UP_S)
        self._cache.list_soon()  # perhaps an event never came, and this master's view is wrong until it is listed
        raise Refused(f"cannot {order} {wanted}: it changes all the time", hint="try again")

    async def label(self, labels: Mapping[str, Mapping[str, str]]) -> int:
        """Set metadata of machines, given by name, id or unique prefix, and return the revision it stands at.

        All of it or nothing; an empty value takes a key away. Raises `NotFound` and `Refused`.
        """
        if len(labels) > MOST_LABELLED:
            raise Refused(f"cannot label {len(labels)} machines at once: {MOST_LABELLED} are allowed")
        for _ in range(TRIES):
            view = self._cache.view
            meant: dict[str, dict[str, str]] = {}
            for wanted, keyed in labels.items():
                meant.setdefault(find_machine(view, wanted), {}).update(keyed)
            specs = {keys.machine_spec(machine): labelled(view, machine, meant[machine]) for machine in meant}
            held = {keys.machine_spec(machine): view.machine_specs.get(machine) for machine in meant}
            ops = [
                Put(key, codec.encode(spec))
                for key, spec in specs.items()
                if (entry := held[key]) is None or entry.value != spec
            ]
            if not ops:
                return view.revision
            try:
                result = await self._store.txn([unchanged(key, view.revisions.get(key, 0)) for key in specs], ops)
            except OutcomeUnknown:
                stands = await self._store.get(ops[-1].key)  # raises when the store is away
                if stands is None or stands.value != ops[-1].value:
                    raise
                return stands.mod_revision
            if result.succeeded:
                for machine, keyed in meant.items():
                    logger.info("labelled %s: %s", view.machine_name(machine), sorted(keyed.items()))
                return result.revision
            await self._cache.wait_for(result.revision, CATCH_UP_S)
        self._cache.list_soon()  # as above
        raise Refused(f"cannot label {', '.join(labels)[:200]}: they change all the time", hint="try again")

    async def warm(self, wish: WarmOrder) -> int:
        """Let machines hold an image, and return the revision it stands at; another `where` takes its place."""
        warm = WarmImage(image=wish.image, where=wish.where, at=self._now())
        held = self._cache.view.warm.get(reference_digest(wish.image))
        if held is not None and held.value.where == warm.where:
            return held.revision
        revision = await self._store.put(keys.warm(reference_digest(wish.image)), codec.encode(warm))
        logger.info("ordered %s to be held warm", wish.image)
        return revision

    async def unwarm(self, wish: WarmOrder) -> int:
        """Take back `warm`; raises `NotFound` for an image that was not ordered."""
        key = keys.warm(reference_digest(wish.image))
        while (held := await self._store.get(key)) is not None:
            result = await self._store.txn([unchanged(key, held.mod_revision)], [Delete(key)])
            if result.succeeded:
                logger.info("no longer ordered %s to be held warm", wish.image)
                return result.revision
        known = sorted(entry.value.image for entry in self._cache.view.warm.values())
        raise NotFound(
            f"cannot unwarm {wish.image}: nobody ordered it",
            hint=nearest(wish.image, known) or "unitctl images ls shows what is held, and for which units",
        )

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


def _meant(view: ClusterView, wanted: str, order: MachineOrder) -> str:
    """Return the id that an order is for: of a machine that was never seen, or is gone, the certificate counts."""
    if order in (MachineOrder.DENY, MachineOrder.ALLOW) and not view.find_machines(wanted):
        return find_identity(view, wanted) or find_machine(view, wanted)
    return find_machine(view, wanted)


def _conditions(view: ClusterView, machine: str, order: MachineOrder) -> list[Compare]:
    """Return what else must still be so: an order that ends a machine's stay is for this join of it alone."""
    if order not in (MachineOrder.LOST, MachineOrder.RM):
        return []
    roster = keys.roster(machine)
    return [absent(keys.presence(machine)), unchanged(roster, view.revisions.get(roster, 0))]
