"""The `s3` sink: an archive of objects by hour, for later; not for looking at what happens now.

    PREFIX/2026/11/23/08/adserver@1.service/MACHINE-000000001201.jsonl.gz

Hours are UTC, of when a line was written. An object holds lines of one unit, from the number in its name on: sent
again after a fault it gets the same name, so that nothing stands there twice. `aws s3 sync` of an hour and `zcat`
give its lines; names in order are lines in order.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from unit_agent.logs.record import LogRecord
from unit_agent.logs.sinks.address import SinkAddress
from unit_agent.logs.sinks.login import Login, login
from unit_agent.logs.sinks.sink import Pace, SinkRefused, SinkUnavailable, Source
from unitfleet.errors import InvalidConfig

EVERY_S = 60.0
MOST_LINES = 50_000
MOST_BYTES = 8 * 1024 * 1024

_AWAY = frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling"})


def objects(batch: Sequence[LogRecord], source: Source, prefix: str) -> list[tuple[str, list[LogRecord]]]:
    """Return the objects of a batch: name and lines. A unit's lines of one hour in a row share one."""
    found: list[tuple[str, list[LogRecord]]] = []
    units: dict[str, list[LogRecord]] = {}
    for record in batch:
        units.setdefault(record.unit, []).append(record)
    for unit, records in units.items():
        for hour, lines in groupby(records, key=lambda record: int(record.at // 3600)):
            held = list(lines)
            folder = datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y/%m/%d/%H")
            name = f"{folder}/{unit}/{source.machine}-{held[0].seq:012d}.jsonl.gz"
            found.append((f"{prefix}/{name}" if prefix else name, held))
    return found


class S3Sink:
    """Puts objects, one thread at a time."""

    def __init__(
        self,
        name: str,
        bucket: str,
        source: Source,
        *,
        prefix: str = "",
        endpoint: str = "",
        region: str = "",
        account: Login | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self.name = name
        self.pace = Pace(
            least_lines=MOST_LINES // 2,
            linger_s=every_s,
            most_lines=MOST_LINES,
            most_bytes=MOST_BYTES,
            send_s=300.0,
        )
        self._bucket = bucket
        self._source = source
        self._prefix = prefix
        self._endpoint = endpoint
        self._region = region
        self._account = account or Login()
        self._client: Any = None

    @classmethod
    def at(cls, address: SinkAddress, source: Source) -> S3Sink:
        """Make it from its URL; raises `InvalidConfig`."""
        account = login(address)
        if account.token:
            raise InvalidConfig(
                f"cannot use log-sinks: {address.shown()}: its token-file holds no ACCESS:SECRET",
                hint="or leave it out: the environment's credentials are taken",
            )
        try:
            every_s = float(address.query.get("every", EVERY_S))
        except ValueError as error:
            raise InvalidConfig(
                f"cannot use log-sinks: {address.shown()}: every: {error}", hint="every=60"
            ) from error
        return cls(
            address.name,
            address.host,
            source,
            prefix=address.path,
            endpoint=address.query.get("endpoint", ""),
            region=address.query.get("region", ""),
            account=account,
            every_s=min(3600.0, max(0.1, every_s)),
        )

    async def send(self, batch: Sequence[LogRecord]) -> None:
        """Put the batch's objects, in order."""
        for name, lines in objects(batch, self._source, self._prefix):
            try:
                await asyncio.to_thread(self._put, name, lines)
            except (NoCredentialsError, PartialCredentialsError) as error:
                hint = "?token-file=PATH with ACCESS:SECRET, or AWS_ACCESS_KEY_ID and its secret"
                raise SinkRefused(f"cannot ship to {self.name}: there are no credentials", hint=hint) from error
            except ClientError as error:
                told = error.response.get("Error", {})
                why = f"cannot ship to {self.name}: {told.get('Code', '')}: {told.get('Message', error)}"
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status >= 500 or told.get("Code") in _AWAY:
                    raise SinkUnavailable(why) from error
                raise SinkRefused(why) from error
            except (BotoCoreError, OSError) as error:
                raise SinkUnavailable(f"cannot ship to {self.name}: {error}") from error

    async def close(self) -> None:
        """Close connections."""
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.close)

    def _put(self, name: str, lines: Sequence[LogRecord]) -> None:
        if self._client is None:
            self._client = boto3.session.Session().client(
                "s3",
                endpoint_url=self._endpoint or None,
                region_name=self._region or None,
                aws_access_key_id=self._account.user or None,
                aws_secret_access_key=self._account.password or None,
                config=Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 1}),
            )
        raw = b"".join(self._source.line(record) + b"\n" for record in lines)
        body = gzip.compress(raw, 6, mtime=0)
        self._client.put_object(Bucket=self._bucket, Key=name, Body=body, ContentType="application/gzip")
