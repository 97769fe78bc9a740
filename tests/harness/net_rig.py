"""A host with containers and the world beyond its uplink, made of network namespaces, and iperf3 between them.

    world ── uplink ── host ── bridge ── veth ── container 0, 1, …

What stands for a container is a process in a namespace of its own. Everything is named `ufnet<number>…`, goes with
the rig, and speaks to nobody else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

TOP = Path(__file__).resolve().parents[2]
NEEDED = ("ip", "tc", "iptables", "nsenter", "iperf3")
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Inside:
    """A container of the rig: its namespace, its address, and the process that holds it."""

    namespace: str
    address: str
    pid: int
    veth: str


class NetRig:
    """The namespaces; a context manager that leaves nothing behind. `uplink`: the host's way to the world."""

    uplink = "uplink0"
    host_address, world_address = "10.77.2.1", "10.77.2.2"

    def __init__(self, containers: int = 2) -> None:
        self.name = f"ufnet{os.getpid()}"
        self.host, self.world = f"{self.name}h", f"{self.name}w"
        self.containers: list[Inside] = []
        self._wanted = containers
        self._stack = contextlib.ExitStack()
        self._ports = iter(range(5301, 6000))

    @staticmethod
    def available() -> str | None:
        """Return why no rig can be made here, or None."""
        if os.geteuid() != 0:
            return "needs root for network namespaces"
        missing = [name for name in NEEDED if shutil.which(name, path=_PATH) is None]
        return f"needs {', '.join(missing)}, not installed" if missing else None

    def __enter__(self) -> NetRig:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, namespace: str, *argv: str) -> str:
        """Run a command in a namespace and return what it wrote; a failure raises with what it said."""
        return run_in(namespace, *argv)

    def tc(self, *argv: str) -> str:
        """Run tc on the host."""
        return self.run(self.host, "tc", *argv)

    def everything(self) -> str:
        """Return all that shapes on the host: for before and after."""
        return everything(self.host)

    def process(self, argv: Sequence[str], namespace: str = "", *, sysfs: bool = False) -> subprocess.Popen[str]:
        """Start a process in a namespace; it ends with the rig. With `sysfs` /sys shows its own interfaces."""
        inside = ["ip", "netns", "exec", namespace] if sysfs else ["nsenter", f"--net=/run/netns/{namespace}"]
        process = subprocess.Popen(
            [*(inside if namespace else ()), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_env(),
        )
        self._stack.callback(_end, process)
        return process

    def shaper(self, *, prefix: Sequence[str] = (), **settings: Any) -> Shaper:
        """Start a shaper on the host, by way of `prefix`; capacities in bit/s as `egress` and `ingress`."""
        script = str(TOP / "tests/harness/shaper.py")
        process = self.process([*prefix, sys.executable, script], self.host)
        return Shaper(process, {"address": self.host_address, "ports": [22], **settings})

    def goodput(self, flows: Sequence[Flow], *, seconds: float = 2.0) -> list[float]:
        """Run flows at the same time and return what each got through, bit/s. The first second is left out."""
        running = []
        for flow in flows:
            port = str(flow.port or next(self._ports))
            server = self.process(["iperf3", "-s", "-1", "-p", port], flow.server)
            self._await_listener(flow.server, port)
            argv = ["iperf3", "-c", flow.address, "-p", port, "-t", str(seconds), "-O", "1", "-J"]
            argv += [
                "-P",
                str(flow.streams),
                *(["-R"] if flow.reverse else []),
                *(["-6"] if ":" in flow.address else []),
            ]
            running.append((self.process([*flow.prefix, *argv], flow.client), server))
        results = []
        for client, server in running:
            written, _ = client.communicate(timeout=seconds + 30)
            server.wait(10)
            said = json.loads(written)
            if "error" in said:
                raise RuntimeError(said["error"])
            results.append(float(said["end"]["sum_received"]["bits_per_second"]))
        return results

    def out(self, inside: int, *, streams: int = 1) -> Flow:
        """A flow from a container to the world."""
        return Flow(self.containers[inside].namespace, self.world, self.world_address, streams=streams)

    def into(self, inside: int, *, streams: int = 1) -> Flow:
        """A flow from the world to a container."""
        return Flow(
            self.containers[inside].namespace, self.world, self.world_address, streams=streams, reverse=True
        )

    def _await_listener(self, namespace: str, port: str) -> None:
        wait_for(lambda: f":{port} " in self.run(namespace, "ss", "-Htln"), f"iperf3 listens on {port}")

    def _build(self) -> None:
        for space in (self.host, self.world):
            self._namespace(space)
        self._ip(
            self.host,
            f"link add {self.uplink} type veth peer name eth0 netns {self.world}",
            f"addr add {self.host_address}/24 dev {self.uplink}",
            f"addr add fd77:2::1/64 dev {self.uplink} nodad",
            "link add br0 type bridge",
            "addr add 10.77.1.1/24 dev br0",
            "addr add fd77:1::1/64 dev br0 nodad",
            f"link set {self.uplink} up",
            "link set br0 up",
            "link set lo up",
        )
        self._ip(
            self.world,
            f"addr add {self.world_address}/24 dev eth0",
            "addr add fd77:2::2/64 dev eth0 nodad",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {self.host_address}",
            "route add ::/0 via fd77:2::1",
        )
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
        self.run(self.host, "sh", "-c", forward)
        for number in range(self._wanted):
            self._container(number)

    def _container(self, number: int) -> None:
        space, veth, address = f"{self.name}c{number}", f"vc{number}", f"10.77.1.{10 + number}"
        self._namespace(space)
        self._ip(
            self.host,
            f"link add {veth} type veth peer name eth0 netns {space}",
            f"link set {veth} master br0 up",
        )
        self._ip(
            space,
            f"addr add {address}/24 dev eth0",
            f"addr add fd77:1::{10 + number}/64 dev eth0 nodad",
            "link set eth0 up",
            "link set lo up",
            "route add default via 10.77.1.1",
            "route add ::/0 via fd77:1::1",
        )
        process = self.process(["sleep", "100000"], space, sysfs=True)
        wait_for(
            lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", f"the process in {space} runs"
        )
        self.containers.append(Inside(space, address, process.pid, veth))

    def _namespace(self, space: str) -> None:
        subprocess.run(["ip", "netns", "add", space], check=True, capture_output=True, timeout=10, env=_env())
        self._stack.callback(
            subprocess.run, ["ip", "netns", "del", space], capture_output=True, timeout=10, env=_env()
        )

    def _ip(self, namespace: str, *commands: str) -> None:
        done = subprocess.run(
            ["ip", "-n", namespace, "-batch", "-"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            timeout=20,
            env=_env(),
        )
        if done.returncode:
            raise RuntimeError(f"cannot build {namespace}: {done.stderr.strip()}")


@dataclass(frozen=True, slots=True)
class Flow:
    """TCP from `client` to `server` (the other way with `reverse`). `prefix` runs before the client's iperf3."""

    client: str
    server: str
    address: str
    streams: int = 1
    reverse: bool = False
    prefix: tuple[str, ...] = ()
    port: int = 0


class Shaper:
    """The shaping of the host of a rig."""

    def __init__(self, process: subprocess.Popen[str], settings: Mapping[str, Any]) -> None:
        self._process = process
        self._write(settings)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def round(
        self, *asks: tuple[str, int, Mapping[str, int]], look: bool = True, pulling: bool = False
    ) -> dict[str, Any]:
        """Ask for (unit, pid, bandwidth), and return what was done.

        Without `look` no interface counts as changed by others, as between two events of the kernel.
        """
        self._write({"asks": asks, "look": look, "pulling": pulling})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the shaper ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def settle(self, *asks: tuple[str, int, Mapping[str, int]]) -> None:
        """Go round, as an agent does, until everything that is asked for is in force."""
        troubles: list[str] = []

        def in_force() -> bool:
            net = self.round(*asks)["net"]
            troubles[:] = [unit["trouble"] for unit in net["units"]]
            return not any(troubles)

        try:
            wait_for(in_force, "bandwidth is in force")
        except RuntimeError as error:
            raise RuntimeError(f"{error}: {troubles}") from None

    def end(self) -> None:
        """Kill it; what it made stands."""
        self._process.kill()
        self._process.wait(10)

    def _write(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()


def run_in(namespace: str, *argv: str) -> str:
    """Run a command in a network namespace and return what it wrote; a failure raises with what it said."""
    # nsenter, not `ip netns exec`: that one hides the cgroups
    inside = ["nsenter", f"--net=/run/netns/{namespace}"]
    done = subprocess.run([*inside, *argv], capture_output=True, text=True, timeout=30, env=_env())
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout[-400:]}")
    return done.stdout


def everything(namespace: str) -> str:
    """Return all that shapes in a network namespace, as tc and iptables write it, and its interfaces."""
    listed = run_in(namespace, "ip", "-br", "link").splitlines()
    links = sorted(line.split()[0].partition("@")[0] for line in listed)
    shown = [*sorted(run_in(namespace, "tc", "qdisc", "show").splitlines()), *links]
    for link in links:
        with _gone_is_fine():
            for which in ((), ("ingress",)):
                shown.append(run_in(namespace, "tc", "filter", "show", "dev", link, *which))
    for program in ("iptables-save", "ip6tables-save"):
        saved = run_in(namespace, program, "-t", "mangle")
        shown += [line for line in saved.splitlines() if line.startswith("-") or "UNITFLEET" in line]
    # numbers that the kernel gives to filters and actions as they come
    return re.sub(r"\bfh \S+|\bht \S+|\bindex \d+|\bkey ht \S+", "", "\n".join(shown))


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    """Let an interface go while it is looked at."""
    try:
        yield
    except RuntimeError as error:
        if "Cannot find device" not in str(error):
            raise


def wait_for(condition: Callable[[], bool], what: str, *, timeout_s: float = 10.0) -> None:
    """Wait until `condition` holds; raises `RuntimeError` saying `what` did not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {timeout_s:g} s in vain: {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def own_group(name: str) -> Iterator[Path]:
    """Make a control group in the unified hierarchy meanwhile; processes left in it are killed."""
    unified = Path("/sys/fs/cgroup")
    group = (unified if (unified / "cgroup.controllers").exists() else unified / "unified") / name
    group.mkdir()
    try:
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: _removed(group), f"{group} is removed")


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(10)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _env() -> dict[str, str]:
    paths = os.pathsep.join(str(TOP / part) for part in ("core", "agent", "tests"))
    return {**os.environ, "PATH": _PATH, "PYTHONPATH": paths}
