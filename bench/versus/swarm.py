"""Docker Swarm mode on the lab's hosts, by the API of their Engines.

Its agents ask a registry for every task's image, unless the Engine is started with `OFFLINE` in its environment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from harness.image import IMAGE
from harness.sites import Lab
from versus.engine import ask, emptied, remove_all, sockets

OFFLINE = {"DOCKER_SERVICE_PREFER_OFFLINE_IMAGE": "1"}
_PORT = 2377


class Swarm:
    """A Swarm of all hosts; the first `managers` of them manage it."""

    who = "swarm"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._engines = sockets(lab)
        self.restart_delay_s = 5.0
        """Swarm's default."""

    @classmethod
    @asynccontextmanager
    async def up(
        cls, lab: Lab, managers: int = 1, heartbeat_s: float = 0.0, restart_delay_s: float = 5.0
    ) -> AsyncIterator[Swarm]:
        """Found a Swarm, and leave nothing of it unless the lab ends with it. `heartbeat_s` 0: Swarm's own 5 s."""
        swarm = cls(lab)
        swarm.restart_delay_s = restart_delay_s
        await asyncio.to_thread(swarm._found, managers, heartbeat_s)
        yield swarm
        await asyncio.to_thread(swarm._leave)

    def pids(self) -> dict[str, list[int]]:
        """Everything of Swarm is inside of dockerd, its raft too."""
        return {}

    async def start(self, count: int, network: str) -> None:
        """Create a service; returns when it is accepted."""
        spec = {
            "Name": "box",
            "TaskTemplate": {
                "ContainerSpec": {"Image": IMAGE, "Args": ["sleep", "100000"], "StopSignal": "SIGKILL"},
                "RestartPolicy": {"Condition": "any", "Delay": int(self.restart_delay_s * 1e9)},
                "Networks": [{"Target": network}],
            },
            "Mode": {"Replicated": {"Replicas": count}},
        }
        await asyncio.to_thread(ask, self._engines[0], "POST", "/services/create", spec)

    async def clear(self) -> None:
        """Remove the service, and wait until its containers are gone."""
        await asyncio.to_thread(ask, self._engines[0], "DELETE", "/services/box")
        await emptied(self._engines, 300)

    def scale(self, manager: int, count: int) -> None:
        """Ask one manager for so many replicas. Blocks; raises `OSError` or `RuntimeError`."""
        service = ask(self._engines[manager], "GET", "/services/box", timeout_s=30)
        service["Spec"]["Mode"]["Replicated"]["Replicas"] = count
        path = f"/services/box/update?version={service['Version']['Index']}"
        ask(self._engines[manager], "POST", path, service["Spec"], timeout_s=30)

    def leader(self) -> int:
        """Return the host whose manager leads. Blocks."""
        nodes = ask(self._engines[0], "GET", "/nodes")
        leads = {node["ID"] for node in nodes if node.get("ManagerStatus", {}).get("Leader")}
        return next(host for host in range(len(self._engines)) if self._node(host) in leads)

    def _found(self, managers: int, heartbeat_s: float) -> None:
        first = self._lab.host_address(0)
        spec: dict[str, Any] = {"Dispatcher": {"HeartbeatPeriod": int(heartbeat_s * 1e9)}} if heartbeat_s else {}
        listen = f"0.0.0.0:{_PORT}"
        ask(
            self._engines[0],
            "POST",
            "/swarm/init",
            {"ListenAddr": listen, "AdvertiseAddr": f"{first}:{_PORT}", "Spec": spec},
        )
        tokens = ask(self._engines[0], "GET", "/swarm")["JoinTokens"]
        for host, engine in list(enumerate(self._engines))[1:]:
            wish = {
                "ListenAddr": listen,
                "AdvertiseAddr": f"{self._lab.host_address(host)}:{_PORT}",
                "RemoteAddrs": [f"{first}:{_PORT}"],
                "JoinToken": tokens["Manager" if host < managers else "Worker"],
            }
            ask(engine, "POST", "/swarm/join", wish)
        self._wait_ready()

    def _wait_ready(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            nodes = ask(self._engines[0], "GET", "/nodes")
            if len(nodes) == len(self._engines) and all(node["Status"]["State"] == "ready" for node in nodes):
                return
            time.sleep(0.1)
        raise TimeoutError("the Swarm's nodes are not ready after 60 s")

    def _node(self, host: int) -> str:
        return str(ask(self._engines[host], "GET", "/info")["Swarm"]["NodeID"])

    def _leave(self) -> None:
        up = [path for path in self._engines if _answers(path)]
        for path in reversed(up):
            if ask(path, "GET", "/info")["Swarm"]["LocalNodeState"] != "inactive":
                ask(path, "POST", "/swarm/leave?force=1")
        remove_all(up)


def _answers(path: Path) -> bool:
    try:
        ask(path, "GET", "/_ping", timeout_s=5)
    except OSError:
        return False
    return True
