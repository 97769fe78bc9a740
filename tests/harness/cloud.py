"""A cloud in the lab: whole hosts as EC2's instances, which get all they know from 169.254.169.254 at their boot.

with Cloud(hosts, folder) as cloud:
    instance = cloud.launch("web-1", user_data, facts={"placement/region": "eu-west-1"})
    cloud.tell(instance, {"spot/instance-action": …})
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from harness import cloud_service
from harness.hosts import Host, Hosts
from harness.registry import Registry

METADATA = "169.254.169.254"

# What an image of this cloud says. The datasource is named alone: a container has no DMI to tell of EC2.
_IMAGE = """datasource_list: [Ec2]
datasource:
  Ec2: {strict_id: false, metadata_urls: ["http://169.254.169.254"], max_wait: 3, timeout: 2}
network: {config: disabled}
apt: {preserve_sources_list: true}
"""


@dataclass
class Instance:
    """A host of the cloud; `launched`: when, by the kernel's monotonic clock, which all hosts share."""

    host: Host
    id: str
    launched: float
    user_data: str
    facts: dict[str, str]


class Cloud:
    """A metadata service, a shop for our package, an empty mirror, and a registry, all in the hosts' lab."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self._hosts = hosts
        self._folder = folder
        self._service: subprocess.Popen[bytes] | None = None
        self.registry = Registry(hosts.lab, 0, folder / "registry", listen="0.0.0.0")

    def __enter__(self) -> Cloud:
        for name in ("instances", "files/apt"):
            (self._folder / name).mkdir(parents=True)
        (self._folder / "files/apt/Packages").touch()
        space = self._hosts.lab.namespace(0)
        subprocess.run(["ip", "-n", space, "addr", "add", f"{METADATA}/32", "dev", "lo"], check=True, timeout=10)
        with (self._folder / "service.log").open("wb") as log:
            argv = [sys.executable, cloud_service.__file__, str(self._folder)]
            self._service = self._hosts.lab.run_in(0, argv, output=log.fileno())
        self.registry.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.registry.stop()
        if self._service is not None:
            self._service.kill()
            self._service.wait(10)

    def offer(self, package: Path) -> str:
        """Put a package into the shop; returns its URL with its checksum, as `--package` takes it."""
        shutil.copy(package, self._folder / "files" / package.name)
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        return f"http://{self._hosts.gateway}/files/{package.name}#sha256={digest}"

    def push(self, name: str) -> str:
        """Put an image of this name into the registry; returns the reference by which hosts pull it."""
        pushed = self.registry.push(name, name, self._hosts.lab.witness(0))
        return pushed.replace("127.0.0.1", self._hosts.gateway)

    def launch(
        self, name: str, user_data: str, facts: Mapping[str, str], secrets: Mapping[str, str] | None = None
    ) -> Instance:
        """Launch an instance. `secrets` are files, 0600, that its image brings."""
        id = f"i-{len(list((self._folder / 'instances').iterdir())):08x}"
        daemon = {
            "bip": "172.29.1.1/24",
            "exec-opts": ["native.cgroupdriver=systemd"],
            "insecure-registries": [f"{self._hosts.gateway}:5000"],
        }
        files: dict[str, bytes | str | Path] = {
            "/etc/cloud/cloud.cfg.d/99_z_cloud.cfg": _IMAGE,
            "/etc/apt/sources.list": f"deb [trusted=yes] http://{self._hosts.gateway}/files/apt ./\n",
            "/etc/docker/daemon.json": json.dumps(daemon),
        }
        [address] = self._hosts.coming(1)
        own = {"ami-id": "ami-1", "instance-id": id, "local-ipv4": address, "local-hostname": name}
        self._write(address, {**own, **facts}, user_data)
        launched = time.monotonic()
        host = self._hosts.create(name, docker=True, files=files, secrets=secrets)
        return Instance(host, id, launched, user_data, {**own, **facts})

    def tell(self, instance: Instance, more: Mapping[str, str]) -> None:
        """Let the metadata service say more to an instance."""
        instance.facts.update(more)
        self._write(instance.host.address, instance.facts, instance.user_data)

    def silence(self, instance: Instance) -> None:
        """Let the metadata service answer nothing but 503 to an instance, until it is told something again."""
        self._write(instance.host.address, instance.facts, instance.user_data, silent=True)

    def _write(self, address: str, facts: Mapping[str, str], user_data: str, *, silent: bool = False) -> None:
        said = {"facts": dict(facts), "user-data": user_data, "silent": silent}
        file = self._folder / "instances" / f"{address}.json"
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(said))
        fresh.replace(file)
