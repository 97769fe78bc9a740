"""Real etcd members, that a test starts, kills, freezes and wakes.

    async with EtcdCluster(tmp_path, size=3) as etcd:
        store = EtcdStore(etcd.endpoints)
        etcd.members[0].pause()

Leaving the context ends every member, however the test ended. Nothing sleeps for a fixed time.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from harness.eventually import eventually
from harness.freezing import freeze
from unitfleet import certificates, wholefile
from unitfleet.certificates import Authority, Who
from unitfleet.etcd.endpoint import Endpoint, Failure, Tls
from unitfleet.etcd.messages import STATUS, StatusRequest
from unitfleet.joinapi import Role

SHM = Path("/dev/shm")


def binary() -> str:
    """Return the etcd on PATH; skips the test where there is none."""
    found = shutil.which("etcd")
    if found is None:
        pytest.skip("no etcd on PATH (Debian: apt-get install etcd-server)")
    return found


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Return ports of `address` that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((address, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for 127.0.0.1, for servers and clients alike, and its key; without `ca` its own authority."""

    pem: Path
    key: Path
    ca: Path | None = None

    @property
    def authority(self) -> Path:
        """Who signed it."""
        return self.ca or self.pem

    @classmethod
    def signed(cls, ca: Authority, folder: Path) -> Certificate:
        """Write one for a member on loopback, signed by a cluster's authority."""
        key = certificates.make_key()
        who = Who("etcd", Role.MASTER, ("127.0.0.1",))
        signed = certificates.sign_csr(ca, certificates.make_csr(key, "etcd"), who, 1, time.time())
        for name, raw in (("etcd-ca.pem", ca.certificate), ("etcd.pem", signed), ("etcd.key", key)):
            wholefile.replace(folder / name, raw)
        return cls(folder / "etcd.pem", folder / "etcd.key", folder / "etcd-ca.pem")

    @classmethod
    def make(cls, directory: Path) -> Certificate:
        """Make one with openssl; skips the test where there is none."""
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("no openssl on PATH")
        made = cls(directory / "etcd.pem", directory / "etcd.key")
        command: list[str | Path] = [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=etcd", "-days", "2", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-addext", "extendedKeyUsage=serverAuth,clientAuth", "-out", made.pem, "-keyout", made.key),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        return made

    def tls(self) -> Tls:
        """Return what a client needs."""
        return Tls(self.authority.read_bytes(), self.key.read_bytes(), self.pem.read_bytes())


