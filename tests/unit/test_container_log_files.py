"""A container's log read from the Engine's files: rotation, marks, torn and odd records, and what is missing."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unit_agent.drivers import docker_follow
from unit_agent.drivers.docker_follow import FileWatch, follow
from unit_agent.drivers.docker_output import Frames
from unit_agent.drivers.docker_records import nanoseconds, stamp_of
from unit_agent.drivers.docker_tail import FileTail
from unit_agent.logs.rate import Rate, RateCap
from unit_agent.output import LONGEST_LINE, OutputLine

BEGAN_NS = 1_769_868_300_000_000_000  # 2026-01-31T14:05:00Z
PIECE = 16 * 1024


def record(text: str, at_ns: int, stream: str = "stdout", *, ends: bool = True) -> bytes:
    """Return a record as Engine 20.10 writes it: no zeros at the end of its time."""
    stamp = stamp_of(at_ns)[:-1].rstrip("0").rstrip(".") + "Z"
    written: dict[str, object] = {"log": text + "\n" * ends, "stream": stream, "time": stamp}
    return json.dumps(written, separators=(",", ":")).encode() + b"\n"


class EngineFile:
    """Writes and rotates as the Engine does. Each record is a millisecond after the one before."""

    def __init__(self, folder: Path, most: int = 3) -> None:
        self.path = folder / "c-json.log"
        self.most = most
        self.at_ns = BEGAN_NS
        self.path.touch()

    def write(self, *texts: str, stream: str = "stdout", ends: bool = True) -> None:
        for text in texts:
            self.at_ns += 1_000_000
            self.append(record(text, self.at_ns, stream, ends=ends))

    def append(self, data: bytes) -> None:
        with open(self.path, "ab") as file:
            file.write(data)

    def rotate(self, *, pack: bool = False) -> None:
        if self.most == 1:
            self.path.write_bytes(b"")
            return
        extension = ".gz" if pack else ""
        for number in range(self.most - 1, 1, -1):
            older = Path(f"{self.path}.{number - 1}{extension}")
            if older.exists():
                older.replace(f"{self.path}.{number}{extension}")
        rotated = Path(f"{self.path}.1")
        self.path.replace(rotated)
        self.path.touch()
        if pack:
            Path(f"{rotated}.gz").write_bytes(gzip.compress(rotated.read_bytes()))
            rotated.unlink()

    def tail(self, mark: str = "") -> FileTail:
        return FileTail(str(self.path), self.most, mark)


@pytest.fixture
def engine(tmp_path: Path) -> EngineFile:
    return EngineFile(tmp_path)


def all_of(tail: FileTail) -> list[OutputLine]:
    """Read until there is nothing at the moment."""
    found: list[OutputLine] = []
    while (lines := tail.more()) is not None:
        found += lines
    return found


def texts(lines: list[OutputLine]) -> list[str]:
    return [text.decode() for _, stream, text in lines if stream != "gap"]


def gaps(lines: list[OutputLine]) -> list[str]:
    return [text.decode() for _, stream, text in lines if stream == "gap"]


def test_lines_come_with_their_stream_and_time_also_over_a_minutes_end(engine: EngineFile) -> None:
    engine.at_ns = BEGAN_NS + 59_998_000_000
    engine.write("one", "<two> \x1b[31m é", "three")
    engine.write("four", stream="stderr")
    assert all_of(engine.tail()) == [
        (BEGAN_NS / 1e9 + 59.999, "stdout", b"one"),
        (BEGAN_NS / 1e9 + 60.0, "stdout", "<two> \x1b[31m é".encode()),
        (BEGAN_NS / 1e9 + 60.001, "stdout", b"three"),
        (BEGAN_NS / 1e9 + 60.002, "stderr", b"four"),
    ]


def test_a_file_is_read_to_its_end_though_it_was_rotated_and_deleted_meanwhile(engine: EngineFile) -> None:
    engine.write("1", "2")
    tail = engine.tail()
    assert texts(all_of(tail)) == ["1", "2"]
    engine.write("3")
    for number in range(4, 10):  # each is looked at before two more have come
        engine.rotate()
        engine.write(str(number))
        tail.files.look()
    found = all_of(tail)
    assert texts(found) == [str(number) for number in range(3, 10)] and gaps(found) == []


def test_a_file_rotated_twice_between_two_looks_is_found_under_its_new_name(engine: EngineFile) -> None:
    engine.write("1")
    tail = engine.tail()
    for number in (2, 3):
        engine.rotate()
        engine.write(str(number))
    found = all_of(tail)
    assert texts(found) == ["1", "2", "3"] and gaps(found) == []


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "packed"])
def test_files_rotated_away_between_two_looks_are_told_where_they_are_missing(
    engine: EngineFile, pack: bool
) -> None:
    engine.write("1")
    tail = engine.tail()
    for number in range(2, 6):
        engine.rotate(pack=pack)
        engine.write(str(number))
    found = all_of(tail)
    assert [text.decode() for _, _, text in found[:1]] == ["1"], "what was open is read all the same"
    assert found[1][1] == "gap" and "before they were seen" in gaps(found)[0] and len(gaps(found)) == 1
    assert texts(found) == ["1", "3", "4", "5"]


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("rotations", [0, 1, 2])
def test_a_mark_holds_over_the_agents_end_in_the_file_that_it_speaks_of(
    engine: EngineFile, rotations: int, pack: bool
) -> None:
    engine.write("1", "2")
    tail = engine.tail()
    all_of(tail)
    mark = tail.mark
    tail.close()
    engine.write("3")
    for number in range(rotations):
        engine.rotate(pack=pack)
        engine.write(f"then {number}")
    found = all_of(engine.tail(mark))
    assert texts(found) == ["3"] + [f"then {number}" for number in range(rotations)] and gaps(found) == []


def test_a_mark_whose_file_is_gone_tells_so_and_goes_on_with_the_oldest(engine: EngineFile) -> None:
    engine.write("1", "2")
    tail = engine.tail()
    all_of(tail)
    mark = tail.mark
    tail.close()
    for number in range(3, 7):
        engine.rotate()
        engine.write(str(number))
    found = all_of(engine.tail(mark))
    assert found[0][1] == "gap" and "rotated its files away" in gaps(found)[0]
    assert texts(found) == ["4", "5", "6"]


def test_what_was_rotated_away_before_the_first_look_is_told(engine: EngineFile) -> None:
    for number in range(3):
        engine.write(str(number))
        engine.rotate()
    assert len(gaps(all_of(engine.tail()))) == 1


def test_reading_on_at_every_mark_gives_every_line_once(
    engine: EngineFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unit_agent.drivers.docker_tail.PIECE", 20_000)
    for number in range(3):
        for piece in "xy":
            engine.append(record(piece * PIECE, engine.at_ns, ends=False))
            engine.append(record(f"error {piece} {number}", engine.at_ns, "stderr"))
        if number == 1:
            engine.rotate()
        engine.append(record("z", engine.at_ns))
        engine.write(f"line {number}")
    whole = texts(all_of(engine.tail()))
    assert [text[:1] + text[-1:] for text in whole if len(text) > PIECE] == ["xz"] * 3 and len(whole) == 12
    data = [Path(f"{engine.path}.1").read_bytes(), engine.path.read_bytes()]
    cuts = [(file, at + 1) for file in (0, 1) for at, byte in enumerate(data[file]) if byte == 10]
    for file, at in cuts:  # as if the Engine had written so far, the agent been killed, and the Engine gone on
        folder = engine.path.parent / f"cut-{file}-{at}"
        folder.mkdir()
        again = EngineFile(folder)
        again.append(data[0][:at] if file == 0 else data[0])
        if file == 1:
            again.rotate()
            again.append(data[1][:at])
        tail = again.tail()
        found = texts(all_of(tail))
        mark = tail.mark
        tail.close()
        if file == 0:
            again.append(data[0][at:])
            again.rotate()
            again.append(data[1])
        else:
            again.append(data[1][at:])
        for steps in range(5):  # and killed once more, soon after it began
            second = again.tail(mark)
            then = [line for _ in range(steps) for line in second.more() or []]
            third = again.tail(second.mark if steps else mark)
            assert found + texts(then) + texts(all_of(third)) == whole, (file, at, mark, steps)
            second.close()
            third.close()


def test_a_torn_record_costs_its_own_line_alone_and_is_told(engine: EngineFile) -> None:
    engine.write("1")
    whole = record("torn", engine.at_ns)
    engine.append(whole[:20])
    tail = engine.tail()
    assert texts(all_of(tail)) == ["1"], "its end may still come"
    engine.write("2", "3")
    engine.append(b"\0" * 100 + b"\n")
    engine.write("4")
    found = all_of(tail)
    assert texts(found) == ["2", "3", "4"] and len(gaps(found)) == 2
    engine.append(whole[:20])
    engine.rotate()
    engine.write("5")
    found = all_of(tail)
    assert texts(found) == ["5"] and "ends within" in gaps(found)[0]


def test_a_record_that_is_not_whole_yet_is_waited_for(engine: EngineFile) -> None:
    whole = record("slow", engine.at_ns)
    tail = engine.tail()
    for at in range(0, len(whole), 7):
        assert tail.more() is None
        engine.append(whole[at : at + 7])
    assert texts(all_of(tail)) == ["slow"]


def test_a_long_line_is_one_and_is_cut_with_its_length(engine: EngineFile) -> None:
    for _ in range(640):
        engine.append(record("x" * PIECE, engine.at_ns, ends=False))
    engine.append(record("", engine.at_ns))
    engine.append(record("y" * PIECE, engine.at_ns, ends=False))  # its writer is killed now
    engine.write("then")
    long, cut_off, then = all_of(engine.tail())
    assert long[2].endswith(" … 10485760 bytes, cut".encode()) and len(long[2]) < LONGEST_LINE + 100
    assert cut_off[2] == b"y" * PIECE and then[2] == b"then"


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "packed"])
def test_a_line_longer_than_a_file_is_one_though_all_its_files_begin_alike(engine: EngineFile, pack: bool) -> None:
    tail = engine.tail()
    marks = []
    found: list[OutputLine] = []
    for _ in range(3):
        for _ in range(4):
            engine.append(record("x" * PIECE, engine.at_ns, ends=False))
        found += all_of(tail)
        marks.append(tail.mark)
        engine.rotate(pack=pack)
    engine.append(record("", engine.at_ns))
    engine.write("then")
    assert [len(text) for _, _, text in found + all_of(tail)] == [12 * PIECE, 4]
    if not pack:  # what is packed and begins alike the next agent can't tell apart
        found = all_of(engine.tail(marks[1]))  # the line's beginning is gone
        assert [len(text) for text in texts(found)] == [4 * PIECE, 4] and len(gaps(found)) == 1


def test_bytes_that_are_no_text_come_as_the_engine_replaced_them(engine: EngineFile) -> None:
    rest = b'\\n","stream":"stdout","time":"2026-01-31T14:05:00Z"}\n'
    engine.append(b'{"log":"binary \\ufffd\\ufffd\\u001b[31m\\u0000\\tend\\r' + rest)
    engine.append(b'{"log":"raw \xff' + rest)
    engine.write("next")
    found = all_of(engine.tail())
    assert found[0] == (BEGAN_NS / 1e9, "stdout", "binary ��\x1b[31m\0\tend\r".encode())
    assert texts(found)[-1] == "next" and len(gaps(found)) == 1, (
        "the Engine writes no such bytes: told, not raised"
    )


def test_what_options_of_the_driver_add_to_records_is_passed_over(engine: EngineFile) -> None:
    line = record("labelled", BEGAN_NS)
    engine.append(line.replace(b',"time"', b',"attrs":{"stream":"stderr","tag":"a\\"b"},"time"') * 2)
    assert all_of(engine.tail()) == [(BEGAN_NS / 1e9, "stdout", b"labelled")] * 2


def test_a_file_that_is_emptied_in_place_is_begun_again_and_told(tmp_path: Path) -> None:
    engine = EngineFile(tmp_path, most=1)
    engine.write("1", "2")
    tail = engine.tail()
    all_of(tail)
    engine.rotate()
    engine.write("3")
    shorter = all_of(tail)
    engine.rotate()
    engine.write("a line that is longer", "than what was there before", "4")
    longer = all_of(tail)
    assert texts(shorter) == ["3"] and texts(longer)[-1] == "4" and len(texts(longer)) == 3
    assert all("emptied in place" in text for text in gaps(shorter) + gaps(longer))
    assert (len(gaps(shorter)), len(gaps(longer))) == (1, 1)


def frame(text: bytes, at_ns: int, kind: int) -> bytes:
    data = stamp_of(at_ns).encode() + b" " + text + b"\n"
    return bytes((kind, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("rotations", [0, 1, 2])
@pytest.mark.parametrize("step_ns", [1, 50_000_000, 900_000_000], ids=["at once", "in seconds", "in a minute"])
def test_a_mark_of_times_is_resumed_with_nothing_lost_or_doubled(
    engine: EngineFile, step_ns: int, rotations: int
) -> None:
    """An agent that read through the Engine is followed by one that reads its files."""
    lines = []
    for number in range(60):
        kind = 1 + (number % 3 == 2)
        # stderr's is stamped before the line that stands before it, as two copiers of an Engine do
        at_ns = BEGAN_NS + number * step_ns - (kind - 1) * min(step_ns * 3 // 2, 10_000_000)
        lines.append((f"line {number}", at_ns - at_ns % 2, kind))
    for number, (text, at_ns, kind) in enumerate(lines):
        if number in (20, 40)[:rotations]:
            engine.rotate()
        engine.append(record(text, at_ns, ("", "stdout", "stderr")[kind]))
    for taken in range(1, 61):
        frames = Frames()
        frames.feed(b"".join(frame(text.encode(), at_ns, kind) for text, at_ns, kind in lines[:taken]))
        tail = engine.tail(frames.mark)
        found = all_of(tail)
        assert texts(found) == [text for text, _, _ in lines[taken:]] and gaps(found) == [], taken
        again = engine.tail(tail.mark)
        assert all_of(again) == [] and again.mark == tail.mark
        tail.close()
        again.close()


def test_a_mark_of_times_whose_lines_are_all_gone_tells_so(engine: EngineFile) -> None:
    frames = Frames()
    frames.feed(frame(b"gone", BEGAN_NS, 1))
    engine.write("1", "2")
    found = all_of(engine.tail(frames.mark))
    assert len(gaps(found)) == 1 and found[0][1] == "gap" and texts(found) == ["1", "2"]


def test_the_engines_own_reading_goes_on_from_the_times_of_a_mark(engine: EngineFile) -> None:
    engine.write("1")
    engine.write("2", stream="stderr")
    tail = engine.tail()
    all_of(tail)
    frames = Frames(tail.mark.partition("@")[0])
    at = [BEGAN_NS + number * 1_000_000 for number in (1, 2, 3)]
    told = frames.feed(frame(b"1", at[0], 1) + frame(b"2", at[1], 2) + frame(b"3", at[2], 1))
    assert [text for _, _, text in told] == [b"3"]


def test_what_the_cap_drops_is_counted_and_no_lines_are_made_of_it(engine: EngineFile) -> None:
    cap = RateCap(Rate(100, 1 << 30), now=0.0)
    tail = engine.tail()
    kept: list[OutputLine] = []
    for begin in range(0, 1000, 50):  # a thousand lines within a second
        engine.write(*(f"line {number}" for number in range(begin, begin + 50)))
        if lines := tail.more(cap):
            assert cap.admit(len(lines), 0, lines[-1][0]), "what was made is not dropped"
            kept += lines
    assert f"at least {1000 - len(kept)} lines" in cap.account(10.0) and 100 <= len(kept) <= 250
    assert texts(kept)[:100] == [f"line {number}" for number in range(100)], "whole until the cap is reached"


def test_lines_that_waited_are_not_dropped_for_being_read_late(engine: EngineFile) -> None:
    cap = RateCap(Rate(2000, 1 << 30), now=0.0)
    engine.write(*(f"line {number}" for number in range(10_000)))  # 1,000 a second, for ten seconds
    tail = engine.tail()
    found: list[OutputLine] = []
    while (lines := tail.more(cap)) is not None:
        assert cap.admit(len(lines), 0, lines[-1][0])
        found += lines
    assert len(found) == 10_000 and not cap.owes_account


@contextlib.contextmanager
def followed(tail: FileTail, watch: FileWatch) -> Iterator[asyncio.Event]:
    stir = asyncio.Event()
    with watch.following(tail, stir, lambda: True):
        yield stir


async def stirred(stir: asyncio.Event, condition: Callable[[], bool]) -> None:
    """Wait until the watch has seen what makes a condition hold."""
    async with asyncio.timeout(5.0):
        while not condition():
            stir.clear()
            await stir.wait()


async def test_a_rotation_is_noticed_while_nobody_takes_the_lines(engine: EngineFile) -> None:
    engine.write("0")
    tail, watch = engine.tail(), FileWatch()
    with followed(tail, watch) as stir:
        for number in range(1, 8):
            engine.rotate()
            engine.write(str(number))
            await stirred(stir, lambda number=number: len(tail.files.files) > number)  # type: ignore[misc]
    found = all_of(tail)
    assert texts(found) == [str(number) for number in range(8)] and gaps(found) == []


async def test_a_file_that_rests_is_seldom_looked_at_and_holds_up_none_that_stirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LOOK_S", 0.005), ("QUIET", 3), ("QUIET_TURNS", 4000)):
        monkeypatch.setattr(docker_follow, name, value)
    watch, looks, engines = FileWatch(), {"rests": 0, "stirs": 0}, {}

    def counting(name: str) -> FileTail:
        (tmp_path / name).mkdir()
        engines[name] = EngineFile(tmp_path / name)
        tail = engines[name].tail()
        plain = tail.files.look

        def look() -> tuple[int, int]:
            looks[name] += 1
            return plain()

        monkeypatch.setattr(tail.files, "look", look)
        return tail

    with followed(counting("rests"), watch) as first:
        async with asyncio.timeout(5.0):
            while not watch.rests:  # noqa: ASYNC110 (it tells nobody)
                await asyncio.sleep(0)
        with followed(counting("stirs"), watch) as second:
            for number in range(20):
                before = looks["stirs"]
                engines["stirs"].write(str(number))
                await stirred(second, lambda before=before: looks["stirs"] > before)  # type: ignore[misc]
            assert looks["rests"] < looks["stirs"] / 2, looks
            monkeypatch.setattr(docker_follow, "QUIET_TURNS", 4)
            engines["rests"].write("awake")
            first.clear()
            await stirred(first, first.is_set)


@pytest.mark.parametrize(("bound", "counted"), [("MOST_FILES", True), ("MOST_BYTES", True), ("MOST_BYTES", False)])
async def test_what_is_held_is_bounded_and_what_is_given_up_is_counted(
    engine: EngineFile, monkeypatch: pytest.MonkeyPatch, bound: str, counted: bool
) -> None:
    monkeypatch.setattr(docker_follow, bound, 3 if bound == "MOST_FILES" else 3000)
    if not counted:
        monkeypatch.setattr("unit_agent.drivers.docker_generations.COUNTED", 10)
    tail, watch = engine.tail(), FileWatch()
    written = 0
    with followed(tail, watch) as stir:
        for _ in range(8):
            engine.write(*(f"line {number}" for number in range(written, written + 10)))
            written += 10
            engine.rotate()
            await stirred(
                stir, lambda: os.path.samestat(os.fstat(tail.files.files[-1].handle), engine.path.stat())
            )
    found = all_of(tail)
    numbers = [int(text.split()[1]) for text in texts(found)]
    told = gaps(found)
    assert numbers == list(range(numbers[0], written)) and numbers[0] >= 30 and told
    if counted:
        assert sum(int(text.split()[0]) for text in told) == numbers[0], told
    else:
        assert all(text.startswith("some lines (") for text in told), told


async def test_following_ends_when_the_container_is_gone_and_all_was_read(engine: EngineFile) -> None:
    tail, watch = engine.tail(), FileWatch()
    here, all_read, found = [True], asyncio.Event(), []
    stir = asyncio.Event()

    async def read() -> None:
        async with contextlib.aclosing(follow(watch, tail, stir, all_read, lambda: here[0], None)) as batches:
            async for lines in batches:
                found.extend(lines)

    async with asyncio.timeout(10.0), asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        await all_read.wait()
        engine.write("last words")
        here[0] = False
        engine.path.unlink()
    assert texts(found) == ["last words"]


def test_times_are_exact_to_the_nanosecond() -> None:
    for text in ("2026-01-31T14:05:00Z", "2026-01-31T14:05:00.1Z", "2026-01-31T14:05:00.000000001Z"):
        assert nanoseconds(text) - BEGAN_NS in (0, 100_000_000, 1)
    assert stamp_of(BEGAN_NS + 1) == "2026-01-31T14:05:00.000000001Z"
