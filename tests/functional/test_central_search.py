"""The central search through the API: ingest, search over all masters, expressions that never end, restarts."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import math
import random
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from harness.api import NOW
from harness.eventually import eventually
from harness.log_store import MemoryLogStore
from harness.shipping import SOURCE, shipping
from unit_agent.local_copy import MemoryCopy
from unit_agent.logs.sinks.archive import ArchiveSink
from unit_agent.masters import Archives, ordered
from unit_master.archive import archive
from unit_master.archive.central import CentralSearch
from unit_master.archive.shelves import Shelves
from unit_master.daemon import Master
from unit_master.peers import Peers
from unit_master.settings import MasterConfig
from unitfleet import codec, keys
from unitfleet.errors import InvalidConfig
from unitfleet.memory import MemoryStore
from unitfleet.model import MasterRecord
from unitfleet.shipped import ShippedLine, encode

TOKEN, KEY = "the-token-of-a-test", "the-key-of-the-cluster"


class Asked:
    """A master of a test, asked as users and agents ask it."""

    def __init__(self, master: Master, session: aiohttp.ClientSession) -> None:
        self.master = master
        self.address = master.addresses[0]
        self._session = session

    async def get(self, path: str, **query: Any) -> tuple[int, list[dict[str, Any]]]:
        """Return status and JSON lines."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self._session.get(f"{self.address}{path}", params=query, headers=headers) as response:
            lines = [json.loads(line) for line in (await response.read()).split(b"\n") if line]
            return response.status, lines

    async def texts(self, **query: Any) -> list[str]:
        status, lines = await self.get("/v1/logs", **query)
        assert status == 200, lines
        return [line["text"] for line in lines]

    async def ingest(self, lines: list[ShippedLine], *, key: str = KEY, packed: bool = False) -> tuple[int, Any]:
        raw = b"".join(encode(line) + b"\n" for line in lines)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"}
        if packed:
            raw, headers["Content-Encoding"] = gzip.compress(raw), "gzip"
        url = f"{self.address}/v1/ingest/logs"
        async with self._session.post(url, data=io.BytesIO(raw), headers=headers) as response:
            return response.status, await response.json()


@contextlib.asynccontextmanager
async def a_master(store: MemoryStore, folder: Path, name: str, **more: Any) -> AsyncIterator[Asked]:
    config = MasterConfig(listen="127.0.0.1:0", socket="", state_dir=folder / name, name=name)
    master = Master(
        store.client(name),
        replace(config, **more),
        token=TOKEN,
        cluster_key=KEY,
        now=lambda: NOW,
        rng=random.Random(name),
    )
    async with aiohttp.ClientSession() as session:
        running = asyncio.create_task(master.run())
        try:
            async with asyncio.timeout(10):
                await master.started.wait()
                await master.cache.wait_for(0, 5.0)

            async def joined() -> bool:
                return name in master.cache.view.masters

            await eventually(joined, within_s=5, what=lambda: f"{name} is no member")
            yield Asked(master, session)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def lines(first: int, last: int, text: str = "line", unit: str = "a.service") -> list[ShippedLine]:
    return [
        ShippedLine(
            unit=unit,
            machine=SOURCE.machine,
            name=SOURCE.name,
            seq=seq,
            at=NOW - 1000 + seq / 10,
            stream="stdout",
            text=f"{text} {seq}",
        )
        for seq in range(first, last + 1)
    ]


async def test_a_batch_is_stored_once_and_found_by_expression_unit_machine_and_time(tmp_path: Path) -> None:
    async with a_master(MemoryStore(), tmp_path, "one") as one:
        assert await one.ingest(lines(1, 50)) == (200, {"stored": 50, "duplicates": 0})
        assert await one.ingest(lines(1, 60), packed=True) == (200, {"stored": 10, "duplicates": 50})
        await one.ingest(lines(1, 5, "request failed:", "b@1.service"))
        assert await one.texts(grep="^line 5[0-9]$", limit=3) == ["line 57", "line 58", "line 59"]
        assert await one.texts(unit="b@*", grep=r"fail\w+") == [f"request failed: {n}" for n in range(1, 6)]
        assert await one.texts(machine="node-a", limit=1, unit="a.service") == ["line 60"]
        assert await one.texts(machine="node-b") == [] and await one.texts(limit=0) == []
        assert await one.texts(unit="a.service", since=NOW - 1000 + 5.95, until=NOW) == ["line 60"]
        _, [found] = await one.get("/v1/logs", limit=1, unit="b@1")
        assert (found["unit"], found["machine"], found["seq"]) == ("b@1.service", "node-a", 5)


