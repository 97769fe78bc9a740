"""The outside witness: what it demands at the end of each round, and what it saw happen meanwhile.

I1  each launched unit runs in exactly one copy (Global: one a machine; finished: none)
I2  a strict unit never executes twice at a time: by /proc ten times a second, by the Engines' events
I3  what was acknowledged is so, what was refused is not
I4  no copy is left without a record
I5  a copy that neither fault nor command named keeps its process
I6  nobody writes who does not lead, epochs rise (`history`)
I7  the brake's pace (`history`)  I8 writes a second (`history`)
I9  a secret is found nowhere     I10 memory and open files of daemons
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chaos.rig import Rig
from chaos.witness import daemons, engine, rules
from chaos.witness.history import StoreHistory
from chaos.witness.processes import Copy, ProcessSampler, command
from harness import canary
from harness.cluster import serves
from unitfleet.errors import UnitfleetError

Excuse = Callable[[Copy], bool]


@dataclass(slots=True)
class Verdict:
    """What a round came to: violations, and the units that moved or began anew."""

    violations: list[str]
    moved: list[str] = field(default_factory=list)


class Witness:
    """Sees one rig from outside."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._strict = {shape.name for shape in rig.workload.shapes.values() if shape.strict}
        self._doubles: list[tuple[float, str]] = []
        self._began = 0.0
        self._before: frozenset[Copy] = frozenset()
        self._runs_of_oneshot = 0
        self._events = [
            engine.EngineEvents(machine.host, rig.cluster.lab.engines.socket(machine.host))
            for machine in rig.cluster.machines
        ]
        self.processes = ProcessSampler(rig.places, self._each)
        self.history = StoreHistory(rig.cluster.etcd.endpoints)

    async def __aenter__(self) -> Witness:
        self.history.start()
        self.processes.start()
        for events in self._events:
            events.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.history.stop()
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self.processes.stop()
        for events in self._events:
            events.stop()
        for events in self._events:
            events.join()

    # ------------------------------------------------------------------ a round

    def begin_round(self) -> None:
        """From here on what happens is judged; everything is as it should be now."""
        self._began = time.time()
        self._before = self.processes.now
        self._doubles.clear()
        self.history.begin_round()
        self._runs_of_oneshot = self._oneshot_runs()

    async def wrong(self) -> list[str]:
        """Return what is not as it should be in the end, by the outside and then by the API; [] when all is."""
        found = self._copies_wrong()
        if not found:
            found = await self._unrecorded()
        if found and (behind := await self.history.behind()):
            return [f"{each}; {behind}" for each in found]
        return found or await self._said_otherwise() or await asyncio.to_thread(self._not_at_work)

    def lost(self) -> set[str]:
        """Return the machines that were declared lost in this round, by name, as the store's history has it."""
        return {self.history.names.get(id, id) for id in self.history.lost_since(self._began)}

    def late(self) -> set[str]:
        """Return the machines, by name, whose fence was renewed late in this round, by the store's history."""
        return {self.history.names.get(id, id) for id in self.history.late_since(self._began)}

    def judge(self, excused: Excuse) -> Verdict:
        """Judge the round that ends now: everything that happened since `begin_round`."""
        now, after = time.time(), self.processes.now
        found = [what for _, what in self._doubles]
        happened = [each for events in self._events for each in events.since(self._began)]
        found += rules.overlaps(happened, self._strict, {copy.id for copy in after}, now)
        found += self.history.since(self._began)
        found += list(self._rig.workload.violations)
        found += rules.touched(
            self._before,
            after,
            self.processes.between(self._began, now),
            {copy for copy in self._before if excused(copy)},
            self._rig.workload.given,
            list(self._rig.workload.shapes.values()),
        )
        found += self._not_renewed(after)
        found += daemons.too_large(daemons.sizes(self._rig.daemons))
        if (runs := self._oneshot_runs()) != self._runs_of_oneshot:
            found.append(f"I1: the oneshot ran {runs - self._runs_of_oneshot} times more")
        if self.processes.failed:
            found.append(f"the witness of processes failed: {self.processes.failed}")
        if self.history.missed:
            found.append(f"the witness of the store missed something: {self.history.missed}")
        return Verdict(found, rules.moved(self._before, after))

    async def closing(self) -> list[str]:
        """Look for the secret in everything that was written (I9)."""
        folders = [self._rig.cluster.logs, self._rig.cluster.root, self._rig.cluster.etcd.directory]
        folders += [place.state for place in self._rig.places]
        for _ in range(20):  # files go away while they are read
            with contextlib.suppress(FileNotFoundError):
                found = await asyncio.to_thread(canary.traces, *folders)
                break
        else:
            return ["I9: no look at the files was to be had"]
        return [f"I9: the secret is in {path}" for path in found]

    # ------------------------------------------------------------------ what should be

    def _copies_wrong(self) -> list[str]:
        by_unit: dict[str, list[Copy]] = defaultdict(list)
        for copy in self.processes.now:
            by_unit[copy.unit].append(copy)
        found = [
            f"I4: {unit} runs and was never made" for unit in by_unit.keys() - self._rig.workload.shapes.keys()
        ]
        for shape in self._rig.workload.shapes.values():
            texts = {copy: " ".join(command(copy)).removeprefix("/bin/") for copy in by_unit[shape.name]}
            wanted = self._rig.workload.wanted[shape.name]
            found += rules.unit_wrong(shape, wanted, texts, len(self._rig.cluster.machines))
        return found

    async def _unrecorded(self) -> list[str]:
        placed = self.history.placed()
        ids = {name: id for id, name in self.history.names.items()}
        found = []
        for machine in self._rig.cluster.machines:
            socket = self._rig.cluster.lab.engines.socket(machine.host)
            try:
                held = {each.unit for each in await asyncio.to_thread(engine.containers, socket)}
            except OSError as error:
                return [f"the Engine of {machine.name} does not answer: {error}"]
            held |= set(await asyncio.to_thread(self._process_units, machine.name))
            found += [
                f"I4: {machine.name} holds a copy of {unit} without a record"
                for unit in sorted(held)
                if (ids.get(machine.name, ""), unit) not in placed
            ]
        return found

    def _process_units(self, machine: str) -> list[str]:
        witness = self._rig.cluster.lab.process_witness(self._rig.machine(machine).host)
        return witness.held()

    async def _said_otherwise(self) -> list[str]:
        """Compare with what the API says: it has to know of it."""
        try:
            views = await self._rig.cluster.units()
            machines = await self._rig.cluster.machine_views()
        except UnitfleetError as error:
            return [f"the API does not answer: {error}"]
        found = [
            f"I1: {name} is {view.phase} by the API: {view.why}" for name, view in views.items() if not view.ok
        ]
        found += [f"I3: the API does not know {name}" for name in self._rig.workload.shapes.keys() - views.keys()]
        found += [f"{name} is {view.status}" for name, view in machines.items() if view.status != "ready"]
        return found

    def _not_at_work(self) -> list[str]:
        """Daemons that are not back yet: the next fault is to meet a whole cluster."""
        found = [f"{endpoint} is not ready" for endpoint in self._rig.cluster.endpoints if not serves(endpoint)]
        for machine in self._rig.cluster.machines:
            try:
                status = self._rig.cluster.local(machine, "/local/ps")
            except (OSError, ValueError) as error:
                found.append(f"the agent of {machine.name} does not answer: {error}")
                continue
            troubles = [status["store"], status["keep_everything"], status["unsaved"], *status["drivers"].values()]
            troubles += [] if status["standing"] and status["synced"] else ["it has not joined yet"]
            found += [f"{machine.name}: {trouble}" for trouble in troubles if trouble]
        return found

    # ------------------------------------------------------------------ what happened

    def _each(self, at: float, copies: frozenset[Copy]) -> None:
        """Called with every look, in the thread of the sampler."""
        for unit, where in rules.twice(copies, self._strict).items():
            if not any(unit in what for _, what in self._doubles):
                self._doubles.append((at, f"I2: {unit} executes twice at {at:.2f}: {where}"))

    def _not_renewed(self, after: frozenset[Copy]) -> list[str]:
        """I3: an acknowledged restart or new text is another process."""
        same = {copy.unit for copy in after & self._before} & self._rig.workload.renewed
        return [f"I3: {unit} was to run anew, and is the same process" for unit in sorted(same)]

    def _oneshot_runs(self) -> int:
        mark: Path = self._rig.mark
        return len(mark.read_text().splitlines()) if mark.exists() else 0
