"""The cluster that faults happen to: 3 members of etcd, 3 masters, 5 hosts with an Engine each; fast profile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.witness.processes import Place
from chaos.workload import SECRET, Workload, shapes
from harness import canary
from harness.cluster import Cluster, Machine, StartedAs
from harness.daemon import Daemon
from harness.engines import cgroup_of
from harness.etcd import EtcdServer

HOSTS, MASTERS, MEMBERS = 5, 3, 3
TTL_S, GRACE_S = 5.0, 1.0
QUOTA = 24 * 1024 * 1024
STATE_MIB = 48

_FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def missing() -> str | None:
    """Return which program of those that faults need is not there, or None."""
    if shutil.which("etcdctl") is None:
        return "needs etcdctl (Debian: etcd-client)"
    if not Path(_FAKETIME).exists():
        return "needs libfaketime (Debian: libfaketime)"
    return None


def under_clock(offset: str) -> tuple[str, ...]:
    """Return what a daemon is started by so that its wall clock is off, and its monotonic one is not."""
    return ("env", f"LD_PRELOAD={_FAKETIME}", f"FAKETIME={offset}", "FAKETIME_DONT_FAKE_MONOTONIC=1")


@dataclass(slots=True)
class Rig:
    """The cluster and its workload. `down` names the daemons that a fault keeps from running."""

    cluster: Cluster
    workload: Workload
    mark: Path
    secrets: Path
    down: set[str]

    @classmethod
    @contextlib.asynccontextmanager
    async def up(cls, logs: Path, *, started_as: StartedAs = lambda name, argv: argv) -> AsyncIterator[Rig]:
        """Make it, with every unit started; the logs stay in `logs`."""
        with tempfile.TemporaryDirectory(prefix="uf-chaos-", dir="/dev/shm") as folder:
            mark, secrets = Path(folder) / "once", Path(folder) / "secrets"
            async with Cluster.in_lab(
                logs,
                hosts=HOSTS,
                masters=MASTERS,
                etcd=MEMBERS,
                profile="fast",
                state_mib=STATE_MIB,
                etcd_args=[f"--quota-backend-bytes={QUOTA}"],
                agent_args=("--secrets-dir", str(secrets)),
                started_as=started_as,
            ) as cluster:
                await asyncio.to_thread(cluster.api().set_secret, SECRET, canary.VALUE)
                rig = cls(cluster, Workload(cluster.api, shapes(mark)), mark, secrets, set())
                await rig.workload.begin()
                yield rig

    @property
    def places(self) -> list[Place]:
        """Where the witness looks for what executes."""
        engines = self.cluster.lab.engines
        return [
            Place(
                machine.name,
                cgroup_of(engines.namespace(machine.host)),
                engines.folder / str(machine.host) / "data",
                engines.state_dir(machine.host),
            )
            for machine in self.cluster.machines
        ]

    @property
    def daemons(self) -> list[Daemon]:
        """Masters and agents."""
        return [*self.cluster.masters, *(machine.agent for machine in self.cluster.machines)]

    def machine(self, name: str) -> Machine:
        """Return the machine of this name."""
        return self.cluster.machine(name)

    def master(self, name: str) -> Daemon:
        """Return the master of this name."""
        return next(master for master in self.cluster.masters if master.name == name)

    def member(self, name: str) -> EtcdServer:
        """Return the member of etcd of this name."""
        return next(member for member in self.cluster.etcd.members if member.name == name)

    def tend(self) -> list[str]:
        """Start what ended by itself, as a service manager does; return the names."""
        found = [daemon for daemon in self.daemons if daemon.name not in self.down and not daemon.runs]
        for daemon in found:
            daemon.kill()  # takes note that it ended
            daemon.start()
        return [daemon.name for daemon in found]

    async def etcdctl(self, *args: str, members: Sequence[EtcdServer] = ()) -> str:
        """Run etcd's own client; raises `AssertionError` with what it said when it fails."""
        endpoints = ",".join(member.endpoint for member in members or self.cluster.etcd.members)
        process = await asyncio.create_subprocess_exec(
            *("etcdctl", "--endpoints", endpoints, "--command-timeout=10s", *args),
            env={**os.environ, "ETCDCTL_API": "3"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, f"etcdctl {' '.join(args)}: {said.decode(errors='replace')}"
        return said.decode()

    async def accept_store(self, machine: Machine) -> None:
        """Give the operator's word on one host."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "unit_agent", "local", "--socket", str(self.cluster.socket_of(machine))),
            "accept-store",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, f"accept-store on {machine.name}: {said.decode(errors='replace')}"
