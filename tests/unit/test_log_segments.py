"""The store of logs: blocks, segments, what a crash tears, what has to go."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unit_agent.logs.retention import Held, Limits, excess, shrink
from unit_agent.logs.segment import Segment
from unit_agent.logs.segments import SegmentStore
from unit_agent.output import LONGEST_LINE, cut

UNIT = "adserver@1.service"
ROOMY = Limits(1 << 26, 1 << 31, 7 * 86400.0)

told: list[tuple[str, str]] = []


@asynccontextmanager
async def opened(path: Path, limits: Limits = ROOMY, now: float = 1000.0) -> AsyncIterator[SegmentStore]:
    told.clear()
    store = SegmentStore(path, limits, lambda: now, lambda kind, message: told.append((kind, message)))
    await store.open()
    try:
        yield store
    finally:
        store.close()


def lines(*texts: str, at: float = 1000.0, stream: str = "stdout") -> list[tuple[float, str, bytes]]:
    return [(at + index, stream, text.encode()) for index, text in enumerate(texts)]


async def held(store: SegmentStore, unit: str = UNIT, after: int = -1) -> list[tuple[int, str]]:
    return [(record.seq, record.text) for record in await store.read(unit, after, 1_000_000)]


def files(path: Path) -> list[Path]:
    return sorted(path.glob("*/*.seg"))


def tear(segment: Path, garbage: bytes) -> None:
    """Leave what a crash may leave behind the last whole block."""
    with open(segment, "ab") as file:
        file.write(garbage)


batches = st.lists(
    st.lists(
        st.tuples(
            st.floats(0, 2e9, allow_nan=False),
            st.sampled_from(("stdout", "stderr", "gap")),
            st.binary(max_size=60),
        ),
        max_size=8,
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=batches, restarts=st.integers(0, 3), torn=st.binary(max_size=80))
async def test_what_is_taken_is_read_again_over_restarts_and_a_torn_tail(
    tmp_path_factory: pytest.TempPathFactory, batches: Sequence[Any], restarts: int, torn: bytes
) -> None:
    path = tmp_path_factory.mktemp("logs")
    wanted: list[tuple[int, float, str, str]] = []
    mark = ""
    for number, batch in enumerate(batches):
        async with opened(path) as store:
            assert store.mark(UNIT, "output") == mark, "the mark stands behind the lines that are there"
            store.take(UNIT, batch, number, marks={"output": f"m{number}"})
            await store.flush()
            mark = f"m{number}" if batch else mark
            for at, stream, text in batch:
                wanted.append((len(wanted) + 1, at, stream, text.decode("utf-8", "replace")))
            segments = files(path)
        if segments and number < restarts:
            tear(segments[-1], torn)
    async with opened(path) as store:
        found = await store.read(UNIT, -1, 10_000)
        assert [(r.seq, r.at, r.stream, r.text) for r in found] == wanted
        store.take(UNIT, lines("more"), 1, marks={"output": "more"})
        await store.flush()
        assert store.span(UNIT).last == len(wanted) + 1


async def test_a_block_that_was_half_written_goes_with_its_mark_and_all_before_it_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        store.take(UNIT, lines("one"), 1, marks={"output": "m1"})
        await store.flush()
        store.take(UNIT, lines("two"), 1, marks={"output": "m2"})
        await store.flush()
        (segment,) = files(tmp_path)
        os.truncate(segment, os.path.getsize(segment) - 3)  # noqa: ASYNC240
    async with opened(tmp_path) as store:
        assert await held(store) == [(1, "one")]
        assert store.mark(UNIT, "output") == "m1", "what was torn is asked for again"
        store.take(UNIT, lines("two, again"), 1, marks={"output": "m2"})
        await store.flush()
        assert await held(store) == [(1, "one"), (2, "two, again")]


async def test_a_unit_keeps_its_newest_lines_within_its_share_and_says_what_is_gone(tmp_path: Path) -> None:
    async with opened(tmp_path, Limits(16 * 16 * 1024, 1 << 30, 1e9)) as store:
        for number in range(120):
            store.take(UNIT, [(1000.0 + number, "stdout", os.urandom(4096))], 1, marks={"output": str(number)})
            await store.flush()
        span, gone = store.span(UNIT), store.gone(UNIT)
        assert span.last == 120 and 1 < span.first < 100
        assert gone is not None and gone.seq == span.first - 1 and "256 KiB of this unit" in gone.why
        assert gone.until == 1000.0 + gone.seq - 1, "up to when lines are gone"
        assert store.size <= 18 * 16 * 1024


async def test_numbers_go_on_when_nothing_else_of_a_unit_is_left(tmp_path: Path) -> None:
    async with opened(tmp_path, now=1000.0) as store:
        store.take(UNIT, lines("one", "two"), 1, marks={"output": "m"})
        await store.flush()
    async with opened(tmp_path, now=1000.0 + 8 * 86400) as store:
        await store.open()
        await store._in_thread(store._disk.tidy)
        assert store.units() == [] and store.known(UNIT)
        gone = store.gone(UNIT)
        assert gone is not None and gone.why == "older than 7 days"
    async with opened(tmp_path, now=1000.0 + 8 * 86400) as store:
        assert store.mark(UNIT, "output") == "m", "what was taken is not taken again"
        store.take(UNIT, lines("three"), 2, marks={"output": "m2"})
        await store.flush()
        assert await held(store) == [(3, "three")]


async def test_a_full_disk_pauses_the_store_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        append = Segment.append

        def full(segment: Segment, block: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Segment, "append", full)
        for number in range(3):
            store.take(UNIT, lines(f"line {number}"), 1, marks={"output": f"m{number}"})
            await store.flush()
        assert await held(store) == []
        assert [kind for kind, _ in told] == ["logs-paused"] and "no space left" in told[0][1]
        monkeypatch.setattr(Segment, "append", append)
        await store.flush()
        assert await held(store) == [(1, "line 0"), (2, "line 1"), (3, "line 2")]
        assert [kind for kind, _ in told] == ["logs-paused", "logs-resumed"]


async def test_readers_of_output_wait_while_more_is_pending_than_memory_should_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unit_agent.logs.segments.PENDING_MOST", 1000)
    async with opened(tmp_path) as store:
        store.take(UNIT, lines("x" * 2000), 1, marks={"output": "m"})
        waiting = asyncio.ensure_future(store.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        await store.flush()
        await waiting


async def test_the_last_lines_are_found_by_what_is_asked_for_and_when(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number in range(0, 1000, 10):
            texts = [f"line {n}" for n in range(number, number + 10)]
            store.take(UNIT, lines(*texts, at=1000.0 + number), 1, marks={"output": str(number)})
            await store.flush()
        found = await store.last(UNIT, 3, lambda record: record.text.endswith("7"), 0.0, 1500.0)
        assert [record.text for record in found] == ["line 477", "line 487", "line 497"]
        assert [r.text async for part in store.lines(UNIT, since=1995.0) for r in part] == [
            f"line {n}" for n in range(995, 1000)
        ]
        assert [seq for seq, _ in await held(store, after=998)] == [999, 1000]


async def test_reading_in_small_steps_gives_every_line_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for begin in (0, 7, 300):
            texts = [f"line {n}" for n in range(begin, begin + 7 if begin < 300 else 310)]
            store.take(UNIT, lines(*texts), 1, marks={"output": str(begin)})
            await store.flush()
        whole = await held(store)
        for step in (1, 3, 8, 100):
            found: list[tuple[int, str]] = []
            while more := await store.read(UNIT, found[-1][0] if found else -1, step):
                assert len(more) <= step
                found += [(record.seq, record.text) for record in more]
            assert found == whole


async def test_a_line_that_is_too_long_ends_in_how_long_it_was() -> None:
    assert cut(b"short") == b"short"
    long = cut(b"x" * 10_485_760)
    assert long.decode() == "x" * LONGEST_LINE + " … 10485760 bytes, cut"


def segments(unit: str, *sizes: int, begin: float = 0.0, waited_for: bool = False) -> list[Held]:
    return [Held(unit, index + 1, size, begin + index, waited_for) for index, size in enumerate(sizes)]


def test_what_a_sink_waits_for_outlives_its_units_share_and_goes_last() -> None:
    limits = Limits(unit_bytes=100, total_bytes=250, age_s=1e9)
    waited, other = segments("a", 60, 60, 60, waited_for=True), segments("b", 60, 60, begin=50.0)
    drops = excess([waited, other], 100.0, limits)
    assert [(drop.unit, drop.first) for drop in drops] == [("b", 1)], (
        "beyond b's share; a's waits, within the total"
    )
    drops = excess([waited, segments("b", 100, begin=50.0)], 100.0, limits)
    assert [(drop.unit, drop.first, drop.why) for drop in drops] == [("b", 1, "beyond 250 bytes in all")]
    drops = excess([segments("a", 200, 60, waited_for=True)], 100.0, limits)
    assert [(drop.unit, drop.first) for drop in drops] == [("a", 1)], "at last the oldest that is waited for"


def test_what_is_too_old_goes_whoever_waits() -> None:
    limits = Limits(unit_bytes=1000, total_bytes=1000, age_s=60.0)
    drops = excess([segments("a", 10, 10, 10, waited_for=True)], 61.5, limits)
    assert [(drop.first, drop.why) for drop in drops] == [(1, "older than 1 minute")]


def test_a_full_disk_takes_the_oldest_of_all_units_first() -> None:
    drops = shrink([segments("a", 10, 10, begin=5.0), segments("b", 10, begin=1.0)], 15)
    assert [(drop.unit, drop.first) for drop in drops] == [("b", 1), ("a", 1)]
