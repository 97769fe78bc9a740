"""The cluster of `unitctl dev` and `scripts/demo`: real daemons, a real etcd, real ad servers on loopback."""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.engines import Engines, shared_engine
from harness.etcd import binary
from harness.eventually import eventually
from harness.image import IMAGE
from unitctl.dev import etcd
from unitctl.dev.layout import Layout
from unitctl.dev.members import is_free
from unitctl.dev.processes import Identity, boot_id, look, running
from unitctl.failures import Failure

UNITS = Path(__file__).parents[2] / "units"
PORTS = (8081, 8082, 8083, 8084)
MACHINES = ("m1", "m2", "m3")


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Dev:
    """A home and a state folder of the test's own, and unitctl in it."""

    home: Path
    state: Path
    engine: str = "unix:///nonexistent/docker.sock"

    async def unitctl(self, *words: str, path: str = "") -> Said:
        foreign = ("UNIT", "XDG_", "DOCKER")
        env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        env |= {"HOME": str(self.home), "UNITFLEET_DEV_STATE": str(self.state), "DOCKER_HOST": self.engine}
        env |= {"PATH": path} if path else {}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "unitctl", *words),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode())

    async def must(self, *words: str) -> Said:
        said = await self.unitctl(*words)
        assert said.code == 0, f"unitctl {' '.join(words)}: {said.out}{said.err}"
        return said

    async def daemon(self, name: str) -> dict[str, Any]:
        """What `dev status` tells of one daemon."""
        rows = json.loads((await self.must("dev", "status", "-o", "json")).out)["items"]
        return next(row for row in rows if row["name"] == name)

    async def pid(self, name: str) -> int:
        return int((await self.daemon(name))["pid"])

    async def is_dead(self, name: str) -> bool:
        return bool((await self.daemon(name))["state"] == "dead")

    def processes(self) -> dict[int, int]:
        """Every live process that names the folder, and what runs below it: pid → start."""
        mark = os.fsencode(self.state)
        everyone = [found for name in os.listdir("/proc") if name.isdigit() and (found := look(int(name)))]
        mine = {each.pid: each.start for each in everyone if each.alive and mark in _command_line(each.pid)}
        while below := {p.pid: p.start for p in everyone if p.alive and p.parent in mine and p.pid not in mine}:
            mine |= below
        return mine


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """Give a cluster's place; what a failed test leaves there is ended by pid."""
    dev = Dev(tmp_path / "home", tmp_path / "state")
    dev.home.mkdir()
    yield dev
    while left := dev.processes():
        for pid in left:
            os.kill(pid, signal.SIGKILL)