class EtcdServer:
    """One member. It keeps its ports and data over `kill` and `start`; its output is in `log`."""

    def __init__(
        self, name: str, directory: Path, address: str, ports: Sequence[int], args: Sequence[str], scheme: str
    ) -> None:
        self.name = name
        self._scheme = scheme
        self.endpoint = f"{address}:{ports[0]}"
        self.peer_url = f"http://{address}:{ports[1]}"
        self.log = directory / f"{name}.log"
        self._directory = directory
        self._args = tuple(args)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and not ended since."""
        return self._process is not None

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self._directory / self.name

    def launch(self, initial_cluster: str) -> None:
        """Start the process, without waiting for its service."""
        assert self._process is None, f"{self.name} runs already"
        client_url = f"{self._scheme}://{self.endpoint}"
        command = [
            *(("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()),  # if the tests get killed
            binary(),
            *("--name", self.name, "--data-dir", str(self.data)),
            *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
            *("--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url),
            *("--initial-cluster", initial_cluster, "--initial-cluster-token", self._directory.name),
            *("--logger", "zap", "--log-level", "warn"),
            *self._args,
        ]
        with self.log.open("ab") as log:
            # a session of its own: an interrupted test run must not reach it before `__aexit__` does
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """End it as a power cut would, frozen or not."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        assert self._process is not None, f"{self.name} does not run"
        freeze(self._process)

    def resume(self) -> None:
        """Let a frozen member go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} does not run"
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=5)


class EtcdCluster:
    """One member or several. Entering starts them all and waits until each serves and knows a leader.

    `heartbeat_ms` and `election_ms` are small, for fast tests; `args` are added to every member's command.
    With a `certificate` clients must use TLS and show one that its authority signed; without `by_name` they are
    not known by what it says, and `anybody` needs none. They listen on `address` alone. Data lies on tmpfs where
    there is one, since the disks of test machines stall.
    """

    def __init__(
        self,
        tmp_path: Path,
        *,
        size: int = 1,
        heartbeat_ms: int = 50,
        election_ms: int = 500,
        args: Sequence[str] = (),
        certificate: Certificate | None = None,
        by_name: bool = True,
        anybody: bool = False,
        address: str = "127.0.0.1",
    ) -> None:
        self._tmp_path = tmp_path
        self._address = address
        self._size = size
        self._args = [f"--heartbeat-interval={heartbeat_ms}", f"--election-timeout={election_ms}", *args]
        self._tls = certificate.tls() if certificate else None
        if certificate:
            if not anybody:
                self._args += [f"--client-cert-auth={str(by_name).lower()}"]
                self._args += [f"--trusted-ca-file={certificate.authority}"]
            self._args += [f"--cert-file={certificate.pem}", f"--key-file={certificate.key}"]
        self._directory: Path | None = None
        self.members: tuple[EtcdServer, ...] = ()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """`host:port` of every member, for clients."""
        return tuple(member.endpoint for member in self.members)

    @property
    def directory(self) -> Path:
        """The members' data: every revision that is held, and what they log of writes."""
        assert self._directory is not None, "the members run"
        return self._directory

    async def __aenter__(self) -> Self:
        binary()
        self._directory = _data_directory(self._tmp_path)
        ports = free_ports(2 * self._size, self._address)
        scheme = "https" if self._tls else "http"
        self.members = tuple(
            EtcdServer(f"etcd{n}", self._directory, self._address, ports[2 * n : 2 * n + 2], self._args, scheme)
            for n in range(self._size)
        )
        try:
            await self.start(*self.members)
        except BaseException:
            self._clear()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    async def start(self, *members: EtcdServer) -> None:
        """Start members, new or killed, and wait until each serves."""
        for member in members:
            member.launch(self._initial_cluster)
        for member in members:
            await self._serving(member)

    def restore(self, snapshot: Path) -> None:
        """Give every member, none of which runs, what a snapshot of `etcdctl` holds in place of its data."""
        for member in self.members:
            assert not member.runs, f"{member.name} runs"
            shutil.rmtree(member.data)
            command: list[str | Path] = [
                *("etcdctl", "snapshot", "restore", snapshot, "--name", member.name, "--data-dir", member.data),
                *("--initial-cluster", self._initial_cluster, "--initial-cluster-token", self.directory.name),
                *("--initial-advertise-peer-urls", member.peer_url),
            ]
            environment = {**os.environ, "ETCDCTL_API": "3"}
            subprocess.run(command, check=True, capture_output=True, timeout=60, env=environment)

    @property
    def _initial_cluster(self) -> str:
        return ",".join(f"{member.name}={member.peer_url}" for member in self.members)

    async def restart(self, member: EtcdServer) -> None:
        """Kill a member and start it again from its data."""
        member.kill()
        await self.start(member)

    async def leader(self) -> EtcdServer:
        """Return the member that leads now; one that is frozen or dead says nothing and is not the leader."""
        for member in self.members:
            status = await self._status(member)
            if status and status.leader == status.header.member_id:
                return member
        raise AssertionError("no member leads")

    async def _status(self, member: EtcdServer) -> Any:
        """Return etcd's own words about one member, or None when it doesn't answer within a second."""
        endpoint = Endpoint(member.endpoint, self._tls)
        try:
            await endpoint.connect(1.0)
            return await endpoint.call(STATUS, StatusRequest(), 1.0, require_leader=False)
        except Failure:
            return None
        finally:
            await endpoint.drop()

    async def _serving(self, member: EtcdServer) -> None:
        async def has_leader() -> bool:
            status = await self._status(member)
            return status is not None and status.leader != 0

        def why_not() -> str:
            return f"{member.name} does not serve; it said:\n{member.log.read_text(errors='replace')[-2000:]}"

        await eventually(has_leader, within_s=15, what=why_not)

    def _clear(self) -> None:
        for member in self.members:
            member.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


def _data_directory(tmp_path: Path) -> Path:
    """Make a directory on tmpfs where there is one."""
    return Path(tempfile.mkdtemp(prefix="unitfleet-etcd-", dir=SHM if SHM.is_dir() else tmp_path))
