"""The contract of `Driver.output`: all that a copy writes, from a mark on, on the fake and on real drivers."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.driver_rig import DEADLINE_S, DriverRig, FakeRig, Job, ProcessRig, shell
from unit_agent.driver import Driver
from unit_agent.drivers.docker_seen import Seen, log_files
from unit_agent.output import LONGEST_LINE, OutputLine
from unitfleet.errors import DriverError
from unitfleet.spec import Restart, RestartPolicy, ServiceSpec, ServiceType

UNIT = "adserver@1.service"
PRINTED = [("stdout", f"line {number}".encode()) for number in range(1, 6)] + [("stderr", b"problem")]


DOCKERS = ["docker", "docker, read through its Engine"]


@pytest.fixture(params=["fake", "process", *(pytest.param(name, marks=pytest.mark.engine) for name in DOCKERS)])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DriverRig]:
    match request.param:
        case "fake":
            made: DriverRig = FakeRig(tmp_path)
        case "process":
            made = ProcessRig(tmp_path)
        case docker:
            log_driver = "" if docker == "docker" else "local"
            made = importlib.import_module("contract.docker_rig").DockerRig(tmp_path, log_driver)
    async with made:
        yield made


async def take(driver: Driver, mark: str, count: int) -> tuple[list[OutputLine], str]:
    """Read on from a mark until at least `count` lines have come."""
    found: list[OutputLine] = []
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(driver.output(UNIT, mark)) as batches:
        async for lines, behind in batches:
            found += lines
            mark = behind
            if len(found) >= count:
                break
    return found, mark


def texts(lines: list[OutputLine]) -> list[str]:
    return [text.decode() for _, _, text in lines]


async def test_all_that_a_copy_wrote_comes_with_its_stream_and_time(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.PRINTS)
    await driver.create(order)
    await driver.start(order)
    lines, _ = await take(driver, "", len(PRINTED))
    assert [(stream, text) for _, stream, text in lines] == PRINTED
    times = [at for at, _, _ in lines]
    assert times == sorted(times) and times[0] > 0


async def test_another_driver_reads_on_behind_the_mark_with_nothing_lost_or_doubled(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.TICKS)
    await driver.create(order)
    await driver.start(order)
    found, mark = await take(driver, "", 3)
    for _ in range(3):
        await driver.close()
        driver = rig.driver()
        more, mark = await take(driver, mark, 3)
        found += more
    assert texts(found) == [f"tick {number}" for number in range(1, len(found) + 1)]


async def test_a_mark_behind_which_nothing_came_gives_nothing_old(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.PRINTS)
    await driver.create(order)
    await driver.start(order)
    _, mark = await take(driver, "", len(PRINTED))
    reading = driver.output(UNIT, mark)
    async with contextlib.aclosing(reading):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                while not (await anext(reading))[0]:
                    pass


async def test_reading_goes_on_over_a_restart_by_restart_always(rig: DriverRig) -> None:
    driver = rig.driver()
    order = rig.order(UNIT, Job.TICKS, RestartPolicy(when=Restart.ALWAYS, delay_s=0.1))
    await driver.create(order)
    started = await driver.start(order)
    found: list[OutputLine] = []
    killed = False
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(driver.output(UNIT, "")) as batches:
        async for lines, _ in batches:
            found += lines
            if len(found) >= 3 and not killed:
                killed = True
                if rig.name == "process":  # a shell and the sleep it waits for
                    os.kill(started.pid, signal.SIGKILL)
                else:
                    await rig.kill(UNIT)
            if texts(found).count("tick 1") == 2:
                break
    again = texts(found).index("tick 1", 1)
    assert texts(found)[:again] == [f"tick {number}" for number in range(1, again + 1)]


async def test_what_was_written_last_comes_before_the_end_when_the_copy_is_removed(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.PRINTS)
    await driver.create(order)
    found: list[OutputLine] = []

    async def read_all() -> None:
        async with contextlib.aclosing(driver.output(UNIT, "")) as batches:
            async for lines, _ in batches:
                found.extend(lines)

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(read_all())
        await asyncio.sleep(0)
        await driver.start(order)
        await driver.stop(UNIT)
        await driver.remove(UNIT)
    assert [(stream, text) for _, stream, text in found] == PRINTED


async def test_a_mark_of_another_copy_is_the_beginning(rig: DriverRig) -> None:
    driver, order = rig.driver(), rig.order(UNIT, Job.PRINTS)
    marks: list[str] = []
    for _ in range(2):
        await driver.create(order)
        await driver.start(order)
        lines, mark = await take(driver, marks[-1] if marks else "", len(PRINTED))
        assert [(stream, text) for _, stream, text in lines] == PRINTED
        marks.append(mark)
        await driver.stop(UNIT)
        await driver.remove(UNIT)


@pytest.mark.engine
@pytest.mark.parametrize("missing", [None, ("/not/there-json.log", 3)], ids=["not to be read", "not there"])
async def test_files_of_an_engine_and_its_own_reading_take_over_from_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, int] | None
) -> None:
    """An agent that read no files is followed by one that does; one that can't open them reads all the same."""
    async with importlib.import_module("contract.docker_rig").DockerRig(tmp_path) as rig:
        driver, order = rig.driver(), rig.order(UNIT, Job.TICKS)
        await driver.create(order)
        await driver.start(order)
        found: list[OutputLine] = []
        mark = ""
        for reads_files in (False, True, False, True):
            with monkeypatch.context() as patch:
                if not reads_files:
                    patch.setattr("unit_agent.drivers.docker.log_files", lambda _: missing)
                more, mark = await take(driver, mark, 3)
            assert len(mark.split("@")) == 2 + reads_files
            found += more
        assert texts(found) == [f"tick {number}" for number in range(1, len(found) + 1)]


