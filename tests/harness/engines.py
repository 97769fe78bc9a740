"""The lab: hosts on one machine, each a network namespace with its own Docker Engine, to cut, kill and boot.

A lab is known by a number, held by a file lock for as long as its process lives: it names the bridge, the
namespaces and cgroups (`uflab<number>-<host>`), the subnet (10.213.<number>.0/24) and the state folder. Labs of
several processes run side by side, and each sweeps first what a killed one left.

Calls block (a boot takes about a second): from a running event loop use `asyncio.to_thread`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import docker

from harness import lab_leftovers
from harness.image import IMAGE, image_archive

ROOT = Path("/var/tmp/unitfleet-lab")
NEEDED = ("dockerd", "containerd", "ip", "iptables", "nsenter", "busybox")
_NUMBERS = range(1, 250)


class EnginesFailed(Exception):
    """The lab could not do what was asked; the Engine's own log is quoted where it tells why."""


class Engines:
    """A lab of `hosts` hosts, counted from 0; a context manager that leaves nothing behind."""

    def __init__(self, hosts: int, *, image: bool = True, dockerd_args: Sequence[str] = ()) -> None:
        self.hosts = hosts
        self._image = image
        self._dockerd_args = tuple(dockerd_args)
        self._stack = contextlib.ExitStack()
        self._daemons: dict[int, subprocess.Popen[bytes]] = {}
        self._processes: dict[int, list[subprocess.Popen[bytes]]] = {i: [] for i in range(hosts)}
        self._witnesses: list[docker.DockerClient] = []
        self.number = 0

    @staticmethod
    def available() -> str | None:
        """Return why no lab can run here, or None."""
        if os.geteuid() != 0:
            return "needs root for network namespaces and Docker Engines"
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        for program in NEEDED:
            if shutil.which(program, path=path) is None:
                return f"needs {program}, which is not installed"
        if not _cgroup_base().is_dir():
            return f"needs cgroups: {_cgroup_base()} is not mounted"
        probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, timeout=10)
        return None if probe.returncode == 0 else f"needs network namespaces: {probe.stderr.strip()}"

    def __enter__(self) -> Engines:
        try:
            lab_leftovers.sweep_abandoned(ROOT)
            self._stack.enter_context(self._number_taken())
            self._stack.callback(self.down)
            self._bridge_up()
            for host in range(self.hosts):
                self._net_up(host)
            for host in range(self.hosts):
                self._start(host)
            with ThreadPoolExecutor(self.hosts) as pool:
                list(pool.map(self._finish_boot, range(self.hosts)))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # --- where things are

    @property
    def name(self) -> str:
        """Return the name that everything of this lab begins with."""
        return f"uflab{self.number}"

    @property
    def folder(self) -> Path:
        """Return the lab's state folder; it goes with the lab."""
        return ROOT / str(self.number)

    @property
    def bridge_address(self) -> str:
        """Return the root namespace's address in the lab, for an etcd or a master that all hosts reach."""
        return f"10.213.{self.number}.254"

    def address(self, host: int) -> str:
        """Return the host's address in the lab."""
        return f"10.213.{self.number}.{10 + host}"

    def socket(self, host: int) -> Path:
        """Return the socket of the host's Engine."""
        return self.folder / str(host) / "docker.sock"

    def namespace(self, host: int) -> str:
        """Return the name of the host's network namespace (under /run/netns)."""
        return f"{self.name}-{host}"

    def state_dir(self, host: int) -> Path:
        """Return a folder of the host's own that outlives a power-off, for agents."""
        path = self.folder / str(host) / "state"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def witness(self, host: int, *, timeout_s: float = 20.0) -> Any:
        """Return a new `docker` SDK client: the outside witness. The lab closes it."""
        client = docker.DockerClient(base_url=f"unix://{self.socket(host)}", version="1.41", timeout=timeout_s)
        self._witnesses.append(client)
        return client

    # --- what happens to hosts

    def cut(self, host: int) -> None:
        """Unplug the host: everything on it runs on, nobody reaches it."""
        _ip(f"link set {self.namespace(host)} down")

    def heal(self, host: int) -> None:
        """Plug the host in again."""
        _ip(f"link set {self.namespace(host)} up")

    def power_off(self, host: int) -> None:
        """End everything on the host at once. Unplugged first, so that no peer is told by a FIN or RST."""
        self.cut(host)
        lab_leftovers.kill_cgroup(cgroup_of(self.namespace(host)))
        self._reap(host)

    def boot(self, host: int) -> None:
        """Start a host that was powered off: its Engine comes back with its containers as they fell."""
        self.heal(host)
        self._start(host)
        self._finish_boot(host)

    def kill_engine(self, host: int, how: signal.Signals = signal.SIGKILL) -> None:
        """End the Engine's daemon alone and wait for it; after SIGKILL its containers run on until it is back."""
        daemon = self._daemons.pop(host)
        pid_file = self.folder / str(host) / "run/containerd/containerd.pid"
        containerd = int(pid_file.read_text())
        daemon.send_signal(how)
        daemon.wait(60)
        # its containerd dies with it but may stay a zombie for a while, and the next daemon would wait for it
        wait_for(lambda: not Path(f"/proc/{containerd}").exists(), "containerd is gone", timeout_s=10)

    def signal_engine(self, host: int, what: signal.Signals) -> None:
        """Send a signal to the Engine's daemon (SIGSTOP: it hangs; SIGCONT)."""
        self._daemons[host].send_signal(what)

    def start_engine(self, host: int) -> None:
        """Start the Engine again after `kill_engine` (without what a boot would clear)."""
        self._spawn_daemon(host)
        self._wait_up(host)

    def run_in(
        self,
        host: int,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        output: IO[bytes] | int = subprocess.DEVNULL,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process inside the host's network, in a session of its own; a power-off takes it along."""
        tracked = cgroup_of(self.namespace(host)) / "run"
        tracked.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            _inside(tracked, self.namespace(host), argv),
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not subprocess.DEVNULL else subprocess.DEVNULL,
            start_new_session=True,
        )
        self._processes[host].append(process)
        return process

    def down(self) -> None:
        """Remove everything that the lab made. Repeatable."""
        for client in self._witnesses:
            client.close()
        self._witnesses.clear()
        for host in range(self.hosts):
            lab_leftovers.kill_cgroup(cgroup_of(self.namespace(host)))
            self._reap(host)
        lab_leftovers.sweep(self.name, self.folder)

    # --- how

    @contextlib.contextmanager
    def _number_taken(self) -> Iterator[None]:
        for number in _NUMBERS:
            with lab_leftovers.held(ROOT, number) as mine:
                if mine:
                    self.number = number
                    yield
                    return
        raise EnginesFailed(f"cannot start a lab: all {len(_NUMBERS)} numbers are taken")

    def _bridge_up(self) -> None:
        bridge = self.name
        _ip(
            f"link add {bridge} type bridge",
            f"addr add {self.bridge_address}/24 dev {bridge}",
            f"link set {bridge} up",
        )
        # an Engine sets FORWARD to DROP where it runs, and bridged frames pass iptables
        _run("iptables", "-w", "-I", "FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT")

    def _net_up(self, host: int) -> None:
        space = self.namespace(host)
        _ip(
            f"netns add {space}",
            f"link add {space} type veth peer name eth0 netns {space}",
            f"link set {space} master {self.name} up",
        )
        # no default route: nothing can leave the lab, and a name lookup fails at once
        _ip(f"addr add {self.address(host)}/24 dev eth0", "link set lo up", "link set eth0 up", namespace=space)

    def _start(self, host: int) -> None:
        """Start the Engine of a host that is off, after clearing what a reboot clears."""
        base = self.folder / str(host)
        lab_leftovers.clear_runtime(base)
        base.mkdir(parents=True, exist_ok=True)
        self._spawn_daemon(host)

    def _spawn_daemon(self, host: int) -> None:
        base, space = self.folder / str(host), self.namespace(host)
        tracked = cgroup_of(space) / "daemon"
        tracked.mkdir(parents=True, exist_ok=True)
        argv = ["dockerd", "--data-root", f"{base}/data", "--exec-root", f"{base}/run", "-p", f"{base}/pid"]
        argv += ["-H", f"unix://{base}/docker.sock", "--cgroup-parent", f"/{space}", *self._dockerd_args]
        env = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
        with open(base / "dockerd.log", "ab") as log:
            self._daemons[host] = subprocess.Popen(
                _inside(tracked, space, argv),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _finish_boot(self, host: int) -> None:
        self._wait_up(host)
        if self._image:
            self.load_image(host, IMAGE, image_archive())

    def load_image(self, host: int, tag: str, archive: bytes) -> None:
        """Load an image archive into the host's Engine unless it has the tag already."""
        with contextlib.closing(self._client(host)) as client:
            try:
                client.images.get(tag)
            except docker.errors.ImageNotFound:
                client.images.load(archive)

    def _wait_up(self, host: int) -> None:
        def answers() -> bool:
            if self._daemons[host].poll() is not None:
                log = (self.folder / str(host) / "dockerd.log").read_text(errors="replace")
                raise EnginesFailed(f"cannot start the Engine of host {host}: {log[-1500:]}")
            return _pings(self.socket(host))

        wait_for(answers, f"the Engine of host {host} answers", timeout_s=30)

    def _client(self, host: int) -> Any:
        return docker.DockerClient(base_url=f"unix://{self.socket(host)}", version="1.41", timeout=20)

    def _reap(self, host: int) -> None:
        daemon = self._daemons.pop(host, None)
        processes, self._processes[host] = self._processes[host], []
        for process in [*processes, *([daemon] if daemon else [])]:
            process.wait(10)


def wait_for(condition: Callable[[], bool], what: str, *, timeout_s: float, step_s: float = 0.03) -> None:
    """Wait until `condition` holds; raises `EnginesFailed` saying `what` did not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise EnginesFailed(f"waited {timeout_s:g} s in vain: {what}")
        time.sleep(step_s)


def _pings(path: Path) -> bool:
    """Tell whether an Engine answers at a socket. By hand: the SDK leaks a socket for each one it can't reach."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


def _cgroup_base() -> Path:
    """Return the hierarchy that tracks which processes are a host's: v1's pids, or the one of v2."""
    unified = Path("/sys/fs/cgroup")
    return unified if (unified / "cgroup.controllers").exists() else unified / "pids"


def cgroup_of(space: str) -> Path:
    """Return the group of all processes of the host with this namespace."""
    return _cgroup_base() / space


def _inside(tracked: Path, space: str, argv: Sequence[str]) -> list[str]:
    # nsenter, not `ip netns exec`: that one mounts /sys anew and hides the cgroups
    script = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
    return ["/bin/sh", "-c", script, "sh", str(tracked), "nsenter", f"--net=/run/netns/{space}", *argv]


def _ip(*commands: str, namespace: str = "") -> None:
    prefix = ["-n", namespace] if namespace else []
    _run("ip", *prefix, "-batch", "-", stdin="\n".join(commands))


def _run(*argv: str, stdin: str = "") -> None:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        raise EnginesFailed(f"cannot run {' '.join(argv)} ({stdin!r}): {done.stderr.strip()}")


@functools.cache
def shared_engine() -> Engines:
    """Return a lab of one host for all tests of this process; it goes when the process ends."""
    lab = Engines(1)
    lab.__enter__()
    atexit.register(lab.__exit__, None, None, None)
    return lab