async def test_who_may_fill_it_and_what_is_refused(tmp_path: Path) -> None:
    async with a_master(MemoryStore(), tmp_path, "one") as one:
        assert (await one.ingest(lines(1, 1), key="another"))[0] == 401
        assert (await one.ingest(lines(1, 1), key=TOKEN))[0] == 200
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
            for raw in (b"no line\n", b'{"x":' + b"[" * 100_000, b'{"unit":"\xff"}'):
                async with session.post(f"{one.address}/v1/ingest/logs", data=raw) as response:
                    assert response.status == 400
            async with session.get(f"{one.address}/v1/units") as response:
                assert response.status == 401, "the cluster's key opens the archive, and nothing else"
        for query in ({"grep": "("}, {"since": "yesterday"}, {"unit": "[a"}, {"limit": "many"}):
            status, [told] = await one.get("/v1/logs", **query)
            assert status in (400, 409) and told["message"].startswith("cannot "), told


@pytest.mark.parametrize(
    "odd",
    [{"seq": 2**63}, {"seq": -1}, {"epoch": 2**64}, {"at": 1e300}, {"at": -1.0}],
    ids=lambda odd: " ".join(f"{name}={value:g}" for name, value in odd.items()),
)
async def test_a_line_that_no_agent_would_write_is_refused_with_its_batch_and_ends_nothing(
    tmp_path: Path, odd: dict[str, Any]
) -> None:
    async with a_master(MemoryStore(), tmp_path, "one") as one:
        good = lines(1, 3)
        status, told = await one.ingest([*good[:2], msgspec.structs.replace(good[2], **odd)])
        assert status == 400 and told["message"].startswith("cannot store line 3 of 3: its "), told
        assert await one.texts() == []
        assert await one.ingest(good) == (200, {"stored": 3, "duplicates": 0})
        assert await one.texts() == ["line 1", "line 2", "line 3"]


async def test_whatever_a_unit_writes_is_stored_and_found(tmp_path: Path) -> None:
    texts = ["\0", "a\0b", "\x1b[31m", "\u2028", "\ufffe", "🚀", "é" * 300, "x" * 1_000_000, ""]
    async with a_master(MemoryStore(), tmp_path, "one") as one:
        written = [msgspec.structs.replace(line, text=text) for line, text in zip(lines(1, 9), texts, strict=True)]
        assert (await one.ingest(written))[0] == 200
        assert await one.texts() == texts
        assert await one.texts(grep="a\0b") == ["a\0b"]


async def test_an_expression_that_never_ends_is_ended_and_the_master_serves_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "KILL_S", 0.5)
    async with a_master(MemoryStore(), tmp_path, "one") as one:
        one.master._archive._search_s = 2.0  # type: ignore[union-attr]
        evil = replace_text(lines(1, 1), "a" * 40 + "!")
        await one.ingest(evil)
        began = time.monotonic()
        searching = asyncio.create_task(one.get("/v1/logs", grep="^(a+)+$"))
        await asyncio.sleep(0.2)
        assert (await one.get("/v1/logs", grep="line"))[0] == 200, "another search goes on meanwhile"
        status, [told] = await searching
        assert status == 504 and "took longer than 2 s" in told["message"]
        assert time.monotonic() - began < 2 * 5.0
        assert await one.texts(grep="a{40}!") == ["a" * 40 + "!"]


def replace_text(some: list[ShippedLine], text: str) -> list[ShippedLine]:
    return [
        ShippedLine(unit=each.unit, machine=each.machine, seq=each.seq, at=each.at, stream="stdout", text=text)
        for each in some
    ]


