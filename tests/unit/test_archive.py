"""The archive on disk: every line once, found by expression, unit and time; bounded; whole after a crash."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

import pytest

from unit_master.archive import shelves as packing
from unit_master.archive.central import merged
from unit_master.archive.literals import grams, required
from unit_master.archive.query import Found, Query
from unit_master.archive.search import find
from unit_master.archive.shelves import Shelves
from unitfleet.shipped import ShippedLine

NOW = 1_700_000_000.0
DAY = 86400.0


def line(
    seq: int, text: str = "", *, unit: str = "a.service", machine: str = "m1", at: float = 0.0
) -> ShippedLine:
    return ShippedLine(
        unit=unit,
        machine=machine,
        name=f"node-{machine}",
        epoch=3,
        seq=seq,
        at=at or NOW + seq / 1000,
        stream="stdout",
        text=text or f"line {seq}",
    )


def opened(tmp_path: Path, *, most_bytes: int = 1 << 30, age_s: float = 7 * DAY) -> Shelves:
    return Shelves(tmp_path, most_bytes=most_bytes, age_s=age_s)


def search(tmp_path: Path, **wanted: object) -> Found:
    query = Query(**wanted)  # type: ignore[arg-type]
    return find(tmp_path, query, lambda: 0.0, 1.0)


def texts(found: Found) -> list[str]:
    return [each.text for each in found.lines]


def test_a_batch_that_comes_twice_is_stored_once(tmp_path: Path) -> None:
    shelves = opened(tmp_path)
    batch = [line(seq) for seq in range(1, 11)]
    assert shelves.take([batch], NOW)[0].stored == 10
    again = shelves.take([batch, [line(10), line(11)]], NOW)
    assert [(each.stored, each.duplicates) for each in again] == [(0, 10), (1, 1)]
    assert [each.seq for each in search(tmp_path).lines] == list(range(1, 12))


def test_what_was_stored_is_still_known_after_a_restart(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.take([[line(seq) for seq in range(1, 2500)]], NOW)
    first.pack(NOW)
    first.close()
    second = opened(tmp_path)
    assert second.take([[line(2499), line(2500)]], NOW)[0].stored == 1
    assert second.pack(NOW + packing.PACK_AFTER_S + 1) == 1, "the rows of before are packed with the new one"
    assert [each.seq for each in search(tmp_path, limit=3).lines] == [2498, 2499, 2500]
    assert len(search(tmp_path, limit=10_000).lines) == 2500


def test_a_machine_that_counts_anew_loses_no_line(tmp_path: Path) -> None:
    shelves = opened(tmp_path)
    shelves.take([[line(seq) for seq in range(1, 50)]], NOW)
    anew = [line(seq, f"anew {seq}", at=NOW + 100 + seq) for seq in range(1, 4)]
    assert shelves.take([anew], NOW)[0].stored == 3
    assert shelves.take([anew], NOW)[0].duplicates == 3
    assert texts(search(tmp_path, grep="anew")) == ["anew 1", "anew 2", "anew 3"]


def test_lines_are_found_the_same_before_and_after_packing(tmp_path: Path) -> None:
    shelves = opened(tmp_path)
    shelves.take([[line(seq, f"request {seq} took {seq % 7} ms") for seq in range(1, 3001)]], NOW)
    wanted = {"grep": r"request 1?\d{3} took [35] ms", "limit": 5000}
    before = search(tmp_path, **wanted)
    assert shelves.pack(NOW) == 3
    after = search(tmp_path, **wanted)
    assert before.blocks == 0 and after.blocks == 3
    assert texts(before) == texts(after) and len(after.lines) > 500


def test_the_newest_lines_are_told_in_order_of_time(tmp_path: Path) -> None:
    shelves = opened(tmp_path)
    for unit in ("a.service", "b.service"):
        shelves.take([[line(seq, f"{unit} {seq}", unit=unit) for seq in range(1, 2001)]], NOW)
    shelves.pack(NOW)
    found = search(tmp_path, limit=4)
    assert texts(found) == ["a.service 1999", "b.service 1999", "a.service 2000", "b.service 2000"]
    assert found.blocks == 2, "blocks that hold only older lines are left alone"


def test_units_by_glob_machines_by_name_and_time_narrow_a_search(tmp_path: Path) -> None:
    shelves = opened(tmp_path)
    shelves.take([[line(1, "one", unit="ad@1.service"), line(1, "two", unit="ad@2.service", machine="m2")]], NOW)
    shelves.take([[line(1, "web", unit="web.service", at=NOW + 3600)]], NOW)
    assert texts(search(tmp_path, unit="ad@*")) == ["one", "two"]
    assert texts(search(tmp_path, unit="ad@2.service")) == ["two"]
    assert texts(search(tmp_path, machine="node-m2")) == texts(search(tmp_path, machine="m2")) == ["two"]
    assert texts(search(tmp_path, since=NOW + 60)) == ["web"]
    assert texts(search(tmp_path, until=NOW + 60)) == ["one", "two"]


def test_blocks_without_the_literals_of_an_expression_are_not_unpacked(tmp_path: Path) -> None:
    shelves = opened(tmp_path)
    for number in range(20):
        unit = f"u{number}.service"
        shelves.take([[line(seq, f"quiet {seq}", unit=unit) for seq in range(1, 1001)]], NOW)
    shelves.take([[line(seq, "Connection refused by peer", unit="u7.service") for seq in range(1001, 2001)]], NOW)
    shelves.pack(NOW)
    found = search(tmp_path, grep=r"onnection refus\w+", limit=10_000)
    assert (found.blocks, found.blocks_held, len(found.lines)) == (1, 21, 1000)
    assert len(search(tmp_path, grep=r"(?i)CONNECTION REFUSED", limit=10_000).lines) == 1000


def test_a_search_whose_time_is_over_says_that_it_is_not_whole(tmp_path: Path) -> None:
    shelves = opened(tmp_path)
    shelves.take([[line(seq) for seq in range(1, 5001)]], NOW)
    shelves.pack(NOW)
    ticks = iter(range(1000))
    found = find(tmp_path, Query(grep=".", limit=10_000), lambda: float(next(ticks)), 3.0)
    assert not found.whole and 0 < len(found.lines) < 5000


def test_what_is_too_old_goes_and_then_the_oldest_beyond_the_size(tmp_path: Path) -> None:
    shelves = opened(tmp_path, most_bytes=400_000, age_s=2 * 3600.0)
    for hour in range(6):
        at = NOW + hour * 3600
        rows = [
            line(hour * 2000 + n, f"{n * 7919 % 99991:x} of hour {hour}", at=at + n / 1e4) for n in range(2000)
        ]
        shelves.take([rows], at)
        shelves.pack(at)
        shelves.tidy(at)
    kept = search(tmp_path, limit=100_000).lines
    assert min(each.at for each in kept) >= NOW + 3 * 3600
    assert len(list(tmp_path.glob("*.blocks"))) == 3
    shelves.close()
    small = Shelves(tmp_path, most_bytes=60_000, age_s=DAY)
    assert "beyond the size asked for" in small.tidy(NOW + 6 * 3600)
    assert len(list(tmp_path.glob("*.blocks"))) < 3


def test_one_hour_alone_can_not_grow_beyond_the_bound(tmp_path: Path) -> None:
    shelves = opened(tmp_path, most_bytes=1_000_000)
    for round_ in range(40):
        rows = [line(round_ * 2000 + n, f"{hash((round_, n)):x} {hash((n, round_)):x}") for n in range(2000)]
        shelves.take([rows], NOW)
        shelves.pack(NOW)
        shelves.tidy(NOW)
    assert shelves.size() < 1_500_000
    newest = search(tmp_path, limit=1).lines[0]
    assert newest.seq == 40 * 2000 - 1


def test_a_crash_between_block_and_index_leaves_every_line_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelves = opened(tmp_path)
    shelves.take([[line(seq) for seq in range(1, 1001)]], NOW)

    def lose_half(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)
        raise OSError("the machine lost its power")

    monkeypatch.setattr(packing, "_sync", lose_half)
    with pytest.raises(OSError):
        shelves.pack(NOW)
    monkeypatch.undo()
    shelves.close()
    again = opened(tmp_path)
    assert len(search(tmp_path, limit=5000).lines) == 1000
    assert again.pack(NOW) == 1
    assert [each.seq for each in search(tmp_path, limit=5000).lines] == list(range(1, 1001))


def test_a_file_that_is_no_index_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"not a database, but somebody's notes " * 100)
    with pytest.raises(sqlite3.DatabaseError):
        opened(tmp_path)
    assert (tmp_path / "index.db").read_bytes().startswith(b"not a database")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("timeout", ["timeout"]),
        ("time(out|s)", ["time"]),
        ("(conn)ection", ["connection"]),
        (r"user=\d+ denied", ["user=", " denied"]),
        ("(?:abc)+def", ["abc", "def"]),
        ("(abc)?def", ["def"]),
        ("abc|def", []),
        ("ab", []),
        ("^error$", ["error"]),
        ("(?i)failed", ["fa", "led"][1:]),
        ("größe", []),
        ("", []),
    ],
)
def test_literals_are_what_every_match_contains(pattern: str, expected: list[str]) -> None:
    assert required(pattern) == expected


def test_grams_are_the_runs_of_three_in_lower_case() -> None:
    assert grams(["Error", "ror"]) == ["err", "rro", "ror"]


def test_no_expression_is_refused_as_such() -> None:
    with pytest.raises(re.error):
        required("(")


def test_merged_lines_of_several_masters_stand_once_in_order() -> None:
    parts = [[line(1), line(3)], [line(1), line(2)], []]
    assert [each.seq for each in merged(parts, 10)] == [1, 2, 3]
    assert [each.seq for each in merged(parts, 2)] == [2, 3]
    assert merged(parts, 0) == []


def test_two_masters_do_not_share_a_directory(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(OSError, match="another master keeps its archive"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()
