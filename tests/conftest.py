"""What holds for every test."""

from __future__ import annotations

import pytest

SHARED_PORTS = ("test_demo.py", "test_cluster.py")
"""Files whose ad servers want the same ports of this host."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file, and files that share something of this host, in one process (pytest -n)."""
    for item in items:
        name = "shared ports" if item.path.name in SHARED_PORTS else str(item.path)
        item.add_marker(pytest.mark.xdist_group(name))
