"""What may happen to a fleet: each a function of it, drawn by weight. All end at `heal`, most before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from simulation import aimed
from simulation.fleet import Fleet, ModelMachine, ModelMaster
from simulation.fleet_witness import BY_HAND
from simulation.witness import UPLINK
from unit_master.orders import MachineOrder
from unitfleet import keys
from unitfleet.api import Change, NetLimit
from unitfleet.model import TargetState
from unitfleet.store import Delete

Misfortune = Callable[[Fleet], Awaitable[None]]


def _machine(fleet: Fleet) -> ModelMachine:
    return fleet.dice.choice(list(fleet.machines.values()))


def _part(fleet: Fleet) -> ModelMachine | ModelMaster:
    return fleet.dice.choice(fleet.parts)


def _while(fleet: Fleet) -> float:
    """Return a duration on either side of a lease's time."""
    return fleet.dice.choice((0.3, 1.0, 2.0, 4.0, fleet.profile.ttl_s + 1.5, 2 * fleet.profile.ttl_s + 3.0))


# ---------------------------------------------------------------------- the user


async def wishes(fleet: Fleet) -> None:
    name = fleet.dice.choice(fleet.units).name
    states = (TargetState.LAUNCHED, TargetState.LOADED, TargetState.INACTIVE, TargetState.DESTROYED)
    await fleet.wish(name, fleet.dice.choices(states, (6, 1, 1, 1.5))[0])


async def restarts(fleet: Fleet) -> None:
    await fleet.wish(fleet.dice.choice(fleet.units).name, None, restart=True)