@pytest.mark.engine
async def test_a_container_that_starts_while_it_is_looked_at_is_read_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read through its Engine for good, it would lose lines of a flood untold."""
    async with importlib.import_module("contract.docker_rig").DockerRig(tmp_path) as rig:
        driver, order = rig.driver(), rig.order(UNIT, Job.TICKS)
        copy = await driver.create(order)
        looked = False

        def starts(seen: Seen) -> tuple[str, int] | None:
            nonlocal looked
            if not looked:
                looked = True
                rig.witness.containers.get(copy.id).start()
            return log_files(seen)

        monkeypatch.setattr("unit_agent.drivers.docker.log_files", starts)
        _, mark = await take(driver, "", 3)
        assert looked and len(mark.split("@")) == 3, mark


async def test_a_long_line_of_a_process_is_one_and_is_cut_with_its_length(tmp_path: Path) -> None:
    async with ProcessRig(tmp_path) as rig:
        script = "head -c 1000000 /dev/zero | tr '\\0' x; echo end; head -c 100000 /dev/zero | tr '\\0' y"
        driver, order = rig.driver(), rig.service(UNIT, ServiceSpec(type=ServiceType.ONESHOT, start=shell(script)))
        await driver.create(order)
        await driver.start(order)
        lines, _ = await take(driver, "", 2)
        assert [len(text) for _, _, text in lines] == [
            LONGEST_LINE + len(" … 1000003 bytes, cut".encode()),
            100_000,
        ]
        assert lines[0][2].endswith(" … 1000003 bytes, cut".encode())


async def test_what_was_rotated_away_unread_is_told_as_a_gap(tmp_path: Path) -> None:
    async with ProcessRig(tmp_path) as rig:
        driver, order = rig.driver(), rig.order(UNIT, Job.PRINTS)
        await driver.create(order)
        await driver.start(order)
        _, mark = await take(driver, "", 2)
        (log,) = rig.root.glob("units/*/output.log")
        for number in range(2):  # as its supervisor does, faster than anybody reads
            log.replace(log.with_name("output.log.1"))
            log.write_text(f"179542000{number}.000000 o line {number}\n")
        lines, _ = await take(rig.driver(), mark, 3)
        assert [stream for _, stream, _ in lines] == ["gap", "stdout", "stdout"]
        assert texts(lines)[1:] == ["line 0", "line 1"] and "rotated away" in texts(lines)[0]


async def test_the_output_of_what_is_not_here_is_refused_by_name(rig: DriverRig) -> None:
    with pytest.raises(DriverError, match=UNIT):
        await anext(rig.driver().output(UNIT, ""))
