"""Instances of a cloud that boot with one user-data, and what their cluster says of them.

fleet = Fleet(cloud, user_data("--role", "agent", …), asked=control)
fleet.launch("ad-1", "ad-2")
fleet.wait(lambda: fleet.ready("ad-1", "ad-2"), "two hosts are ready", "ad-1", "ad-2")
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from harness import packaged
from harness.cloud import Cloud, Instance
from harness.hosts import Host, HostFailed

BOUND_S = 60.0
DEADLINE_S = 2 * BOUND_S
FACTS = {
    "instance-type": "t3.small",
    "placement/availability-zone": "us-east-1a",
    "placement/region": "us-east-1",
    "tags/instance/Name": "ad server",
    "tags/instance/pool": "ads",
}
_LOOKS = (("list-machines",), ("list-units",), ("images", "ls"), ("events", "-n", "30"))


def user_data(*options: str) -> str:
    """Return what `unitctl bootstrap render` of this tree prints."""
    argv = [sys.executable, "-m", "unitctl", "bootstrap", "render", *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert f"{len(done.stdout):,} of 16,384 bytes" in done.stderr
    return done.stdout


def told(capsys: pytest.CaptureFixture[str], figures: Mapping[str, Any]) -> None:
    """Show figures in a line of the test's output, whether it passes or not."""
    with capsys.disabled():
        print(f"\n{json.dumps(figures)}", end="")


class Fleet:
    """Hosts with the same user-data and the same `secrets` in their image; `asked`: the host whose unitctl is."""

    def __init__(
        self, cloud: Cloud, user_data: str, *, asked: Host | None = None, secrets: Mapping[str, str] | None = None
    ) -> None:
        self.cloud = cloud
        self.user_data = user_data
        self.instances: dict[str, Instance] = {}
        self._asked = asked
        self._secrets = secrets

    @property
    def asked(self) -> Host:
        """Return the host that is asked: the one named, else the first instance that is on."""
        return self._asked or next(each.host for each in self.instances.values() if each.host.is_on)

    def launch(self, *names: str) -> None:
        """Launch instances of these names."""
        for name in names:
            self.instances[name] = self.cloud.launch(name, self.user_data, FACTS, self._secrets)

    def host(self, name: str) -> Host:
        """Return the host of an instance."""
        return self.instances[name].host

    def machines(self) -> dict[str, dict[str, Any]]:
        """Return what `list-machines` shows, by name."""
        return {machine["name"]: machine for machine in packaged.machines(self.asked)}

    def ready(self, *names: str) -> bool:
        """Tell whether these machines are ready."""
        machines = self.machines()
        return all(name in machines and machines[name]["status"] == "ready" for name in names)

    def running(self) -> dict[str, list[str]]:
        """Return on which hosts each unit runs, as the Engines of those tell that are up."""
        found: dict[str, list[str]] = {}
        for name, instance in self.instances.items():
            if not instance.host.is_on:
                continue
            listed = instance.host.attempt("docker", "ps", "--format", '{{.Label "unitfleet.unit"}}')
            for unit in listed.stdout.split() if listed.code == 0 else ():
                found.setdefault(unit, []).append(name)
        return found

    def wait(self, condition: Callable[[], bool], what: str, *names: str, within_s: float = DEADLINE_S) -> float:
        """Wait for a condition and return how long; what fails comes with the journals of the hosts named."""
        began = time.monotonic()
        try:
            self.asked.wait_until(condition, what, timeout_s=within_s)
        except HostFailed as error:
            said = [str(error), *(self.asked.attempt("unitctl", *verb).stdout for verb in _LOOKS)]
            for name in names:
                output = self.host(name).attempt("tail", "-n", "40", "/var/log/cloud-init-output.log").stdout
                said.append(f"--- {name}\n{output}{self.host(name).journal('unit-agent', lines=40)}")
            raise HostFailed("\n".join(said)) from None
        return time.monotonic() - began
