"""Unitfleet on hosts that others use in turn: etcd, masters and agents come and go with it.

etcd runs with its own default timing and its data on the disk that the Engines use: Swarm's raft lies there too.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import http.client
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import msgspec
from measure import container

from harness.cluster import Cluster, Machine
from harness.daemon import Daemon
from harness.etcd import SHM, EtcdCluster, EtcdServer, free_ports
from harness.image import IMAGE
from harness.sites import Lab
from unitfleet.api import Change, Changed, Changes
from unitfleet.model import TargetState
from versus.engine import emptied, remove_all, sockets

_CLONE_NEWNET = 0x40000000


class Fleet(Cluster):
    """A cluster of the lab's hosts. `on_hosts`: masters and members of etcd are on the first hosts, too."""

    who = "unitfleet"
    on_hosts: Sequence[int] = ()

    @classmethod
    @contextlib.asynccontextmanager
    async def up(
        cls, lab: Lab, masters: int = 1, profile: str = "default", hosted: bool = False
    ) -> AsyncIterator[Fleet]:
        """Run as many masters as members of etcd, and leave nothing of them; `hosted`: on the first hosts.

        Containers stay when the lab ends with an error: they end with it.
        """
        names = [f"m{host + 1}" for host in range(lab.engines.hosts)]
        for host in range(lab.engines.hosts):
            shutil.rmtree(lab.state_dir(host))
        shm = SHM if SHM.is_dir() else None
        with (
            tempfile.TemporaryDirectory(prefix="unitfleet-compared-") as logs,
            tempfile.TemporaryDirectory(prefix="uf-", dir=shm, ignore_cleanup_errors=True) as root,
        ):
            members = Members(Path(logs), lab, masters, hosted)
            async with members, cls(lab, members, Path(root), Path(logs), names, profile) as fleet:
                if hosted:
                    await fleet._put_on_hosts(members)
                await fleet._up(masters)
                yield fleet
        await asyncio.to_thread(remove_all, sockets(lab))

    def pids(self) -> dict[str, list[int]]:
        """Return who works besides the Engines."""
        return {
            "agents": [machine.agent.pid for machine in self.machines if machine.agent.runs],
            "masters": [master.pid for master in self.masters if master.runs],
            "etcd": [member.pid for member in self.etcd.members if member.runs],
        }

    async def start(self, count: int, network: str) -> None:
        """Submit and start units in one call; returns when they are accepted."""
        _granted(await asyncio.to_thread(self.api().change, wishes(1, count, network)))

    async def clear(self) -> None:
        """Destroy all units, and wait until their containers are gone."""
        doomed = [Change(name=name, target=TargetState.DESTROYED) for name in await self.units()]
        await asyncio.to_thread(self.api().change, doomed)
        await emptied(sockets(self.lab), 300)
        await self.wait_until(self._is_empty, 60, "every unit is gone")

    def ask_for(self, master: int, changes: Sequence[Change]) -> None:
        """Ask one master for changes. Blocks; raises `OSError` or `RuntimeError`."""
        address, _, port = self.endpoints[master].removeprefix("http://").rpartition(":")
        headers = {
            "Authorization": f"Bearer {(self.root / 'token').read_text().strip()}",
            "Content-Type": "application/json",
        }
        with contextlib.closing(http.client.HTTPConnection(address, int(port), timeout=30)) as connection:
            connection.request("POST", "/v1/units", msgspec.json.encode(Changes(changes=tuple(changes))), headers)
            response = connection.getresponse()
            answer = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{response.status} {answer[:200]!r}")
        _granted(msgspec.json.decode(answer, type=Changed))

    # --- masters on hosts

    async def _put_on_hosts(self, members: Members) -> None:
        """Have the first master, which will lead, where etcd's leader is: one power-off takes both."""
        first = members.members.index(await members.leader())
        self.on_hosts = [first, *(host for host in range(len(members.members)) if host != first)]
        self._started_as = self._listening

    def _listening(self, name: str, argv: Sequence[str]) -> Sequence[str]:
        if not name.startswith("master"):
            return argv
        told = list(argv)
        told[told.index("--listen") + 1] = self._where(len(self.masters))
        return told

    def _where(self, master: int) -> str:
        return f"{self.lab.host_address(self.on_hosts[master])}:{self._ports[master]}"

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where each master's API answers."""
        if not self.on_hosts:
            return super().endpoints
        return tuple(f"http://{self._where(master)}" for master in range(len(self.masters)))

    def start_master(self) -> Daemon:
        """Start one more master, on its host where it has one."""
        if not self.on_hosts:
            return super().start_master()
        with inside(self.lab.engines.namespace(self.on_hosts[len(self.masters)])):
            return super().start_master()

    async def power_off(self, machine: Machine) -> None:
        """End everything on the machine at once, a master and a member of etcd too if they are there."""
        if machine.host in self.on_hosts:
            await self._site.cut(machine.host)
            self.masters[self.on_hosts.index(machine.host)].kill()
            self.etcd.members[machine.host].kill()
        await super().power_off(machine)


class Members(EtcdCluster):
    """etcd as it is by default, beside the hosts or on the first of them."""

    def __init__(self, folder: Path, lab: Lab, size: int, hosted: bool) -> None:
        super().__init__(folder, size=size, heartbeat_ms=100, election_ms=1000, address=lab.address)
        self._lab = lab
        self._hosted = hosted

    async def __aenter__(self) -> Members:
        self._directory = self._tmp_path / "etcd"
        self._directory.mkdir()
        self.members = tuple(self._member(number) for number in range(self._size))
        try:
            await self.start(*self.members)
        except BaseException:
            self._clear()
            raise
        return self

    def _member(self, number: int) -> EtcdServer:
        name = f"etcd{number}"
        if not self._hosted:
            ports = free_ports(2, self._lab.address)
            return EtcdServer(name, self.directory, self._lab.address, ports, self._args, "http")
        address, space = self._lab.host_address(number), self._lab.engines.namespace(number)
        return HostedMember(name, self.directory, address, (2379, 2380), self._args, "http", space)


class HostedMember(EtcdServer):
    """A member inside a host's network."""

    def __init__(
        self,
        name: str,
        directory: Path,
        address: str,
        ports: Sequence[int],
        args: Sequence[str],
        scheme: str,
        namespace: str,
    ) -> None:
        super().__init__(name, directory, address, ports, args, scheme)
        self._namespace = namespace

    def launch(self, initial_cluster: str) -> None:
        """Start it where it belongs."""
        with inside(self._namespace):
            super().launch(initial_cluster)


def _granted(changed: Changed) -> None:
    refused = [each for each in changed.items if each.error is not None]
    if refused:
        raise RuntimeError(f"{refused[0].name}: {refused[0].error}")


def wishes(first: int, last: int, network: str) -> list[Change]:
    """Return what starts the units of these numbers."""
    text = container(IMAGE, network) + "Spread=rack\n"
    names = [f"box@{number}.service" for number in range(first, last + 1)]
    return [Change(name=name, text=text, target=TargetState.LAUNCHED, file="box@.container") for name in names]


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a network namespace, with this thread alone: what is started meanwhile stays there."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
