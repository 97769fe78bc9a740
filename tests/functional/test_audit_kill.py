"""A master that is killed right after its answer: who asked for what stands on its disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness.cluster import Cluster
from unit_master.audit.reading import AuditQuery, newest
from unit_master.audit.trail import Trail

SERVICE = "[Service]\nExecStart=/bin/sleep 100000\n"


async def test_a_change_that_was_answered_is_in_the_log_of_a_master_that_was_killed_then() -> None:
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.on_loopback(Path(logs), machines=0, masters=1) as cluster:
            (master,) = cluster.masters
            cluster.write("a.service", SERVICE)
            await cluster.must("submit", "a.service")
            master.kill()
            folder = Path(master.argv[master.argv.index("--state-dir") + 1])
            (line,) = newest(Trail(folder).files(), AuditQuery()).items
            assert (line.action, line.status, line.caller) == ("submit a.service", 202, "admin")
            assert line.rev > 0 and line.objects == ("a.service",)
            master.start()
            await cluster.wait_until(lambda: _serves(cluster), 30.0, "the master serves again")
            told = await cluster.must("audit", "-o", "jsonl")
            assert line.id in told.stdout


async def _serves(cluster: Cluster) -> bool:
    return (await cluster.unitctl("list-units")).code == 0
