"""What a development cluster is made of: one etcd, two masters, three machines; their ports and command lines."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping

from unitctl.dev.layout import ADDRESS, Layout, Record

MASTERS = ("master-1", "master-2")
MACHINES: Mapping[str, Mapping[str, str]] = {
    "m1": {"zone": "a", "disk": "ssd"},
    "m2": {"zone": "b", "disk": "hdd"},
    "m3": {"zone": "c", "disk": "ssd", "gpu": "yes"},
}
DAEMONS = ("etcd", *MASTERS, *MACHINES)
"""In the order they start."""

PORTS = {"etcd": 7379, "etcd-peer": 7479, "master-1": 7001, "master-2": 7002, "m1": 7101, "m2": 7102, "m3": 7103}
"""The first port each tries; the next free one when it is taken."""

PROFILE = "fast"


def metadata(name: str) -> str:
    """Return a machine's metadata as k=v,…; "" for another daemon."""
    return ",".join(f"{key}={value}" for key, value in MACHINES.get(name, {}).items())


def endpoints(record: Record) -> tuple[str, ...]:
    """Where the API answers."""
    return tuple(f"http://{ADDRESS}:{record.ports[name]}" for name in MASTERS)


def command(layout: Layout, record: Record, name: str) -> list[str]:
    """Return the command line of a master or an agent."""
    program = "unit_master" if name in MASTERS else "unit_agent"
    words = [
        *(sys.executable, "-P", "-m", program, "--name", name, "--profile", PROFILE),
        *("--etcd", f"{ADDRESS}:{record.ports['etcd']}", "--listen", f"{ADDRESS}:{record.ports[name]}"),
        *("--state-dir", str(layout.state(name)), "--cluster-key-file", str(layout.key_file)),
    ]
    if name in MASTERS:
        words += ["--secrets-key-file", str(layout.secrets_key_file)]
        return [*words, "--token-file", str(layout.token_file), "--socket", ""]
    return [
        *words,
        *("--metadata", metadata(name), "--address", ADDRESS),
        *("--socket", layout.agent_socket(name), "--docker-socket", record.docker_socket),
        *("--strict-dir", str(layout.state(name) / "strict")),
    ]


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of masters and agents: `UNITFLEET_*` of the caller would change what they do."""
    return {name: value for name, value in env.items() if not name.startswith("UNITFLEET_")}


def choose_ports(wished: Mapping[str, int]) -> dict[str, int]:
    """Return a free port of 127.0.0.1 for each daemon: the one wished for, or the next above it."""
    chosen: dict[str, int] = {}
    for name, port in wished.items():
        chosen[name] = next(each for each in range(port, 65536) if each not in chosen.values() and is_free(each))
    return chosen


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is closing does not count
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
        return True
