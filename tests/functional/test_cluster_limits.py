"""The whole way of a limit: from a unit's text to the kernel, and of a cause back to the person who asks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.cluster import Cluster
from unitfleet.model import Cause

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for control groups")

HOG = (
    "[Service]\n"
    "ExecStart=/bin/sh -c 'sleep 0.3; exec dd if=/dev/zero of=/dev/null bs=256M count=1'\n"
    "MemoryMax=64M\nMemorySwapMax=0\nRestart=on-failure\nStartLimitBurst=2\n"
)
SOON_S = 20.0


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with Cluster.on_loopback(Path(logs), machines=1, masters=1) as made:
            yield made


async def test_a_unit_over_its_memory_says_so_to_whoever_asks(cluster: Cluster) -> None:
    cluster.write("hog.service", HOG)
    await cluster.unitctl("start", "hog.service")

    async def failed() -> bool:
        view = await cluster.unit("hog.service")
        return view is not None and view.phase == "failed"

    await cluster.wait_until(failed, SOON_S, "the unit is started twice and then failed")
    view = await cluster.unit("hog.service")
    assert view is not None
    (copy,) = view.copies
    assert (copy.cause, copy.restarts) == (Cause.OOM, 1)
    assert copy.message.startswith("OOM-killed at 64 MiB (limit 64 MiB): /bin/sh was killed by SIGKILL")
    status = (await cluster.unitctl("status", "hog.service")).stdout
    assert "Restarts: 1, the last by oom" in status
    assert "OOM-killed at 64 MiB (limit 64 MiB)" in status
    events = [line for line in status.splitlines() if "[oom]" in line]
    assert any("restarted" in line for line in events), status
    assert any("failed" in line for line in events), status
