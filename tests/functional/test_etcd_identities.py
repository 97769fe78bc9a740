"""An etcd that asks for certificates of the cluster: masters and agents show theirs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.daemon import Daemon
from harness.etcd import Certificate, EtcdCluster, free_ports
from harness.eventually import eventually
from harness.group_leftovers import machine_of, remove_groups
from harness.sites import spawn
from harness.unit_processes import ProcessWitness
from unitctl import founding
from unitfleet import certificates, identity, wholefile
from unitfleet.certificates import Authority
from unitfleet.errors import StoreUnavailable
from unitfleet.etcd import credentials
from unitfleet.etcd.store import EtcdStore

SERVES_S = 15.0


@contextlib.contextmanager
def a_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="uf-") as name:
        yield Path(name)


async def test_masters_and_agents_show_etcd_their_certificates_and_joining_tells_where_it_is() -> None:
    with a_folder() as root:
        env = {"HOME": str(root / "home"), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        port = free_ports(1)[0]
        tls = root / "master/tls"
        founding.found(tls, "test", ("127.0.0.1",), port, env)
        ca = Authority((tls / identity.CA).read_bytes(), (tls / identity.CA_KEY).read_bytes())

        async def unitctl(*words: str) -> str:
            ran = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "unitctl", *words],
                capture_output=True,
                text=True,
                timeout=60,
                env=env,
                cwd=root,
            )
            return ran.stdout if ran.returncode == 0 else f"exit {ran.returncode}: {ran.stderr}"

        async with EtcdCluster(root, certificate=Certificate.signed(ca, root)) as etcd:
            with contextlib.ExitStack() as stack:
                words = [
                    *(sys.executable, "-m", "unit_master", "--name", "one", "--listen", f"127.0.0.1:{port}"),
                    *("--state-dir", str(root / "master"), "--socket", "", "--profile", "fast"),
                    *("--etcd", etcd.endpoints[0], "--etcd-ca", str(tls / "ca.pem")),
                    *("--etcd-cert", str(tls / "cert.pem"), "--etcd-key", str(tls / "key.pem")),
                ]
                master = Daemon("one", words, root / "one.log", spawn)
                master.start()
                stack.callback(master.kill)

                async def leads() -> bool:
                    return "Leader: one" in await unitctl("cluster", "status")

                await eventually(leads, within_s=SERVES_S, what=master.tail, every_s=0.2)
                words = [
                    *(sys.executable, "-m", "unit_agent", "--name", "m1", "--listen", "127.0.0.1:0"),
                    *("--address", "127.0.0.1", "--state-dir", str(root / "agent"), "--socket", ""),
                    *("--drivers", "process", "--profile", "fast"),
                    *("--join", (await unitctl("machines", "join-token")).strip()),
                ]
                agent = Daemon("m1", words, root / "m1.log", spawn)
                agent.start()
                stack.callback(lambda: remove_groups([machine_of(root / "agent")]))
                stack.callback(ProcessWitness("m1", root / "agent").kill_all)
                stack.callback(agent.kill)

                async def ready() -> bool:
                    return "ready" in await unitctl("list-machines")

                await eventually(ready, within_s=SERVES_S, what=lambda: agent.tail() + master.tail(), every_s=0.2)
                (root / "a.service").write_text("[Service]\nExecStart=/bin/sleep 1000\n")
                assert "running" in await unitctl("start", "a.service")
                assert "running" in await unitctl("list-units")
            foreign = root / "foreign"
            identity.make_directory(foreign)
            Certificate.signed(certificates.make_ca("test", time.time()), foreign)
            for shown in (
                credentials.source(str(tls / "ca.pem"), "", ""),
                credentials.source(str(tls / "ca.pem"), str(foreign / "etcd.pem"), str(foreign / "etcd.key")),
                None,
            ):
                store = EtcdStore(etcd.endpoints, tls=shown, timeout_s=2.0)
                with pytest.raises(StoreUnavailable):
                    await store.list("")
                await store.close()


async def test_a_certificate_that_was_replaced_is_shown_when_the_connection_is_made_anew(tmp_path: Path) -> None:
    ca, other = certificates.make_ca("test", time.time()), certificates.make_ca("test", time.time())
    folder = tmp_path / "mine"
    identity.make_directory(folder)
    Certificate.signed(other, folder)  # what is shown at first is of no use
    wholefile.replace(folder / "etcd-ca.pem", ca.certificate)
    async with EtcdCluster(tmp_path, certificate=Certificate.signed(ca, tmp_path)) as etcd:
        paths = (str(folder / name) for name in ("etcd-ca.pem", "etcd.pem", "etcd.key"))
        store = EtcdStore(etcd.endpoints, tls=credentials.source(*paths), timeout_s=2.0)
        try:
            with pytest.raises(StoreUnavailable):
                await store.list("")
            Certificate.signed(ca, folder)

            async def reads() -> bool:
                with contextlib.suppress(StoreUnavailable):
                    return (await store.list("")).revision > 0
                return False

            await eventually(reads, within_s=SERVES_S, what=lambda: "the new certificate is not shown")
        finally:
            await store.close()
