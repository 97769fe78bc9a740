"""A small cluster over real parts, for tests that read as stories.

    async with Cluster.in_lab(tmp_path, hosts=4) as cluster:
        await cluster.must("start", "adserver@<1..4>")
        await cluster.power_off(cluster.machine("m1"))
        await cluster.wait_until(lambda: cluster.runs_once("adserver@1.service"), 30, "adserver@1 runs again")

Real etcd, real daemons as processes of their own, the real `unitctl` as a subprocess; on loopback with the
process driver, or in the lab with a network and a Docker Engine a host. What runs is told by an outside witness.
Leaving the context ends all of it, however the test ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from harness.daemon import Daemon, Process
from harness.etcd import SHM, EtcdCluster, free_ports
from harness.eventually import eventually
from harness.sites import Lab, Loopback, Site, spawn
from harness.unit_processes import Running
from unitctl import context
from unitctl.client import Api
from unitctl.transport import Transport
from unitfleet import codec, keys
from unitfleet.api import Change, ClusterStatus, MachineView, UnitView
from unitfleet.errors import UnitfleetError
from unitfleet.etcd.store import EtcdStore
from unitfleet.model import Leader, TargetState

UP_S = 30.0
COMMAND_S = 180.0

StartedAs = Callable[[str, Sequence[str]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command of `unitctl` came to, and how long it took."""

    code: int
    stdout: str
    stderr: str
    took_s: float

    def __str__(self) -> str:
        return f"exit {self.code} after {self.took_s:.1f} s\n{self.stdout}{self.stderr}"


@dataclass(frozen=True, slots=True)
class Machine:
    """A host of the cluster: its name, its number at the site, and its agent."""

    name: str
    host: int
    agent: Daemon


