"""bench/place: what placing costs the leader, in seconds of one core, over sizes; no store, no network.

Ten units a machine, in groups of 20 that ask the same: of ten groups three are bound to a zone by metadata, one to
ssd, two keep off units by Conflicts=, one spreads, one prefers, one avoids; all request cpu and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from measure import TOP, Bench, at_least, at_most, say

from harness.api import an_api
from harness.builders import GIB, MIB, Built, a_host, a_listing, a_machine, a_placement, a_state, a_unit, needs
from unit_master.actions import Place, UnitAction
from unit_master.agenda import Agenda
from unit_master.collection import spare_what_was_read
from unit_master.ranking import choose
from unit_master.reconcile import plan_units
from unit_master.scene import Scene
from unit_master.scheduler import Placed
from unit_master.view import ClusterView
from unitfleet import codec, keys
from unitfleet.model import Capacity, MachineStatus, Requirements
from unitfleet.store import Batch, Event, EventKind, KeyValue

T = TypeVar("T")

SIZES = ((100, 1_000), (300, 3_000), (1_000, 10_000), (2_000, 20_000), (5_000, 50_000))
QUICK = SIZES[:3]
COLD_AIMS = {(1_000, 10_000): at_most(1), (5_000, 50_000): at_most(8)}
AIMED = (1_000, 10_000)
GROUP = 20
PARTS = ("cold", "idle", "lost", "groups", "list")


def measure(bench: Bench) -> None:
    for size in QUICK if bench.quick else SIZES:
        if not (bench.wants("cold") or bench.wants("idle") or bench.wants("lost")):
            break
        passes = [Passes(*size) for _ in range(bench.runs)]
        case = f"{size[0]:,} machines, {size[1]:,} units"
        if bench.wants("cold"):
            bench.figure(
                f"all placed from cold, {case}", [each.cold_s for each in passes], "s", COLD_AIMS.get(size)
            )
        if bench.wants("idle"):
            aim = at_most(5) if size == AIMED else None
            bench.figure(f"a pass with nothing to do, {case}", [each.idle_s * 1e3 for each in passes], "ms", aim)
            whole = [each.whole_s * 1e3 for each in passes]
            bench.figure(f"every unit looked at anew, nothing to do, {case}", whole, "ms")
        if bench.wants("lost"):
            aim = at_most(50) if size == AIMED else None
            bench.figure(f"one machine lost, {case}", [each.lost_s * 1e3 for each in passes], "ms", aim)
    if bench.wants("groups"):
        groups(bench)
    if bench.wants("list"):
        asyncio.run(listing(bench))


class Passes:
    """One cluster, and what the leader's passes over it took."""

    def __init__(self, machines: int, units: int) -> None:
        say(f"{machines:,} machines, {units:,} units")
        view = cluster(machines, units)
        gc.collect()
        spare_what_was_read()
        agenda = Agenda()
        agenda.note(None)
        placed, self.cold_s = timed(lambda: turns(agenda, view))
        places = {action.unit: action.machine for action in placed if isinstance(action, Place)}
        assert len(places) == units, f"{len(places)} of {units} units were placed"
        carry_out(view, places)
        gc.collect()
        spare_what_was_read()
        agenda = Agenda()
        agenda.note(None)
        nothing, self.whole_s = timed(lambda: turns(agenda, view))
        assert not nothing, nothing[:3]
        nothing, self.idle_s = timed(lambda: turns(agenda, view))
        assert not nothing
        machine = "m00000"
        agenda.note(view.apply_batch(lost(view, machine)))
        moved, self.lost_s = timed(lambda: turns(agenda, view))
        there = {unit for unit, place in places.items() if place == machine}
        assert {action.unit for action in moved if isinstance(action, Place)} == there


