"""Pure parts of logs: frames of an Engine, runs, rates, joined lines, queries, keys of the unit file."""

from __future__ import annotations

import pytest

from unit_agent.driver import Copy
from unit_agent.drivers.docker_output import Frames
from unit_agent.logs.collect import admitted
from unit_agent.logs.joining import joined
from unit_agent.logs.rate import Rate, RateCap
from unit_agent.logs.runs import Run, noted, previous
from unitfleet.accept import read as read_unit
from unitfleet.api import LogLine
from unitfleet.errors import InvalidConfig, InvalidUnit
from unitfleet.logkeys import log_files
from unitfleet.logquery import LogQuery, pattern, read
from unitfleet.model import CopyPhase
from unitfleet.problems import BadValue

SECOND = "2026-01-31T14:05:{:02}.{:09}Z"
AT = 1769868300.0


def frame(text: bytes, *, kind: int = 1, second: int = 0, nano: int = 0, ends: bool = True) -> bytes:
    data = SECOND.format(second, nano).encode() + b" " + text + (b"\n" if ends else b"")
    return bytes((kind, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def test_frames_are_read_wherever_a_piece_of_the_stream_ends() -> None:
    data = b"".join(frame(f"line {n}".encode(), kind=1 + n % 2, second=n) for n in range(10))
    for size in (1, 7, 8, 39, 1000):
        frames = Frames()
        found = [line for at in range(0, len(data), size) for line in frames.feed(data[at : at + size])]
        assert found == [(AT + n, ("stdout", "stderr")[n % 2], f"line {n}".encode()) for n in range(10)]


def test_a_line_in_many_frames_is_one_and_is_cut_with_its_length() -> None:
    frames = Frames()
    for newline in (True, False):  # drivers differ in how the last piece ends
        frames = Frames()
        data = frame(b"x" * 16384, ends=False) + frame(b"other", kind=2) + frame(b"y" * 100, ends=newline)
        (other, long) = frames.feed(data)
        assert other[1:] == ("stderr", b"other") and long[2] == b"x" * 16384 + b"y" * 100
    (long, then) = frames.feed(frame(b"x" * 16384, ends=False) + frame(b"then", second=1))
    assert (long[2], then[2]) == (b"x" * 16384, b"then"), "another time is another line"
    data = b"".join(frame(b"z" * 16384, ends=False) for _ in range(640)) + frame(b"")
    ((_, _, text),) = Frames().feed(data)
    assert len(text) < 300_000 and text.endswith(" … 10485760 bytes, cut".encode())


def test_reading_on_leaves_out_what_was_taken_also_of_one_time_and_out_of_order() -> None:
    # stderr's line was stamped later and written before stdout's, as two copiers of an Engine do
    data = (
        frame(b"a", second=1)
        + frame(b"b", second=1)
        + frame(b"e2", kind=2, second=2, nano=5)
        + frame(b"c", second=2)
    )
    for taken in range(5):
        frames = Frames()
        first: list[bytes] = []
        at = 0
        while len(first) < taken:
            end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")
            first += [text for _, _, text in frames.feed(data[at:end])]
            at = end
        again = Frames(frames.mark)
        assert first + [text for _, _, text in again.feed(data)] == [b"a", b"b", b"e2", b"c"], taken
        assert again.mark == Frames(again.mark).mark


def test_lines_that_the_engine_gives_once_more_are_left_out() -> None:
    lines = [frame(f"line {n}".encode(), second=n // 10, nano=n % 10) for n in range(40)]
    frames = Frames()
    stream = (
        lines[:25] + lines[24:25] + lines[13:25] + [frame(b"e", kind=2, second=2)] + lines[20:40] + lines[39:40]
    )
    found = [text for _, stream_name, text in frames.feed(b"".join(stream[:-1])) if stream_name == "stdout"]
    assert found == [f"line {n}".encode() for n in range(40)]


def test_lines_of_an_earlier_time_are_new_when_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [10_000_000_000]
    monkeypatch.setattr("unit_agent.drivers.docker_output.time.time_ns", lambda: clock[0])
    monkeypatch.setattr("unit_agent.drivers.docker_output.time.monotonic_ns", lambda: 5_000_000_000)
    frames = Frames()
    frames.feed(frame(b"before", second=30))
    clock[0] -= 20_000_000_000
    assert [text for _, _, text in frames.feed(frame(b"after", second=10))] == [b"after"]


def test_the_engine_is_asked_from_the_older_stream_on_but_not_from_long_ago() -> None:
    frames = Frames()
    assert frames.since == "", "the beginning"
    frames.feed(frame(b"e", kind=2, second=5, nano=7) + frame(b"o", second=5))
    assert frames.since == "1769868305.000000000", "stdout's last line was stamped before stderr's"
    frames.feed(frame(b"o", second=50))
    assert frames.since == "1769868348.000000000", "a silent stream does not have everything read again"


def test_what_comes_long_after_the_mark_is_never_left_out() -> None:
    mark = Frames()
    mark.feed(frame(b"old", second=1))
    frames = Frames(mark.mark)
    assert [text for _, _, text in frames.feed(frame(b"new", second=30) + frame(b"newer", kind=2, second=30))] == [
        b"new",
        b"newer",
    ]


def copy(phase: CopyPhase, since: float, restarts: int = 0, message: str = "") -> Copy:
    words = {"spec": "s", "incarnation": "i", "epoch": 7, "restart": 0}
    return Copy("a.service", "docker", "id", **words, phase=phase, since=since, restarts=restarts, message=message)  # type: ignore[arg-type]


def test_the_previous_run_is_the_last_that_ended() -> None:
    runs: tuple[Run, ...] = ()
    seen = [
        copy(CopyPhase.LOADED, 90.0),
        copy(CopyPhase.RUNNING, 100.0),
        copy(CopyPhase.RESTARTING, 110.0, message="exit code 3"),
        copy(CopyPhase.RUNNING, 111.0, restarts=1),
    ]
    for before, after in zip([None, *seen], seen, strict=False):
        runs = noted(runs, before, after, 500.0)
    assert [(run.began, run.ended, run.why) for run in runs] == [(100.0, 110.0, "exit code 3"), (111.0, 0.0, "")]
    found = previous(runs)
    assert found is not None
    run, since, until = found
    assert run.epoch == 7 and 95.0 < since < 100.0 and 110.0 < until < 110.1
    runs = noted(runs, seen[-1], copy(CopyPhase.FAILED, 120.0, 1, "exit code 4"), 500.0)
    found = previous(runs)
    assert found is not None and found[0].why == "exit code 4" and 110.0 < found[1] < 111.0


def test_a_unit_that_never_ended_has_no_previous_run() -> None:
    assert previous(noted((), None, copy(CopyPhase.RUNNING, 1.0), 2.0)) is None


def test_beyond_its_rate_a_unit_loses_lines_and_a_line_says_how_many() -> None:
    cap = RateCap(Rate(100, 10_000), now=0.0)
    assert all(cap.admit(50, 1000, 0.0) for _ in range(2))
    assert not cap.admit(50, 1000, 0.0) and not cap.admit(30, 500, 0.0)
    assert cap.account(0.5) == "", "told once a second"
    assert (
        cap.account(1.5)
        == "at least 80 lines (1500 bytes) were dropped here: more than 100 lines or 10000 bytes a second"
    )
    assert cap.account(3.0) == "" and cap.admit(50, 1000, 2.0)


def test_once_it_drops_a_cap_drops_until_half_a_second_is_free() -> None:
    cap = RateCap(Rate(100, 10_000), now=0.0)
    assert cap.admit(100, 100, 10.0) and cap.drops(10.0)
    assert cap.drops(10.4) and not cap.drops(10.6), "few gaps, and whole runs between them"
    assert not cap.drops(3.0), "a clock that was set back is no flood"


def test_what_was_dropped_is_told_with_the_next_lines_that_are_kept() -> None:
    """Their mark stands behind what was dropped: an agent that is killed would not tell it any more."""
    cap = RateCap(Rate(100, 10_000), now=0.0)
    flood = [(10.0, "stdout", b"x")] * 100
    assert admitted(cap, flood, 1.0) == flood
    told = (10.0, "gap", b"5 lines were lost here")
    assert list(admitted(cap, [told, *flood], 1.1))[1:] == [told], "is never dropped"
    assert not admitted(cap, flood, 1.2) and cap.owes_account
    account, line = admitted(cap, [(12.0, "stdout", b"z")], 1.3)
    assert account[1] == "gap" and b"lines (" in account[2] and line == (12.0, "stdout", b"z")
    assert not cap.owes_account


@pytest.mark.parametrize("text", ["", "50000", "0,1M", "10,1X", "a,b", "10,0"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="log-rate"):
        Rate.read(text)


def told(*texts: str, stream: str = "stdout", machine: str = "m1") -> list[LogLine]:
    return [
        LogLine(
            at=100.0 + n / 1000, stream=stream, text=text, machine=machine, unit="a.service", epoch=1, seq=n + 1
        )
        for n, text in enumerate(texts)
    ]


JAVA = (
    "ERROR request failed",
    "java.lang.IllegalStateException: no",
    "\tat com.example.A.run(A.java:10)",
    "\tat com.example.B.run(B.java:20)",
    "Caused by: java.io.IOException: gone",
    "\t... 12 more",
    "INFO next",
)
PYTHON = (
    "ERROR it failed",
    "Traceback (most recent call last):",
    '  File "a.py", line 1, in <module>',
    "    1 / 0",
    "ZeroDivisionError: division by zero",
    "INFO next",
    "not: of it",
)


def test_stack_traces_of_java_and_python_are_one_line_each() -> None:
    assert [line.text.count("\n") for line in joined(told(*JAVA))] == [0, 4, 0]
    found = list(joined(told(*PYTHON)))
    assert [line.text.count("\n") for line in found] == [4, 0, 0]
    assert found[0].seq == 1 and found[0].text.startswith("ERROR") and found[0].text.endswith("by zero")


def test_lines_of_two_streams_are_not_joined_with_each_other() -> None:
    mixed = [line for pair in zip(told(*JAVA), told(*JAVA, stream="stderr"), strict=True) for line in pair]
    found = list(joined(mixed))
    assert (
        sorted(line.text for line in found) == sorted(line.text for line in joined(told(*JAVA))) * 2
        or len(found) == 6
    )
    assert all("\n" not in line.text or line.text.count("\n") == 4 for line in found)


def test_plain_lines_and_those_far_apart_stay_as_they_are() -> None:
    plain = told("one", "two", "three")
    assert list(joined(plain)) == plain
    moved = [
        LogLine(at=1.0, stream="stdout", text="one", epoch=1),
        LogLine(at=1.0, stream="stdout", text=" two", epoch=2),
    ]
    assert list(joined(moved)) == moved, "another copy wrote it"
    far = [LogLine(at=1.0, stream="stdout", text="one"), LogLine(at=60.0, stream="stdout", text="  two")]
    assert list(joined(far)) == far


def test_a_query_goes_over_the_wire_and_back() -> None:
    query = LogQuery(lines=7, since=1.5, until=99.25, grep="a|b", join=True, epoch=3, after_seq=9, follow=True)
    assert read(query.text()) == query
    assert read(LogQuery(lines=-1, previous=True).text()) == LogQuery(lines=-1, previous=True)
    assert read({}).lines == 100 and read({"since": "5"}).lines == -1


@pytest.mark.parametrize(
    "query",
    [{"lines": "x"}, {"since": "yesterday"}, {"since": "9", "until": "5"}, {"follow": "perhaps"}, {"grep": "("}],
    ids=str,
)
def test_a_query_that_says_nothing_sensible_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(BadValue):
        read(query)


@pytest.mark.parametrize("text", ["(a+)+$", "(a|b*)*c", "((x{2,}y)+)*", "(?:.*,)*;"])
def test_a_pattern_that_could_take_for_ever_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="for ever"):
        pattern(text)


@pytest.mark.parametrize("text", ["timeout|refused", r"\d+ ms", "a.*b.*c", "(foo|bar){2}", "^x+$"])
def test_a_pattern_as_people_write_them_is_taken(text: str) -> None:
    assert pattern(text).pattern == text


UNIT_TEXT = "[Service]\nExecStart=/bin/sleep 1\n{}\n[X-Fleet]\n{}\n"


def test_log_files_and_sinks_are_read_with_the_variable_of_platforms() -> None:
    text = UNIT_TEXT.format(
        "Environment=UNITFLEET_LOG_FILES=/srv/%i.log,bad,/var/log/a.log",
        "LogFiles=/var/log/*.log /var/log/a.log\nLogSink=loki file-2",
    )
    spec = read_unit("web@3.service", text)
    assert spec.logs.files == ("/var/log/*.log", "/var/log/a.log") and spec.logs.sinks == ("loki", "file-2")
    assert log_files(spec) == ("/var/log/*.log", "/var/log/a.log", "/srv/3.log")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("LogFiles=var/log/a.log", "no absolute path"),
        ("LogFiles=/var/log/../../etc/shadow", "no absolute path"),
        ("LogFiles=/var/log/", "is a directory"),
        ("LogFiles=/var/**/a.log", "** is not known"),
        ("LogFiles=/dev/sda", "nothing below /dev/"),
        ("LogSink=Loki!", "no name of a sink"),
    ],
)
def test_log_keys_that_can_not_be_are_refused_with_their_line(line: str, said: str) -> None:
    with pytest.raises(InvalidUnit) as refused:
        read_unit("a.service", UNIT_TEXT.format("", line))
    assert f"a.service:5: {line.split('=')[0]}=" in refused.value.problems[0] and said in refused.value.problems[0]
