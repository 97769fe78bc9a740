"""A whole host with our package on it: installed as an operator does, and seen from outside.

What runs is told by /proc, the Docker Engine and systemd of the host, never by an agent.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from harness.hosts import Host, HostFailed

DAEMONS = ("unit-master", "unit-agent")
SERVING_S = 30.0

_PROCESSES = """
import glob, json
found = {}
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        said = dict(entry.split("=", 1) for entry in open(path).read().split("\\0") if "=" in entry)
        stat = open(path.replace("environ", "stat")).read().rpartition(")")[2].split()
    except OSError:
        continue  # it has ended meanwhile
    if said.get("UNITFLEET_UNIT") and stat[0] != "Z":
        found.setdefault(said["UNITFLEET_UNIT"], []).append([int(path.split("/")[2]), stat[19]])
print(json.dumps(found))
"""


def install(host: Host, package: Path) -> str:
    """Install a .deb, with nothing but itself; returns what dpkg said."""
    host.copy_in(package, f"/root/{package.name}")
    return host.run("dpkg", "-i", f"/root/{package.name}", timeout_s=120)


def serve(host: Host) -> None:
    """Enable and start etcd and both daemons, and wait until the machine has joined."""
    host.run("systemctl", "enable", "--now", "etcd", *DAEMONS)
    wait_joined(host)


def wait_joined(host: Host) -> None:
    """Wait until the master sees the machine; while it is warming it takes units of the process driver."""
    host.wait_until(
        lambda: [machine["status"] for machine in machines(host)] in (["ready"], ["warming"]),
        "the machine has joined",
        timeout_s=SERVING_S,
    )


def wait_ready(host: Host) -> None:
    """Wait until the machine takes containers, too; raises with what it waits for."""
    try:
        host.wait_until(
            lambda: [machine["status"] for machine in machines(host)] == ["ready"],
            "it is ready",
            timeout_s=SERVING_S,
        )
    except HostFailed as error:
        raise HostFailed(f"{error}\n{machines(host)}") from error


def machines(host: Host) -> list[dict[str, Any]]:
    """Return what `unitctl list-machines` shows; nothing while no master answers."""
    return _listed(host, "list-machines")


def units(host: Host) -> list[dict[str, Any]]:
    """Return what `unitctl list-units` shows of units that are no templates; nothing while no master answers."""
    return [unit for unit in _listed(host, "list-units") if not unit["is_template"]]


def start(host: Host, name: str, content: str, wanted: str) -> None:
    """Submit a unit file and start units of it; returns once they run."""
    host.copy_in(content, f"/root/{name}")
    host.run("unitctl", "submit", f"/root/{name}")
    host.run("unitctl", "start", wanted, timeout_s=180)


def processes(host: Host) -> dict[str, list[tuple[int, str]]]:
    """Return the processes of each unit: pid and when it began. The same pair is the same process."""
    found = json.loads(host.run("python3", "-c", _PROCESSES))
    return {unit: sorted((pid, began) for pid, began in seen) for unit, seen in sorted(found.items())}


def containers(host: Host) -> dict[str, tuple[str, str]]:
    """Return the running containers of units: which, and since when."""
    listed = host.run("docker", "ps", "-q", "--no-trunc", "--filter", "label=unitfleet.unit").split()
    shown = '{{index .Config.Labels "unitfleet.unit"}} {{.Id}} {{.State.StartedAt}}'
    lines = host.run("docker", "inspect", "-f", shown, *listed).splitlines() if listed else []
    return {unit: (which, since) for unit, which, since in (line.split() for line in lines)}


def answers(host: Host, port: int) -> str:
    """Return what is served on a port of the host, "" when nothing is."""
    return host.attempt("curl", "-s", "--max-time", "2", f"http://127.0.0.1:{port}/").stdout.strip()


def agent_status(host: Host) -> str:
    """Return what the agent says in `systemctl status`."""
    with contextlib.suppress(AssertionError):
        return host.property("unit-agent", "StatusText")
    return ""


def _listed(host: Host, verb: str) -> list[dict[str, Any]]:
    ran = host.attempt("unitctl", verb, "-o", "jsonl")
    return [json.loads(line) for line in ran.stdout.splitlines()] if ran.code == 0 else []
