"""Short canonical stories of a cluster, each from a quiet beginning to a quiet end, for crash points."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from simulation.crash_world import RELIST_S, CrashWorld, SimDelivery, launched, text
from simulation.witness import UPLINK
from unit_agent.drivers.fake import Behaviour
from unit_agent.restart import Exit
from unit_master.orders import MachineOrder
from unit_master.warming import reference_digest
from unitfleet import keys
from unitfleet.accessapi import SecretOrder
from unitfleet.api import Change, NetLimit, WarmOrder
from unitfleet.model import BrakeOrder, CopyPhase, MachineStatus, TargetState

Story = Callable[[CrashWorld], Awaitable[None]]

FAILING = "[Unit]\nStartLimitIntervalSec=20\nStartLimitBurst=2\n[Service]\nExecStart=/bin/ad\nRestart=always\n"
ONCE = "[Service]\nType=oneshot\nExecStart=/bin/ad\n[X-Fleet]\n"
IMAGE = "registry/ad:1"


@dataclass(frozen=True, slots=True)
class Told:
    """A story: what comes before its first point, and what has points."""

    first: Story
    then: Story


async def nothing(world: CrashWorld) -> None:
    """Begin with an empty store."""


async def joined(world: CrashWorld) -> None:
    """All machines are in the cluster and have a leader."""
    await world.until("every machine joins", lambda: len(world.cache.view.roster) == len(world.machines))
    await world.rest()


def running(*names: str) -> Story:
    """Some units run already."""

    async def first(world: CrashWorld) -> None:
        await joined(world)
        await world.ask(*(launched(name) for name in names))
        await world.rest()

    return first


async def start(world: CrashWorld) -> None:
    await world.ask(launched("b.service"))


async def restart(world: CrashWorld) -> None:
    await world.ask(Change(name="b.service", restart=True))


async def stop(world: CrashWorld) -> None:
    await world.ask(Change(name="b.service", target=TargetState.LOADED))
    await world.rest()
    await world.ask(Change(name="b.service", target=TargetState.INACTIVE))


async def left_out(world: CrashWorld) -> None:
    """What a host lists lacks a copy for a while, in which it is ordered away."""
    world.tap.left_out.add("b.service")
    await asyncio.sleep(2 * RELIST_S)
    await world.ask(Change(name="b.service", target=TargetState.INACTIVE))
    await world.until("it has ended", lambda: not world.runs("b.service"))
    world.tap.left_out.clear()


async def new_text(world: CrashWorld) -> None:
    await world.ask(launched("b.service", text(service="Environment=NEW=1\n"), changed=True))


async def destroy_and_create(world: CrashWorld) -> None:
    await world.ask(Change(name="b.service", target=TargetState.DESTROYED))
    await world.ask(launched("b.service"))


async def drain(world: CrashWorld) -> None:
    (machine,) = world.runs("b.service")
    await order(world, machine, MachineOrder.DRAIN)
    await world.until("it moves away", lambda: world.runs("b.service") not in ([], [machine]))


async def loss_and_return(world: CrashWorld) -> None:
    (machine,) = world.runs("b.service")
    await world.power_off(machine)
    await world.until("it runs elsewhere", lambda: world.runs("b.service"))
    world.boot(machine)


async def peers(world: CrashWorld) -> None:
    await world.ask(*(launched(f"{name}.service") for name in "abcd"))


async def everywhere(world: CrashWorld) -> None:
    await world.ask(launched("e.service"))


async def failing(world: CrashWorld) -> None:
    """It has crashed for good on one host, and does well on the others, which it may have now."""
    for name in ("m2", "m3"):
        await order(world, name, MachineOrder.UNCORDON)
    await world.until("it runs on a host where it can", lambda: world.runs("f.service") in (["m2"], ["m3"]))


async def cursed(world: CrashWorld) -> None:
    await joined(world)
    world.ends_by_itself.add("f.service")
    for name in ("m2", "m3"):
        await order(world, name, MachineOrder.CORDON)
    world.machines["m1"].host.behaviours["f.service"] = Behaviour(run_s=0.1, exit=Exit(3))
    await world.ask(launched("f.service", FAILING))
    await world.until("it fails there", lambda: failed(world, "f.service"))


async def oneshot(world: CrashWorld) -> None:
    world.ends_by_itself.add("o.service")
    for machine in world.machines.values():
        machine.host.behaviours["o.service"] = Behaviour(run_s=0.2, exit=Exit(0))
    await world.ask(launched("o.service", ONCE))
    await world.until("it has finished", lambda: finished(world, "o.service"))


async def amendment(world: CrashWorld) -> None:
    await world.ask(Change(name="b.service", bandwidth=NetLimit(egress=UPLINK // 4)))
    await world.until("its placement carries it", lambda: guaranteed(world) == UPLINK // 4)


async def machines_rm(world: CrashWorld) -> None:
    (machine,) = world.runs("b.service")
    await world.power_off(machine)
    await world.until("it is gone", lambda: machine not in world.cache.view.presence)
    await order(world, machine, MachineOrder.LOST)
    await world.until("it is lost", lambda: world.cache.view.roster[machine].value.status is MachineStatus.LOST)
    await order(world, machine, MachineOrder.RM)
    await world.until("it is forgotten", lambda: machine not in world.cache.view.roster)


async def master_change(world: CrashWorld) -> None:
    await world.take_the_leader()
    await world.ask(launched("c.service"))


async def closed(world: CrashWorld) -> None:
    """No machine takes units for a while: it is pending."""
    for machine in world.machines:
        await order(world, machine, MachineOrder.CORDON)
    await world.ask(launched("b.service"))
    await world.until("it is pending", lambda: "b.service" in world.cache.view.pending)
    await order(world, "m2", MachineOrder.UNCORDON)


async def secrets(world: CrashWorld) -> None:
    name = "s.service"

    def given() -> list[bytes]:
        return [deliveries_of(world, machine).get(name, {}).get("db", b"") for machine in world.runs(name)]

    await set_secret(world, b"one")
    await world.ask(launched(name, text("Secret=db\n")))
    await world.until("it runs with its secret", lambda: given() == [b"one"])
    await set_secret(world, b"two")
    (machine,) = world.runs(name)
    await world.until("it is sealed anew", lambda: world.cache.view.sealed[machine]["db"].value.version == 2)
    await world.ask(Change(name=name, restart=True))
    await world.until("it runs with its new secret", lambda: given() == [b"two"])
    await world.ask(Change(name=name, target=TargetState.DESTROYED))
    await world.until("nothing is sealed any more", lambda: not any(world.cache.view.sealed.values()))


async def warm(world: CrashWorld) -> None:
    order = WarmOrder(image=IMAGE)
    key = keys.warm(reference_digest(IMAGE))
    await world.command(key, lambda api: api.orders.warm(order))
    await world.until("every machine is told", lambda: len(world.cache.view.warm_sets) == len(world.machines))
    await world.command(keys.BRAKE, lambda api: api.orders.brake(BrakeOrder.HOLD))
    await world.command(keys.BRAKE, lambda api: api.orders.brake(BrakeOrder.AUTO))


STRICT = "x.service"


async def strictly(world: CrashWorld) -> None:
    world.guard(STRICT)
    await world.ask(launched(STRICT, text("Singleton=strict\n")))
    await world.until("it runs", lambda: world.runs(STRICT))


async def strictly_running(world: CrashWorld) -> None:
    """A strict unit runs already."""
    await joined(world)
    await strictly(world)
    await world.rest()


async def strict_restart_and_drain(world: CrashWorld) -> None:
    (machine,) = world.runs(STRICT)
    await world.ask(Change(name=STRICT, restart=True))
    await world.until("it was restarted", lambda: newest_restart(world) == 1)
    await order(world, machine, MachineOrder.DRAIN)
    await world.until("it moves away", lambda: world.runs(STRICT) not in ([], [machine]))


async def strict_loss(world: CrashWorld) -> None:
    (machine,) = world.runs(STRICT)
    await world.power_off(machine)
    await world.until("it runs elsewhere", lambda: world.runs(STRICT))
    world.boot(machine)


STORIES: dict[str, Told] = {
    "boot": Told(nothing, joined),
    "start": Told(joined, start),
    "restart": Told(running("b.service"), restart),
    "stop": Told(running("b.service"), stop),
    "left out": Told(running("b.service"), left_out),
    "new text": Told(running("b.service"), new_text),
    "destroy + create": Told(running("b.service"), destroy_and_create),
    "drain": Told(running("b.service"), drain),
    "loss and return": Told(running("b.service"), loss_and_return),
    "peers": Told(joined, peers),
    "global": Told(joined, everywhere),
    "failing": Told(cursed, failing),
    "oneshot": Told(joined, oneshot),
    "bandwidth": Told(running("b.service"), amendment),
    "machines rm": Told(running("b.service"), machines_rm),
    "master change": Told(running("b.service"), master_change),
    "closed": Told(joined, closed),
    "secrets": Told(joined, secrets),
    "warm": Told(joined, warm),
    "strict start": Told(joined, strictly),
    "strict restart and drain": Told(strictly_running, strict_restart_and_drain),
    "strict loss and return": Told(strictly_running, strict_loss),
}


async def order(world: CrashWorld, machine: str, wanted: MachineOrder) -> None:
    """Give an order about a machine."""
    await world.command(keys.machine_spec(machine), lambda api: api.orders.machine(machine, wanted))


async def set_secret(world: CrashWorld, value: bytes) -> None:
    """Set the secret that a unit names."""
    order = SecretOrder(name="db", value=value)
    await world.command(keys.secret("db"), lambda api: api.secrets.set(order, "user"))


def deliveries_of(world: CrashWorld, machine: str) -> dict[str, dict[str, bytes]]:
    """Return what each unit was given on a machine."""
    delivery = world.machines[machine].delivery
    assert isinstance(delivery, SimDelivery)
    return delivery.given


def newest_restart(world: CrashWorld) -> int:
    """Return the restart number of the strict unit's copies that run."""
    held = (machine.host.copies.get(STRICT) for machine in world.machines.values())
    return max((copy.restart for copy in held if copy is not None and copy.pid), default=0)


def guaranteed(world: CrashWorld) -> int:
    """Return what its newest placement guarantees to b."""
    held = max(
        (entry.value for entry in world.cache.view.placements_of("b.service").values()), key=lambda p: p.epoch
    )
    return held.bandwidth.egress if held.bandwidth else 0


def failed(world: CrashWorld, unit: str) -> bool:
    """Whether an agent says that a unit has failed for good."""
    return any(state.value.phase is CopyPhase.FAILED for state in world.cache.view.states_of(unit).values())


def finished(world: CrashWorld, unit: str) -> bool:
    """Whether the store says that a oneshot has finished, as placed, and it runs nowhere."""
    states = world.cache.view.states_of(unit)
    live = world.cache.view.placements_of(unit)
    done = [m for m, state in states.items() if state.value.phase is CopyPhase.FINISHED and m in live]
    return len(done) == len(live) == 1 and not world.runs(unit)
