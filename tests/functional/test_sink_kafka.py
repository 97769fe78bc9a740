"""The kafka sink on librdkafka's mock cluster: the protocol is real, what the brokers hold is in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from harness.eventually import eventually
from harness.kafka import MockCluster, mock_cluster
from harness.log_store import MemoryLogStore
from harness.shipping import SOURCE, shipping
from unit_agent.logs.sinks.address import read
from unit_agent.logs.sinks.kafka import HEADER, KafkaSink

pytestmark = pytest.mark.broker

UNITS = ("a.service", "b@1.service")
TOPIC_AUTHORIZATION_FAILED = 29
MESSAGE_TOO_LARGE = 10


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with mock_cluster() as made:
        made.make_topic("logs", 4)
        yield made


def sink_of(cluster: MockCluster) -> KafkaSink:
    first, *others = cluster.bootstrap.split(",")
    also = "&".join(f"also={other}" for other in others)
    return KafkaSink.at(read([f"kafka://{first}/logs?{also}"])[0], SOURCE)


async def messages(cluster: MockCluster, least: int) -> list[Any]:
    """Read the topic from its beginning until nothing more comes."""
    consumer = AIOKafkaConsumer("logs", bootstrap_servers=cluster.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    found: list[Any] = []
    try:

        async def all_read() -> bool:
            batches = await consumer.getmany(timeout_ms=300)
            for batch in batches.values():
                found.extend(batch)
            return not batches and len(found) >= least

        await eventually(all_read, within_s=15, what=lambda: f"{least} messages: {len(found)}")
    finally:
        await consumer.stop()
    return found


async def test_kafka_away_in_the_middle_has_every_line_in_order_and_duplicates_carry_the_same_key(
    tmp_path: Path, cluster: MockCluster
) -> None:
    store = MemoryLogStore()
    async with shipping(sink_of(cluster), store, tmp_path) as seen:
        for round_ in range(3):
            for unit in UNITS:
                store.number(unit, 1500)
            if round_ == 1:
                await asyncio.sleep(0)  # the first batches are under way
                cluster.down()
                await seen.told("log-sink-away", within_s=30)
                cluster.up()
        await seen.shipped("kafka", *UNITS, within_s=40)
    found = await messages(cluster, 9000)
    for unit in UNITS:
        mine = [message for message in found if message.key == unit.encode()]
        assert len({message.partition for message in mine}) == 1, "one unit, one partition"
        keys = [dict(message.headers)[HEADER].decode() for message in mine]
        assert list(dict.fromkeys(keys)) == [f"{SOURCE.machine}/{unit}/{seq}" for seq in range(1, 4501)]
        content = {key: json.loads(message.value)["text"] for key, message in zip(keys, mine, strict=True)}
        assert list(content.values()) == [f"line {seq}" for seq in range(1, 4501)]


async def test_kafka_that_forbids_the_topic_is_told_and_gets_the_lines_later(
    tmp_path: Path, cluster: MockCluster
) -> None:
    store = MemoryLogStore()
    cluster.refuse_produce(TOPIC_AUTHORIZATION_FAILED, 1)
    store.number("a.service", 20)
    async with shipping(sink_of(cluster), store, tmp_path) as seen:
        assert "does not let us in" in await seen.told("log-sink-refused", within_s=20)
        await seen.shipped("kafka", "a.service", within_s=30)
    found = await messages(cluster, 20)
    assert [json.loads(message.value)["seq"] for message in found] == list(range(1, 21))


async def test_kafka_names_a_line_that_is_too_long_and_takes_the_others(
    tmp_path: Path, cluster: MockCluster
) -> None:
    store = MemoryLogStore()
    store.write("a.service", "one", "z" * 2_000_000, "three")
    async with shipping(sink_of(cluster), store, tmp_path) as seen:
        assert "line 2 (2000000 characters)" in await seen.told("log-line-refused", within_s=20)
        await seen.shipped("kafka", "a.service", within_s=30)
    found = await messages(cluster, 3)
    texts = {json.loads(message.value)["seq"]: json.loads(message.value)["text"] for message in found}
    assert (texts[1], texts[3]) == ("one", "three") and "was refused" in texts[2]
