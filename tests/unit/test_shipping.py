"""Shipping without a network: what is sent next, what becomes of refusals, outages, gaps and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.eventually import eventually
from harness.log_store import MemoryLogStore
from harness.shipping import shipping
from unit_agent.logs.batch import Lost, Take, next_batch
from unit_agent.logs.choice import Choices
from unit_agent.logs.offsets import Offsets
from unit_agent.logs.record import LogRecord, Span
from unit_agent.logs.sinks.sink import Pace, SinkRefused, SinkUnavailable
from unitfleet.shipped import GAP

QUICK = Pace(least_lines=50, linger_s=0.02, most_lines=100, most_bytes=10_000, send_s=1.0)


class FakeSink:
    """Keeps what it is sent; a test has it refuse, go away, or hang."""

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.pace = QUICK
        self.got: list[LogRecord] = []
        self.sizes: list[int] = []
        self.away = 0  # so many calls fail
        self.lose_answer = 0  # so many calls arrive and fail nevertheless
        self.poison = ""  # lines with this in them are refused
        self.locked = False
        self.hangs = False

    async def send(self, batch: Sequence[LogRecord]) -> None:
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.Event().wait()
        if self.locked:
            raise SinkRefused("cannot ship to fake: it does not let us in")
        if self.away:
            self.away -= 1
            raise SinkUnavailable("cannot ship to fake: nobody is there")
        if self.poison and any(self.poison in record.text for record in batch):
            raise SinkRefused("cannot ship to fake: 400", of_lines=True)
        self.sizes.append(len(batch))
        self.got += batch
        if self.lose_answer:
            self.lose_answer -= 1
            raise SinkUnavailable("cannot ship to fake: the answer was lost")

    async def close(self) -> None:
        pass

    def of(self, unit: str) -> list[int]:
        return [record.seq for record in self.got if record.unit == unit]


# --- what comes next


def test_nothing_is_taken_of_what_the_sink_has() -> None:
    assert next_batch({"a": Span(1, 10), "b": Span(1, 0)}, {"a": 10}, 100).takes == ()


def test_a_quiet_unit_gets_all_its_lines_in_and_busy_ones_share_the_rest() -> None:
    spans = {"a": Span(1, 90_000), "b": Span(1, 90_000), "c": Span(1, 10)}
    plan = next_batch(spans, {"b": 500}, 5010)
    assert plan.takes == (Take("a", 0, 2500), Take("b", 500, 2500), Take("c", 0, 10))
    assert plan.waiting == 90_000 + 89_500 + 10


def test_busy_units_take_turns_in_pieces_worth_reading() -> None:
    spans = {name: Span(1, 9000) for name in "abc"} | {"quiet": Span(1, 3)}
    first = next_batch(spans, {}, 2003)
    assert first.takes == (Take("a", 0, 1000), Take("b", 0, 1000), Take("quiet", 0, 3))
    second = next_batch(spans, {"a": 1000, "b": 1000, "quiet": 3}, 2000, after="b")
    assert second.takes == (Take("c", 0, 1000), Take("a", 1000, 1000))


def test_what_the_store_let_go_is_a_gap() -> None:
    plan = next_batch({"a": Span(101, 150)}, {"a": 20}, 10)
    assert plan.gaps == (Lost("a", 21, 100),)
    assert plan.takes == (Take("a", 100, 10),)
    assert plan.gaps[0].lines == 80


def test_a_unit_that_is_numbered_anew_is_taken_from_its_start() -> None:
    plan = next_batch({"a": Span(1, 3)}, {"a": 500}, 10)
    assert plan.again == ("a",) and plan.takes == (Take("a", 0, 3),) and plan.gaps == ()


# --- how it is sent


async def test_lines_arrive_once_in_order_and_are_acknowledged(tmp_path: Path) -> None:
    sink, store = FakeSink(), MemoryLogStore()
    async with shipping(sink, store, tmp_path) as seen:
        store.number("a", 730)
        store.number("b", 3)
        await seen.shipped("fake", "a", "b")
    assert sink.of("a") == list(range(1, 731)) and sink.of("b") == [1, 2, 3]
    assert max(sink.sizes) <= QUICK.most_lines
    assert seen.events == []


async def test_a_few_lines_wait_for_company_but_not_for_long(tmp_path: Path) -> None:
    sink, store = FakeSink(), MemoryLogStore()
    async with shipping(sink, store, tmp_path) as seen:
        for _ in range(10):
            store.number("a", 1)
            await asyncio.sleep(0)
        await seen.shipped("fake", "a")
    assert sink.sizes == [10]


async def test_a_batch_is_bounded_by_its_size_too(tmp_path: Path) -> None:
    sink, store = FakeSink(), MemoryLogStore()
    store.write("a", *("x" * 4000 for _ in range(20)))
    async with shipping(sink, store, tmp_path) as seen:
        await seen.shipped("fake", "a")
    assert sink.of("a") == list(range(1, 21)) and max(sink.sizes) == 3


async def test_an_outage_is_told_once_and_nothing_is_lost(tmp_path: Path) -> None:
    sink, store = FakeSink(), MemoryLogStore()
    sink.away = 5
    store.number("a", 120)
    async with shipping(sink, store, tmp_path) as seen:
        assert "nobody is there" in await seen.told("log-sink-away")
        await seen.told("log-sink-back")
        await seen.shipped("fake", "a")
    assert sink.of("a") == list(range(1, 121))
    assert seen.kinds() == ["log-sink-away", "log-sink-back"]


async def test_a_lost_answer_makes_duplicates_with_the_same_keys(tmp_path: Path) -> None:
    sink, store = FakeSink(), MemoryLogStore()
    sink.lose_answer = 1
    store.number("a", 60)
    async with shipping(sink, store, tmp_path) as seen:
        await seen.shipped("fake", "a")
    assert sink.of("a") == [*range(1, 61), *range(1, 61)]


async def test_a_sink_that_hangs_is_given_up_and_asked_again(tmp_path: Path) -> None:
    sink, store = FakeSink(), MemoryLogStore()
    sink.pace = Pace(linger_s=0.02, send_s=0.1)
    sink.hangs = True
    store.number("a", 5)
    async with shipping(sink, store, tmp_path) as seen:
        assert "no answer within 0.1 s" in await seen.told("log-sink-away")
        sink.hangs = False
        await seen.shipped("fake", "a")
    assert sink.of("a") == [1, 2, 3, 4, 5]


async def test_one_sink_that_hangs_does_not_hold_another(tmp_path: Path) -> None:
    stuck, fine, store = FakeSink("stuck"), FakeSink("fine"), MemoryLogStore()
    stuck.hangs = True
    store.number("a", 200)
    async with shipping(stuck, store, tmp_path), shipping(fine, store, tmp_path) as seen:
        await seen.shipped("fine", "a", within_s=2.0)
    assert store.acknowledged["stuck", "a"] == 0


async def test_the_next_agent_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    store, sinks = MemoryLogStore(), [FakeSink(), FakeSink()]
    for sink in sinks:
        store.number("a", 80)
        async with shipping(sink, store, tmp_path) as seen:
            await seen.shipped("fake", "a")
    assert sinks[1].of("a") == list(range(81, 161))


async def test_the_store_hears_only_of_what_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a crash would leave a store that let go of lines, and offsets that say they were never shipped."""
    sink, store = FakeSink(), MemoryLogStore()
    on_disk: list[dict[str, int]] = []
    save = Offsets.save

    async def full_disk(self: Offsets) -> object:
        if len(on_disk) < 2:
            on_disk.append({})
            raise OSError(28, "no space left on device")
        return await save(self)

    monkeypatch.setattr(Offsets, "save", full_disk)
    store.number("a", 60)
    async with shipping(sink, store, tmp_path) as seen:

        async def has_arrived() -> bool:
            return len(sink.got) == 60

        await eventually(has_arrived, within_s=5, what=lambda: "the lines are there")
        assert store.acknowledged["fake", "a"] == 0
        await seen.shipped("fake", "a")
    assert sink.of("a") == list(range(1, 61)), "a disk that is full holds nothing up"


