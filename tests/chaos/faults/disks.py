"""An agent's disk: full, or read-only."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from chaos.faults.fault import MACHINES, Fault, Silencing, around_the_ttl, kind, past_the_ttl
from chaos.rig import Rig
from chaos.witness.witness import Witness

_READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


def _disk(machine: str) -> tuple[str, ...]:
    return (f"agent {machine}", f"disk {machine}", f"copies {machine}")


@kind("disk-full", MACHINES, past_the_ttl, _disk)
@dataclass(slots=True)
class DiskFull(Fault):
    """The file system of an agent's state has no byte left."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        await asyncio.to_thread(_fill, self._ballast(rig))

    async def end(self, rig: Rig, witness: Witness) -> None:
        self._ballast(rig).unlink()

    def _ballast(self, rig: Rig) -> Path:
        return rig.cluster.lab.state_dir(rig.machine(self.target).host) / "ballast"


@kind("disk-read-only", MACHINES, around_the_ttl, _disk)
@dataclass(slots=True)
class DiskReadOnly(Silencing):
    """An agent is started anew and finds its state read-only; later it is started as before."""

    at_once: bool = field(default=False, init=False)  # it may well not start at all

    async def begin(self, rig: Rig, witness: Witness) -> None:
        state = rig.cluster.lab.state_dir(rig.machine(self.target).host)
        await self._started(rig, ("/bin/sh", "-c", _READ_ONLY, "sh", str(state)))

    async def end(self, rig: Rig, witness: Witness) -> None:
        await self._started(rig, ())
        rig.down.discard(self.target)

    async def _started(self, rig: Rig, under: tuple[str, ...]) -> None:
        agent = rig.machine(self.target).agent
        rig.down.add(self.target)
        await asyncio.to_thread(agent.kill)
        agent.under = under
        agent.start()


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 65536)
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(b"\0")
