"""Misfortunes that are aimed: at whoever leads, at the host of a strict unit, at a machine that is removed."""

from __future__ import annotations

import asyncio

from simulation.fleet import Fleet, ModelMachine, ModelMaster
from unit_master.orders import MachineOrder
from unitfleet import codec, keys
from unitfleet.model import Leader, TargetState

LATE_S = 3.0
STALE_S = 4.0


def _revoke(fleet: Fleet, key: str) -> None:
    kv = fleet.server.history.get(key)
    if kv is not None and kv.lease:
        fleet.server.revoke(kv.lease)


def _leader(fleet: Fleet) -> ModelMaster | None:
    kv = fleet.server.history.get(keys.LEADER)
    if kv is None:
        return None
    process, _, _ = codec.decode(kv.value, Leader).name.partition(".")
    return fleet.masters[process]


def _strict_host(fleet: Fleet) -> ModelMachine:
    """Return a machine that runs a strict unit; any, while none does."""
    strict = {kind.name for kind in fleet.units if kind.strict}
    hosts = [machine for machine in fleet.machines.values() if strict & machine.host.running()]
    return fleet.dice.choice(hosts or list(fleet.machines.values()))


def _long(fleet: Fleet) -> float:
    """Return a duration in which strict units come to run elsewhere, or nearly."""
    return fleet.profile.ttl_s + fleet.dice.choice((2.0, 4.0, 6.0, 10.0))


# ---------------------------------------------------------------------- strict units


async def strict_host_is_cut_off(fleet: Fleet) -> None:
    """And its lease revoked. Back, it may be told late of all that was ordered meanwhile."""
    machine, away_s = _strict_host(fleet), _long(fleet)
    link, is_told_late = machine.store.link, fleet.dice.random() < 0.7
    fleet.say(f"{machine.name} is cut off for {away_s} s, its lease revoked{', to be told late' * is_told_late}")
    link.cut()
    _revoke(fleet, keys.presence(machine.name))
    if is_told_late:
        link.slow(watch_delay_s=LATE_S)
        link.stale_s = STALE_S
        link.stale_until = fleet.server.lies_until = fleet.now + away_s + LATE_S
    fleet.later(away_s, link.heal)


async def answers_come_late(fleet: Fleet) -> None:
    """The host of a strict unit writes and hears no answer, until all come at once; then its link is cut."""
    machine = _strict_host(fleet)
    link, waits_s = machine.store.link, fleet.dice.choice((3.0, 4.0, 4.8))
    fleet.say(f"{machine.name} hears no answer for {waits_s} s, and is cut off")

    def answered() -> None:
        link.heal()
        link.cut()

    link.cut(there=False)
    fleet.later(fleet.profile.ttl_s / 4, lambda: _revoke(fleet, keys.presence(machine.name)))
    fleet.later(waits_s, answered)
    fleet.later(waits_s + _long(fleet), link.heal)


async def strict_host_is_drained(fleet: Fleet) -> None:
    machine = _strict_host(fleet)
    if fleet.server.up.is_set():
        fleet.commands += 1
        await fleet.order(machine.name, MachineOrder.DRAIN)
        await asyncio.sleep(LATE_S)
        await fleet.order(machine.name, MachineOrder.UNDRAIN)


# ---------------------------------------------------------------------- masters


async def leader_loses_its_lease(fleet: Fleet) -> None:
    """And is not told: its renewals are answered, and what it hears comes late. Others may not be there."""
    leader = _leader(fleet)
    if leader is None:
        return
    alone, loses_s = fleet.dice.random() < 0.5, fleet.dice.choice((1.0, 2.0, 3.0))
    lasts_s = loses_s + LATE_S
    fleet.say(f"{leader.name} hears late, loses its lease in {loses_s} s{', and no other master runs' * alone}")
    fleet.server.lies_until = fleet.now + lasts_s
    link = leader.store.link
    link.slow(watch_delay_s=LATE_S)
    for other in fleet.masters.values():
        if other is not leader and alone:
            other.process.pause()
            fleet.later(lasts_s, other.process.resume)
    fleet.later(loses_s, lambda: _revoke(fleet, keys.LEADER))
    fleet.later(lasts_s, link.slow)


async def masters_hear_late(fleet: Fleet) -> None:
    fleet.say(f"masters hear {LATE_S} s late")
    for master in fleet.masters.values():
        master.store.link.slow(watch_delay_s=LATE_S)


async def machine_blinks(fleet: Fleet) -> None:
    """It is away for a little longer than the grace."""
    machine = fleet.dice.choice(list(fleet.machines.values()))
    away_s = fleet.dice.choice((1.2, 2.0, 3.0, 4.0))
    fleet.say(f"{machine.name} is away for {away_s} s, its lease revoked")
    machine.store.link.cut()
    _revoke(fleet, keys.presence(machine.name))
    fleet.later(away_s, machine.store.link.heal)


# ---------------------------------------------------------------------- removed, and made anew


async def machine_is_removed(fleet: Fleet) -> None:
    """It is cut off and its operator takes it for gone; it comes back all the same, with what it ran."""
    machine = fleet.dice.choice(list(fleet.machines.values()))
    fleet.say(f"{machine.name} is cut off, and its lease revoked")
    machine.store.link.cut()
    _revoke(fleet, keys.presence(machine.name))
    fleet.later(fleet.dice.choice((4.0, 6.0, 10.0)), machine.store.link.heal)
    for order in (MachineOrder.LOST, MachineOrder.RM):
        await asyncio.sleep(0.5)
        fleet.commands += 1
        await fleet.order(machine.name, order)


async def unit_is_made_anew(fleet: Fleet) -> None:
    """The user destroys it, and creates it under the same name."""
    name = fleet.dice.choice(fleet.units).name
    await fleet.wish(name, TargetState.DESTROYED)
    await asyncio.sleep(fleet.dice.choice((0.0, 0.5, 2.0)))
    await fleet.wish(name, TargetState.LAUNCHED)


COMMANDS = (strict_host_is_drained, unit_is_made_anew)
"""What of this is no misfortune."""