async def limits(fleet: Fleet) -> None:
    rate = fleet.dice.choice((None, UPLINK // 5, UPLINK // 3, UPLINK // 2, UPLINK))
    wish = NetLimit(reset=True) if rate is None else NetLimit(egress=rate)
    await fleet.change(Change(name=fleet.dice.choice(fleet.units).name, bandwidth=wish))


async def orders(fleet: Fleet) -> None:
    if fleet.server.up.is_set():
        fleet.commands += 1
        drain = (MachineOrder.DRAIN, MachineOrder.UNDRAIN, MachineOrder.CORDON, MachineOrder.UNCORDON)
        remove = (MachineOrder.LOST, MachineOrder.RM)
        await fleet.order(_machine(fleet).name, fleet.dice.choice((*drain, *remove)))


# ---------------------------------------------------------------------- processes and hosts


async def agent_dies(fleet: Fleet) -> None:
    machine = _machine(fleet)
    if machine.up:
        fleet.say(f"agent of {machine.name} is killed")
        await machine.kill()
        fleet.later(_while(fleet), partial(_start, fleet, machine))


async def power_fails(fleet: Fleet) -> None:
    machine = _machine(fleet)
    if machine.up:
        fleet.say(f"{machine.name} loses power")
        await machine.power_off()
        fleet.later(_while(fleet), partial(_start, fleet, machine))


async def master_dies(fleet: Fleet) -> None:
    master = fleet.dice.choice(list(fleet.masters.values()))
    if master.up:
        fleet.say(f"{master.name} is killed")
        await master.kill()
        fleet.later(_while(fleet), partial(_start, fleet, master))


def _start(fleet: Fleet, part: ModelMachine | ModelMaster) -> None:
    if not part.up and not fleet.ending and not (fleet.restoring and part in fleet.masters.values()):
        fleet.say(f"{part.name} starts")
        part.start(fleet.tasks)


async def process_is_paused(fleet: Fleet) -> None:
    part = _part(fleet)
    if part.up and not part.process.paused:
        process = part.process
        hears_late = fleet.dice.random() < 0.3  # what came meanwhile is worked off slowly
        if hears_late:
            part.store.link.slow(watch_delay_s=3.0)
        fleet.say(f"{part.name} is paused{' and hears late' if hears_late else ''}")
        process.pause()
        fleet.later(_while(fleet), process.resume)


async def a_copy_crashes(fleet: Fleet) -> None:
    machine = _machine(fleet)
    if running := sorted(machine.host.running()):
        unit = fleet.dice.choice(running)
        fleet.say(f"{unit} crashes on {machine.name}")
        machine.host.crash(unit)


async def engine_spoils_calls(fleet: Fleet) -> None:
    host = _machine(fleet).host
    host.fail_calls, host.lose_calls = fleet.dice.randrange(3), fleet.dice.randrange(3)
    host.hang_calls, host.hang_s = fleet.dice.randrange(2), fleet.dice.choice((1.0, 5.0, 20.0))


async def engine_restarts(fleet: Fleet) -> None:
    machine = _machine(fleet)
    kills = fleet.dice.random() < 0.5
    fleet.say(f"the Engine of {machine.name} restarts{' and ends all' if kills else ''}")
    machine.host.engine_goes(kills=kills)
    fleet.later(_while(fleet), machine.host.engine_comes)


async def disk_is_full(fleet: Fleet) -> None:
    machine = _machine(fleet)
    machine.disk.is_full = not machine.disk.is_full
    fleet.say(f"the disk of {machine.name} is {'full' if machine.disk.is_full else 'free'}")


async def clock_is_set(fleet: Fleet) -> None:
    part = _part(fleet)
    part.clock.ahead_s = fleet.dice.choice((-3600.0, 0.0, 3600.0))
    fleet.say(f"the clock of {part.name} is {part.clock.ahead_s:+g} s")


# ---------------------------------------------------------------------- the network


async def link_is_cut(fleet: Fleet) -> None:
    link = _part(fleet).store.link
    there, back = fleet.dice.choice(((True, True), (True, True), (True, False), (False, True)))
    way = "" if there and back else " there" if there else " back"
    fleet.say(f"link of {link.name} is cut{way}")
    link.cut(there=there, back=back)
    fleet.later(_while(fleet), link.heal)


async def machine_is_cut_off(fleet: Fleet) -> None:
    """Its link is cut, and its lease is revoked before its time: what strict units wait for."""
    machine = _machine(fleet)
    fleet.say(f"{machine.name} is cut off, and its lease revoked")
    machine.store.link.cut()
    kv = fleet.server.history.get(keys.presence(machine.name))
    if kv is not None and kv.lease:
        fleet.server.revoke(kv.lease)
    fleet.later(_while(fleet), machine.store.link.heal)


async def link_is_slow(fleet: Fleet) -> None:
    link = _part(fleet).store.link
    delay = fleet.dice.choice((0.0, 0.05, 0.5, 2.0))
    fleet.say(f"link of {link.name} takes {delay} s")
    link.slow(delay_s=delay, watch_delay_s=fleet.dice.choice((0.0, delay, 3.0)))


async def answers_are_lost(fleet: Fleet) -> None:
    link = _part(fleet).store.link
    link.lose(answers=fleet.dice.randrange(3), requests=fleet.dice.randrange(2))
    fleet.say(f"{link.name} loses an answer or a request")


# ---------------------------------------------------------------------- etcd


async def lease_is_revoked(fleet: Fleet) -> None:
    machines = [keys.presence(name) for name in fleet.machines]
    kv = fleet.server.history.get(fleet.dice.choice([*machines, keys.LEADER, keys.LEADER]))
    if kv is not None and kv.lease:
        fleet.say(f"lease of {kv.key} is revoked")
        fleet.server.revoke(kv.lease)


async def all_leases_are_revoked(fleet: Fleet) -> None:
    count = fleet.server.revoke_early(fleet.dice.choice((0.5, 1.0)), fleet.dice)
    fleet.say(f"{count} leases are revoked at once")


async def keepalive_lies(fleet: Fleet) -> None:
    fleet.server.lies_until = fleet.now + _while(fleet)
    fleet.say(f"keepalive answers for any lease until {fleet.server.lies_until:.1f}")


async def reads_are_stale(fleet: Fleet) -> None:
    link = _part(fleet).store.link
    link.stale_s = fleet.dice.choice((0.5, 2.0, 4.0))
    link.stale_until = fleet.now + _while(fleet)
    fleet.say(f"reads of {link.name} are {link.stale_s} s old")


async def events_are_lost(fleet: Fleet) -> None:
    link = _part(fleet).store.link
    link.lose_events = fleet.dice.randrange(1, 4)
    fleet.say(f"{link.name} loses {link.lose_events} events after a compaction")
    await store_compacts(fleet)


async def events_repeat(fleet: Fleet) -> None:
    link = _part(fleet).store.link
    link.repeat_events = fleet.dice.randrange(1, 4)
    fleet.say(f"{link.name} is told {link.repeat_events} events twice")


async def store_compacts(fleet: Fleet) -> None:
    if fleet.server.up.is_set():
        fleet.server.history.compact(max(1, fleet.server.history.revision - fleet.dice.randrange(5)))


async def a_placement_is_deleted(fleet: Fleet) -> None:
    """Somebody deletes a key by hand. Not one of a strict unit: the store is all that keeps two of it apart."""
    ordinary = {kind.name for kind in fleet.units if not kind.strict}
    placements = fleet.server.history.list(f"{keys.PREFIX}placements/").items
    doomed = [kv.key for kv in placements if keys.split(kv.key)[-1] in ordinary]
    if doomed:
        key = fleet.dice.choice(doomed)
        fleet.say(f"{key} is deleted by hand")
        fleet.server.by(BY_HAND, lambda: fleet.server.txn((), (Delete(key),), ()))


async def store_is_full(fleet: Fleet) -> None:
    fleet.server.is_full = True
    fleet.say("the store is full")
    fleet.later(_while(fleet), fleet.store_has_space)


async def store_is_down(fleet: Fleet) -> None:
    if fleet.server.up.is_set():
        fleet.server.go_down()
        fleet.say("the store is down")
        fleet.later(_while(fleet), fleet.store_comes_up)


async def store_is_restored(fleet: Fleet) -> None:
    """An old snapshot is restored, once in a story; the operator has agents accept it when all else is over."""
    if fleet.snapshot is None:
        fleet.take_snapshot()
        fleet.say(f"a snapshot is taken at revision {fleet.server.history.revision}")
    elif not fleet.restored:
        fleet.say(f"the snapshot is restored at revision {fleet.server.history.revision}")
        await fleet.restore()


COMMANDS: dict[Misfortune, float] = {wishes: 6, restarts: 1.5, limits: 1, orders: 2}

MISFORTUNES: dict[Misfortune, float] = {
    agent_dies: 2,
    power_fails: 2,
    master_dies: 2,
    process_is_paused: 2,
    a_copy_crashes: 1,
    engine_spoils_calls: 1.5,
    engine_restarts: 1,
    disk_is_full: 0.7,
    clock_is_set: 0.7,
    link_is_cut: 2,
    machine_is_cut_off: 1.5,
    link_is_slow: 1,
    answers_are_lost: 1.5,
    lease_is_revoked: 1,
    all_leases_are_revoked: 0.7,
    keepalive_lies: 1,
    reads_are_stale: 1,
    events_are_lost: 1,
    events_repeat: 1,
    store_compacts: 0.5,
    a_placement_is_deleted: 0.5,
    store_is_full: 0.5,
    store_is_down: 0.7,
    store_is_restored: 0.4,
}


def theme(fleet: Fleet) -> dict[Misfortune, float]:
    """Return what may happen in this seed's story, and how often: some kinds of misfortune, and the user."""
    kinds = list(MISFORTUNES)
    chosen = {kind for kind in fleet.dice.sample(kinds, fleet.dice.choice((2, 4, 6, len(kinds))))}
    return COMMANDS | {kind: 2 * weight for kind, weight in MISFORTUNES.items() if kind in chosen}


async def something_happens(fleet: Fleet, what: dict[Misfortune, float]) -> None:
    """Draw one, and let it happen."""
    (kind,) = fleet.dice.choices(list(what), list(what.values()))
    if kind not in (*COMMANDS, *aimed.COMMANDS):
        fleet.faults[kind.__name__] += 1
    await kind(fleet)
