"""How the whole run is shared out to two processes (`pytest -n 2`): what must be quiet is by itself at the end.

Hosts, contracts and labs come one after the other in one process, those that measure last; everything else goes
to the other one, a file at a time, and has ended by then.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

IN_A_ROW = ("hosts", "contract", "lab")
"""Folders of tests, in this order; within one, files as `LAST` says."""

WITHOUT_ENGINES = (
    "test_etcd3_reads_what_we_write.py",
    "test_etcd_faults.py",
    "test_fake_is_process.py",
    "test_memory_is_etcd.py",
    "test_store.py",
)
"""Files of these folders that disturb no lab and need no quiet: they go with everything else."""

LAST = (
    "test_chaos.py",
    "test_chaos_finds_bugs.py",
    "test_image_pulls.py",
    "test_slow_registry.py",
    "test_must_hold.py",
    "test_pull_cap.py",
    "test_shaping_agent.py",
    "test_shaping.py",
)
"""Files that measure rates or times."""

LONGEST = (
    "test_bad_input.py",
    "test_openapi_roles.py",
    "test_fuzz.py",
    "test_logs.py",
    "test_strict.py",
    "test_log_shipping.py",
    "test_termination.py",
    "test_etcd_roles.py",
    "test_etcd_protecting.py",
    "test_two_versions.py",
    "test_checks.py",
    "test_etcd_faults.py",
    "test_cluster.py",
    "test_demo.py",
    "test_agent_failures.py",
    "test_promises.py",
    "test_crash_points.py",
    "test_central_search.py",
    "test_process_limits.py",
    "test_unitctl.py",
    "test_agent_process.py",
    "test_protocol_walks.py",
    "test_memory_is_etcd.py",
)
"""Files that take the longest of all others: begun last they would be all that still runs."""


def is_in_a_row(path: Path) -> bool:
    """Whether a file comes in its turn, in the one process of those."""
    return path.parent.name in IN_A_ROW and path.name not in WITHOUT_ENGINES


def place(path: Path) -> tuple[int, int]:
    """Return what tests are sorted by, before they are shared out."""
    if is_in_a_row(path):
        return IN_A_ROW.index(path.parent.name), LAST.index(path.name) + 1 if path.name in LAST else 0
    rank = LONGEST.index(path.name) if path.name in LONGEST else len(LONGEST)
    return len(IN_A_ROW), rank


class SideBySide(LoadScopeScheduling):  # type: ignore[misc]  # a library without types
    """Shares tests out by file, those of `IN_A_ROW` as one."""

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.partition("::")[0])
        return "in a row" if is_in_a_row(path) else str(path)


def schedule(config: pytest.Config) -> SideBySide:
    """Return the scheduler of the whole run."""
    scheduler = SideBySide(config)
    config.option.loadscopereorder = False
    return scheduler
