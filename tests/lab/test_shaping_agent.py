"""An agent and its Engine: bandwidth of containers, of units on the host's network, and of the process driver."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.cluster import Cluster, Machine
from harness.engines import Engines
from harness.eventually import eventually
from harness.image import IMAGE
from harness.net_rig import NetRig, everything, run_in, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

M = 10**6
AD, WEB, EDGE, JOB = "ad.service", "web.service", "edge.service", "job.service"
REPAIRED_S = 2 * 10.0


def container(network: str, keys: str) -> str:
    lines = f"Image={IMAGE}\nExec=sleep 100000\nPull=never\nStopSignal=SIGKILL\n"
    return f"[Container]\n{lines}{network}\n[X-Fleet]\n{keys}"


TEXTS = {
    "ad.container": container("", "Egress=40M\nEgressLimit=50M\nIngressLimit=20M\n"),
    "web.container": container("", ""),
    "edge.container": container("Network=host\n", "EgressLimit=10M\n"),
    "job.service": "[Service]\nExecStart=/bin/sleep 100000\n\n[X-Fleet]\nEgress=5M\nEgressLimit=10M\n",
}


class Site:
    """One host with an agent that has 200 Mbit/s to the world."""

    def __init__(self, cluster: Cluster, machine: Machine) -> None:
        self.cluster, self.machine = cluster, machine
        engines: Engines = cluster._site.engines  # type: ignore[attr-defined]
        self.engines, self.namespace, self.world = engines, engines.namespace(0), engines.bridge_address
        self._port = 5301

    def net(self) -> dict[str, dict[str, Any]]:
        """Ask the agent what is in force, by unit."""
        answer = self.cluster.local(self.machine, "/local/net")
        return {unit["unit"]: unit for unit in answer["units"]}

    async def pid(self, unit: str) -> int:
        (copy,) = await self.cluster.running(unit)
        return int(copy.pid)

    async def goodput(self, unit: str, *flags: str, own_network: bool = True) -> float:
        """Return what TCP from the unit to the world gets through, bit/s: run as if the unit itself did."""
        pid, port = await self.pid(unit), str(self._port)
        self._port += 1
        server = await asyncio.to_thread(self._server, port)
        try:
            await asyncio.to_thread(
                wait_for, lambda: f":{port} " in _ran("ss", "-Htln"), f"iperf3 listens on {port}"
            )
            client = ["iperf3", "-c", self.world, "-p", port, "-t", "2", "-O", "1", "-J", *flags]
            if own_network:
                client = ["nsenter", "-t", str(pid), "-n", *client]
            else:
                enter = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
                inside = ["nsenter", f"--net=/run/netns/{self.namespace}", *client]
                client = ["sh", "-c", enter, "sh", str(unified_group(pid)), *inside]
            said = json.loads(await asyncio.to_thread(_ran, *client))
            return float(said["end"]["sum_received"]["bits_per_second"])
        finally:
            server.kill()
            server.wait(10)

    def _server(self, port: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["iperf3", "-s", "-1", "-B", self.world, "-p", port], stdout=subprocess.DEVNULL)


def _ran(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def unified_group(pid: int) -> Path:
    """Return the directory of a process's group in the unified hierarchy."""
    (path,) = re.findall(r"^0::(.*)$", Path(f"/proc/{pid}/cgroup").read_text(), re.MULTILINE)
    unified = Path("/sys/fs/cgroup")
    return Path(f"{unified if (unified / 'cgroup.controllers').exists() else unified / 'unified'}{path}")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site() -> AsyncIterator[Site]:
    if reason := Engines.available() or NetRig.available():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.in_lab(Path(logs), hosts=1, idle=1, masters=1, profile="fast") as cluster:
            machine = await cluster.join("--egress", "200M", "--ingress", "200M")
            await cluster.wait_until(cluster._is_up, 30, "the agent is up")
            yield Site(cluster, machine)


async def in_force(site: Site, *units: str) -> bool:
    try:
        net = await asyncio.to_thread(site.net)
    except OSError:
        return False  # the agent is not up yet
    return all(unit in net and net[unit]["in_force"] for unit in units)


def within(goodput: float, limit: float) -> bool:
    return 0.8 <= goodput / limit <= 1.05