def cluster(machines: int, units: int) -> ClusterView:
    """Make a cluster in which nothing is placed yet."""
    sizes = (
        Capacity(cpu=8, memory=16 * GIB),
        Capacity(cpu=16, memory=32 * GIB),
        Capacity(cpu=32, memory=64 * GIB),
    )
    built = [
        a_machine(
            f"m{number:05}",
            metadata={"zone": "abc"[number % 3], "disk": "ssd" if number % 4 == 0 else "hdd"},
            capacity=sizes[number // 3 % 3],
        )
        for number in range(machines)
    ]
    listed = [*built, *(a_unit(name(number), wishes(number // GROUP)) for number in range(units))]
    view = ClusterView()
    view.apply_listing(a_listing(*listed, epoch=1))
    return view


def name(number: int) -> str:
    return f"app{number // GROUP:05}@{number % GROUP}.service"


def wishes(group: int) -> str:
    """Return what a group says in [X-Fleet]."""
    kinds = {
        0: "MachineMetadata=zone=a",
        1: "MachineMetadata=zone=b",
        2: "MachineMetadata=zone=a\nMachineMetadata=zone=c",
        3: "MachineMetadata=disk=ssd",
        4: f"Conflicts=app{group:05}@*",
        5: f"Conflicts=app{group - 1:05}@*",
        6: "Spread=zone",
        7: "Prefer=disk=ssd",
        8: f"Avoid=app{group:05}@*",
    }
    cpu, memory = ("0.1", "0.25", "0.5")[group // 10 % 3], (64, 128, 256)[group // 30 % 3]
    return f"CPU={cpu}\nMemory={memory}M\n{kinds.get(group % 10, '')}"


def turns(agenda: Agenda, view: ClusterView) -> list[UnitAction]:
    """Decide as the leader does, turn by turn, until nothing is open."""
    actions: list[UnitAction] = []
    while True:
        scene, names = agenda.turn(view, 1.0)
        actions += plan_units(view, 0.0, names, scene)
        if agenda.is_done:
            return actions


def carry_out(view: ClusterView, places: dict[str, str]) -> None:
    """Have every unit run where it was placed."""
    built = []
    for number in range(len(places)):
        unit = a_unit(name(number), wishes(number // GROUP))
        machine = places[name(number)]
        built += [a_placement(unit, machine, epoch=number + 2), a_state(unit, machine, epoch=number + 2)]
    pieces = [piece for each in built for piece in each.pieces]
    pieces.append((keys.EPOCH, b"%d" % (len(places) + 2)))
    view.apply_batch(batch(view, pieces))


def lost(view: ClusterView, machine: str) -> Batch:
    """Return what the store tells of a machine that was declared lost."""
    entry = msgspec.structs.replace(view.roster[machine].value, status=MachineStatus.LOST)
    away = Event(EventKind.DELETE, KeyValue(keys.presence(machine), b"", 0, view.revision + 1, 0, 0))
    told = batch(view, [(keys.roster(machine), codec.encode(entry))])
    return Batch(told.revision, (away, *told.events))


def batch(view: ClusterView, pieces: Iterable[tuple[str, bytes]]) -> Batch:
    revision = view.revision + 1
    events = (Event(EventKind.PUT, KeyValue(key, value, revision, revision, 1, 0)) for key, value in pieces)
    return Batch(revision, tuple(events))


def groups(bench: Bench) -> None:
    """Place units in groups of 1,000 that ask the same: what one core places a second."""
    machines, units, size = (1_000, 20_000, 1_000) if bench.quick else (5_000, 1_000_000, 1_000)
    case = f"{machines:,} machines, {units:,} units in groups of {size:,}"
    rates = []
    for _ in range(bench.runs):
        say(case)
        hosts = [
            a_host(f"m{number:05}", capacity=Capacity(cpu=64, memory=256 * GIB)) for number in range(machines)
        ]
        scene = Scene({host.id: host for host in hosts})
        spare_what_was_read()
        took = 0.0
        for group in range(units // size):
            wish = needs(cpu=(0.05, 0.1, 0.15)[group % 3], memory=(64, 128, 192)[group // 3 % 3] * MIB)
            wanted = [msgspec.structs.replace(wish, unit=f"app{group:04}@{n}.service") for n in range(size)]
            took += timed(partial(settle, wanted, scene))[1]
        rates.append(units / took)
    bench.figure(f"placements, {case}", rates, "units/s", None if bench.quick else at_least(50_000))


async def listing(bench: Bench) -> None:
    """Time `unitctl list-units`, the whole process, of an API that does nothing else."""
    units = 10_000
    case = f"unitctl list-units, {units:,} units"
    say(case)
    built: list[Built] = [a_machine(f"m{number:05}") for number in range(units // 10)]
    for number in range(units):
        unit, machine = a_unit(name(number), wishes(number // GROUP)), f"m{number // 10:05}"
        built += [unit, a_placement(unit, machine), a_state(unit, machine)]
    async with an_api(token=None) as api:
        api.store.timeout_s = 60.0  # of a store that does nothing else meanwhile
        await api.put(*built)
        spare_what_was_read()
        environment = {**os.environ, "UNITCTL_ENDPOINT": str(api.client.make_url("/"))}
        took = []
        for run in range(bench.runs + 1):
            began = time.perf_counter()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "unitctl", "list-units", env=environment, stdout=asyncio.subprocess.PIPE
            )
            told, _ = await process.communicate()
            if run > 0:  # the first one compiles
                took.append(time.perf_counter() - began)
            assert told.count(b"\n") == units + 1, told[-300:]
    bench.figure(case, took, "s", at_most(1))


def settle(units: Iterable[Requirements], scene: Scene) -> None:
    for unit in units:
        decided = choose(unit, scene)
        assert isinstance(decided, Placed)
        scene.settle(unit, decided.machine)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Do it, and return how many seconds of a core it took."""
    began = time.process_time()
    done = work()
    return done, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/place", description=__doc__)
    parser.add_argument("--runs", type=int, default=0, metavar="N", help="runs of each case (default 3)")
    parser.add_argument("--quick", action="store_true", help="a short look: 1 run, smaller cases")
    parser.add_argument("--only", default="", choices=PARTS, help="one part of it alone")
    options = parser.parse_args()
    options.runs = options.runs or (1 if options.quick else 3)
    measure(Bench("place", options, Path(TOP)))


if __name__ == "__main__":
    main()
