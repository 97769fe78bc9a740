"""The store of logs on real disks: one that is full, and units that write without end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from functional.process_units import needs_root
from unit_agent.logs.retention import Limits
from unit_agent.logs.segments import SegmentStore

LATE = 30


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@needs_root
async def test_a_full_disk_shrinks_the_logs_then_pauses_them_and_what_waited_is_written_later(
    small_disk: Path,
) -> None:
    told: list[str] = []
    store = SegmentStore(
        small_disk / "logs", Limits(1 << 20, 1 << 30, 1e9), time.time, lambda kind, message: told.append(kind)
    )
    await store.open()
    try:
        written = 0
        for number in range(60):  # 2 MiB that can't be compressed, into 1 MiB
            unit = f"u{number % 3}.service"
            store.take(unit, [(time.time(), "stdout", os.urandom(32 * 1024))], 1, marks={"output": str(number)})
            await store.flush()
            written += 1
        assert "logs-shrunk" in told and "logs-paused" not in told
        last = [await store.read(unit, store.span(unit).last - 1, 1) for unit in store.units()]
        assert all(last), "the newest lines of each unit are there"
        gone = store.gone("u0.service")
        assert gone is not None and gone.why == "the disk was full"

        ballast = small_disk / "ballast"
        for unit in store.units():  # nothing is left to give up, and somebody else holds the disk
            for segment in (small_disk / "logs").glob("*/*.seg"):
                segment.unlink()
            store._disk.units[unit].segments = []
        _fill(ballast)
        late = [(time.time(), "stdout", os.urandom(16 * 1024)) for _ in range(LATE)]
        store.take("u0.service", late, 1, marks={"output": "late"})
        await store.flush()
        assert told[-1] == "logs-paused"
        ballast.unlink()
        await store.flush()
        assert told[-1] == "logs-resumed"
        assert store.span("u0.service").last == written // 3 + LATE, "what waited is there, and numbered on"
    finally:
        store.close()


def _fill(path: Path) -> None:
    """Write until the disk takes no more."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(file, b"x" * 4096):
            pass
    except OSError:
        pass
    finally:
        os.close(file)
