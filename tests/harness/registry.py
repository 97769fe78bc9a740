"""Debian's docker-registry on the loopback of a lab's host: the real thing, with its access log as a witness."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import docker
import pytest

from harness import trickle
from harness.engines import Engines, wait_for
from harness.image import image_archive

PORT = 5000
USER, PASSWORD = "agent", "open sesame"
_HASH = "$2b$04$lKzMvHbBzzXmqnCuGFmxR.wXCz6kBGePnswxl9lh4WRezZfOpqUDa"  # of PASSWORD, by bcrypt
_MANIFEST = re.compile(r'"GET (/v2/[^ ]+/manifests/[^ ]+) HTTP[^"]*" 200')


class Registry:
    """A registry at 127.0.0.1 in the network of one host, or wider. Those of one `folder` have the same images."""

    def __init__(
        self,
        lab: Engines,
        host: int,
        folder: Path,
        *,
        port: int = PORT,
        password: bool = False,
        listen: str = "127.0.0.1",
    ) -> None:
        self._lab = lab
        self._host = host
        self._folder = folder
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        self._listen = f"{listen}:{port}"
        self.address = f"127.0.0.1:{port}"
        self.log = folder / f"access-{host}-{port}.log"

    def start(self) -> None:
        """Serve; skips the test where there is no docker-registry."""
        if shutil.which("docker-registry") is None:
            pytest.skip("needs docker-registry, which is not installed")
        self._folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self._folder / "data")}},
            "http": {"addr": self._listen},
        }
        if self._password:
            (self._folder / "htpasswd").write_text(f"{USER}:{_HASH}\n")
            config["auth"] = {"htpasswd": {"realm": "lab", "path": str(self._folder / "htpasswd")}}
        path = self._folder / f"config-{self._host}-{self.address.rpartition(':')[2]}.yml"
        path.write_text(json.dumps(config))
        with self.log.open("ab") as log:
            argv = ["docker-registry", "serve", str(path)]
            self._process = self._lab.run_in(self._host, argv, output=log.fileno())

    def stop(self) -> None:
        """End it, as a registry that is down."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def push(self, name: str, note: str, witness: Any) -> str:
        """Push an image of this note through the host's Engine, forget it there, and return its reference."""
        image = f"{self.address}/{name}"
        auth = {"username": USER, "password": PASSWORD} if self._password else None
        witness.images.load(image_archive(image, note))

        def pushed() -> bool:
            said = list(witness.api.push(image, stream=True, decode=True, auth_config=auth))
            return not any("error" in line for line in said)

        wait_for(pushed, f"{image} is pushed", timeout_s=20)
        with contextlib.suppress(docker.errors.ImageNotFound):
            witness.images.remove(image, force=True)
        return image

    def pulled(self) -> list[str]:
        """Return the manifests that were fetched, in order, by its access log."""
        return _MANIFEST.findall(self.log.read_text(errors="replace"))


class SlowRegistry:
    """A registry behind a line as slow as a test wants, on one host. Those of one `folder` share their images.

    Pushes go past the line, to the registry behind it.
    """

    def __init__(self, lab: Engines, host: int, folder: Path) -> None:
        self._lab = lab
        self._host = host
        self._rate = folder / f"rate-{host}"
        self._behind = Registry(lab, host, folder, port=PORT + 1)
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"127.0.0.1:{PORT}"

    def push(self, name: str, note: str, witness: Any) -> str:
        """Push an image of this note, forget it there, and return the reference that comes by the slow line."""
        return self._behind.push(name, note, witness).replace(self._behind.address, self.address)

    def slow(self, rate: int) -> None:
        """Let so many bytes a second pass from now on; 0: all at once."""
        fresh = self._rate.with_suffix(".new")
        fresh.write_text(str(rate))
        fresh.replace(self._rate)

    def start(self) -> None:
        """Serve, at once until it is told to be slow."""
        self._behind.start()
        self.slow(0)
        argv = [sys.executable, trickle.__file__, str(PORT), str(PORT + 1), str(self._rate)]
        self._process = self._lab.run_in(self._host, argv)
        namespace = f"--net=/run/netns/{self._lab.namespace(self._host)}"

        def listens() -> bool:
            shown = subprocess.run(
                ["nsenter", namespace, "ss", "-Htln"], capture_output=True, text=True, timeout=10
            )
            return all(f"{address} " in shown.stdout for address in (self.address, self._behind.address))

        wait_for(listens, "the slow registry listens", timeout_s=10)

    def stop(self) -> None:
        """End it."""
        self._behind.stop()
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


Serves = TypeVar("Serves", Registry, SlowRegistry)


@contextlib.contextmanager
def serving(registry: Serves) -> Iterator[Serves]:
    """Run a registry meanwhile."""
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()
