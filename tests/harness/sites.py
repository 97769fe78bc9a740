"""Where a cluster under test stands: all on loopback, or a lab with a network and an Engine a host.

Both give the same few verbs, so that `Cluster` and the stories told with it don't know which one it is. Calls
may block for a second: from a running loop use `asyncio.to_thread`, except for what is `async`.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import docker

from harness.engines import Engines
from harness.group_leftovers import machine_of, remove_groups
from harness.proxy import Proxy
from harness.unit_processes import ProcessWitness, Running


class Site(Protocol):
    """Hosts, counted from 0, and the place where etcd and the masters are."""

    @property
    def address(self) -> str:
        """Where etcd and the masters listen."""

    def host_address(self, host: int) -> str:
        """Where the host's agent and units are reached."""

    def state_dir(self, host: int) -> Path:
        """The agent's state directory, which outlives a power-off."""

    def agent_flags(self, host: int) -> list[str]:
        """What an agent of this host is told besides the usual."""

    async def endpoints(self, host: int, members: Sequence[str]) -> list[str]:
        """Where the host reaches these members of etcd."""

    def spawn(self, host: int, argv: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start an agent on the host."""

    def running(self, host: int, unit: str) -> list[Running]:
        """What an outsider sees of the unit on this host."""

    def held(self, host: int) -> list[str]:
        """The units of which the host holds a copy, running or not."""

    async def cut(self, host: int) -> None:
        """Take the host off the network."""

    async def heal(self, host: int) -> None:
        """Put it on the network again."""

    def power_off(self, host: int) -> None:
        """End all that runs on the host."""

    def boot(self, host: int) -> None:
        """Make the host ready for its agent again."""


class Loopback:
    """Hosts that are only state directories: process driver, no root, cut off from etcd by a proxy."""

    address = "127.0.0.1"

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self._root = root
        self._hosts = range(len(names))
        self._stack = contextlib.AsyncExitStack()
        self._proxies: dict[tuple[int, str], Proxy] = {}
        self._witnesses = [ProcessWitness(name, self.state_dir(host)) for host, name in enumerate(names)]

    async def __aenter__(self) -> Loopback:
        return self

    async def __aexit__(self, *_: object) -> None:
        for witness in self._witnesses:
            witness.kill_all()
        remove_groups(machine_of(self.state_dir(host)) for host in self._hosts)
        await self._stack.aclose()

    def host_address(self, host: int) -> str:
        return self.address

    def state_dir(self, host: int) -> Path:
        return self._root / f"agent{host}"

    def agent_flags(self, host: int) -> list[str]:
        return ["--drivers", "process"]

    async def endpoints(self, host: int, members: Sequence[str]) -> list[str]:
        found = []
        for member in members:
            if (host, member) not in self._proxies:
                self._proxies[host, member] = await self._stack.enter_async_context(Proxy(member))
            found.append(self._proxies[host, member].endpoint)
        return found

    def spawn(self, host: int, argv: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return spawn(argv, log)

    def running(self, host: int, unit: str) -> list[Running]:
        return self._witnesses[host].running(unit)

    def held(self, host: int) -> list[str]:
        return self._witnesses[host].held()

    async def cut(self, host: int) -> None:
        for proxy in self._proxies_of(host):
            proxy.refuse()

    async def heal(self, host: int) -> None:
        for proxy in self._proxies_of(host):
            await proxy.accept()

    def power_off(self, host: int) -> None:
        self._witnesses[host].kill_all()

    def boot(self, host: int) -> None:
        pass  # the state directory is all there is of a host

    def _proxies_of(self, host: int) -> list[Proxy]:
        return [proxy for (other, _), proxy in self._proxies.items() if other == host]


class Lab:
    """Hosts of the lab: a network namespace, a Docker Engine and a boot id each; both drivers."""

    def __init__(self, names: Sequence[str], state_mib: int = 0) -> None:
        self._names = tuple(names)
        self._state_mib = state_mib
        self.engines = Engines(len(names))
        self._process_witnesses: list[ProcessWitness] = []

    def up(self) -> None:
        """Make the hosts and boot them."""
        self.engines.__enter__()
        try:
            self._process_witnesses = [
                ProcessWitness(name, self.state_dir(host)) for host, name in enumerate(self._names)
            ]
            for host in range(len(self._names)):
                self._new_boot_id(host)
                if self._state_mib:
                    disk = ["-t", "tmpfs", "-o", f"size={self._state_mib}m", "tmpfs", str(self.state_dir(host))]
                    subprocess.run(["mount", *disk], check=True, timeout=20)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Leave nothing of the hosts."""
        self.engines.__exit__(None, None, None)

    @property
    def address(self) -> str:
        return self.engines.bridge_address

    def host_address(self, host: int) -> str:
        return self.engines.address(host)

    def state_dir(self, host: int) -> Path:
        return self.engines.state_dir(host)

    def agent_flags(self, host: int) -> list[str]:
        return ["--drivers", "process,docker", "--docker-socket", str(self.engines.socket(host))]

    async def endpoints(self, host: int, members: Sequence[str]) -> list[str]:
        return list(members)

    def spawn(self, host: int, argv: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        # the kernel has one boot id for all hosts: each gets its own, so that a boot is told from a restart
        script = 'mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"'
        inside = ["unshare", "--mount", "/bin/sh", "-c", script, "sh", str(self._boot_id(host)), *argv]
        return self.engines.run_in(host, inside, output=log.fileno())

    def engine(self, host: int) -> Any:
        """Return a new `docker` SDK client of the host's Engine, to be closed."""
        return docker.DockerClient(base_url=f"unix://{self.engines.socket(host)}", version="1.41", timeout=20)

    def process_witness(self, host: int) -> ProcessWitness:
        """Return who sees the host's process units."""
        return self._process_witnesses[host]

    def running(self, host: int, unit: str) -> list[Running]:
        """Ask the Engine itself, and /proc; a host that is off runs nothing."""
        found = self._process_witnesses[host].running(unit)
        if not self.engines.socket(host).exists():
            return found
        with contextlib.closing(self.engine(host)) as client:
            for container in client.containers.list(
                filters={"label": f"unitfleet.unit={unit}"}, ignore_removed=True
            ):
                state = container.attrs["State"]
                found.append(Running(self._names[host], state["Pid"], state["StartedAt"]))
        return found

    def held(self, host: int) -> list[str]:
        found = self._process_witnesses[host].held()
        with contextlib.closing(self.engine(host)) as client:
            for container in client.containers.list(all=True, ignore_removed=True):
                found.append(container.labels["unitfleet.unit"])
        return sorted(found)

    async def cut(self, host: int) -> None:
        self.engines.cut(host)

    async def heal(self, host: int) -> None:
        self.engines.heal(host)

    def power_off(self, host: int) -> None:
        self.engines.power_off(host)
        self.engines.socket(host).unlink(missing_ok=True)

    def boot(self, host: int) -> None:
        self._new_boot_id(host)
        self.engines.boot(host)

    def _boot_id(self, host: int) -> Path:
        return self.engines.folder / str(host) / "boot_id"

    def _new_boot_id(self, host: int) -> None:
        self._boot_id(host).write_text(f"{uuid.uuid4()}\n")


def spawn(argv: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a daemon in a session of its own: a Ctrl-C reaches the tests first. It dies with them."""
    guard = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
    return subprocess.Popen(
        [*guard, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
