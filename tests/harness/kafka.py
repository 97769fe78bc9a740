"""librdkafka's mock cluster: brokers that speak Kafka's protocol, hold what they are sent in memory, and go down.

The library comes with the package confluent-kafka, whose Python side can start such a cluster but not take its
brokers down: that is asked of the library itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka
import pytest

BROKERS = 3
PRODUCE = 0
"""Kafka's number of the request that carries messages."""


class MockCluster:
    """Three brokers and one topic."""

    def __init__(self, library: ctypes.CDLL, cluster: int) -> None:
        self._library = library
        self._cluster = ctypes.c_void_p(cluster)

    @property
    def bootstrap(self) -> str:
        """`host:port,…` of the brokers."""
        found: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return found.decode()

    def make_topic(self, name: str, partitions: int) -> None:
        """Make a topic with a replica on each broker."""
        self._check(
            self._library.rd_kafka_mock_topic_create(
                self._cluster, name.encode(), ctypes.c_int(partitions), ctypes.c_int(BROKERS)
            )
        )

    def down(self) -> None:
        """Break every connection and take no more, on all brokers."""
        for broker in range(1, BROKERS + 1):
            self._check(self._library.rd_kafka_mock_broker_set_down(self._cluster, ctypes.c_int32(broker)))

    def up(self) -> None:
        """Serve again; what was held is still there."""
        for broker in range(1, BROKERS + 1):
            self._check(self._library.rd_kafka_mock_broker_set_up(self._cluster, ctypes.c_int32(broker)))

    def refuse_produce(self, code: int, times: int) -> None:
        """Answer the next requests that carry messages with an error of Kafka's protocol."""
        codes = [ctypes.c_int(code)] * times
        self._library.rd_kafka_mock_push_request_errors(
            self._cluster, ctypes.c_int16(PRODUCE), ctypes.c_size_t(times), *codes
        )

    def _check(self, error: int) -> None:
        assert error == 0, f"librdkafka answered {error}"


@contextmanager
def mock_cluster() -> Iterator[MockCluster]:
    """Run the brokers meanwhile; skips the test where the library can't be found."""
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    found = sorted(folder.glob("librdkafka*.so*"))
    if not found:
        pytest.skip("confluent-kafka carries no librdkafka here")
    library = ctypes.CDLL(str(found[0]))
    library.rd_kafka_conf_new.restype = ctypes.c_void_p
    library.rd_kafka_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    why = ctypes.create_string_buffer(512)
    client = library.rd_kafka_new(0, ctypes.c_void_p(library.rd_kafka_conf_new()), why, ctypes.c_size_t(len(why)))
    assert client, why.value
    try:
        cluster = library.rd_kafka_mock_cluster_new(ctypes.c_void_p(client), BROKERS)
        assert cluster, "librdkafka made no cluster"
        try:
            yield MockCluster(library, cluster)
        finally:
            library.rd_kafka_mock_cluster_destroy(ctypes.c_void_p(cluster))
    finally:
        library.rd_kafka_destroy(ctypes.c_void_p(client))
