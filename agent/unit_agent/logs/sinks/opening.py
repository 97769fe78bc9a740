"""Makes the sinks of `--log-sinks`. A kind whose library is missing is refused with what to install."""

from __future__ import annotations

import importlib
import importlib.util
import ssl
from collections.abc import Callable, Sequence

from unit_agent.logs.sinks import address as addresses
from unit_agent.logs.sinks.address import SinkAddress
from unit_agent.logs.sinks.archive import ArchiveSink, FindMasters
from unit_agent.logs.sinks.sink import Sink, Source
from unitfleet.errors import InvalidConfig

KINDS = {
    "nats": ("jetstream", "NatsSink"),
    "kafka": ("kafka", "KafkaSink"),
    "loki": ("loki", "LokiSink"),
    "s3": ("s3", "S3Sink"),
    "file": ("file", "FileSink"),
    "syslog": ("syslog", "SyslogSink"),
}
"""Scheme → the module of `unit_agent.logs.sinks` and the class that makes it; loaded when it is asked for."""

LIBRARIES = {"nats": "nats", "kafka": "aiokafka", "s3": "boto3"}
"""What a scheme needs beside Unitfleet; its extra has the scheme's name."""


def check(texts: Sequence[str]) -> tuple[SinkAddress, ...]:
    """Read `--log-sinks` and say what is wrong before anything runs; raises `InvalidConfig`."""
    found = addresses.read(texts)
    for address in found:
        library = LIBRARIES.get(address.scheme)
        if library is not None and importlib.util.find_spec(library) is None:
            raise InvalidConfig(
                f"cannot use log-sinks: {address.shown()}: {library} is not installed",
                hint=f"pip install unitfleet[{address.scheme}]",
            )
    return found


def open_sinks(
    found: Sequence[SinkAddress],
    source: Source,
    find: FindMasters,
    cluster_key: str,
    context: ssl.SSLContext | None = None,
) -> list[Sink]:
    """Make every sink; nothing is connected yet. Raises `InvalidConfig` for one that can't work."""
    return [
        ArchiveSink(address.name, source, find, cluster_key, context)
        if address.scheme == "store"
        else _maker(address.scheme)(address, source)
        for address in found
    ]


def _maker(scheme: str) -> Callable[[SinkAddress, Source], Sink]:
    module, kind = KINDS[scheme]
    made: Callable[[SinkAddress, Source], Sink] = getattr(
        importlib.import_module(f"unit_agent.logs.sinks.{module}"), kind
    ).at
    return made
