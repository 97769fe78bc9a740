"""Whole hosts with systemd, and our packages to install on them: made once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import packages
from harness.cloud import Cloud
from harness.host_image import NoHostImage
from harness.hosts import Hosts
from harness.packages import Packages

_AT_MOST_S = 1200  # a test; the first of a machine waits for the image, which is made in some minutes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("host"):
            item.add_marker(pytest.mark.timeout(_AT_MOST_S))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Our packages, of this tree."""
    try:
        return packages.build(tmp_path_factory.mktemp("packages"))
    except packages.NoPackages as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def hosts() -> Iterator[Hosts]:
    """A lab in which hosts can be made."""
    if reason := Hosts.available():
        pytest.skip(reason)
    try:
        lab = Hosts().__enter__()
    except NoHostImage as error:
        pytest.skip(f"needs the image of a host: {error}")
    try:
        yield lab
    finally:
        lab.__exit__(None, None, None)


@pytest.fixture(scope="session")
def cloud(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud in that lab, whose instances boot with user-data."""
    with Cloud(hosts, tmp_path_factory.mktemp("cloud")) as made:
        yield made