async def test_lines_that_the_store_dropped_are_told_as_a_gap(tmp_path: Path) -> None:
    sink, store = FakeSink(), MemoryLogStore()
    store.number("a", 50)
    async with shipping(sink, store, tmp_path) as seen:
        await seen.shipped("fake", "a")
    store.number("a", 100)
    store.drop("a", 120)
    async with shipping(sink, store, tmp_path) as seen:
        told = await seen.told("log-gap")
        await seen.shipped("fake", "a")
    assert "70 lines (51 to 120) were lost" in told
    assert sink.of("a") == [*range(1, 51), *range(120, 151)]
    gap = sink.got[50]
    assert (gap.seq, gap.stream) == (120, GAP) and "51 to 120" in gap.text


async def test_a_new_sink_begins_with_what_is_held_and_no_gap(tmp_path: Path) -> None:
    sink, store = FakeSink(), MemoryLogStore()
    store.number("a", 100)
    store.drop("a", 60)
    async with shipping(sink, store, tmp_path) as seen:
        await seen.shipped("fake", "a")
    assert sink.of("a") == list(range(61, 101)) and seen.events == []


async def test_a_poison_line_is_split_out_and_named(tmp_path: Path) -> None:
    sink, store = FakeSink(), MemoryLogStore()
    sink.poison = "bad"
    store.write("a", *(("bad" if n in (37, 90) else "good") for n in range(1, 101)))
    async with shipping(sink, store, tmp_path) as seen:
        await seen.shipped("fake", "a")
    assert sink.of("a") == list(range(1, 101)), "in order, every number once"
    assert [record.seq for record in sink.got if record.text != "good"] == [37, 90]
    assert "refused" in sink.got[36].text
    assert [kind for kind in seen.kinds()] == ["log-line-refused"] * 2
    assert "line 37" in seen.events[0][2]


