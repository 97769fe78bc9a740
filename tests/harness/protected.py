"""`SecureCluster` on an etcd that takes the cluster's certificates, so that it can be protected.

    async with ProtectedCluster.on_loopback(tmp_path, machines=2) as cluster:
        await cluster.must("cluster", "protect-etcd")
        with pytest.raises(StoreDenied):
            await cluster.as_agent("m1").put(...)

`cluster.store` is root's, as its operator makes it: `unitctl cluster admit root`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

from harness.cluster import _directory
from harness.daemon import Daemon
from harness.etcd import Certificate, EtcdCluster, free_ports
from harness.secure import SecureCluster
from harness.sites import Loopback
from unitctl import founding
from unitfleet import certificates, identity, wholefile
from unitfleet.certificates import AGENT_DAYS, Authority, Who
from unitfleet.etcd import credentials
from unitfleet.etcd.auth import EtcdAuth
from unitfleet.etcd.store import EtcdStore
from unitfleet.joinapi import Role


def shown(folder: Path) -> Any:
    """Return what an identity shows to etcd."""
    source = credentials.source(
        *(str(folder / name) for name in (identity.CA, identity.CERTIFICATE, identity.KEY))
    )
    assert source is not None
    return source


class ProtectedCluster(SecureCluster):
    """The authority is made before etcd is started, by what `unitctl cluster init` does."""

    @classmethod
    @contextlib.asynccontextmanager
    async def on_loopback(  # type: ignore[override]  # fewer choices than a plain cluster
        cls, tmp_path: Path, *, machines: int = 2, masters: int = 1, etcd: int = 1, profile: str = "fast"
    ) -> AsyncIterator[Self]:
        """Run one on loopback, with the process driver; etcd asks for certificates and nobody's name yet.

        One more host is there for a `newcomer`.
        """
        hosts = [f"m{number + 1}" for number in range(machines + 1)]
        with _directory() as root:
            tls = root / "master1/tls"
            founding.found(tls, "test", ("127.0.0.1",), free_ports(1)[0], {"HOME": str(root / "home")})
            ca = Authority((tls / identity.CA).read_bytes(), (tls / identity.CA_KEY).read_bytes())
            async with (
                EtcdCluster(tmp_path, size=etcd, certificate=Certificate.signed(ca, root)) as members,
                Loopback(root, hosts) as site,
                cls(site, members, root, tmp_path, hosts[:machines], profile) as cluster,
            ):
                founding.admit(tls, root / "root", "root")
                await cluster.store.close()
                cluster.store = EtcdStore(members.endpoints, tls=shown(root / "root"))
                await cluster._up(masters)
                yield cluster

    async def _found(self) -> None:
        """Nothing is left to be made."""

    def start_master(self, *flags: str) -> Daemon:
        """Start one more master, which shows etcd its identity."""
        tls = self.tls_dir(f"master{len(self.masters) + 1}")
        return super().start_master(
            *("--etcd-ca", str(self.tls_dir("master1") / identity.CA)),
            *("--etcd-cert", str(tls / identity.CERTIFICATE), "--etcd-key", str(tls / identity.KEY)),
            *flags,
        )

    def as_agent(self, name: str) -> EtcdStore:
        """Return a store as whoever stole the machine's certificate sees it; to be closed."""
        return EtcdStore(self.etcd.endpoints, tls=shown(self.agent_tls(self.machine(name))), timeout_s=3.0)

    def auth_as(self, folder: Path) -> EtcdAuth:
        """Return etcd's users and roles as an identity sees them; to be closed."""
        return EtcdAuth(self.etcd.endpoints, shown(folder), timeout_s=3.0)

    @property
    def root_folder(self) -> Path:
        """Root's identity."""
        return self._root / "root"

    async def id_of(self, name: str) -> str:
        """Return a machine's id."""
        return (await self.machine_views())[name].id


def founded(root: Path) -> tuple[Path, Authority]:
    """Make an authority and a first master's identity, with no cluster; return where, and the authority."""
    tls = root / "master/tls"
    founding.found(tls, "test", ("127.0.0.1",), 4001, {"HOME": str(root / "home")})
    return tls, Authority((tls / identity.CA).read_bytes(), (tls / identity.CA_KEY).read_bytes())


def agent_identity(ca: Authority, folder: Path, machine: str) -> Path:
    """Write the identity of a machine, as joining makes it."""
    identity.make_directory(folder)
    key = certificates.make_key()
    who = Who(machine, Role.AGENT, (machine,))
    signed = certificates.sign_csr(ca, certificates.make_csr(key, machine), who, AGENT_DAYS, time.time())
    for name, raw in ((identity.CA, ca.certificate), (identity.CERTIFICATE, signed), (identity.KEY, key)):
        wholefile.replace(folder / name, raw)
    return folder