async def test_any_master_finds_what_was_sent_to_another_and_each_line_once(tmp_path: Path) -> None:
    store = MemoryStore()
    async with a_master(store, tmp_path, "one") as one:
        async with (
            a_master(store, tmp_path, "two") as two,
            a_master(store, tmp_path, "none", log_store="") as none,
        ):
            await one.ingest(lines(1, 20))
            await two.ingest(lines(15, 40))
            expected = [f"line {seq}" for seq in range(1, 41)]

            async def all_know_all() -> bool:
                return all(len(each.master.cache.view.masters) == 3 for each in (one, two, none))

            await eventually(all_know_all, within_s=5, what=lambda: "all masters know each other")
            for each in (one, two, none):
                assert await each.texts() == expected
            status, [body] = await one.get("/v1/cluster")
            assert status == 200 and body["masters"] == ["none", "one", "two"]
            told = await none.ingest(lines(1, 1))
            assert told[0] == 409 and "keeps no output" in told[1]["message"]
            async with aiohttp.ClientSession() as session:
                central = CentralSearch("two", two.master._archive, two.master.cache, Peers(session, KEY))
                found = await central.unit_lines("a.service", NOW - 999, math.inf, SOURCE.machine)
                newest = await central.unit_lines("a.service", NOW - 999, math.inf, limit=2)
            assert [line.seq for line in found] == list(range(10, 41))
            assert [(line.stream, line.seq) for line in newest] == [("gap", 0), ("stdout", 39), ("stdout", 40)]

        async def alone() -> bool:
            return set(one.master.cache.view.masters) == {"one"}

        await eventually(alone, within_s=5, what=lambda: "their keys are gone with them")
        assert await one.texts() == expected[:20]


async def test_a_master_that_can_not_be_asked_is_named(tmp_path: Path) -> None:
    store = MemoryStore()
    dead = MasterRecord(name="dead", nonce="x", api=("http://127.0.0.1:9",), archive=True)
    await store.put(keys.master("dead"), codec.encode(dead))
    async with a_master(store, tmp_path, "one") as one:
        await one.ingest(lines(1, 2))
        status, found = await one.get("/v1/logs")
        assert status == 200 and [line["stream"] for line in found] == ["gap", "stdout", "stdout"]
        assert "cannot ask master dead" in found[0]["text"]


async def test_lines_and_what_was_stored_outlive_a_restart_of_the_master(tmp_path: Path) -> None:
    store = MemoryStore()
    async with a_master(store, tmp_path, "one") as one:
        await one.ingest(lines(1, 1500))
    async with a_master(store, tmp_path, "one") as one:
        assert await one.ingest(lines(1400, 1600)) == (200, {"stored": 100, "duplicates": 101})
        assert await one.texts(limit=2000) == [f"line {seq}" for seq in range(1, 1601)]


async def test_a_damaged_archive_is_left_alone_and_the_master_serves(tmp_path: Path) -> None:
    index = tmp_path / "one" / "logs" / "index.db"
    index.parent.mkdir(parents=True)
    index.write_bytes(b"not a database " * 100)
    async with a_master(MemoryStore(), tmp_path, "one") as one:
        assert (await one.ingest(lines(1, 1)))[0] == 409
        status, [told] = await one.get("/v1/logs")
        assert status == 409 and "no master of this cluster keeps" in told["message"]
        assert (await one.get("/v1/cluster"))[0] == 200
        assert not one.master.cache.view.masters["one"].value.archive
    assert index.read_bytes().startswith(b"not a database")


