"""Whole hosts: systemd as PID 1 in a container each, in an Engine of the lab, to install, cut, kill and boot.

    with Hosts() as hosts:
        host = hosts.create("node-a")
        host.wait_booted()
        host.run("systemctl", "enable", "--now", "etcd")

A host has a file system, an address, a boot id and a tree of control groups of its own; the kernel and its clock
are shared. Hosts reach each other, by name too, and nothing else: what is installed on them comes without a
network. `Hosts` leaves nothing behind, and what a killed run left is swept by the next (harness/engines.py).
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from docker.types import IPAMConfig, IPAMPool

from harness import host_image
from harness.engines import Engines
from harness.image import image_archive

IMAGE = "unitfleet-host:1"
BOOT_S = 60.0
NETWORK = "hosts"

# The kernel has one boot id for all hosts. And systemd is to track its services by v1's hierarchy of its own name,
# out of which the agent takes no unit: that units outlive it must be what the agent's service says, not luck.
_INIT = """set -e
cat /proc/sys/kernel/random/uuid >/run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
if [ -d /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi
exec /lib/systemd/systemd systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1
"""


class HostFailed(AssertionError):
    """A host did not do what was asked of it; says what it said."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command on a host came to."""

    code: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.stdout}{self.stderr}"


class Host:
    """One host; made by `Hosts.create`."""

    def __init__(self, name: str, address: str, container: Any, network: Any) -> None:
        self.name = name
        self.address = address
        self.is_on = True
        self._container = container
        self._network = network

    def wait_booted(self, *, timeout_s: float = BOOT_S) -> None:
        """Wait until systemd has started all it was to start; raises `HostFailed` when a unit of it failed."""

        def up() -> bool:
            state = self.attempt("systemctl", "is-system-running").stdout.strip()
            if state == "degraded":
                failed = self.attempt("systemctl", "--failed", "--no-legend", "--plain")
                raise HostFailed(f"{self.name} booted, but these failed:\n{failed.stdout}")
            return state == "running"

        self.wait_until(up, "it is booted", timeout_s=timeout_s)

    def run(self, *argv: str, timeout_s: float = 60.0) -> str:
        """Run a command and return what it wrote to stdout; raises `HostFailed` when it fails."""
        ran = self.attempt(*argv, timeout_s=timeout_s)
        if ran.code != 0:
            raise HostFailed(f"cannot run {' '.join(argv)} on {self.name}: {ran}")
        return ran.stdout

    def attempt(self, *argv: str, timeout_s: float = 60.0) -> Ran:
        """Run a command, and return what came of it; 124 when it was not done in time."""
        code, (out, err) = self._container.exec_run(["timeout", "-k", "2", f"{timeout_s}", *argv], demux=True)
        return Ran(code, (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace"))

    def wait_until(self, condition: Callable[[], bool], what: str, *, timeout_s: float = 30.0) -> None:
        """Wait for a condition; raises `HostFailed` with the end of the journal when it does not come true."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise HostFailed(f"{self.name}: waited {timeout_s:g} s in vain: {what}\n{self.journal(lines=60)}")
            time.sleep(0.1)

    def active(self, unit: str) -> bool:
        """Tell whether systemd says that the unit is active."""
        return self.attempt("systemctl", "is-active", unit).stdout.strip() == "active"

    def property(self, unit: str, name: str) -> str:
        """Return what `systemctl show` says of one property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def journal(self, unit: str = "", *, lines: int = 200) -> str:
        """Return the last lines of a unit's journal, or of the host's."""
        only = ("-u", unit) if unit else ()
        return self.attempt("journalctl", "--no-pager", "-o", "cat", "-n", str(lines), *only).stdout

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file or directory, or a link that leads nowhere."""
        return self.attempt("sh", "-c", '[ -e "$1" ] || [ -L "$1" ]', "sh", path).code == 0

    def copy_in(self, content: bytes | str | Path, path: str, *, mode: int = 0o644) -> None:
        """Put a file on the host; not below /run or /tmp, which a copy from outside would go beneath."""
        _put(self._container, {path: content}, mode)

    def load_image(self, archive: bytes | None = None) -> None:
        """Load an image archive (the lab's busybox) into the host's own Engine."""
        self.copy_in(archive or image_archive(), "/root/image.tar")
        self.run("docker", "load", "-i", "/root/image.tar", timeout_s=120)

    # --- what happens to hosts

    def cut(self) -> None:
        """Take the host off the network; all on it runs on."""
        self._network.disconnect(self._container, force=True)

    def heal(self) -> None:
        """Put it on the network again, with its address; the interface may have another name."""
        self._network.connect(self._container, ipv4_address=self.address, aliases=[self.name])

    def kill(self) -> None:
        """Cut the power: all that runs on the host ends at once; its disk stays."""
        self.is_on = False
        self._container.kill()
        self._container.wait(timeout=30)

    def shut_down(self) -> None:
        """Switch the host off in good order: systemd stops what it has started."""
        self.is_on = False
        self._container.stop(timeout=60)

    def start(self) -> None:
        """Switch the power on again."""
        self._container.start()
        self.is_on = True

    def pause(self) -> None:
        """Freeze all that runs on the host."""
        self._container.pause()

    def resume(self) -> None:
        """Let a frozen host go on."""
        self._container.unpause()


class Hosts:
    """A lab with one Engine, in which hosts are containers; a context manager.

    It raises `NoHostImage` on entry where no image of a host can be had.
    """

    def __init__(self) -> None:
        self._lab = Engines(1, image=False)
        self._stack = contextlib.ExitStack()
        self._engine: Any = None
        self._network: Any = None
        self._made: list[Any] = []

    @staticmethod
    def available() -> str | None:
        """Return why no whole host can be had here, or None; whether there is an image is seen on entry."""
        if reason := Engines.available():
            return reason
        if not Path("/sys/fs/cgroup/systemd").is_dir():
            return "needs control groups v1 with systemd's hierarchy: hosts were not made on v2 yet"
        return None

    def __enter__(self) -> Hosts:
        archive = host_image.host_image()
        try:
            self._stack.enter_context(self._lab)
            self._engine = self._lab.witness(0, timeout_s=600)
            self._engine.api.import_image(
                src=str(archive), repository=IMAGE.split(":")[0], tag=IMAGE.split(":")[1]
            )
            pool = IPAMPool(subnet=f"{self._subnet}.0/24", gateway=self.gateway)
            self._network = self._engine.networks.create(NETWORK, ipam=IPAMConfig(pool_configs=[pool]))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def create(
        self,
        name: str,
        *,
        docker: bool = False,
        files: Mapping[str, bytes | str | Path] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> Host:
        """Make a host and switch it on. `files` are there before its first boot, as `secrets` are, 0600.

        With `docker` its Docker Engine starts at boot. cloud-init runs where `files` hold a seed
        (/var/lib/cloud/seed/nocloud/…) or name a datasource (/etc/cloud/…).
        """
        [address] = self.coming(1)
        api = self._engine.api
        endpoint = api.create_endpoint_config(ipv4_address=address, aliases=[name])
        host_config = api.create_host_config(
            binds=["/sys/fs/cgroup:/sys/fs/cgroup:ro"],
            tmpfs={path: "exec,size=256m" for path in ("/run", "/run/lock", "/tmp")},
            cap_add=["SYS_ADMIN", "NET_ADMIN"],
            security_opt=["seccomp=unconfined"],
            network_mode=NETWORK,
            # nobody knows names beyond the lab, unless a test serves that at the gateway: then it is known at once
            dns=[self.gateway],
            dns_opt=["timeout:1", "attempts:1"],
        )
        # /proc as it is on a host, for the Engine inside
        host_config |= {"MaskedPaths": [], "ReadonlyPaths": []}
        made = api.create_container(
            IMAGE,
            ["sh", "-c", _INIT],
            name=name,
            hostname=name,
            environment={"container": "docker", "LC_ALL": "C.UTF-8"},
            stop_signal="SIGRTMIN+3",
            volumes=["/var/lib/docker", "/var/lib/containerd"] if docker else [],
            networking_config=api.create_networking_config({NETWORK: endpoint}),
            host_config=host_config,
        )
        container = self._engine.containers.get(made["Id"])
        self._made.append(container)
        _put(container, {**self._beforehand(len(self._made), docker=docker, files=files or {}), **(files or {})})
        if secrets:
            _put(container, secrets, 0o600)
        container.start()
        return Host(name, address, container, self._network)

    def remove(self, host: Host) -> None:
        """Take a host away, with all on it."""
        self._engine.containers.get(host.name).remove(force=True, v=True)

    @property
    def lab(self) -> Engines:
        """Return the lab that the hosts are in."""
        return self._lab

    @property
    def gateway(self) -> str:
        """Return the lab's own address among the hosts: what `lab.run_in(0, …)` serves is there."""
        return f"{self._subnet}.1"

    def coming(self, count: int) -> list[str]:
        """Return the addresses of the hosts that are made next."""
        return [f"{self._subnet}.{10 + len(self._made) + number}" for number in range(count)]

    @property
    def _subnet(self) -> str:
        return f"10.214.{self._lab.number}"

    def _beforehand(
        self, number: int, *, docker: bool, files: Mapping[str, bytes | str | Path]
    ) -> dict[str, bytes | str | Path]:
        found: dict[str, bytes | str | Path] = {}
        if not any(path.startswith(("/var/lib/cloud/seed", "/etc/cloud/")) for path in files):
            found["/etc/cloud/cloud-init.disabled"] = ""
        if docker:
            # groups by systemd: they lie within the host's own, where a group by its full path would not
            settings = {"bip": f"172.29.{number}.1/24", "exec-opts": ["native.cgroupdriver=systemd"]}
            found["/etc/docker/daemon.json"] = json.dumps(settings)
            found["/etc/systemd/system/multi-user.target.d/docker.conf"] = "[Unit]\nWants=docker.service\n"
        return found


def _put(container: Any, files: Mapping[str, bytes | str | Path], mode: int = 0o644) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, content in files.items():
            if isinstance(content, Path):
                content = content.read_bytes()
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode, entry.mtime = len(data), mode, int(time.time())
            archive.addfile(entry, io.BytesIO(data))
    if not container.put_archive("/", out.getvalue()):
        raise HostFailed(f"cannot put {', '.join(files)} on {container.name}")
