"""An independent witness: the `etcd3` package, in a process of its own, reads what our client wrote."""

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

OLD_MESSAGES = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
"""What lets a protobuf of today load the messages of `etcd3`, which were made for one of 2019."""

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


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[EtcdCluster]:
    async with EtcdCluster(tmp_path) as cluster:
        yield cluster


async def ask(script: str, *args: str) -> str:
    """Run a script of the witness and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, *args),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **OLD_MESSAGES},
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


async def test_etcd3_reads_what_we_wrote_leased_and_transacted(etcd: EtcdCluster) -> None:
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
    seen: dict[str, Any] = json.loads(await ask(READ, etcd.endpoints[0], str(lease.id)))
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


async def test_we_read_and_watch_what_etcd3_wrote(etcd: EtcdCluster) -> None:
    store = EtcdStore(etcd.endpoints)
    start = await store.put("/w/ours", b"1")
    await ask(WRITE, etcd.endpoints[0])
    _, put, txn = await take(store, "/w/", start, 3)
    assert [(e.kind.value, e.kv.key, e.kv.value) for e in put.events] == [("put", "/w/theirs", b"1")]
    assert [(e.kind.value, e.kv.key, e.kv.value) for e in txn.events] == [
        ("put", "/w/theirs", b"2"),
        ("delete", "/w/ours", b""),
    ]
    kv = await store.get("/w/theirs")
    assert kv is not None and kv.lease != 0
    await store.close()
