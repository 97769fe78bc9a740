"""Hosts: without power, off the network one way or both, and one that is a copy of another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from chaos.faults.fault import MACHINES, SETTLES_S, Fault, Silencing, an_outage, around_the_ttl, kind, past_the_ttl
from chaos.rig import Rig
from chaos.witness.processes import Copy
from chaos.witness.witness import Witness
from harness.eventually import eventually
from harness.unit_processes import ProcessWitness
from unitfleet import keys
from unitfleet.errors import UnitfleetError

BOOT_S = 2 * 15.0


def _host(machine: str) -> tuple[str, ...]:
    return (f"agent {machine}", f"net {machine}", f"engine {machine}", f"copies {machine}")


def _net(machine: str) -> tuple[str, ...]:
    return (f"net {machine}", f"agent {machine}")


@kind("power-off", MACHINES, an_outage, _host)
@dataclass(slots=True)
class PowerOff(Fault):
    """A host loses power: agent, Engine, supervisors and units end at once. It boots later."""

    settles_s: float = field(default=SETTLES_S + BOOT_S, init=False)

    async def begin(self, rig: Rig, witness: Witness) -> None:
        rig.down.add(self.target)
        await rig.cluster.power_off(rig.machine(self.target))

    async def end(self, rig: Rig, witness: Witness) -> None:
        await rig.cluster.boot(rig.machine(self.target))
        rig.down.discard(self.target)

    def excuses(self, copy: Copy, lost: Set[str]) -> bool:
        return copy.machine == self.target


@kind("cut", MACHINES, an_outage, _net)
@dataclass(slots=True)
class Cut(Silencing):
    """A host is off the network; all on it runs on."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        await rig.cluster.cut(rig.machine(self.target))

    async def end(self, rig: Rig, witness: Witness) -> None:
        await rig.cluster.heal(rig.machine(self.target))


@dataclass(slots=True)
class _OneWay(Silencing):
    chain: str = field(default="", init=False)

    async def begin(self, rig: Rig, witness: Witness) -> None:
        await asyncio.to_thread(self._rule, rig, "-I")

    async def end(self, rig: Rig, witness: Witness) -> None:
        await asyncio.to_thread(self._rule, rig, "-D")

    def _rule(self, rig: Rig, verb: str) -> None:
        space = rig.cluster.lab.engines.namespace(rig.machine(self.target).host)
        way = "-i" if self.chain == "INPUT" else "-o"
        rule = ["iptables", "-w", verb, self.chain, way, "eth0", "-j", "DROP"]
        subprocess.run(
            ["nsenter", f"--net=/run/netns/{space}", *rule], check=True, capture_output=True, timeout=20
        )


@kind("cut-in", MACHINES, around_the_ttl, _net)
@dataclass(slots=True)
class CutIn(_OneWay):
    """A host hears nothing, and is heard."""

    chain: str = field(default="INPUT", init=False)


@kind("cut-out", MACHINES, around_the_ttl, _net)
@dataclass(slots=True)
class CutOut(_OneWay):
    """A host hears everything, and is not heard."""

    chain: str = field(default="OUTPUT", init=False)


@kind("cloned", MACHINES, past_the_ttl, lambda machine: (f"agent {machine}", "roster"), single=True)
@dataclass(slots=True)
class Cloned(Fault):
    """Another host starts with a copy of a host's state: it has to be a machine of its own, or none."""

    settles_s: float = field(default=2 * SETTLES_S, init=False)
    _clone: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _state: Path = field(default=Path(), init=False)
    _copied: frozenset[str] = field(default=frozenset(), init=False)  # tokens of units that are the other host's

    async def begin(self, rig: Rig, witness: Witness) -> None:
        cluster, machine = rig.cluster, rig.machine(self.target)
        elsewhere = (machine.host + 1) % len(cluster.machines)
        engines = cluster.lab.engines
        self._state = engines.folder / str(elsewhere) / "clone"
        await asyncio.to_thread(_copy, engines.state_dir(machine.host), self._state)
        self._copied = frozenset(_tokens(self._state))
        machine_id = self._state / "machine-id"
        machine_id.write_text(f"{uuid.uuid4().hex}\n")
        address = engines.address(elsewhere)
        argv = [
            *("/bin/sh", "-c", 'mount --bind "$1" /etc/machine-id && shift && exec "$@"', "sh", str(machine_id)),
            *(sys.executable, "-m", "unit_agent", "--name", "clone", "--profile", cluster.profile),
            *("--etcd", ",".join(cluster.etcd.endpoints), "--state-dir", str(self._state)),
            *("--socket", str(cluster.root / "clone.sock"), "--address", address, "--listen", f"{address}:0"),
            *("--drivers", "process", "--cluster-key-file", str(cluster.root / "cluster.key")),
        ]
        with (cluster.logs / "clone.log").open("ab") as log:
            self._clone = cluster.lab.spawn(elsewhere, argv, log)

    async def end(self, rig: Rig, witness: Witness) -> None:
        assert self._clone is not None
        self._clone.kill()
        await asyncio.to_thread(self._clone.wait, 10)
        for token, directory in _tokens(self._state).items():
            if token in self._copied:
                shutil.rmtree(directory)
        await asyncio.to_thread(ProcessWitness("clone", self._state).kill_all)
        witness.history.forgive_losses()
        found = [id for id, name in witness.history.names.items() if name == "clone"]
        self.note = "became a machine of its own" if found else "did not join"
        for id in found:
            await self._removed(rig, id)
        for id in found:
            witness.history.names.pop(id)
        await asyncio.to_thread(shutil.rmtree, self._state, True)

    async def _removed(self, rig: Rig, id: str) -> None:
        async def gone() -> bool:
            for verb in ("lost", "rm"):
                with contextlib.suppress(UnitfleetError):
                    await asyncio.to_thread(rig.cluster.api().command_machine, id, verb)
            return await rig.cluster.store.get(keys.roster(id)) is None

        await eventually(gone, within_s=SETTLES_S, what=lambda: f"the clone {id} is removed", every_s=0.5)


def _tokens(state: Path) -> dict[str, Path]:
    """Return the tokens of the process units below a state directory, each with its unit's directory."""
    found = {}
    for order in state.glob("units/*/order.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            found[str(json.loads(order.read_bytes())["token"])] = order.parent
    return found


def _copy(source: Path, target: Path) -> None:
    """Copy a state directory that is written to meanwhile; sockets are left out."""
    with contextlib.suppress(shutil.Error):
        shutil.copytree(source, target, dirs_exist_ok=True)
