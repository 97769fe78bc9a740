"""A cluster with identities: made by `unitctl cluster init`, its hosts joined by tokens, every connection by TLS.

    async with SecureCluster.on_loopback(tmp_path, machines=1, masters=1) as cluster:
        await cluster.must("start", "adserver@1")

etcd is asked in the clear, as in any test that is not about it.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

from harness.cluster import UP_S, Cluster, Machine
from harness.daemon import Daemon
from harness.sites import spawn
from unitctl import context
from unitfleet import identity


class SecureCluster(Cluster):
    """As `Cluster`; the first master is made by hand, whatever else joins."""

    async def _up(self, masters: int) -> None:
        self._home.mkdir(exist_ok=True)
        self.units_dir.mkdir()
        await self._found()
        self.start_master()
        await self.wait_until(self._masters_serve, UP_S, "the first master serves")
        for _ in range(masters - 1):
            await self.join_master()
        for host, name in enumerate(self._names):
            token = await self.token()
            own = self._own_args.get(host, ())
            self.machines.append(await self._machine(host, name, "--join", token, *own))
            self.machines[-1].agent.start()
        await self.wait_until(self._is_up, UP_S, "the cluster is up")

    async def _found(self) -> None:
        """Make the cluster's authority, as an operator does."""
        made = await self.unitctl(
            *("cluster", "init", "--name", "test", "--dir", str(self.tls_dir("master1"))),
            *("--hosts", "127.0.0.1", "--port", str(self._ports[0])),
        )
        assert made.code == 0, made

    def start_master(self, *flags: str) -> Daemon:
        """Start one more master; it has an identity, or the flags get it one."""
        name = f"master{len(self.masters) + 1}"
        argv = [
            *(sys.executable, "-m", "unit_master", "--name", name, "--etcd", ",".join(self.etcd.endpoints)),
            *("--listen", f"127.0.0.1:{self._ports[len(self.masters)]}", "--profile", self.profile),
            *("--socket", str(self._root / f"{name}.sock"), "--state-dir", str(self._root / name)),
            *(*self._master_args, *flags),
        ]
        master = Daemon(name, argv, self._logs / f"{name}.log", spawn)
        self.masters.append(master)
        master.start()
        context.save("test", self.endpoints, "", self._environment(), trust=self.trust)
        return master

    async def join_master(self) -> Daemon:
        """Start one more master, which joins by a token."""
        token = await self.token("--role", "master")
        master = self.start_master("--join", token)
        await self.wait_until(self._masters_serve, UP_S, "the master serves")
        return master

    async def token(self, *flags: str) -> str:
        """Return a new join token."""
        return (await self.must("machines", "join-token", *flags)).stdout.strip()

    async def refused(self, machine: Machine, within_s: float = 20.0) -> str:
        """Start a machine's agent that has to end by itself; return what it said."""
        machine.agent.start()

        async def ended() -> bool:
            return not machine.agent.runs

        await self.wait_until(ended, within_s, f"{machine.name} gives up")
        said = machine.agent.tail()
        machine.agent.kill()
        return said

    async def _machine(self, host: int, name: str, *flags: str) -> Machine:
        machine = await super()._machine(host, name, *flags)
        words = list(machine.agent.argv)
        at = words.index("--cluster-key-file")
        del words[at : at + 2]  # there is none: certificates say who is a master
        machine.agent.argv = tuple(words)
        return machine

    async def newcomer(self, *flags: str) -> Machine:
        """Return a machine whose agent is not started yet, on a host of its own."""
        host = len(self.machines)
        machine = await self._machine(host, f"m{host + 1}", *flags)
        self.machines.append(machine)
        return machine

    async def curl(self, path: str, who: Path | None, *, token: str = "", method: str = "GET") -> tuple[int, str]:
        """Ask the first master with an identity's certificate, or none; return status and body."""
        return await asyncio.to_thread(self._curl, f"{self.endpoints[0]}{path}", who, token, method)

    def _curl(self, url: str, who: Path | None, token: str, method: str) -> tuple[int, str]:
        request = urllib.request.Request(url, method=method, data=b"{}" if method == "POST" else None)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.client(who)) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def client(self, who: Path | None) -> ssl.SSLContext:
        """Return a context that trusts the cluster and shows an identity."""
        made = ssl.create_default_context(cafile=self.trust.ca_file)
        if who is not None:
            made.load_cert_chain(who / identity.CERTIFICATE, who / identity.KEY)
        return made

    def tls_dir(self, name: str) -> Path:
        """Where a master's identity lies."""
        return self._root / name / "tls"

    def agent_tls(self, machine: Machine) -> Path:
        """Where a machine's identity lies."""
        return self._site.state_dir(machine.host) / "tls"

    def api_token(self) -> str:
        """The first master's own token."""
        return (self._root / "master1/token").read_text().strip()

    @property
    def trust(self) -> context.Trust:
        """What the admin's context says."""
        folder = self._home / ".config/unitctl/test"
        return context.Trust(
            ca_file=str(folder / "ca.pem"), cert_file=str(folder / "cert.pem"), key_file=str(folder / "key.pem")
        )

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where each master's API answers."""
        return tuple(f"https://127.0.0.1:{port}" for port in self._ports[: len(self.masters)])

    async def _is_up(self) -> bool:
        self._check_daemons()
        ready = [view for view in (await self.machine_views()).values() if view.status == "ready"]
        return len(ready) == len(self._names) and await self._masters_serve()

    async def _masters_serve(self) -> bool:
        self._check_daemons()
        told = await asyncio.gather(
            *(asyncio.to_thread(_serves, endpoint, self.client(None)) for endpoint in self.endpoints)
        )
        return all(told)


def _serves(endpoint: str, trusted: ssl.SSLContext) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint}/readyz", timeout=2.0, context=trusted) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
