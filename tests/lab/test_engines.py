"""What the lab itself promises to the tests that stand on it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.engines import ROOT, Engines, wait_for
from harness.image import IMAGE, image_id
from harness.lab_leftovers import traces

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Engines]:
    if reason := Engines.available():
        pytest.skip(reason)
    with Engines(2) as made:
        yield made


def reaches(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=0.5):
        return True
    return False


def test_every_host_has_an_engine_of_its_own_with_the_same_image(lab: Engines) -> None:
    engines = [lab.witness(host) for host in range(2)]
    assert [engine.images.get(IMAGE).id for engine in engines] == [image_id()] * 2
    made = engines[0].containers.create(IMAGE)
    assert [len(engine.containers.list(all=True)) for engine in engines] == [1, 0]
    made.remove()


def test_a_host_that_is_cut_off_is_reached_again_when_healed_and_runs_on_meanwhile(lab: Engines) -> None:
    server = lab.run_in(0, [sys.executable, "-m", "http.server", "7000"], cwd=lab.state_dir(0))
    address = lab.address(0)
    wait_for(lambda: reaches(address, 7000), "the host is reached from the root namespace", timeout_s=10)
    lab.cut(0)
    assert not reaches(address, 7000)
    assert server.poll() is None
    assert lab.witness(0).ping()
    lab.heal(0)
    wait_for(lambda: reaches(address, 7000), "the host is reached again", timeout_s=10)
    server.kill()
    server.wait(10)


def test_hosts_reach_each_other_and_the_bridge(lab: Engines) -> None:
    with socket.create_server((lab.bridge_address, 0)) as listener:
        accepted: list[str] = []

        def accept() -> None:
            connection, peer = listener.accept()
            accepted.append(peer[0])
            connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        port = str(listener.getsockname()[1])
        assert lab.run_in(1, ["busybox", "nc", lab.bridge_address, port]).wait(10) == 0
        thread.join(10)
        assert accepted == [lab.address(1)]
    assert lab.run_in(1, ["busybox", "ping", "-c", "1", "-W", "2", lab.address(0)]).wait(10) == 0


def test_a_power_off_ends_everything_of_its_host_and_nothing_else(lab: Engines) -> None:
    engines = [lab.witness(host) for host in range(2)]
    made = [
        engine.containers.run(IMAGE, ["sleep", "1000"], detach=True, network_mode="none") for engine in engines
    ]
    processes = [lab.run_in(host, ["sleep", "1000"]) for host in range(2)]
    for container in made:
        container.reload()
    pids = [container.attrs["State"]["Pid"] for container in made]
    lab.power_off(0)
    assert processes[0].returncode == -signal.SIGKILL
    wait_for(lambda: not Path(f"/proc/{pids[0]}").exists(), "the container's process is gone", timeout_s=10)
    assert processes[1].poll() is None
    assert Path(f"/proc/{pids[1]}").exists()
    lab.boot(0)
    assert lab.witness(0).containers.get(made[0].id).status == "exited"
    for host, container in enumerate(made):
        lab.witness(host).containers.get(container.id).remove(force=True)


def test_a_lab_leaves_nothing_also_when_its_block_fails(lab: Engines) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), Engines(1) as other:
        assert other.number != lab.number
        other.witness(0).containers.run(IMAGE, ["sleep", "1000"], detach=True)
        assert traces(other.name, ROOT / str(other.number))
        raise RuntimeError("on purpose")
    assert traces(other.name, ROOT / str(other.number)) == []
    assert lab.witness(0).ping()


def test_what_a_killed_run_left_is_swept_by_the_next_lab(lab: Engines, tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom harness.engines import Engines\n"
        "with Engines(1, image=False) as lab:\n    print(lab.number, flush=True)\n    time.sleep(1000)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as abandoned:
        assert abandoned.stdout is not None
        number = int(abandoned.stdout.readline())
        abandoned.kill()
    assert traces(f"uflab{number}", ROOT / str(number))
    with Engines(1, image=False):
        pass
    assert traces(f"uflab{number}", ROOT / str(number)) == []