async def test_a_sink_that_refuses_everything_holds_the_lines_and_says_why(tmp_path: Path) -> None:
    sink, store = FakeSink(), MemoryLogStore()
    sink.locked = True
    store.number("a", 70)
    async with shipping(sink, store, tmp_path) as seen:
        assert "does not let us in" in await seen.told("log-sink-refused")
        assert sink.got == [] and store.acknowledged["fake", "a"] == 0
        sink.locked = False
        await seen.shipped("fake", "a")
    assert sink.of("a") == list(range(1, 71))


async def test_a_sink_that_refuses_every_line_loses_none(tmp_path: Path) -> None:
    sink, store = FakeSink(), MemoryLogStore()
    sink.poison = "l"  # as every line and every stand-in has
    store.number("a", 4)
    async with shipping(sink, store, tmp_path) as seen:
        await seen.told("log-sink-refused")
        sink.poison = ""
        await seen.shipped("fake", "a")
    assert [record.text for record in sink.got] == ["line 1", "line 2", "line 3", "line 4"]


async def test_a_damaged_offsets_file_ships_again_and_does_not_stop_anything(tmp_path: Path) -> None:
    sink, store = FakeSink(), MemoryLogStore()
    (tmp_path / "fake.json").write_text("{half")
    store.number("a", 3)
    async with shipping(sink, store, tmp_path) as seen:
        await seen.shipped("fake", "a")
    assert sink.of("a") == [1, 2, 3]


# --- which sinks


async def test_units_choose_among_sinks_and_their_choice_outlives_them(tmp_path: Path) -> None:
    told: list[tuple[str, str, str]] = []
    choices = Choices(tmp_path, ["nats", "file"], lambda *event: told.append(event))
    choices.put("a", ("nats",))
    choices.put("b", ())
    choices.put("c", ("none",))
    await choices.save({"a", "b", "c"})
    again = Choices(tmp_path, ["nats", "file"], lambda *event: told.append(event))
    await again.load()
    wanted = {unit: [sink for sink in ("nats", "file") if again.wants(unit, sink)] for unit in "abc"}
    assert wanted == {"a": ["nats"], "b": ["nats", "file"], "c": []}
    assert told == []


def test_an_unknown_sink_is_told_once(tmp_path: Path) -> None:
    told: list[tuple[str, str, str]] = []
    choices = Choices(tmp_path, ["nats"], lambda *event: told.append(event))
    for _ in range(2):
        choices.put("a", ("kafka", "nats"))
    assert [(kind, unit) for kind, unit, _ in told] == [("log-sink-unknown", "a")]
    assert "no sink is called kafka: this agent has nats" in told[0][2]
    assert choices.wants("a", "nats")
