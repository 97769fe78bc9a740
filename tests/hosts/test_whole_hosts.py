"""What a whole host promises to the tests that stand on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.engines import ROOT, Engines
from harness.hosts import Host, Hosts
from harness.image import IMAGE
from harness.lab_leftovers import traces

pytestmark = pytest.mark.host

BOOT_ID = ("cat", "/proc/sys/kernel/random/boot_id")


@pytest.fixture(scope="module")
def pair(hosts: Hosts) -> Iterator[list[Host]]:
    made = [hosts.create("left"), hosts.create("right", docker=True)]
    for host in made:
        host.wait_booted()
    yield made
    for host in made:
        hosts.remove(host)


def reaches(one: Host, other: str) -> bool:
    return one.attempt("curl", "-s", "--max-time", "1", f"http://{other}:7000/").code == 0


def test_hosts_reach_each_other_by_name_until_one_is_cut_off_and_again_when_it_is_healed(pair: list[Host]) -> None:
    left, right = pair
    right.run("systemd-run", "--unit=web", "python3", "-m", "http.server", "7000")
    left.wait_until(lambda: reaches(left, "right"), "it is reached")
    right.cut()
    assert not reaches(left, right.address)
    assert right.active("web")
    right.heal()
    left.wait_until(lambda: reaches(left, right.address), "it is reached again, at the same address")


def test_no_host_reaches_beyond_the_lab(pair: list[Host]) -> None:
    assert pair[0].attempt("curl", "-s", "--max-time", "2", "http://192.0.2.1/").code in (7, 28)


def test_a_frozen_host_does_nothing_until_it_goes_on(pair: list[Host]) -> None:
    left, right = pair
    left.wait_until(lambda: reaches(left, right.address), "it is reached")
    right.pause()
    assert not reaches(left, right.address)
    right.resume()
    left.wait_until(lambda: reaches(left, right.address), "it is reached again")


def test_a_host_whose_power_was_cut_boots_anew_with_its_disk(pair: list[Host]) -> None:
    host = pair[1]
    host.copy_in("kept", "/var/kept")
    before = host.run(*BOOT_ID)
    host.kill()
    host.start()
    host.wait_booted()
    assert host.run(*BOOT_ID) != before
    assert host.run("cat", "/var/kept") == "kept"
    assert not host.active("web")


def test_a_host_has_an_engine_of_its_own(pair: list[Host]) -> None:
    host = pair[1]
    host.load_image()
    host.run("docker", "run", "--detach", "--name", "box", "--memory", "32m", IMAGE, "sleep", "1000")
    limit = "cat /sys/fs/cgroup/memory$(sed -n s/.*:memory://p /proc/$1/cgroup)/memory.limit_in_bytes"
    pid = host.run("docker", "inspect", "-f", "{{.State.Pid}}", "box").strip()
    assert host.run("sh", "-c", limit, "sh", pid).strip() == str(32 * 1024 * 1024)


def test_what_a_killed_run_left_of_hosts_is_swept_by_the_next_lab(hosts: Hosts) -> None:
    script = (
        "import time\nfrom harness.hosts import Hosts\n"
        "with Hosts() as hosts:\n    hosts.create('left-behind', docker=True).wait_booted()\n"
        "    print(hosts.lab.number, flush=True)\n    time.sleep(1000)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as abandoned:
        assert abandoned.stdout is not None
        number = int(abandoned.stdout.readline())
        abandoned.kill()
    assert number != hosts.lab.number
    assert traces(f"uflab{number}", ROOT / str(number))
    with Engines(1, image=False):
        pass
    assert traces(f"uflab{number}", ROOT / str(number)) == []
