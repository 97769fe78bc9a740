"""The `kafka` sink: a message a line, keyed by the unit, so that a unit's lines keep their order in one partition.

The producer is idempotent while it lives; a new one after a fault sends the batch from its beginning, so that a
duplicate carries the same header `unitfleet-key`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    KafkaError,
    MessageSizeTooLargeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from unit_agent.logs.record import LogRecord
from unit_agent.logs.sinks.address import SinkAddress
from unit_agent.logs.sinks.login import Login, login, tls
from unit_agent.logs.sinks.sink import Pace, SinkRefused, SinkUnavailable, Source

HEADER = "unitfleet-key"
REQUEST_MS = 10_000
STOP_S = 3.0

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters is raised, and told once


class KafkaSink:
    """Sends each line of a batch and waits until all replicas in sync have the last one."""

    def __init__(
        self,
        name: str,
        servers: Sequence[str],
        topic: str,
        source: Source,
        *,
        account: Login | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.pace = Pace()
        self._servers = list(servers)
        self._topic = topic
        self._source = source
        self._account = account or Login()
        self._tls = context
        self._producer: AIOKafkaProducer | None = None

    @classmethod
    def at(cls, address: SinkAddress, source: Source) -> KafkaSink:
        """Make it from its URL; raises `InvalidConfig`."""
        return cls(
            address.name,
            address.hosts,
            address.path,
            source,
            account=login(address),
            context=tls(address),
        )

    async def send(self, batch: Sequence[LogRecord]) -> None:
        """Send the batch and wait for every acknowledgement."""
        try:
            producer = await self._connected()
            waiting = [
                await producer.send(
                    self._topic,
                    value=self._source.line(record),
                    key=record.unit.encode(),
                    timestamp_ms=int(record.at * 1000),
                    headers=[(HEADER, self._source.key(record).encode())],
                )
                for record in batch
            ]
            await asyncio.gather(*waiting)
        except (KafkaError, OSError) as error:
            await self.close()
            raise self._translated(error) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Drop the producer, and what it has not sent."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(STOP_S):
                await producer.stop()
        except (TimeoutError, KafkaError, OSError):
            pass  # it could not be had: its batch is sent anew

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            account = self._account
            self._producer = AIOKafkaProducer(
                bootstrap_servers=self._servers,
                client_id=f"unit-agent {self._source.name}",
                enable_idempotence=True,
                acks="all",
                linger_ms=2,
                compression_type="gzip",
                request_timeout_ms=REQUEST_MS,
                **_security(account, self._tls),
            )
            await self._producer.start()
        return self._producer

    def _translated(self, error: Exception) -> SinkRefused | SinkUnavailable:
        told = str(error) or type(error).__name__
        match error:
            case MessageSizeTooLargeError():
                return SinkRefused(f"a line is larger than {self.name} takes", of_lines=True)
            case (
                AuthenticationFailedError()
                | SaslAuthenticationFailed()
                | TopicAuthorizationFailedError()
                | ClusterAuthorizationFailedError()
            ):
                hint = "?token-file=PATH names its credentials"
                return SinkRefused(f"cannot ship to {self.name}: it does not let us in: {told}", hint=hint)
            case UnknownTopicOrPartitionError():
                return SinkRefused(f"cannot ship to {self.name}: it has no topic {self._topic}")
        return SinkUnavailable(f"cannot ship to {self.name}: {told}")


def _security(account: Login, context: ssl.SSLContext | None) -> dict[str, Any]:
    """Return how the producer logs in: PLAIN with a user and a password, or not at all."""
    if not account.user:
        return {"security_protocol": "SSL", "ssl_context": context} if context else {}
    return {
        "security_protocol": "SASL_SSL" if context else "SASL_PLAINTEXT",
        "ssl_context": context,
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": account.user,
        "sasl_plain_password": account.password,
    }
