"""When a host reached which phase of its boot, by its own journal: seconds of the kernel's monotonic clock."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

from harness.hosts import Host, HostFailed

_SAID = ("joined as machine", "is ready: ")


@dataclass(frozen=True, slots=True)
class Phases:
    """How long each phase took, seconds; together they are the time from the launch until the host is ready."""

    boot: float  # until cloud-init begins
    cloud_init: float  # until it runs our script
    package: float  # until the package is installed and the agent started
    agent_up: float  # until it has its identity and serves
    joined: float
    warm: float

    @property
    def total(self) -> float:
        """Return the sum."""
        return sum(self.figures().values())

    def figures(self) -> dict[str, float]:
        """Return them by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def phases(host: Host, launched: float) -> Phases:
    """Read the first boot of a host that is ready."""
    joined, ready = (_said(host, words) for words in _SAID)
    moments = [
        launched,
        _moment(host, "cloud-init-local.service", "ExecMainStart"),
        _moment(host, "cloud-final.service", "ExecMainStart"),
        _moment(host, "unit-agent.service", "ExecMainStart"),
        _moment(host, "unit-agent.service", "ActiveEnter"),
        joined,
        ready,
    ]
    return Phases(*(round(after - before, 1) for before, after in itertools.pairwise(moments)))


def _moment(host: Host, unit: str, what: str) -> float:
    return int(host.property(unit, f"{what}TimestampMonotonic")) / 1e6


def _said(host: Host, words: str) -> float:
    """Return when the agent first said something since the host has booted."""
    lines = host.run("journalctl", "-u", "unit-agent", "-b", "-o", "json").splitlines()
    for line in map(json.loads, lines):
        if words in str(line["MESSAGE"]):
            return int(line["__MONOTONIC_TIMESTAMP"]) / 1e6
    raise HostFailed(f"the agent of {host.name} never said {words!r}:\n{host.journal('unit-agent')}")