class Cluster:
    """Masters m…, agents and etcd at one site. Made by `on_loopback` and `in_lab`."""

    def __init__(
        self, site: Site, etcd: EtcdCluster, root: Path, logs: Path, names: Sequence[str], profile: str
    ) -> None:
        self.etcd = etcd
        self.profile = profile
        self.masters: list[Daemon] = []
        self.machines: list[Machine] = []
        self._site = site
        self._root = root
        self._logs = logs
        self._names = tuple(names)
        self._ports = free_ports(8, site.address)
        self._token_file = root / "token"
        self._home = root / "home"
        self._off: set[str] = set()
        self._cut: set[str] = set()
        self._agent_args: tuple[str, ...] = ()
        self._own_args: dict[int, Sequence[str]] = {}
        self._master_args: tuple[str, ...] = ()
        self._started_as: StartedAs = lambda name, argv: argv
        self.store = EtcdStore(etcd.endpoints)

    @classmethod
    @contextlib.asynccontextmanager
    async def on_loopback(
        cls,
        tmp_path: Path,
        *,
        machines: int = 3,
        masters: int = 2,
        etcd: int = 1,
        profile: str = "fast",
        etcd_args: Sequence[str] = (),
        agent_args: Sequence[str] = (),
        own_args: Sequence[Sequence[str]] = (),
        master_args: Sequence[str] = (),
        started_as: StartedAs = lambda name, argv: argv,
    ) -> AsyncIterator[Self]:
        """Run a cluster of `machines` agents with the process driver, in this network; no root is needed.

        All agents get `agent_args`, and the first ones what stands for each in `own_args`. `started_as` returns
        what a daemon of a name is started by.
        """
        names = [f"m{number + 1}" for number in range(machines)]
        with _directory() as root:
            async with (
                EtcdCluster(tmp_path, size=etcd, args=etcd_args) as members,
                Loopback(root, names) as site,
                cls(site, members, root, tmp_path, names, profile) as cluster,
            ):
                cluster._agent_args, cluster._master_args = tuple(agent_args), tuple(master_args)
                cluster._own_args = dict(enumerate(own_args))
                cluster._started_as = started_as
                await cluster._up(masters)
                yield cluster

    @classmethod
    @contextlib.asynccontextmanager
    async def in_lab(
        cls,
        tmp_path: Path,
        *,
        hosts: int = 4,
        masters: int = 2,
        etcd: int = 1,
        profile: str = "default",
        idle: int = 0,
        state_mib: int = 0,
        etcd_args: Sequence[str] = (),
        agent_args: Sequence[str] = (),
        master_args: Sequence[str] = (),
        started_as: StartedAs = lambda name, argv: argv,
    ) -> AsyncIterator[Self]:
        """Run a cluster of `hosts` agents, each in a network namespace with a Docker Engine; needs root.

        The last `idle` hosts have no agent until they `join`. With `state_mib` each agent's state directory is a
        file system of its own of that size. `started_as` is as in `on_loopback`.
        """
        names = [f"m{number + 1}" for number in range(hosts)]
        with _directory() as root:
            site = Lab(names, state_mib)
            site.up()  # not in a thread: an interrupt that came meanwhile is told at the next await, inside `try`
            try:
                async with (
                    EtcdCluster(tmp_path, size=etcd, args=etcd_args, address=site.address) as members,
                    cls(site, members, root, tmp_path, names[: hosts - idle], profile) as cluster,
                ):
                    cluster._started_as = started_as
                    cluster._agent_args, cluster._master_args = tuple(agent_args), tuple(master_args)
                    await cluster._up(masters)
                    yield cluster
            finally:
                site.down()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for machine in self.machines:
            machine.agent.kill()
        for master in self.masters:
            master.kill()
        await self.store.close()

    # --- parts

    def machine(self, name: str) -> Machine:
        """Return the machine of this name."""
        return next(machine for machine in self.machines if machine.name == name)

    def start_master(self) -> Daemon:
        """Start one more master, and let unitctl know of it."""
        name = f"master{len(self.masters) + 1}"
        argv = [
            *(sys.executable, "-m", "unit_master", "--name", name, "--etcd", ",".join(self.etcd.endpoints)),
            *("--listen", f"{self._site.address}:{self._ports[len(self.masters)]}", "--trusted-network"),
            *("--socket", str(self._root / f"{name}.sock"), "--state-dir", str(self._root / name)),
            *("--token-file", str(self._token_file), "--cluster-key-file", str(self._root / "cluster.key")),
            *("--secrets-key-file", str(self._root / "secrets.key")),
            *("--profile", self.profile),
            *self._master_args,
        ]
        master = Daemon(name, self._started_as(name, argv), self._logs / f"{name}.log", spawn)
        self.masters.append(master)
        master.start()
        context.save("test", self.endpoints, str(self._token_file), self._environment())
        return master

    async def join(self, *flags: str) -> Machine:
        """Start an agent on the next host that has none."""
        host = len(self.machines)
        machine = await self._machine(host, f"m{host + 1}", *flags)
        self._names = (*self._names, machine.name)
        self.machines.append(machine)
        machine.agent.start()
        return machine

    async def fence(self, machine: str) -> bytes:
        """Return what stands of the machine's fence renewals, by the word of etcd; b"" before the first."""
        (view,) = (view for name, view in (await self.machine_views()).items() if name == machine)
        held = await self.store.get(keys.fence(view.id))
        return held.value if held else b""

    def start_agent(self, machine: Machine) -> None:
        """Start the machine's agent, which was killed or stopped."""
        machine.agent.start()

    def restart_agent(self, machine: Machine) -> None:
        """Kill the agent and start it again; its units run on."""
        machine.agent.kill()
        machine.agent.start()

    async def leader(self) -> Daemon | None:
        """Return the master that leads by the word of etcd, None when none does."""
        held = await self.store.get(keys.LEADER)
        if held is None:
            return None
        name = codec.decode(held.value, Leader, keys.LEADER).name
        return next(master for master in self.masters if master.name == name)

    # --- what happens to them

    def kill(self, process: Process) -> None:
        """End a daemon or an etcd member as a power cut would."""
        process.kill()

    def pause(self, process: Process) -> None:
        """Freeze a daemon or an etcd member."""
        process.pause()

    def resume(self, process: Process) -> None:
        """Let it go on."""
        process.resume()

    async def power_off(self, machine: Machine) -> None:
        """End everything on the machine at once: agent, supervisors, units, containers, Engine."""
        self._off.add(machine.name)
        await self._site.cut(machine.host)
        await asyncio.to_thread(machine.agent.kill)
        await asyncio.to_thread(self._site.power_off, machine.host)

    async def boot(self, machine: Machine) -> None:
        """Start a machine that was powered off, and its agent."""
        await self._site.heal(machine.host)
        await asyncio.to_thread(self._site.boot, machine.host)
        self._off.discard(machine.name)
        machine.agent.start()

    async def cut(self, machine: Machine) -> None:
        """Take the machine off the network; all on it runs on."""
        self._cut.add(machine.name)
        await self._site.cut(machine.host)

    async def heal(self, machine: Machine) -> None:
        """Put it on the network again."""
        await self._site.heal(machine.host)
        self._cut.discard(machine.name)

    async def restore(self) -> None:
        """Make all that was there at first run again, and destroy every unit: for the next story."""
        for machine in self.machines:
            if machine.name in self._off:
                await self.boot(machine)
            if machine.name in self._cut:
                await self.heal(machine)
        await self.etcd.start(*(member for member in self.etcd.members if not member.runs))
        for daemon in (*self.masters, *(machine.agent for machine in self.machines)):
            if not daemon.runs:
                daemon.kill()  # takes note of one that ended by itself
                daemon.start()
            daemon.resume()
        await self.wait_until(self._is_up, UP_S, "the cluster is whole again")
        for name, view in (await self.machine_views()).items():
            for said, verb in ((view.cordoned, "uncordon"), (view.drained, "undrain")):
                if said:
                    await asyncio.to_thread(self.api().command_machine, name, verb)
        doomed = [Change(name=name, target=TargetState.DESTROYED) for name in await self._names_of_units()]
        if doomed:
            await asyncio.to_thread(self.api().change, doomed)
        await self.wait_until(self._is_empty, UP_S, "every unit is gone")

    # --- what is asked

    async def unitctl(self, *args: str, env: Mapping[str, str] = MappingProxyType({})) -> Ran:
        """Run the real command line, in a directory with the unit files that were written."""
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "unitctl", *args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self._environment(), **env},
            cwd=self.units_dir,
        )
        try:
            async with asyncio.timeout(COMMAND_S):
                stdout, stderr = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        return Ran(process.returncode or 0, stdout.decode(), stderr.decode(), time.monotonic() - began)

    async def must(self, *args: str) -> Ran:
        """Run a command that has to go well."""
        ran = await self.unitctl(*args)
        if ran.code != 0:
            raise AssertionError(f"unitctl {' '.join(args)}: {ran}\n{await self.report()}")
        return ran

    @property
    def root(self) -> Path:
        """The directory with what daemons keep: keys, states, audit."""
        return self._root

    @property
    def units_dir(self) -> Path:
        """The directory that unitctl runs in."""
        return self._root / "units"

    def write(self, name: str, text: str) -> None:
        """Put a unit file where unitctl runs."""
        (self.units_dir / name).write_text(text)

    async def units(self) -> dict[str, UnitView]:
        """Return all units as the API shows them, templates left out."""
        listed = await asyncio.to_thread(self.api().units)
        return {view.name: view for view in listed.items if not view.is_template}

    async def unit(self, name: str) -> UnitView | None:
        """Return one unit as the API shows it, None when it is unknown."""
        return (await self.units()).get(name)

    async def machine_views(self) -> dict[str, MachineView]:
        """Return all machines by name."""
        _, machines = await asyncio.to_thread(self.api().machines)
        return {view.name: view for view in machines}

    async def status(self) -> ClusterStatus:
        """Return how the cluster says it is."""
        return await asyncio.to_thread(self.api().cluster)

    async def running(self, unit: str) -> list[Running]:
        """Return what the outside witness sees of the unit, on all machines that have power."""
        found = await asyncio.gather(
            *(asyncio.to_thread(self._site.running, machine.host, unit) for machine in self.machines)
        )
        return sorted(each for copies in found for each in copies)

    async def held(self, machine: Machine) -> list[str]:
        """Return the units of which the machine holds a copy, running or not, as an outsider sees it."""
        return await asyncio.to_thread(self._site.held, machine.host)

    async def all_running(self) -> dict[str, list[Running]]:
        """Return what the outside witness sees, for every unit that the API knows."""
        return {name: await self.running(name) for name in sorted(await self.units())}

    @property
    def lab(self) -> Lab:
        """The hosts, where they are those of a lab."""
        assert isinstance(self._site, Lab)
        return self._site

    def engine(self, machine: Machine) -> Any:
        """Return a new `docker` SDK client of the machine's Engine, to be closed; only in the lab."""
        return self.lab.engine(machine.host)

    @property
    def logs(self) -> Path:
        """Where each daemon's output is."""
        return self._logs

    def socket_of(self, machine: Machine) -> Path:
        """Where the machine's agent listens for this host."""
        return self._root / f"{machine.name}.sock"

    def local(self, machine: Machine, path: str) -> Any:
        """Ask the machine's agent on its own host; blocks. Raises `OSError` while it is not up."""
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.connect(str(self.socket_of(machine)))
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())

    async def runs_once(self, *units: str) -> bool:
        """Tell whether each unit runs in exactly one copy, by the witness, and the API says that it runs."""
        views = await self.units()
        for unit in units:
            if unit not in views or not views[unit].ok or len(await self.running(unit)) != 1:
                return False
        return True

    async def wait_until(self, condition: Callable[[], Awaitable[object]], within_s: float, what: str) -> None:
        """Wait for a condition with a deadline; the failure shows the cluster and the end of each daemon's log.

        A master that does not answer just now makes the condition not true yet.
        """

        async def holds() -> object:
            try:
                return await condition()
            except UnitfleetError:
                return False

        try:
            await eventually(holds, within_s=within_s, what=lambda: what, every_s=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{await self.report()}") from None

    async def report(self) -> str:
        """Tell how the cluster is, for a failure's message."""
        parts = []
        for args in (("list-units",), ("cluster", "status")):
            ran = await self.unitctl(*args)
            parts.append(f"--- unitctl {' '.join(args)}: {ran}")
        for daemon in (*self.masters, *(machine.agent for machine in self.machines)):
            parts.append(f"--- {daemon.name}{'' if daemon.runs else ' (does not run)'}:\n{daemon.tail()}")
        return "\n".join(parts)

    # --- how

    async def _up(self, masters: int) -> None:
        self._home.mkdir()
        self.units_dir.mkdir()
        for _ in range(masters):
            self.start_master()
        await self.wait_until(self._secrets_are_there, UP_S, "the masters made their keys")
        for host, name in enumerate(self._names):
            self.machines.append(await self._machine(host, name, *self._own_args.get(host, ())))
            self.machines[-1].agent.start()
        await self.wait_until(self._is_up, UP_S, "the cluster is up")

    async def _secrets_are_there(self) -> bool:
        self._check_daemons()
        return self._token_file.exists() and (self._root / "cluster.key").exists()

    async def _machine(self, host: int, name: str, *flags: str) -> Machine:
        site, logs = self._site, self._logs
        address = site.host_address(host)
        argv = [
            *(sys.executable, "-m", "unit_agent", "--name", name, "--profile", self.profile),
            *("--etcd", ",".join(await site.endpoints(host, self.etcd.endpoints))),
            *("--state-dir", str(site.state_dir(host)), "--socket", str(self._root / f"{name}.sock")),
            *("--address", address, "--listen", f"{address}:0", *site.agent_flags(host), *self._agent_args),
            *("--cluster-key-file", str(self._root / "cluster.key"), "--metadata", _metadata(host)),
            *("--strict-dir", str(self._root / f"{name}.strict")),
            *flags,
        ]
        argv = [*self._started_as(name, argv)]
        agent = Daemon(name, argv, logs / f"{name}.log", lambda argv, log: site.spawn(host, argv, log))
        return Machine(name, host, agent)

    def _check_daemons(self) -> None:
        for daemon in (*self.masters, *(machine.agent for machine in self.machines)):
            assert daemon.runs, f"{daemon.name} has ended: {daemon.tail()}"

    async def _is_up(self) -> bool:
        self._check_daemons()
        wanted = 2 if isinstance(self._site, Lab) else 1
        views = await self.machine_views()
        ready = [view for view in views.values() if view.status == "ready" and len(view.drivers) == wanted]
        serve = await asyncio.gather(*(asyncio.to_thread(serves, endpoint) for endpoint in self.endpoints))
        return len(ready) == len(self._names) and all(serve)

    async def _names_of_units(self) -> set[str]:
        return {view.name for view in (await asyncio.to_thread(self.api().units)).items}

    async def _is_empty(self) -> bool:
        return not await self._names_of_units()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where each master's API answers."""
        ports = self._ports[: len(self.masters)]
        return tuple(f"http://{self._site.address}:{port}" for port in ports)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._home),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def api(self) -> Api:
        """Return a new client of the API, whose calls block."""
        return Api(Transport(context.find(context.Invocation(), self._environment())))


def _metadata(host: int) -> str:
    """Two zones and two regions that cut across each other, and a name that is the host's alone."""
    return f"zone={'ab'[host % 2]},region={'eu' if host < 2 else 'us'},rack=r{host + 1}"


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """Make a directory with a short name (sockets), on tmpfs where there is one; it goes at the end."""
    root = Path(tempfile.mkdtemp(prefix="uf-", dir=SHM if SHM.is_dir() else None))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def serves(endpoint: str) -> bool:
    """Whether the master there knows the cluster and hears the store."""
    try:
        with urllib.request.urlopen(f"{endpoint}/readyz", timeout=2.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
