"""What `bootstrap apply` writes for etcd makes a cluster of real members, whoever boots first."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from harness.etcd import binary, free_ports
from harness.eventually import eventually
from unitctl.bootstrap.host.decide import Facts, decide
from unitctl.bootstrap.host.etcd import FILE, EtcdFacts
from unitctl.bootstrap.host.facts import listed
from unitctl.bootstrap.hostplan import HostPlan, Role

MEMBERS = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


class Member:
    """One host's etcd: the ports of its address are others on loopback."""

    def __init__(self, address: str, ports: Mapping[str, str], directory: Path) -> None:
        self.address = address
        self.endpoint = ports[f"{address}:2379"]
        self._ports = ports
        self._data = directory / address
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self, others: Sequence[Member]) -> str:
        """Decide as the host would, and start what is decided; returns why it is held, if it is."""
        answered = listed([other.endpoint for other in others])
        translated = None
        if answered is not None:
            back = {f"http://{there}": f"http://{here}" for here, there in self._ports.items()}
            translated = tuple(
                type(each)(each.id, tuple(back[url] for url in each.peer_urls), each.client_urls)
                for each in answered
            )
        facts = EtcdFacts(installed=True, has_data=(self._data / "member").is_dir(), listed=translated)
        decision = decide(HostPlan(Role.CLUSTER, MEMBERS), Facts(addresses=(self.address,), etcd=facts))
        if not decision.held:
            [file] = [file for file in decision.files if file.path == FILE]
            self._start(file.content)
        return decision.held

    def _start(self, environment: str) -> None:
        for here, there in self._ports.items():
            environment = environment.replace(f"http://{here}", f"http://{there}")
        pairs = [line.partition("=") for line in environment.splitlines() if not line.startswith("#")]
        variables = {name: value.strip('"') for name, _, value in pairs}
        variables["ETCD_LISTEN_CLIENT_URLS"] = variables["ETCD_LISTEN_CLIENT_URLS"].partition(",")[0]
        variables["ETCD_DATA_DIR"] = str(self._data)
        with (self._data.parent / f"{self.address}.log").open("ab") as log:
            self._process = subprocess.Popen([binary()], env={**os.environ, **variables}, stdout=log, stderr=log)

    async def lists(self, count: int) -> None:
        """Wait until it lists so many members that were started."""

        async def started() -> bool:
            found = listed([self.endpoint]) or ()
            return sum(bool(member.client_urls) for member in found) == count

        log = self._data.parent / f"{self.address}.log"
        await eventually(started, within_s=30, what=lambda: log.read_text()[-2000:])

    def lose_disk(self) -> None:
        """End it and remove its data."""
        self.end()
        shutil.rmtree(self._data)

    def end(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)


async def command(member: Member, verb: str, body: Mapping[str, object]) -> None:
    """Say `etcdctl member remove|add` to a member, by its JSON gateway, once it holds its cluster healthy."""
    said = ""

    async def taken() -> bool:
        nonlocal said
        said = _refusal(f"http://{member.endpoint}/v3/cluster/member/{verb}", body)
        return not said

    await eventually(taken, within_s=30, what=lambda: said)


def _refusal(url: str, body: Mapping[str, object]) -> str:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=10):
            return ""
    except urllib.error.HTTPError as error:
        return error.read().decode()


async def test_members_that_boot_one_after_another_become_one_cluster_and_a_lost_disk_is_not_let_back(
    tmp_path: Path,
) -> None:
    binary()
    ports = iter(free_ports(6))
    names = [f"{address}:{port}" for address in MEMBERS for port in (2379, 2380)]
    places = {name: f"127.0.0.1:{next(ports)}" for name in names}
    first, second, late = members = [Member(address, places, tmp_path) for address in MEMBERS]
    with ExitStack() as stack:
        for member in members:
            stack.callback(member.end)
        assert first.boot([second, late]) == ""
        assert second.boot([first, late]) == ""
        await first.lists(2)
        assert late.boot([first, second]) == ""  # the cluster runs without it, and waits for it
        await late.lists(3)

        late.lose_disk()
        held = late.boot([first, second])
        assert "10.0.0.3 was a member before and its data is gone" in held
        forgotten = re.search(r"etcdctl member remove ([0-9a-f]+), then etcdctl member add", held)
        assert forgotten is not None
        await command(first, "remove", {"ID": str(int(forgotten[1], 16))})
        assert "does not list 10.0.0.3" in late.boot([first, second])
        await command(first, "add", {"peerURLs": [f"http://{places['10.0.0.3:2380']}"]})
        assert late.boot([first, second]) == ""
        await late.lists(3)
