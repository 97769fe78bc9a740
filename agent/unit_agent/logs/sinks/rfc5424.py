"""A line as a syslog message (RFC 5424), and as a frame on a stream (RFC 6587, octet counting)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from unit_agent.logs.record import LogRecord
from unit_agent.logs.sinks.sink import Source

FACILITY = 1  # user-level messages
SEVERITIES = {"stdout": 6, "stderr": 3, "file": 6, "gap": 4}  # info, error, warning
ENTERPRISE = "32473"
"""The number that RFC 5612 keeps for examples: Unitfleet has none of its own."""

_NOT_PRINTABLE = re.compile(r"[^!-~]")


def message(record: LogRecord, source: Source) -> bytes:
    """Return the message: HOSTNAME is the machine's name, APP-NAME the unit, PROCID the epoch, MSGID the stream.

    The structured data carries the line's key, and what the fields before it had to shorten.
    """
    priority = FACILITY * 8 + SEVERITIES.get(record.stream, 6)
    at = datetime.fromtimestamp(record.at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    data = f'[unitfleet@{ENTERPRISE} key="{_value(source.key(record))}"'
    if record.file:
        data += f' file="{_value(record.file)}"'
    head = (
        f"<{priority}>1 {at} {_name(source.name, 255)} {_name(record.unit, 48)} {record.epoch}"
        f" {_name(record.stream, 32)} {data}] "
    )
    return head.encode() + record.text.encode("utf-8", "replace")


def frame(message: bytes) -> bytes:
    """Return it with its length before it: a line break in the text ends nothing."""
    return b"%d %s" % (len(message), message)


def _name(text: str, most: int) -> str:
    """Return a header field: printable ASCII without spaces, `-` for none."""
    return _NOT_PRINTABLE.sub("_", text)[:most] or "-"


def _value(text: str) -> str:
    return re.sub(r'(["\\\]])', r"\\\1", text)
