"""What units run on: Engines, shims, supervisors, and the units' own processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from chaos.faults.fault import MACHINES, SETTLES_S, Fault, around_the_ttl, kind, no_time
from chaos.rig import Rig
from chaos.witness.processes import Copy
from chaos.witness.witness import Witness


def _engine(machine: str) -> tuple[str, ...]:
    return (f"engine {machine}", f"copies {machine}")


@dataclass(slots=True)
class _EngineEnds(Fault):
    settles_s: float = field(default=2 * SETTLES_S, init=False)
    how: signal.Signals = field(default=signal.SIGKILL, init=False)

    async def begin(self, rig: Rig, witness: Witness) -> None:
        engines, host = rig.cluster.lab.engines, rig.machine(self.target).host
        await asyncio.to_thread(engines.kill_engine, host, self.how)

    async def end(self, rig: Rig, witness: Witness) -> None:
        engines, host = rig.cluster.lab.engines, rig.machine(self.target).host
        await asyncio.to_thread(engines.start_engine, host)

    def excuses(self, copy: Copy, lost: Set[str]) -> bool:
        return copy.machine == self.target and _is_container(copy)


@kind("engine-killed", MACHINES, around_the_ttl, _engine)
@dataclass(slots=True)
class EngineKilled(_EngineEnds):
    """kill -9 of dockerd, started again later."""


@kind("engine-restarted", MACHINES, no_time, _engine)
@dataclass(slots=True)
class EngineRestarted(_EngineEnds):
    """dockerd is stopped in order, which stops its containers, and started at once."""

    how: signal.Signals = field(default=signal.SIGTERM, init=False)


@kind("engine-frozen", MACHINES, around_the_ttl, _engine)
@dataclass(slots=True)
class EngineFrozen(Fault):
    """SIGSTOP of dockerd, SIGCONT later; its containers run on."""

    settles_s: float = field(default=2 * SETTLES_S, init=False)

    async def begin(self, rig: Rig, witness: Witness) -> None:
        rig.cluster.lab.engines.signal_engine(rig.machine(self.target).host, signal.SIGSTOP)

    async def end(self, rig: Rig, witness: Witness) -> None:
        rig.cluster.lab.engines.signal_engine(rig.machine(self.target).host, signal.SIGCONT)


@dataclass(slots=True)
class _OneCopy(Fault):
    """Something happens to one copy on `target`, the first that there is by name."""

    _hit: Copy | None = field(default=None, init=False)

    async def end(self, rig: Rig, witness: Witness) -> None:
        pass

    def excuses(self, copy: Copy, lost: Set[str]) -> bool:
        return self._hit is not None and copy == self._hit

    def _choose(self, witness: Witness, *, container: bool) -> Copy | None:
        found = [
            copy
            for copy in witness.processes.now
            if copy.machine == self.target and _is_container(copy) == container
        ]
        self._hit = min(found, default=None)
        self.note = str(self._hit or "no such copy there")
        return self._hit


@kind("shim-killed", MACHINES, no_time, _engine)
@dataclass(slots=True)
class ShimKilled(_OneCopy):
    """kill -9 of the shim between an Engine and one container."""

    settles_s: float = field(default=2 * SETTLES_S, init=False)

    async def begin(self, rig: Rig, witness: Witness) -> None:
        copy = self._choose(witness, container=True)
        if copy is None:
            return
        for shim in await asyncio.to_thread(_with_words, b"containerd-shim", copy.id.encode()):
            _kill(shim)


@kind("supervisor-killed", MACHINES, no_time, lambda machine: (f"copies {machine}",))
@dataclass(slots=True)
class SupervisorKilled(_OneCopy):
    """kill -9 of the supervisor of one process unit."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        copy = self._choose(witness, container=False)
        if copy is not None:
            _kill(_parent(copy.pid))


@kind("warden-killed", MACHINES, no_time, lambda machine: (f"agent {machine}",))
@dataclass(slots=True)
class WardenKilled(Fault):
    """kill -9 of the warden that ends strict copies past their deadline; the agent starts it again."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        directory = f"{rig.cluster.root}/{self.target}.strict".encode()
        found = await asyncio.to_thread(_with_words, b"warden.py", directory)
        self.note = f"{len(found)} of them"
        for pid in found:
            _kill(pid)

    async def end(self, rig: Rig, witness: Witness) -> None:
        pass


@kind("copy-killed", MACHINES, no_time, _engine)
@dataclass(slots=True)
class CopyKilled(_OneCopy):
    """kill -9 of what one container runs."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        copy = self._choose(witness, container=True)
        if copy is not None:
            _kill(copy.pid)


def _is_container(copy: Copy) -> bool:
    return len(copy.id) == 64


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


def _with_words(*words: bytes) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and all(word in Path(f"/proc/{name}/cmdline").read_bytes() for word in words):
                found.append(int(name))
    return found
