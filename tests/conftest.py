"""What holds for every test."""

from __future__ import annotations

import gc
import re
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from harness.effort import FEW, examples
from harness.side_by_side import SideBySide, place, schedule

# how long an example takes says nothing on a shared machine
settings.register_profile("shared machine", deadline=None, max_examples=examples(100, 25))
settings.load_profile("shared machine")

# A shell has what it runs in the background ignore ctrl-C, and all that those start would ignore it, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

STORIES = frozenset(
    {
        "test_audit_kill.py",
        "test_bad_input.py",
        "test_bootstrap_etcd.py",
        "test_central_search.py",
        "test_checks.py",
        "test_crash_points.py",
        "test_demo.py",
        "test_doctor.py",
        "test_etcd_identities.py",
        "test_etcd_protecting.py",
        "test_etcd_roles.py",
        "test_fake_is_process.py",
        "test_fleet_stories_client.py",
        "test_fleet_stories_cluster.py",
        "test_fleet_stories_scheduling.py",
        "test_fleet_stories_units.py",
        "test_figures.py",
        "test_identities.py",
        "test_log_shipping.py",
        "test_logs.py",
        "test_model.py",
        "test_net_cluster.py",
        "test_openapi_roles.py",
        "test_policy.py",
        "test_secrets_cluster.py",
        "test_seeded_bugs.py",
        "test_strict.py",
        "test_termination.py",
        "test_thousand_units.py",
        "test_two_versions.py",
        "test_unitctl_net.py",
    }
)
"""Files with the marker `story`: cluster after cluster, of real daemons or simulated, for minutes in all."""


WHOLLY_MARKED = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.(\w+)", re.MULTILINE)


def is_story(path: Path) -> bool:
    """Whether all of a file's tests have the marker `story`."""
    return path.name in STORIES and path.parent.name not in ("unit", "property")


def marked(path: Path) -> set[str]:
    """Return what a whole file is marked with, as far as it can be told without importing it."""
    found = WHOLLY_MARKED.search(path.read_text())
    return {*([found[1]] if found else []), *(["story"] if is_story(path) else [])}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over a file that `-m "not this and not that"` leaves out: each process would import it for nothing."""
    terms = config.option.markexpr.split(" and ")
    if not collection_path.match("test_*.py") or not all(re.fullmatch(r"not \w+", term) for term in terms):
        return None
    return True if {f"not {mark}" for mark in marked(collection_path)} & {*terms} else None


@pytest.hookimpl(tryfirst=True)  # before the marks are looked at
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark stories; sort tests where they are shared out to several processes (pytest -n)."""
    for item in items:
        if is_story(item.path):
            item.add_marker("story")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: place(item.path))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage in what is imported and collected, neither meanwhile nor after each test: it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_xdist_make_scheduler(config: pytest.Config) -> SideBySide | None:
    """Share the whole run out as `harness.side_by_side` says; `--fast` is shared out by pytest's own way."""
    return None if FEW else schedule(config)