async def test_a_full_disk_is_answered_so_that_agents_keep_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_master(MemoryStore(), tmp_path, "one") as one:

        def full(*anything: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(Shelves, "take", full)
        status, told = await one.ingest(lines(1, 5))
        assert status == 507 and "disk is full" in told["message"]
        monkeypatch.undo()
        assert (await one.ingest(lines(1, 5)))[1] == {"stored": 5, "duplicates": 0}


async def test_an_agent_ships_to_the_masters_and_goes_on_to_another_when_one_dies(tmp_path: Path) -> None:
    store, held = MemoryStore(), MemoryLogStore()
    archives = Archives(store.client("agent"), MemoryCopy(), SOURCE.machine)
    sink = ArchiveSink("store", SOURCE, archives.find, KEY)
    async with contextlib.AsyncExitStack() as stack:
        folders = {name: await stack.enter_async_context(contextlib.AsyncExitStack()) for name in ("one", "two")}
        asked = {
            name: await folder.enter_async_context(a_master(store, tmp_path, name))
            for name, folder in folders.items()
        }
        seen = await stack.enter_async_context(shipping(sink, held, tmp_path / "offsets"))
        held.number("a.service", 1000)
        await seen.shipped("store", "a.service")
        used = next(name for name, each in asked.items() if sink._master == each.address)
        other = asked["two" if used == "one" else "one"]
        assert len(await other.texts(limit=5000)) == 1000
        held.number("a.service", 500)
        await folders[used].aclose()
        held.number("a.service", 500)
        await seen.shipped("store", "a.service")
        assert sink._master == other.address
        async with a_master(store, tmp_path, used) as back:

            async def both() -> bool:
                return len(back.master.cache.view.masters) == 2

            await eventually(both, within_s=5, what=lambda: "it knows the other")
            assert await back.texts(limit=5000) == [f"line {seq}" for seq in range(1, 2001)]


async def test_a_master_that_died_and_stands_there_still_is_passed_over(tmp_path: Path) -> None:
    store, held = MemoryStore(), MemoryLogStore()
    dead = next(
        record
        for record in (
            MasterRecord(name=f"d{n}", nonce="", api=("http://127.0.0.1:9",), archive=True) for n in range(99)
        )
        if ordered(
            (record, MasterRecord(name="one", nonce="", api=("http://one",), archive=True)), SOURCE.machine
        )[0]
        == record.api[0]
    )
    await store.put(keys.master(dead.name), codec.encode(dead))
    held.number("a.service", 10)
    async with a_master(store, tmp_path, "one") as one:
        archives = Archives(store.client("agent"), MemoryCopy(), SOURCE.machine)
        async with shipping(ArchiveSink("store", SOURCE, archives.find, KEY), held, tmp_path / "offsets") as seen:
            await seen.shipped("store", "a.service")
        found = await one.texts(grep="line")
    assert found[1:] == [f"line {seq}" for seq in range(1, 11)] and f"cannot ask master {dead.name}" in found[0]
    assert seen.events == []


async def test_wrong_keys_are_told_and_the_lines_wait(tmp_path: Path) -> None:
    store, held = MemoryStore(), MemoryLogStore()
    held.number("a.service", 3)
    async with a_master(store, tmp_path, "one") as one:
        archives = Archives(store.client("agent"), MemoryCopy(), SOURCE.machine)
        sink = ArchiveSink("store", SOURCE, archives.find, "another-key")
        async with shipping(sink, held, tmp_path / "offsets") as seen:
            assert "cluster-key-file" in await seen.told("log-sink-refused")
        assert await one.texts() == []


async def test_a_master_whose_lease_was_taken_from_it_registers_again(tmp_path: Path) -> None:
    store = MemoryStore()
    async with a_master(store, tmp_path, "one") as one:
        held = await store.get(keys.master("one"))
        assert held is not None and held.lease
        await store.revoke(held.lease)

        async def back() -> bool:
            again = await store.get(keys.master("one"))
            return again is not None and again.lease != held.lease

        await eventually(back, within_s=2 * 2.5, what=lambda: "its key is back")
        assert one.master.cache.view.masters["one"].value.api == one.master.addresses
    assert await store.get(keys.master("one")) is None, "it goes with the master"


async def test_a_master_leaves_the_key_of_another_of_its_name_alone(tmp_path: Path) -> None:
    store = MemoryStore()
    twin = codec.encode(MasterRecord(name="one", nonce="x", api=("http://elsewhere",)))
    lease = (await store.grant(600)).id
    await store.put(keys.master("one"), twin, lease)
    async with a_master(store, tmp_path, "one"):
        await asyncio.sleep(0.2)
        held = await store.get(keys.master("one"))
        assert held is not None and held.value == twin
        await store.revoke(lease)

        async def ours() -> bool:
            now = await store.get(keys.master("one"))
            return now is not None and now.value != twin

        await eventually(ours, within_s=2 * 2.5, what=lambda: "it registers once the other is gone")


def test_machines_spread_over_masters_and_each_keeps_its_order() -> None:
    masters = tuple(
        MasterRecord(name=name, nonce="", api=(f"http://{name}", "unix:///x"), archive=name != "off")
        for name in ("one", "two", "three", "off")
    )
    firsts = {ordered(masters, f"machine-{n}")[0] for n in range(50)}
    assert firsts == {"http://one", "http://two", "http://three"}
    assert ordered(masters, "m") == ordered(tuple(reversed(masters)), "m")


@pytest.mark.parametrize(
    "wrong",
    [{"log_store_max": "1K"}, {"log_store_max": "many"}, {"log_store_age": "soon"}, {"log_store_age": "0"}],
)
def test_bounds_that_can_not_be_kept_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidConfig):
        MasterConfig(**wrong)  # type: ignore[arg-type]