async def test_a_hosts_units_are_shaped_changed_repaired_and_cleaned_up(site: Site) -> None:
    cluster, before = site.cluster, everything(site.namespace)
    for name, text in TEXTS.items():
        cluster.write(name, text)
    await cluster.must("start", *TEXTS)
    await cluster.wait_until(lambda: in_force(site, AD, EDGE, JOB), 10, "bandwidth is in force")
    net = site.net()
    assert WEB not in net
    assert (net[AD]["how"], net[EDGE]["how"], net[JOB]["how"]) == ("veth+ifb", "cgroup", "cgroup")

    # what is promised is what passes
    assert within(await site.goodput(AD), 50 * M)
    assert within(await site.goodput(AD, "-R"), 20 * M)
    assert within(await site.goodput(EDGE, own_network=False), 10 * M)
    assert within(await site.goodput(JOB, own_network=False), 10 * M)
    assert site.net()[EDGE]["sent_bytes"] > M

    # a live change touches no container
    (running,) = await cluster.running(AD)
    await cluster.must("net", "limit", AD, "--egress-limit", "100M")
    await cluster.wait_until(lambda: limited(site, AD, 100 * M), 10, "the new limit is in force")
    assert within(await site.goodput(AD), 100 * M)
    assert await cluster.running(AD) == [running]

    # a next agent finds it as it is
    sent = site.net()[AD]["sent_bytes"]
    cluster.restart_agent(site.machine)
    await cluster.wait_until(lambda: in_force(site, AD, EDGE, JOB), 20, "it is in force again")
    assert site.net()[AD]["sent_bytes"] >= sent > 0  # a class that was made anew counts from 0

    # what somebody undoes is repaired, and told
    veth = site.net()[AD]["interface"]
    for vandalism in (("dev", veth, "root"), ("dev", "unitfleet-out", "root"), ("dev", "eth0", "root")):
        run_in(site.namespace, "tc", "qdisc", "del", *vandalism)
    await cluster.wait_until(lambda: stands(site, veth), REPAIRED_S, "the qdiscs stand again")
    await cluster.wait_until(lambda: told(site, "shaping-repaired"), REPAIRED_S, "an event says so")

    # an Engine that is away takes nothing along
    site.engines.kill_engine(0)
    here = everything(site.namespace)
    await cluster.wait_until(lambda: away(site), 20, "the agent has noticed")
    assert everything(site.namespace) == here
    await asyncio.to_thread(site.engines.start_engine, 0)

    # another container of the same unit is another interface
    await cluster.must("restart", AD)
    await cluster.wait_until(lambda: moved(site, AD, veth), 10, "the new container is shaped")
    assert within(await site.goodput(AD, "-R"), 20 * M)

    # after a boot there is nothing of it, and soon all of it
    await cluster.power_off(site.machine)
    for link in ("unitfleet-out", "unitfleet-in"):
        with contextlib.suppress(RuntimeError):
            run_in(site.namespace, "ip", "link", "del", link)
    run_in(site.namespace, "tc", "qdisc", "del", "dev", "eth0", "root")
    await cluster.boot(site.machine)
    await cluster.wait_until(lambda: in_force(site, AD, EDGE, JOB), 60, "it is in force after a boot")

    await cluster.must("destroy", AD, WEB, EDGE, JOB)

    def left() -> str:
        return f"left is\n{everything(site.namespace)}\nwhere there was\n{before}"

    await eventually(
        lambda: clean(site, before), within_s=60, what=left
    )  # twice the grace of an agent that began anew


async def away(site: Site) -> bool:
    return "could not ask the docker driver" in site.machine.agent.tail()


async def limited(site: Site, unit: str, limit: int) -> bool:
    told = (await asyncio.to_thread(site.net))[unit]
    return bool(told["in_force"]) and told["egress_limit"] == limit


async def moved(site: Site, unit: str, veth: str) -> bool:
    told = (await asyncio.to_thread(site.net)).get(unit)
    return told is not None and bool(told["in_force"]) and told["interface"] != veth


async def stands(site: Site, veth: str) -> bool:
    shown = await asyncio.to_thread(run_in, site.namespace, "tc", "qdisc", "show")
    return all(
        f"{major} dev {device} " in shown
        for major, device in (("f13:", veth), ("f10:", "eth0"), ("f11:", "unitfleet-out"))
    )


async def told(site: Site, kind: str) -> bool:
    return kind in (await site.cluster.must("events")).stdout


async def clean(site: Site, before: str) -> bool:
    return await asyncio.to_thread(everything, site.namespace) == before
