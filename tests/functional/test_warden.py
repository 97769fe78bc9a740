"""The warden as a process of its own, with real processes to watch."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.eventually import eventually
from unit_agent.driver import Marks
from unit_agent.strict import warden
from unit_agent.strict.deadlines import Deadline, Deadlines, boottime
from unit_agent.strict.register import DirectoryRegister

A = "a.service"
SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(1000)"]


async def so(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` holds."""

    async def look() -> bool:
        return condition()

    await eventually(look, within_s=5.0, what=lambda: what)


class Rig:
    """A register of a machine with leases of 2 s, and processes with marks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.deadlines = Deadlines(2.0)
        self.register = DirectoryRegister(directory, "boot", self.deadlines)
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, mark: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(SLEEP, env={"MARK": mark}, stdout=subprocess.PIPE)
        self.processes.append(process)
        assert process.stdout is not None
        process.stdout.readline()  # it has its environment by now
        return process

    async def until(self, after_s: float, mark: str) -> None:
        marks = Marks(variables=(f"MARK={mark}",))
        await self.register.write({A: Deadline(1, boottime() + after_s, marks)})

    def wardens(self) -> list[int]:
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if str(self.directory).encode() in words:
                    found.append(int(name))
        return found

    def end(self) -> None:
        for pid in self.wardens():
            os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.end()


async def test_what_runs_past_its_deadline_is_killed_and_nothing_else(rig: Rig) -> None:
    marked, other = rig.run("mine"), rig.run("not mine")
    assert await rig.register.watched() == ""
    await rig.until(1.2, "mine")
    began = boottime()
    await so(lambda: marked.poll() is not None, "it was killed")
    assert 0.9 <= boottime() - began, "not before its time"
    await asyncio.sleep(3 * warden.TICK_S)
    assert other.poll() is None


async def test_a_deadline_that_is_renewed_kills_nothing(rig: Rig) -> None:
    marked = rig.run("mine")
    assert await rig.register.watched() == ""
    for _ in range(10):
        await rig.until(1.0, "mine")
        await asyncio.sleep(0.3)
    assert marked.poll() is None


async def test_what_starts_late_is_killed_too(rig: Rig) -> None:
    assert await rig.register.watched() == ""
    await rig.until(0.0, "mine")
    await asyncio.sleep(5 * warden.TICK_S)
    late = rig.run("mine")
    await so(lambda: late.poll() is not None, "it was killed")


async def test_a_register_that_goes_or_breaks_lifts_no_deadline(rig: Rig) -> None:
    marked = rig.run("mine")
    assert await rig.register.watched() == ""
    await rig.until(1.5, "mine")
    await asyncio.sleep(3 * warden.TICK_S)
    (rig.directory / warden.REGISTER).write_text("{ not whole")
    await asyncio.sleep(3 * warden.TICK_S)
    (rig.directory / warden.REGISTER).unlink()
    await so(lambda: marked.poll() is not None, "it was killed")


async def test_a_warden_whose_directory_went_ends_once_all_it_knew_has_ended(rig: Rig) -> None:
    assert await rig.register.watched() == ""
    await rig.until(0.5, "mine")
    await asyncio.sleep(3 * warden.TICK_S)
    for file in rig.directory.iterdir():
        file.unlink()
    await so(lambda: not rig.wardens(), "it ended")


async def test_there_is_one_warden_and_a_new_one_when_it_was_killed(rig: Rig) -> None:
    await asyncio.gather(*(DirectoryRegister(rig.directory, "boot", rig.deadlines).watched() for _ in range(3)))
    await so(lambda: len(rig.wardens()) == 1, "the others have ended")
    (pid,) = rig.wardens()
    os.kill(pid, signal.SIGKILL)
    await so(lambda: not warden.is_held(str(rig.directory)), "it is dead")
    assert await rig.register.watched() == ""
    assert pid not in rig.wardens() and len(rig.wardens()) == 1


async def test_deadlines_hold_for_the_next_agent_of_the_same_boot_alone(rig: Rig) -> None:
    await rig.until(60.0, "mine")
    (same,) = (await DirectoryRegister(rig.directory, "boot", rig.deadlines).load()).values()
    assert same.revision == 0 and same.marks == Marks(variables=("MARK=mine",))
    assert await DirectoryRegister(rig.directory, "next boot", rig.deadlines).load() == {}
    (rig.directory / warden.REGISTER).write_text("{ not whole")
    assert await rig.register.load() == {}


async def test_a_warden_that_can_not_be_started_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    register = DirectoryRegister(tmp_path / "file" / "below", "boot", Deadlines(2.0))
    assert "can't be started" in await register.watched()
