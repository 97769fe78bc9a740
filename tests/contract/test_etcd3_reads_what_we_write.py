"""An independent witness: the `etcd3` package, in a process and venv of its own, reads what our client wrote.

The venv is kept in `UNITFLEET_TEST_CACHE` (default: ~/.cache/unitfleet-test), for `etcd3` needs a protobuf that
nothing else can live with.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.etcd import EtcdCluster
from harness.watching import take
from unitfleet.etcd.store import EtcdStore
from unitfleet.store import Delete, Put, absent, unchanged

PINS = ("etcd3==0.12.0", "protobuf==3.20.3")

READ = """
import json, sys, etcd3
host, port = sys.argv[1].split(":")
client = etcd3.client(host=host, port=int(port))
def one(value, meta):
    revisions = [meta.create_revision, meta.mod_revision, meta.version]
    return [meta.key.decode(), value.decode(), *revisions, meta.lease_id]
keys = [one(value, meta) for value, meta in client.get_prefix("/w/")]
leases = {
    str(lease): [info.TTL, info.grantedTTL, sorted(key.decode() for key in info.keys)]
    for lease in map(int, sys.argv[2:])
    for info in [client.get_lease_info(lease)]
}
print(json.dumps({"keys": keys, "leases": leases}))
"""

WRITE = """
import sys, etcd3
host, port = sys.argv[1].split(":")
client = etcd3.client(host=host, port=int(port))
client.put("/w/theirs", "1")
lease = client.lease(60)
client.transaction(
    compare=[client.transactions.value("/w/theirs") == "1"],
    success=[client.transactions.put("/w/theirs", "2", lease), client.transactions.delete("/w/ours")],
    failure=[],
)
"""


@pytest.fixture(scope="session")
def witness() -> Path:
    """The Python of a venv with etcd3; skips when it can't be made."""
    cache = Path(os.environ.get("UNITFLEET_TEST_CACHE") or Path.home() / ".cache/unitfleet-test")
    venv = cache / "-".join(["etcd3", *PINS, f"py{sys.version_info.major}.{sys.version_info.minor}"])
    python = venv / "bin/python"
    if not (venv / "complete").exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True, timeout=120)
            subprocess.run([python, "-m", "pip", "install", "-q", *PINS], check=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"cannot make a venv with {' '.join(PINS)}: {error}")
        (venv / "complete").touch()
    return python


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[EtcdCluster]:
    async with EtcdCluster(tmp_path) as cluster:
        yield cluster


async def ask(python: Path, script: str, *args: str) -> str:
    """Run a script of the witness and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        python, "-c", script, *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            out, error = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, error.decode()
    return out.decode()


async def test_etcd3_reads_what_we_wrote_leased_and_transacted(witness: Path, etcd: EtcdCluster) -> None:
    store = EtcdStore(etcd.endpoints)
    lease = await store.grant(60)
    made = await store.put("/w/a", b"1")
    await store.put("/w/leased", b"2", lease.id)
    assert (
        await store.txn([unchanged("/w/a", made), absent("/w/b")], [Put("/w/a", b"3"), Put("/w/b", b"4")])
    ).succeeded
    assert not (await store.txn([absent("/w/a")], [Delete("/w/", prefix=True)], [Put("/w/c", b"5")])).succeeded
    await store.txn((), [Put("/w/gone/1", b""), Put("/w/gone/2", b"")])
    await store.txn((), [Delete("/w/gone/", prefix=True)])
    await store.keepalive(lease.id, 2.0)
    seen: dict[str, Any] = json.loads(await ask(witness, READ, etcd.endpoints[0], str(lease.id)))
    ours = [
        [kv.key, kv.value.decode(), kv.create_revision, kv.mod_revision, kv.version, kv.lease]
        for kv in (await store.list("/w/")).items
    ]
    assert seen["keys"] == ours
    assert [(key, value) for key, value, *_ in ours] == [
        ("/w/a", "3"),
        ("/w/b", "4"),
        ("/w/c", "5"),
        ("/w/leased", "2"),
    ]
    ttl, granted, keys = seen["leases"][str(lease.id)]
    assert (granted, keys) == (60, ["/w/leased"]) and 50 <= ttl <= 60
    await store.close()


async def test_we_read_and_watch_what_etcd3_wrote(witness: Path, etcd: EtcdCluster) -> None:
    store = EtcdStore(etcd.endpoints)
    start = await store.put("/w/ours", b"1")
    await ask(witness, WRITE, etcd.endpoints[0])
    _, put, txn = await take(store, "/w/", start, 3)
    assert [(e.kind.value, e.kv.key, e.kv.value) for e in put.events] == [("put", "/w/theirs", b"1")]
    assert [(e.kind.value, e.kv.key, e.kv.value) for e in txn.events] == [
        ("put", "/w/theirs", b"2"),
        ("delete", "/w/ours", b""),
    ]
    kv = await store.get("/w/theirs")
    assert kv is not None and kv.lease != 0
    await store.close()