def fetch(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode().strip()
    except OSError:
        return ""
    finally:
        connection.close()


async def answers() -> dict[str, str]:
    """Unit → machine, once all four ad servers answer; empty before."""
    said = [await asyncio.to_thread(fetch, port) for port in PORTS]
    if not all(said):
        return {}
    pairs = [text.split(" on ") for text in said]
    return {unit: machine for unit, machine in pairs}


async def test_a_demo_cluster_runs_four_ad_servers_moves_them_and_leaves_nothing(dev: Dev) -> None:
    binary()
    if taken := [port for port in PORTS if not is_free(port)]:
        pytest.skip(f"another program listens on {taken}, the ports of the ad servers")
    await dev.must("dev", "up")
    await dev.must("submit", str(UNITS / "adserver@.service"))
    await dev.must("start", "adserver@<1..4>")

    async def not_on(machine: str) -> dict[str, str]:
        found = await answers()
        return {} if machine in found.values() else found

    at_first = await eventually(answers, within_s=10, what=lambda: "not all ad servers answer")
    assert list(at_first) == [f"adserver@{number}.service" for number in (1, 2, 3, 4)]
    assert set(at_first.values()) == set(MACHINES)

    assert "everything runs already" in (await dev.must("dev", "up")).out
    # An agent that died and was started again has adopted its units: they no longer descend from it.
    os.kill(await dev.pid("m2"), signal.SIGKILL)
    await eventually(lambda: dev.is_dead("m2"), within_s=5, what=lambda: "the agent of m2 lives", every_s=0.1)
    await dev.must("dev", "up")
    assert await answers() == at_first

    before = dev.processes()
    killed = await dev.must("dev", "kill", "m2")
    assert all(unit in killed.out for unit, machine in at_first.items() if machine == "m2")
    moved = await eventually(lambda: not_on("m2"), within_s=15, what=lambda: "the ad server of m2 did not move")
    assert {unit: machine for unit, machine in moved.items() if at_first[unit] != "m2"} == {
        unit: machine for unit, machine in at_first.items() if machine != "m2"
    }
    assert (await dev.unitctl("dev", "kill", "m2")).code == 1

    second = await dev.must("dev", "kill", "m1")
    assert "the brake holds" in second.err and "unitctl cluster release" in second.err

    async def brake_holds() -> bool:
        return bool(json.loads((await dev.must("cluster", "status", "-o", "jsonl")).out)["brake"] == "holding")

    await eventually(brake_holds, within_s=15, what=lambda: "the brake does not hold", every_s=0.3)

    await dev.must("dev", "up")
    await eventually(answers, within_s=15, what=lambda: "not all ad servers answer again", every_s=0.1)

    before |= dev.processes()
    await dev.must("dev", "down")
    assert not dev.processes()
    assert not [pid for pid, start in before.items() if (now := look(pid)) and now.alive and now.start == start]
    assert not dev.state.exists()
    assert not list(dev.home.rglob("config.toml"))
    assert all(is_free(port) for port in PORTS)


@pytest.mark.engine
async def test_containers_go_with_the_power_of_their_machine_and_the_cluster(dev: Dev, tmp_path: Path) -> None:
    binary()
    if reason := Engines.available():
        pytest.skip(reason)
    lab = await asyncio.to_thread(shared_engine)
    dev = dataclasses.replace(dev, engine=f"unix://{lab.socket(0)}")
    text = f"[Container]\nImage={IMAGE}\nExec=sleep 1000\nNetwork=none\n[X-Fleet]\nOnMachineLoss=wait\n"
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.container").write_text(text)
    witness = lab.witness(0)

    def containers(**state: bool) -> dict[str, str]:
        """Container id → machine, as the Engine tells."""
        found = witness.containers.list(filters={"label": "unitfleet.unit"}, **state)
        return {each.id: each.labels["unitfleet.machine"] for each in found}

    try:
        await dev.must("dev", "up")
        paths = [str(tmp_path / name) for name in ("one", "two", "three")]
        await dev.must("start", "--wait", "--timeout", "20s", *paths)
        before = containers()
        assert len(before) == len(set(before.values())) == 3, "one on each machine"
        assert "1 container" in (await dev.must("dev", "kill", "m3")).out
        after = containers()
        assert len(after) == 2 and after.items() < before.items(), "the two others run on"
        assert containers(all=True) == before, "a power cut removes nothing"
        await dev.must("dev", "down")
        assert not containers(all=True)
    finally:
        for container in witness.containers.list(all=True, filters={"label": "unitfleet.unit"}):
            container.remove(force=True)
        witness.close()


async def test_a_folder_with_other_files_is_neither_used_nor_removed(dev: Dev) -> None:
    dev.state.mkdir()
    (dev.state / "thesis.tex").touch()
    up = await dev.unitctl("dev", "up")
    assert up.code == 1 and "holds files and no cluster" in up.err
    assert "nothing to end" in (await dev.must("dev", "down")).out
    assert [path.name for path in dev.state.iterdir()] == ["thesis.tex"]


async def test_without_a_cluster_status_and_kill_say_how_to_start_one(dev: Dev) -> None:
    for words in (["status"], ["kill", "m1"]):
        said = await dev.unitctl("dev", *words)
        assert said.code == 4
        assert "hint: unitctl dev up starts one" in said.err
    assert not dev.state.exists()


async def test_a_daemon_that_cannot_start_is_named_with_the_end_of_its_log(dev: Dev, tmp_path: Path) -> None:
    bad = tmp_path / "bin"
    bad.mkdir()
    _script(bad / "etcd", "echo no space left on this disk >&2; exit 1")
    said = await dev.unitctl("dev", "up", path=f"{bad}:{os.environ['PATH']}")
    assert said.code == 1
    assert "error: cannot start etcd: it ended" in said.err and "no space left on this disk" in said.err


def test_a_pid_that_was_used_again_is_not_ours() -> None:
    me = look(os.getpid())
    assert me is not None
    assert running(Identity(pid=me.pid, start=me.start, boot_id=boot_id())) == me
    assert running(Identity(pid=me.pid, start=me.start - 1, boot_id=boot_id())) is None
    assert running(Identity(pid=me.pid, start=me.start, boot_id="another boot")) is None


class TestFetchingEtcd:
    """On a host without etcd, and with no or old package lists."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A PATH with the tools of a fresh host, without etcd; `apt-get` is put in by the test."""
        path = tmp_path / "path"
        path.mkdir()
        for tool in ("dpkg-deb", "tar", "sh", "cp", "rm"):
            found = shutil.which(tool) or pytest.skip(f"no {tool} here")
            (path / tool).symlink_to(found)
        return path

    @pytest.fixture
    def package(self, tmp_path: Path) -> Path:
        tree = tmp_path / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/bin").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            "Package: etcd-server\nVersion: 3.4\nArchitecture: all\nMaintainer: A <a@b.org>\nDescription: -\n"
        )
        _script(tree / "usr/bin/etcd", "echo etcd")
        subprocess.run(["dpkg-deb", "-b", tree, tmp_path / "etcd.deb"], check=True, capture_output=True)
        return tmp_path / "etcd.deb"

    @pytest.mark.parametrize("lists", [pytest.param(True, id="lists there"), pytest.param(False, id="no lists")])
    def test_it_is_unpacked_into_the_folder(self, tmp_path: Path, path: Path, package: Path, lists: bool) -> None:
        needs = "true" if lists else 'case "$*" in *Lists=*) ;; *) echo E: Unable to locate >&2; exit 100;; esac'
        _script(path / "apt-get", f'{needs}\ncase "$*" in *download*) cp {package} . ;; esac')
        layout = Layout(tmp_path / "state")
        layout.make()
        found = etcd.find(layout, {"PATH": str(path)})
        assert subprocess.run([found], capture_output=True, text=True).stdout == "etcd\n"
        assert [each.name for each in layout.root.iterdir()] == ["etcd-server"]
        (path / "apt-get").unlink()
        assert etcd.find(layout, {"PATH": str(path)}) == found, "the second time it is there"

    def test_where_it_cannot_be_had_the_error_tells_what_apt_said(self, tmp_path: Path, path: Path) -> None:
        _script(path / "apt-get", "echo E: Unable to locate package >&2; exit 100")
        layout = Layout(tmp_path / "state")
        layout.make()
        with pytest.raises(Failure, match="cannot fetch etcd") as caught:
            etcd.find(layout, {"PATH": str(path)})
        assert "E: Unable to locate package" in caught.value.details
        assert caught.value.hint and "PATH" in caught.value.hint


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
