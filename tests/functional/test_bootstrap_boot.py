"""The scripts of user-data, run by a real shell: they install once, stop at what fails, and apply the orders."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from unitctl.bootstrap.coreos.units import Units
from unitctl.bootstrap.scripts import each_boot, first_boot, package

PACKAGE = b"a package"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    """The URL of a package on loopback."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "unitfleet.deb").write_bytes(PACKAGE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/unitfleet.deb"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Host:
    """A host whose apt-get, systemctl and unitctl only write down what they were told; apt-get brings unitctl."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.journal = directory / "journal"
        self.cache = directory / "cache"
        note = f'#!/bin/sh\necho "${{0##*/}} $*" >> {self.journal}\n'
        self.write("systemctl", note)
        self.unitctl = note
        bring = f"cp {directory}/unitctl {self.bin}/unitctl"
        (directory / "unitctl").write_text(note)
        (directory / "unitctl").chmod(0o755)
        self.write("apt-get", f'{note}case "$1" in install) {bring};; esac\n')

    def write(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        text = script.replace("/var/cache/unitfleet", str(self.cache))
        env = {**os.environ, "PATH": f"{self.bin}:/usr/bin:/bin", "no_proxy": "*"}
        return subprocess.run(
            ["sh", "-c", text, "script", *arguments], env=env, capture_output=True, text=True, timeout=30
        )

    def told(self) -> list[str]:
        return self.journal.read_text().splitlines() if self.journal.exists() else []


def test_the_first_boot_installs_once_and_then_starts_the_services(tmp_path: Path, shop: str) -> None:
    host = Host(tmp_path)
    script = first_boot(package(f"{shop}#sha256={hashlib.sha256(PACKAGE).hexdigest()}"), ["unit-agent.service"])
    done = host.run(script)
    assert done.returncode == 0, done.stderr
    assert (host.cache / "unitfleet.deb").read_bytes() == PACKAGE
    assert host.told() == [
        "apt-get update -q",
        f"apt-get install -q -y -o Dpkg::Options::=--force-confold {host.cache}/unitfleet.deb",
        "systemctl daemon-reload",
        "systemctl enable --now unit-agent.service",
    ]
    host.journal.unlink()
    assert host.run(script).returncode == 0
    assert host.told() == ["systemctl daemon-reload", "systemctl enable --now unit-agent.service"]


def test_a_package_that_is_another_than_was_meant_is_never_installed(tmp_path: Path, shop: str) -> None:
    host = Host(tmp_path)
    done = host.run(first_boot(package(f"{shop}#sha256={'0' * 64}"), ["unit-agent.service"]))
    assert done.returncode != 0
    assert host.told() == []


def test_a_host_without_the_package_says_so(tmp_path: Path) -> None:
    host = Host(tmp_path)
    done = host.run(first_boot(None, []))
    assert done.returncode == 1
    assert "unitfleet is not installed on this host" in done.stderr
    assert host.run(each_boot()).returncode == 0
    assert host.told() == []


def test_a_host_that_must_think_applies_its_orders_at_each_boot(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write("unitctl", host.unitctl)
    assert host.run(first_boot(None, [])).returncode == 0
    assert host.run(each_boot()).returncode == 0
    assert host.told() == ["unitctl bootstrap apply /etc/unitfleet/bootstrap.toml"] * 2


def test_units_of_coreos_wait_for_their_turn_at_the_first_boot(tmp_path: Path) -> None:
    host = Host(tmp_path)
    file = Units(orders=["enable a.service", "--no-block start a.service"]).script()
    assert file is not None
    script = file.content.replace("/var/lib/cloud/instance", str(tmp_path))
    assert host.run(script).returncode == 0
    assert host.told() == []
    assert host.run(script, "first").returncode == 0
    orders = ["systemctl daemon-reload", "systemctl enable a.service", "systemctl --no-block start a.service"]
    assert host.told() == orders
    assert host.run(script).returncode == 0
    assert host.told() == orders * 2
