"""Sinks with real brokers, or stand-ins that speak their protocol, each killed in the middle.

After it all: every line is there, in order for each unit, and what was sent twice carries the same key.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path

import boto3
import nats
import pytest
from nats.js.client import JetStreamContext

from harness.brokers import LokiStub, SyslogListener, moto_server, nats_server, objects_of
from harness.eventually import eventually
from harness.log_store import AT, MemoryLogStore
from harness.shipping import SOURCE, shipping
from unit_agent.logs.sinks.address import read
from unit_agent.logs.sinks.file import FileSink
from unit_agent.logs.sinks.jetstream import NatsSink
from unit_agent.logs.sinks.loki import LokiSink
from unit_agent.logs.sinks.s3 import S3Sink
from unit_agent.logs.sinks.syslog import SyslogSink

pytestmark = pytest.mark.broker

UNITS = ("a.service", "b@1.service")


def texts(count: int) -> list[str]:
    return [f"line {seq}" for seq in range(1, count + 1)]


async def some_sent(count: Callable[[], int], least: int) -> None:
    """Wait until a sink has a part: then it is the middle."""

    async def look() -> bool:
        return count() >= least

    await eventually(look, within_s=10, what=lambda: f"{least} lines are there: {count()}")


# --- nats


async def stream_of(js: JetStreamContext, stream: str) -> list[tuple[str, str, dict[str, object]]]:
    """Return what a stream holds: subject, key and record of each message, in its order."""
    info = await js.stream_info(stream)
    subscription = await js.subscribe("unitfleet.logs.>", ordered_consumer=True)
    found = []
    for _ in range(info.state.messages):
        message = await subscription.next_msg(timeout=5)
        assert message.headers is not None
        found.append((message.subject, message.headers["Nats-Msg-Id"], json.loads(message.data)))
    await subscription.unsubscribe()
    return found


async def test_nats_killed_in_the_middle_has_every_line_once_and_in_order(tmp_path: Path) -> None:
    store = MemoryLogStore()
    async with nats_server(tmp_path) as server:
        sink = NatsSink("nats", [f"127.0.0.1:{server.port}"], SOURCE)
        async with shipping(sink, store, tmp_path) as seen:
            assert seen.pipeline is not None
            for round_ in range(4):
                for unit in UNITS:
                    store.number(unit, 2990)
                at = seen.pipeline.sent
                await some_sent(lambda: seen.pipeline.sent if seen.pipeline else 0, at + 1)
                if round_ in (1, 2):
                    server.kill()
                for unit in UNITS:
                    store.number(unit, 10)  # all others may be there already
                if round_ in (1, 2):
                    await seen.told("log-sink-away")
                    await server.start()
            await seen.shipped("nats", *UNITS, within_s=30)
        client = await nats.connect(f"nats://127.0.0.1:{server.port}")
        try:
            found = await stream_of(client.jetstream(), "unitfleet-logs")
        finally:
            await client.close()
    for unit in UNITS:
        mine = [(subject, key, record) for subject, key, record in found if record["unit"] == unit]
        assert [record["text"] for _, _, record in mine] == texts(12_000)
        assert mine[0][:2] == (f"unitfleet.logs.{unit.replace('.', '_')}", f"{SOURCE.machine}/{unit}/1")
    assert len({key for _, key, _ in found}) == len(found), "the server dropped what came twice"


async def test_a_nats_that_is_not_there_is_told_at_once_and_gets_the_lines_when_it_is_back(tmp_path: Path) -> None:
    store = MemoryLogStore()
    store.number("a.service", 100)
    async with nats_server(tmp_path) as server:
        sink = NatsSink("nats", [f"127.0.0.1:{server.port}"], SOURCE)
        async with shipping(sink, store, tmp_path) as seen:
            await seen.shipped("nats", "a.service")
            server.kill()  # nothing is under way
            store.number("a.service", 100)
            assert "no servers available" in await seen.told("log-sink-away", within_s=5)
            await server.start()
            await seen.shipped("nats", "a.service")


async def test_nats_drops_a_batch_that_is_sent_again(tmp_path: Path) -> None:
    store = MemoryLogStore()
    store.number("a.service", 100)
    async with nats_server(tmp_path) as server:
        sink = NatsSink("nats", [f"127.0.0.1:{server.port}"], SOURCE)
        batch = await store.read("a.service", 0, 100)
        for _ in range(3):
            await sink.send(batch)
        client = await nats.connect(f"nats://127.0.0.1:{server.port}")
        info = await client.jetstream().stream_info("unitfleet-logs")
        await client.close()
        await sink.close()
    assert info.state.messages == 100


async def test_nats_that_does_not_let_us_in_is_told_and_a_line_too_long_is_split_out(tmp_path: Path) -> None:
    store = MemoryLogStore()
    store.write("a.service", "short", "x" * 20_000, "short again")
    (tmp_path / "token").write_text("s3cret\n")
    async with nats_server(tmp_path, token="s3cret", most_payload=8192) as server:
        url = f"nats://127.0.0.1:{server.port}"
        async with shipping(NatsSink.at(read([url])[0], SOURCE), store, tmp_path) as seen:
            assert "does not let us in" in await seen.told("log-sink-refused")
            assert "s3cret" not in str(seen.events)
        allowed = NatsSink.at(read([f"{url}?token-file={tmp_path}/token"])[0], SOURCE)
        async with shipping(allowed, store, tmp_path) as seen:
            assert "line 2 (20000 characters)" in await seen.told("log-line-refused")
            await seen.shipped("nats", "a.service")
        client = await nats.connect(url, token="s3cret")
        found = await stream_of(client.jetstream(), "unitfleet-logs")
        await client.close()
    assert [record["seq"] for _, _, record in found] == [1, 2, 3]
    assert "20000 characters was refused" in str(found[1][2]["text"])


# --- loki


async def test_loki_that_breaks_off_and_refuses_has_every_line_once_and_in_order(tmp_path: Path) -> None:
    store = MemoryLogStore()
    store.write("a.service", *("the same" for _ in range(50)), at=AT)  # equal lines of one moment
    async with LokiStub() as loki:
        loki.answers = [503, 0, 429, 0]
        address = read([f"loki://127.0.0.1:{loki.port}"])[0]
        async with shipping(LokiSink.at(address, SOURCE), store, tmp_path) as seen:
            await seen.shipped("loki", "a.service")
            await loki.stop()
            store.number("b@1.service", 2500)
            await seen.told("log-sink-away")
            await loki.start()
            await seen.shipped("loki", "a.service", "b@1.service")
    assert loki.texts("a.service") == ["the same"] * 50
    assert loki.texts("b@1.service") == texts(2500)
    assert loki.duplicates >= 100, "the batch of each answer that was lost came again, and was dropped"


async def test_loki_names_a_line_that_it_refuses_and_takes_the_others(tmp_path: Path) -> None:
    store = MemoryLogStore()
    store.write("a.service", "one", "y" * 5000, "three")
    async with LokiStub() as loki:
        loki.longest = 1000
        address = read([f"loki://127.0.0.1:{loki.port}"])[0]
        async with shipping(LokiSink.at(address, SOURCE), store, tmp_path) as seen:
            assert "max entry size exceeded" in await seen.told("log-line-refused")
            await seen.shipped("loki", "a.service")
    found = loki.texts("a.service")
    assert (found[0], found[2]) == ("one", "three") and "5000 characters" in found[1]


async def test_loki_with_wrong_credentials_is_told_and_holds_the_lines(tmp_path: Path) -> None:
    store = MemoryLogStore()
    store.number("a.service", 3)
    token = tmp_path / "token"
    token.write_text("wrong")
    async with LokiStub() as loki:
        loki.token = "right"
        url = f"loki://127.0.0.1:{loki.port}?token-file={token}"
        async with shipping(LokiSink.at(read([url])[0], SOURCE), store, tmp_path) as seen:
            told = await seen.told("log-sink-refused")
            assert "401" in told and "token-file" in told and "wrong" not in told.replace("wrong credentials", "")
        token.write_text("right")
        async with shipping(LokiSink.at(read([url])[0], SOURCE), store, tmp_path) as seen:
            await seen.shipped("loki", "a.service")
    assert loki.texts("a.service") == texts(3)


# --- s3


async def test_s3_killed_in_the_middle_has_every_line_by_hour(tmp_path: Path) -> None:
    store = MemoryLogStore()
    hour = AT // 3600 * 3600
    store.write("a.service", *(f"line {n}" for n in range(1, 1001)), at=hour + 3599)
    store.write("a.service", *(f"line {n}" for n in range(1001, 2001)), at=hour + 3601)
    (tmp_path / "keys").write_text("access:secret")
    url = f"s3://logs/fleet?endpoint=http://127.0.0.1:{{}}&token-file={tmp_path}/keys&region=us-east-1&every=0.1"
    async with moto_server(tmp_path) as server:
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{server.port}",
            aws_access_key_id="access",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        await asyncio.to_thread(client.create_bucket, Bucket="logs")
        sink = S3Sink.at(read([url.format(server.port)])[0], SOURCE)
        async with shipping(sink, store, tmp_path) as seen:
            await seen.shipped("s3", "a.service")
            first = await asyncio.to_thread(objects_of, client, "logs")
            server.kill()
            store.number("b@1.service", 10)
            await seen.told("log-sink-away")
            await server.start()  # without its memory: no bucket
            assert "NoSuchBucket" in await seen.told("log-sink-refused")
            await asyncio.to_thread(client.create_bucket, Bucket="logs")
            await seen.shipped("s3", "a.service", "b@1.service")
        second = await asyncio.to_thread(objects_of, client, "logs")
        await asyncio.to_thread(client.close)
    assert list(first) == [
        f"fleet/2023/11/14/22/a.service/{SOURCE.machine}-000000000001.jsonl.gz",
        f"fleet/2023/11/14/23/a.service/{SOURCE.machine}-000000001001.jsonl.gz",
    ]
    assert [line["text"] for lines in first.values() for line in lines] == texts(2000)
    [(name, lines)] = second.items()
    assert name == f"fleet/2023/11/14/22/b@1.service/{SOURCE.machine}-000000000001.jsonl.gz"
    assert [line["text"] for line in lines] == texts(10)


# --- file


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rotated(path: Path) -> list[Path]:
    """Return the files of one sink, the oldest first."""
    return [*sorted(path.parent.glob(f"{path.name}.*"), key=lambda each: -int(each.suffix[1:])), path]


async def test_the_file_sink_goes_on_after_a_restart_and_mends_a_torn_line(tmp_path: Path) -> None:
    store, target = MemoryLogStore(), tmp_path / "out" / "units.jsonl"
    for _ in range(2):
        store.number("a.service", 500)
        async with shipping(FileSink("file", target, SOURCE), store, tmp_path) as seen:
            await seen.shipped("file", "a.service")
        with target.open("a") as file:
            file.write('{"unit":"a.service","machi')  # an agent died here
    store.number("a.service", 1)
    async with shipping(FileSink("file", target, SOURCE), store, tmp_path) as seen:
        await seen.shipped("file", "a.service")
    assert [record["text"] for record in records(target)] == texts(1001)


async def test_the_file_sink_rotates_and_loses_nothing_meanwhile(tmp_path: Path) -> None:
    store, target = MemoryLogStore(), tmp_path / "units.jsonl"
    sink = FileSink("file", target, SOURCE, max_bytes=20_000, keep=9)
    async with shipping(sink, store, tmp_path) as seen:
        for _ in range(10):
            store.number("a.service", 100)
            await seen.shipped("file", "a.service")
    found = rotated(target)
    assert len(found) >= 5
    assert [record["text"] for path in found for record in records(path)] == texts(1000)


async def test_a_file_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    store = MemoryLogStore()
    store.number("a.service", 1)
    (tmp_path / "not-a-folder").write_text("")
    sink = FileSink("file", tmp_path / "not-a-folder" / "units.jsonl", SOURCE)
    async with shipping(sink, store, tmp_path) as seen:
        assert "cannot write" in await seen.told("log-sink-away")


# --- syslog


async def test_syslog_by_tcp_goes_on_with_a_receiver_that_comes_back(tmp_path: Path) -> None:
    store = MemoryLogStore()
    async with SyslogListener() as listener:
        sink = SyslogSink.at(read([f"syslog://127.0.0.1:{listener.port}"])[0], SOURCE)
        async with shipping(sink, store, tmp_path) as seen:
            store.number("a.service", 300)
            await seen.shipped("syslog", "a.service")
            await listener.stop()
            store.number("a.service", 300)
            await seen.told("log-sink-away")
            await listener.start()
            await seen.shipped("syslog", "a.service")
            await some_sent(lambda: len(listener.messages), 600)
    keys = [message.split(b'key="')[1].split(b'"')[0].decode() for message in listener.messages]
    assert list(dict.fromkeys(keys)) == [f"{SOURCE.machine}/a.service/{seq}" for seq in range(1, 601)]
    assert listener.messages[0].startswith(
        b"<14>1 2023-11-14T22:13:20.001000Z node-a a.service 1 stdout [unitfleet@"
    )
    assert listener.messages[0].endswith(b"] line 1")


async def test_syslog_counts_as_sent_only_what_the_receiver_has(tmp_path: Path) -> None:
    store = MemoryLogStore()
    store.write("a.service", *("x" * 1000 for _ in range(300)))
    batch = await store.read("a.service", 0, 300)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        sink = SyslogSink.at(read([f"syslog://127.0.0.1:{listening.getsockname()[1]}"])[0], SOURCE)
        sending = asyncio.create_task(sink.send(batch))
        loop = asyncio.get_running_loop()
        taken, _ = await loop.sock_accept(listening)
        with taken:
            done, _ = await asyncio.wait([sending], timeout=0.3)
            assert not done, "it lies in this host's buffers still"
            reader, writer = await asyncio.open_connection(sock=taken)
            frames = [await reader.readexactly(int(await reader.readuntil(b" "))) for _ in batch]
            async with asyncio.timeout(5):
                await sending
            writer.close()
        await sink.close()
    assert all(frame.endswith(b"x" * 1000) for frame in frames)


async def test_syslog_by_datagrams_reaches_a_socket_as_dev_log_is(tmp_path: Path) -> None:
    store, path = MemoryLogStore(), tmp_path / "log"
    store.write("a.service", "hello", stream="stderr")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(5)
        async with shipping(SyslogSink.at(read([f"syslog://{path}"])[0], SOURCE), store, tmp_path) as seen:
            await seen.shipped("syslog", "a.service")
        got = receiver.recv(65536)
    assert got.startswith(b"<11>1 ") and got.endswith(b" hello")


async def test_syslog_by_udp(tmp_path: Path) -> None:
    store = MemoryLogStore()
    store.number("a.service", 2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        url = f"syslog://127.0.0.1:{receiver.getsockname()[1]}?transport=udp"
        async with shipping(SyslogSink.at(read([url])[0], SOURCE), store, tmp_path) as seen:
            await seen.shipped("syslog", "a.service")
        assert [receiver.recv(65536)[-6:] for _ in range(2)] == [b"line 1", b"line 2"]
